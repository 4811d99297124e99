package cpu

import (
	"math"
	"unsafe"

	"bitnet1/kernels"
	"bitnet1/kernels/number/philox"
)

// rounding rounds one linear's gradients to integers, as the package kernels defines it.
type rounding struct {
	limit   float32 // largest integer
	key     [2]uint32
	groups  int // blocks of random words per row, one for 8 channels
	counter [4]uint32
}

func (d *Device) rounding(l kernels.Linear, gradBits int) rounding {
	s := d.scalars
	return rounding{
		limit:   float32(int(1)<<(gradBits-1) - 1),
		key:     philox.Key(s.Seed ^ kernels.RoundingSeed),
		groups:  (l.Out + 7) / 8,
		counter: [4]uint32{0, uint32(l.ID) | s.Micro<<16, uint32(s.Step), uint32(s.Step >> 32)},
	}
}

// scale returns what one unit is worth, and its inverse, given the largest absolute value. Where that is not finite, no integer is worth
// anything, and what is multiplied with the unit becomes NaN.
func (r rounding) scale(most float32) (unit, inverse float32) {
	if most-most != 0 {
		return most - most, 0
	}
	unit = most / r.limit
	if most >= 1e-30 {
		inverse = float32(r.limit/most) * (1 - 1./(1<<22))
	}
	return unit, inverse
}

// rowsPerDraw rows draw their random words together: those of all channels follow one another, row after row.
const rowsPerDraw = 4

// randomNumbers returns the 16-bit parts of the random words for row t of g, two for each word. Rows come in ascending order.
func (r rounding) randomNumbers(d *Device, s *scratch, g *gradient, t int) []uint16 {
	n, rows := g.to-g.from, rowsPerDraw
	stride := (n + 7) &^ 7
	if stride < 8*r.groups { // a part of the channels
		rows = 1
	}
	words := s.randomWords.take(rows * stride / 2)
	if t%rows == 0 {
		c := r.counter
		c[0] = uint32((g.row+t)*r.groups + g.from/8)
		d.randomWords(words, r.key, c)
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(words))), rows*stride)[t%rows*stride:][:(n+1)&^1]
}

// randomWordsGo writes the words of consecutive blocks to dst, whose length is a multiple of 4.
func randomWordsGo(dst []uint32, key [2]uint32, counter [4]uint32) {
	for ; len(dst) > 0; dst = dst[4:] {
		*(*[4]uint32)(dst) = philox.Block(key, counter)
		counter[0]++
	}
}

// roundedGradient is a gradient as integers.
type roundedGradient struct {
	values small
	units  []float32 // what one integer is worth, for every row of values
}

// rowsPerRounding rows are rounded together: their integers by channel make whole groups of signs.
const rowsPerRounding = 32

// asBytes is x as bytes: they are moved, not computed with.
func asBytes(x []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// oddStride is n in whole lines of the cache, off the powers of two that would crowd a column into a few of them.
func oddStride(n int) int { return (n+63)&^63 | 64 }

// padded rounds up to whole groups of signs.
func padded(n int) int { return (n + 31) &^ 31 }

// round rounds alpha * g with one scale for each row, and hands rows from..to-1 to byRow as rows 0.. of q; and g with one scale
// for each channel, where the integers of a channel become a row of byChannel. Either may be nil. The same random words
// serve both.
func (d *Device) round(r rounding, g *gradient, alpha []float32, byRow func(from, to int, q roundedGradient, s *scratch), byChannel *roundedGradient) {
	out := g.to - g.from
	var inverse []float32 // of the channels' scales
	if byChannel != nil {
		*byChannel = r.rounded(d.shared.roundedChannels.take(out*oddStride(g.rows)), oddStride(g.rows), d.shared.channelUnits.take(out))
		inverse = d.shared.channelInverses.take(out)
		for c, most := range g.absMaxima {
			byChannel.units[c], inverse[c] = r.scale(most)
		}
	}
	// Two parts at a time, so that no line of byChannel is written by two workers.
	d.blocks(padded(g.rows), 2*rowsPerRounding, func(first, last int, s *scratch) {
		for from := first; from < last; from += rowsPerRounding {
			d.roundRows(r, g, alpha, inverse, from, byRow, byChannel, s)
		}
	})
}

// roundRows does what round does for rowsPerRounding rows.
func (d *Device) roundRows(r rounding, g *gradient, alpha, inverse []float32, from int,
	byRow func(from, to int, q roundedGradient, s *scratch), byChannel *roundedGradient, s *scratch) {
	out, to := g.to-g.from, min(from+rowsPerRounding, g.rows)
	rows := r.rounded(s.roundedRows.take(rowsPerRounding*padded(out)), padded(out), s.rowUnits.take(rowsPerRounding))
	block := s.roundedColumns.take(rowsPerRounding * out)
	for t := from; t < to; t++ {
		row, random := g.plain(d, s, t), r.randomNumbers(d, s, g, t)
		var ofRow float32
		if byRow != nil {
			rows.units[t-from], ofRow = r.scale(d.absMaxProduct(row, alpha))
		}
		if byChannel != nil {
			d.roundColumns(block[(t-from)*out:][:out], row, inverse, random, r.limit)
		}
		if byRow != nil { // which has not to wait for the scale any more
			dst := rows.values.row(t - from)
			d.roundRow(dst[:out], row, alpha, ofRow, random, r.limit)
			clear(dst[out:])
		}
	}
	if byChannel != nil {
		clear(block[(to-from)*out:])
		for i := 0; i < rowsPerRounding; i += 8 {
			d.transposeBytes(asBytes(byChannel.values.values[from+i:]), byChannel.values.stride, asBytes(block[i*out:]), out, out)
		}
	}
	if byRow != nil {
		byRow(from, to, rows, s)
	}
}

func (r rounding) rounded(values []int8, stride int, units []float32) roundedGradient {
	return roundedGradient{values: small{values: values, stride: stride, bound: int(r.limit)}, units: units}
}

// roundRowGo writes floor(alpha*gradient*inverse + r) for random numbers r: that of a value is its own half of a word, followed by the other.
func roundRowGo(dst []int8, gradient, alpha []float32, inverse float32, random []uint16, limit float32) {
	for i, v := range gradient {
		dst[i] = roundDown(float32(float32(alpha[i]*v)*inverse), random[i], random[i^1], limit)
	}
}

// roundColumnsGo writes floor(gradient*inverse + r) for the random numbers of roundRowGo.
func roundColumnsGo(dst []int8, gradient, inverse []float32, random []uint16, limit float32) {
	for i := range dst {
		dst[i] = roundDown(float32(gradient[i]*inverse[i]), random[i], random[i^1], limit)
	}
}

// roundDown is floor(v + r) with r = high/2^16 + low/2^32, not rounded in between: 2^32 r is an integer, so it may be added to
// floor(2^32 v). What lies beyond the limit, which scales rule out, and NaN become the nearest and the lowest integer.
func roundDown(v float32, high, low uint16, limit float32) int8 {
	const one = 1 << 32
	q := math.Floor((math.Floor(float64(v)*one) + float64(uint32(high)<<16|uint32(low))) / one)
	if !(q >= float64(-limit)) {
		q = float64(-limit)
	}
	return int8(min(q, float64(limit)))
}

// absMaxProductGo is the largest |a*b|; NaN counts as the largest of all.
func absMaxProductGo(a, b []float32) (most float32) {
	for i, v := range a {
		most = max(most, magnitude(v*b[i]))
	}
	return most
}
