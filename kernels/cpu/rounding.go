package cpu

import (
	"math"
	"unsafe"

	"bitnet1/kernels"
	"bitnet1/kernels/number/philox"
)

// rounding rounds the gradients of one linear to integers, as the package kernels defines.
type rounding struct {
	ofRows, ofChannels float32   // largest integers
	key                [2]uint32 // of Philox
	groups             int       // Philox blocks per row, one for 8 channels
	counter            [4]uint32 // of the first block
}

func (d *Device) rounding(l kernels.Linear, gradBits kernels.GradBits) rounding {
	s := d.scalars
	return rounding{
		ofRows: largest(gradBits.Input), ofChannels: largest(gradBits.Weight),
		key:     philox.Key(s.Seed ^ kernels.RoundingSeed),
		groups:  (l.Out + 7) / 8,
		counter: [4]uint32{0, uint32(l.ID) | s.Micro<<16, uint32(s.Step), uint32(s.Step >> 32)},
	}
}

// largest is the largest integer that gradients of so many bits become; the smallest is as far from 0.
func largest(bits int) float32 { return float32(int(1)<<(bits-1) - 1) }

// scale returns the value of one integer step, and its inverse, for values of the given largest absolute value and
// integers of at most limit. If that value is not finite, the unit is NaN, and so are all products with it.
func scale(absMax, limit float32) (unit, inverse float32) {
	if absMax-absMax != 0 {
		return absMax - absMax, 0
	}
	unit = absMax / limit
	if absMax >= 1e-30 {
		inverse = float32(limit/absMax) * (1 - 1./(1<<22))
	}
	return unit, inverse
}

// rowsPerDraw is the number of rows whose random words are drawn together.
const rowsPerDraw = 4

// randomNumbers returns the 16-bit parts of the random words for row t of g, two for each word. Rows come in ascending
// order.
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

// roundedGradient is a gradient as integers with a scale for each row.
type roundedGradient struct {
	values int8Matrix
	units  []float32 // the value of one integer step, by row
}

// rowsPerRounding is the number of rows that are rounded together.
const rowsPerRounding = 32

// asBytes is the memory of x as bytes.
func asBytes(x []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// oddStride rounds n up to an odd number of cache lines. With a power of two, the values of a column would share a few
// cache sets.
func oddStride(n int) int { return (n+63)&^63 | 64 }

// padded rounds up to whole groups of signs.
func padded(n int) int { return (n + 31) &^ 31 }

// round rounds g twice, with the same random words. byRow or byChannel may be nil.
//
//   - alpha * g with a scale for each row: byRow is called for ranges of rows from..to-1. Row from is row 0 of q.
//   - g with a scale for each channel: byChannel receives the transpose, so its rows are channels.
func (d *Device) round(r rounding, g *gradient, alpha []float32,
	byRow func(from, to int, q roundedGradient, s *scratch), byChannel *roundedGradient) {
	out := g.to - g.from
	var inverse []float32 // of the channels' scales
	if byChannel != nil {
		stride := oddStride(g.rows)
		*byChannel = rounded(d.shared.roundedChannels.take(out*stride), stride, d.shared.channelUnits.take(out),
			r.ofChannels)
		inverse = d.shared.channelInverses.take(out)
		for c, absMax := range g.absMaxima {
			byChannel.units[c], inverse[c] = scale(absMax, r.ofChannels)
		}
	}
	// Two times 32 rows are a cache line of byChannel, which so has one writer.
	d.blocks(padded(g.rows), 2*rowsPerRounding, func(first, last int, s *scratch) {
		for from := first; from < last; from += rowsPerRounding {
			d.roundRows(r, g, alpha, inverse, from, byRow, byChannel, s)
		}
	})
}

// roundRows is round for the rowsPerRounding rows that begin with from.
func (d *Device) roundRows(r rounding, g *gradient, alpha, inverse []float32, from int,
	byRow func(from, to int, q roundedGradient, s *scratch), byChannel *roundedGradient, s *scratch) {
	out, to := g.to-g.from, min(from+rowsPerRounding, g.rows)
	rows := rounded(s.roundedRows.take(rowsPerRounding*padded(out)), padded(out), s.rowUnits.take(rowsPerRounding),
		r.ofRows)
	block := s.roundedColumns.take(rowsPerRounding * out)
	for t := from; t < to; t++ {
		row, random := g.plain(d, s, t), r.randomNumbers(d, s, g, t)
		var ofRow float32
		if byRow != nil {
			rows.units[t-from], ofRow = scale(d.absMaxProduct(row, alpha), r.ofRows)
		}
		if byChannel != nil {
			d.roundColumns(block[(t-from)*out:][:out], row, inverse, random, r.ofChannels)
		}
		if byRow != nil { // only now: the scale has been computed meanwhile
			dst := rows.values.row(t - from)
			d.roundRow(dst[:out], row, alpha, ofRow, random, r.ofRows)
			clear(dst[out:])
		}
	}
	if byChannel != nil {
		clear(block[(to-from)*out:])
		for i := 0; i < rowsPerRounding; i += 8 {
			to := byChannel.values
			d.transposeBytes(asBytes(to.values[from+i:]), to.stride, asBytes(block[i*out:]), out, out)
		}
	}
	if byRow != nil {
		byRow(from, to, rows, s)
	}
}

func rounded(values []int8, stride int, units []float32, limit float32) roundedGradient {
	return roundedGradient{values: int8Matrix{values: values, stride: stride, bound: int(limit)}, units: units}
}

// roundRowGo writes floor(alpha*gradient*inverse + r). The random number r of value i has random[i] as its upper 16
// bits and random[i^1] as its lower ones: two values share a random word, in opposite order.
func roundRowGo(dst []int8, gradient, alpha []float32, inverse float32, random []uint16, limit float32) {
	for i, v := range gradient {
		dst[i] = roundDown(float32(float32(alpha[i]*v)*inverse), random[i], random[i^1], limit)
	}
}

// roundColumnsGo writes floor(gradient*inverse + r) with the random numbers of roundRowGo.
func roundColumnsGo(dst []int8, gradient, inverse []float32, random []uint16, limit float32) {
	for i := range dst {
		dst[i] = roundDown(float32(gradient[i]*inverse[i]), random[i], random[i^1], limit)
	}
}

// roundDown is floor(v + r) for r = high/2^16 + low/2^32, without rounding in between: 2^32 r is an integer, so it can
// be added to floor(2^32 v). The result is clamped to ±limit, and NaN gives -limit.
func roundDown(v float32, high, low uint16, limit float32) int8 {
	const one = 1 << 32
	q := math.Floor((math.Floor(float64(v)*one) + float64(uint32(high)<<16|uint32(low))) / one)
	if !(q >= float64(-limit)) {
		q = float64(-limit)
	}
	return int8(min(q, float64(limit)))
}

// absMaxProductGo is the largest |a*b|. NaN counts as larger than any number.
func absMaxProductGo(a, b []float32) (most float32) {
	for i, v := range a {
		most = max(most, magnitude(v*b[i]))
	}
	return most
}
