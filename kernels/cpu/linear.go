package cpu

import (
	"math"

	"bitnet1/kernels"
)

// Binarize refreshes the signs, and bonsai's effective weights, of a linear.
func (d *Device) Binarize(l kernels.Linear) {
	d.run("Binarize", func() {
		weight, mixed, signs := values(l.Weight), values(l.Mixed), l.Signs.(*planes)
		mix := d.scalars.Mix
		d.blocks(l.Out, 16, func(from, to int, _ *scratch) {
			for r := from; r < to; r++ {
				row := weight[r*l.In:][:l.In]
				d.packSigns(signs.row(r), row)
				signs.count(r)
				if mixed != nil {
					blend(mixed[r*l.In:][:l.In], row, mix)
				}
			}
		})
	})
}

// blend writes (1-mix) * w / mean|w| + mix * sign(w).
func blend(dst, w []float32, mix float64) {
	var sum float64
	for _, v := range w {
		sum += math.Abs(float64(v))
	}
	factor := (1 - mix) / max(sum/float64(len(w)), 1e-12)
	for i, v := range w {
		s := mix
		if v < 0 {
			s = -mix
		}
		dst[i] = float32(float64(v)*factor + s)
	}
}

// effective is the weight that products see.
func effective(l kernels.Linear) matrix {
	if l.Mixed != nil {
		return dense{data: values(l.Mixed), cols: l.In}
	}
	return l.Signs.(*planes)
}

// rowsOf is the number of rows of x.
func rowsOf(x kernels.Activation, in int) int {
	if x.Floats != nil {
		return x.Floats.Len() / in
	}
	return x.Planes.Rows()
}

// rowsFrom is rows from..to-1 of x.
func rowsFrom(x kernels.Activation, in, from, to int) kernels.Activation {
	if x.Floats != nil {
		return kernels.Activation{Floats: x.Floats.Slice(from*in, to*in)}
	}
	return kernels.Activation{Planes: x.Planes.Slice(from, to)}
}

// floatMatrix is x as a matrix of floats; planes of several bits are expanded once.
func (d *Device) floatMatrix(x kernels.Activation, in int) matrix {
	if x.Floats != nil {
		return dense{data: values(x.Floats), cols: in}
	}
	p := x.Planes.(*planes)
	if p.bits == 1 {
		return p
	}
	data := d.shared.floats(sharedMatrix, p.rows*in)
	d.blocks(p.rows, 32, func(from, to int, _ *scratch) {
		for r := from; r < to; r++ {
			p.segment(data[r*in:][:in], r, 0)
		}
	})
	return dense{data: data, cols: in}
}

// forward computes u = alpha * y - theta and hands it to emit, a row at a time. emit runs on several goroutines.
func (d *Device) forward(x kernels.Activation, l kernels.Linear, shift kernels.KShift, emit func(row int, u []float32)) {
	rows := rowsOf(x, l.In)
	alpha, theta := values(l.Alpha)[:l.Out], values(l.Theta)[:l.Out]
	finish := func(row int, u []float32) {
		d.affine(u, alpha, theta)
		emit(row, u)
	}
	shifts := shift.To > shift.From
	switch {
	case x.Floats == nil && l.Mixed == nil && !shifts:
		d.integerProducts(x.Planes.(*planes), l.Signs.(*planes), finish)
		return
	case x.Floats == nil && l.Mixed == nil:
		// An earlier token's product may be another block's, so all are kept.
		all := d.shared.floats(sharedProducts, rows*l.Out)
		d.integerProducts(x.Planes.(*planes), l.Signs.(*planes), func(row int, y []float32) { copy(all[row*l.Out:], y) })
	default:
		all := d.shared.floats(sharedProducts, rows*l.Out)
		d.product(all, operand{m: d.floatMatrix(x, l.In)}, operand{m: effective(l)}, rows, l.Out, l.In)
	}
	all := d.shared.floats(sharedProducts, rows*l.Out)
	d.blocks(rows, 16, func(from, to int, s *scratch) {
		u := s.floats(3, l.Out)
		for r := from; r < to; r++ {
			copy(u, all[r*l.Out:])
			if shifts {
				addShifted(u, all, r, l.Out, shift)
			}
			finish(r, u)
		}
	})
}

// addShifted turns row r of the plain products into that of the shifted ones.
func addShifted(u, products []float32, r, out int, shift kernels.KShift) {
	keys := u[shift.From:shift.To]
	if !shift.Self {
		clear(keys)
	}
	if r%shift.Seq < shift.Offset {
		return
	}
	for i, v := range products[(r-shift.Offset)*out+shift.From:][:len(keys)] {
		keys[i] += v
	}
}

// integerProducts computes x·wᵀ and hands it to emit, a row at a time: exact integers times the worth of one unit.
func (d *Device) integerProducts(x, w *planes, emit func(row int, y []float32)) {
	unit := scale(x.bits)
	// The sums are integers below 2^24 and unit is 5 over a power of two, so the floats are exact.
	scaled := func(s *scratch) func(row int, sums []int32, offset int32) {
		y := s.floats(3, w.rows)
		return func(row int, sums []int32, offset int32) {
			d.scaleIntegers(y, sums, offset, unit)
			emit(row, y)
		}
	}
	if x.rows < fewRows {
		d.countChannels(x, w, scaled(d.scratch[0]))
		return
	}
	signs := []signPanels{d.alongColumns(0, w)}
	d.blocks(x.rows, d.rowsPerTask(x.rows), func(from, to int, s *scratch) {
		d.lookupProducts(levels{x}, signs, from, to, s, scaled(s))
	})
}

// fewRows are not worth arranging the signs of a weight for lookup.
const fewRows = 8

// LinearSigns writes the signs of a linear's output, and where its gradient passes.
func (d *Device) LinearSigns(out, pass kernels.Planes, x kernels.Activation, l kernels.Linear, shift kernels.KShift) {
	d.run("LinearSigns", func() {
		signs := out.(*planes)
		d.forward(x, l, shift, func(row int, u []float32) {
			d.packSigns(signs.row(row), u)
			signs.count(row)
			if pass != nil {
				d.packPass(pass.(*planes).row(row), u)
			}
		})
	})
}

// LinearAdd adds a linear's output to the residual stream.
func (d *Device) LinearAdd(out, residual kernels.Floats, x kernels.Activation, l kernels.Linear) {
	d.run("LinearAdd", func() {
		dst, base := values(out), values(residual)
		d.forward(x, l, kernels.KShift{}, func(row int, u []float32) {
			to := dst[row*l.Out:][:l.Out]
			if base == nil {
				copy(to, u)
				return
			}
			d.add(to, base[row*l.Out:][:l.Out], u)
		})
	})
}
