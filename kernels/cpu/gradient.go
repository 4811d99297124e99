package cpu

import (
	"math"

	"bitnet1/kernels"
)

// gradient is the gradient of a linear's output. From it follows, row by row, the gradient of the plain products: the
// derivative is applied and K-shift is undone. A gradient may be a part of an operation: its rows start at row, its
// channels are from..to-1.
type gradient struct {
	output   anyFloats // rows × stride
	stride   int
	mask     *planes   // STE mask; nil lets everything pass
	factors  anyFloats // of the derivative, rows × stride, or none
	shift    kernels.KShift
	row      int // number of the first row in the operation
	rows     int
	from, to int // channels; from is a multiple of 8

	absMaxima []float32 // of the plain products' gradient, by channel; summarize sets them
}

// masked returns row t of the output's gradient with the derivative applied. It may write the row to dst.
func (g *gradient) masked(d *Device, s *scratch, dst []float32, t int) []float32 {
	switch {
	case g.factors.given():
		factors := d.read(s.factorRow.take(len(dst)), g.factors, t*g.stride)
		d.multiply(dst, d.read(dst, g.output, t*g.stride), factors)
	case g.mask == nil:
		return d.read(dst, g.output, t*g.stride)
	case g.output.bfloats != nil:
		d.maskBFloats(dst, g.output.bfloats[t*g.stride:], g.mask.row(t))
	default:
		d.mask(dst, g.output.floats[t*g.stride:], g.mask.row(t))
	}
	return dst
}

// plain returns row t of the plain products' gradient, g[t] = masked[t] (if shift.Self) + masked[t+shift.Offset] in the
// channels of the shift. The row is valid until the next call with the same scratch.
func (g *gradient) plain(d *Device, s *scratch, t int) []float32 {
	out, k := g.to-g.from, g.shift
	line := s.plainRow.take(out)
	row := g.masked(d, s, line, t)
	if k.To <= k.From {
		return row
	}
	copy(line, row)
	keys := line[k.From:k.To]
	if !k.Self {
		clear(keys)
	}
	if at := t % k.Seq; at+k.Offset < k.Seq && at >= startOf(k.Starts, t+k.Offset) {
		later := g.masked(d, s, s.laterRow.take(out), t+k.Offset)
		d.add(keys, keys, later[k.From:k.To])
	}
	return line
}

// summarize sets g.absMaxima. Unless dTheta is nil, it also subtracts the sums of the masked gradient over rows from
// dTheta.
func (d *Device) summarize(dTheta []float32, g *gradient) {
	out := g.to - g.from
	parts := (g.rows + rowsPerSum - 1) / rowsPerSum
	allMaxima, allSums := d.shared.channelMaxima.take(parts*out), d.shared.channelSums.take(parts*out)
	shifts := g.shift.To > g.shift.From
	mask, maskStride := d.maskWords(g)
	d.blocks(g.rows, rowsPerSum, func(from, to int, s *scratch) {
		at := from / rowsPerSum * out
		sums, maxima := allSums[at:at+out], allMaxima[at:at+out]
		clear(sums)
		clear(maxima)
		if g.factors.given() {
			for t := from; t < to; t++ {
				row := g.masked(d, s, s.factoredRow.take(out), t)
				d.addRows(sums, maxima, row, out, mask, maskStride, 1)
			}
		} else if part := g.output.from(from * g.stride); part.bfloats != nil {
			d.addBFloatRows(sums, maxima, part.bfloats, g.stride, mask[from*maskStride:], maskStride, to-from)
		} else {
			d.addRows(sums, maxima, part.floats, g.stride, mask[from*maskStride:], maskStride, to-from)
		}
		if !shifts {
			return
		}
		clear(maxima)
		for t := from; t < to; t++ {
			d.absMax(maxima, g.plain(d, s, t))
		}
	})
	for p := 1; p < parts; p++ {
		d.absMax(allMaxima[:out], allMaxima[p*out:][:out])
	}
	g.absMaxima = allMaxima[:out]
	if dTheta != nil {
		addParts(dTheta, allSums, -1)
	}
}

// maskWords returns the words of the STE mask, rows stride words apart. Without a mask all rows share one of set bits.
func (d *Device) maskWords(g *gradient) (words []uint64, stride int) {
	if g.mask != nil {
		return g.mask.words, g.mask.stride
	}
	words = d.shared.fullMask.take(wordsOf(g.to - g.from))
	for i := range words {
		words[i] = math.MaxUint64
	}
	return words, 0
}

// matrix returns all rows of the plain products' gradient, for float products.
func (d *Device) matrix(g *gradient) []float32 {
	plain := g.mask == nil && !g.factors.given() && g.shift.To <= g.shift.From
	if plain && g.output.bfloats == nil && g.stride == g.to-g.from {
		return g.output.floats
	}
	out := g.to - g.from
	all := d.shared.plainGradients.take(g.rows * out)
	d.blocks(g.rows, 16, func(from, to int, s *scratch) {
		for t := from; t < to; t++ {
			copy(all[t*out:], g.plain(d, s, t))
		}
	})
	return all
}

// maskGo copies src where a bit is set, and writes zeros elsewhere.
func maskGo(dst, src []float32, words []uint64) {
	for i, v := range src[:len(dst)] {
		keep := -uint32(words[i>>6] >> (i & 63) & 1)
		dst[i] = math.Float32frombits(math.Float32bits(v) & keep)
	}
}
