package cpu

import (
	"math"

	"bitnet1/kernels"
)

// gradient is that of a linear's output, of which it gives that of the plain products, a row at a time: masked by pass, with
// K-shift undone. It may be a part: rows row.. of an operation and channels from..to-1.
type gradient struct {
	output   memory // rows × stride
	stride   int
	pass     *planes // nil: all passes
	shift    kernels.KShift
	row      int // number of the first row in the operation
	rows     int
	from, to int // channels; from is a multiple of 8

	largest []float32 // absolute value of every channel of the plain products' gradient, once summarize has run
}

// masked is row t of the output's gradient, in dst if need be.
func (g *gradient) masked(d *Device, dst []float32, t int) []float32 {
	switch {
	case g.pass == nil:
		return d.read(dst, g.output, t*g.stride)
	case g.output.halves != nil:
		d.maskBFloats(dst, g.output.halves[t*g.stride:], g.pass.row(t))
	default:
		d.mask(dst, g.output.floats[t*g.stride:], g.pass.row(t))
	}
	return dst
}

// plain is row t of the plain products' gradient, in scratch if need be: g[t] = du[t] (if Self) + du[t+Offset].
func (g *gradient) plain(d *Device, s *scratch, t int) []float32 {
	out, k := g.to-g.from, g.shift
	line := s.plainRow.take(out)
	row := g.masked(d, line, t)
	if k.To <= k.From {
		return row
	}
	copy(line, row)
	keys := line[k.From:k.To]
	if !k.Self {
		clear(keys)
	}
	if at := t % k.Seq; at+k.Offset < k.Seq && at >= startOf(k.Starts, t+k.Offset) {
		later := g.masked(d, s.laterRow.take(out), t+k.Offset)
		d.add(keys, keys, later[k.From:k.To])
	}
	return line
}

// summarize subtracts the sums of the output's gradient over rows from dTheta, unless that is nil, and finds the largest values.
func (d *Device) summarize(dTheta []float32, g *gradient) {
	out := g.to - g.from
	parts := (g.rows + rowsPerSum - 1) / rowsPerSum
	all, sums := d.shared.channelMaxima.take(parts*out), d.shared.channelSums.take(parts*out)
	shifts := g.shift.To > g.shift.From
	words, stride := d.passWords(g)
	d.blocks(g.rows, rowsPerSum, func(from, to int, s *scratch) {
		at := from / rowsPerSum * out
		sum, most := sums[at:at+out], all[at:at+out]
		clear(sum)
		clear(most)
		if part := g.output.from(from * g.stride); part.halves != nil {
			d.addBRows(sum, most, part.halves, g.stride, words[from*stride:], stride, to-from)
		} else {
			d.addRows(sum, most, part.floats, g.stride, words[from*stride:], stride, to-from)
		}
		if !shifts {
			return
		}
		clear(most)
		for t := from; t < to; t++ {
			d.instructions.largest(most, g.plain(d, s, t))
		}
	})
	for p := 1; p < parts; p++ {
		d.instructions.largest(all[:out], all[p*out:][:out])
	}
	g.largest = all[:out]
	if dTheta != nil {
		addParts(dTheta, sums, -1)
	}
}

// passWords are the bits of where g passes, rows stride words apart.
func (d *Device) passWords(g *gradient) (words []uint64, stride int) {
	if g.pass != nil {
		return g.pass.words, g.pass.stride
	}
	words = d.shared.fullMask.take(wordsOf(g.to - g.from)) // one row for all
	for i := range words {
		words[i] = math.MaxUint64
	}
	return words, 0
}

// matrix is the plain products' gradient as a whole, for products of floats.
func (d *Device) matrix(g *gradient) []float32 {
	if g.output.halves == nil && g.pass == nil && g.shift.To <= g.shift.From && g.stride == g.to-g.from {
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
