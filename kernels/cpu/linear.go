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
				packSigns(signs.row(r), row)
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

// rowsPerBlock is how many rows of a product are computed together, so that a weight is read once for all of them.
const rowsPerBlock = 8

// forward computes u = alpha * y - theta and hands it to emit, a row at a time. emit runs on several goroutines.
func (d *Device) forward(x kernels.Activation, l kernels.Linear, shift kernels.KShift, emit func(row int, u []float32)) {
	rows := rowsOf(x, l.In)
	alpha, theta := values(l.Alpha)[:l.Out], values(l.Theta)[:l.Out]
	products := d.binaryProducts(x, l)
	if x.Floats != nil || l.Mixed != nil {
		products = d.floatProducts(x, l, rows)
	}
	d.blocks(rows, rowsPerBlock, func(from, to int, s *scratch) {
		block := s.floats(3, (to-from)*l.Out)
		products(block, from, to, 0, l.Out)
		if shift.To > shift.From {
			shiftProducts(block, l.Out, from, to, shift, products, s)
		}
		for r := from; r < to; r++ {
			u := block[(r-from)*l.Out:][:l.Out]
			for o, y := range u {
				u[o] = float32(alpha[o]*y) - theta[o]
			}
			emit(r, u)
		}
	})
}

// products writes x·wᵀ of rows r0..r1-1 and channels o0..o1-1 to dst, row-major.
type products func(dst []float32, r0, r1, o0, o1 int)

// shiftProducts applies K-shift to a block of products of rows r0..r1-1.
func shiftProducts(block []float32, out, r0, r1 int, shift kernels.KShift, y products, s *scratch) {
	width := shift.To - shift.From
	earlier := s.floats(4, width)
	for r := r0; r < r1; r++ {
		row := block[(r-r0)*out:][shift.From:shift.To]
		if !shift.Self {
			clear(row)
		}
		if r%shift.Seq < shift.Offset {
			continue
		}
		y(earlier, r-shift.Offset, r-shift.Offset+1, shift.From, shift.To)
		for i, v := range earlier {
			row[i] += v
		}
	}
}

// floatProducts multiplies in float32, for unquantized streams and mixed weights.
func (d *Device) floatProducts(x kernels.Activation, l kernels.Linear, rows int) products {
	all := d.shared.floats(sharedProducts, rows*l.Out)
	d.product(all, operand{m: d.floatMatrix(x, l.In)}, operand{m: effective(l)}, rows, l.Out, l.In)
	return func(dst []float32, r0, r1, o0, o1 int) {
		for r := r0; r < r1; r++ {
			copy(dst[(r-r0)*(o1-o0):][:o1-o0], all[r*l.Out+o0:])
		}
	}
}

// binaryProducts counts bits: exact integers, times the worth of one unit.
func (d *Device) binaryProducts(x kernels.Activation, l kernels.Linear) products {
	if x.Floats != nil || l.Mixed != nil {
		return nil
	}
	p, w := x.Planes.(*planes), l.Signs.(*planes)
	return func(dst []float32, r0, r1, o0, o1 int) { binaryProduct(dst, p, w, r0, r1, o0, o1) }
}

// LinearSigns writes the signs of a linear's output, and where its gradient passes.
func (d *Device) LinearSigns(out, pass kernels.Planes, x kernels.Activation, l kernels.Linear, shift kernels.KShift) {
	d.run("LinearSigns", func() {
		signs := out.(*planes)
		d.forward(x, l, shift, func(row int, u []float32) {
			packSigns(signs.row(row), u)
			signs.count(row)
			if pass != nil {
				packPass(pass.(*planes).row(row), u)
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
			from := base[row*l.Out:][:l.Out]
			for i, v := range u {
				to[i] = from[i] + v
			}
		})
	})
}
