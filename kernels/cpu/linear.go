package cpu

import "bitnet1/kernels"

// floatMatrix returns x as the operand of a float product. Planes of several bits are expanded to floats once.
func (d *Device) floatMatrix(x kernels.Activation, in int) matrix {
	if x.Floats != nil {
		return dense{data: values(x.Floats), cols: in}
	}
	return d.expanded(&d.shared.inputMatrix, x.Planes.(*planes))
}

// weightMatrix is floatMatrix for the weight of l.
func (d *Device) weightMatrix(l kernels.Linear) matrix {
	if l.Mixed != nil {
		return effective(l)
	}
	return d.expanded(&d.shared.weightMatrix, l.Quantized.(*planes))
}

// expanded returns p, or the floats of planes of several bits.
func (d *Device) expanded(memory *buffer[float32], p *planes) matrix {
	if p.bits == 1 {
		return p
	}
	data := memory.take(p.rows * p.cols)
	d.blocks(p.rows, 32, func(from, to int, _ *scratch) {
		for r := from; r < to; r++ {
			p.segment(data[r*p.cols:][:p.cols], r, 0)
		}
	})
	return dense{data: data, cols: p.cols}
}

// forward computes u = alpha * y - theta and calls emit with every row of u, or with parts of rows: u of the channels
// from `from` on. emit runs on several goroutines.
func (d *Device) forward(x kernels.Activation, l kernels.Linear, shift kernels.KShift,
	emit func(row, from int, u []float32, s *scratch)) {
	rows := x.Rows(l.In)
	alpha, theta := values(l.Alpha)[:l.Out], values(l.Theta)[:l.Out]
	shifts := shift.To > shift.From
	if integer(x, l) && !shifts {
		d.integerProducts(x, l, true, func(row, from int, sums []int32, offset int32, unit float32, s *scratch) {
			u := s.outputRow.take(len(sums))
			d.affineSums(u, sums, alpha[from:], theta[from:], offset, unit)
			emit(row, from, u, s)
		})
		return
	}
	all := d.shared.products.take(rows * l.Out) // K-shift needs the rows of other tasks
	if integer(x, l) {
		d.integerProducts(x, l, true, func(row, from int, sums []int32, offset int32, unit float32, _ *scratch) {
			d.scaleIntegers(all[row*l.Out+from:][:len(sums)], sums, offset, unit)
		})
	} else {
		d.product(all, operand{m: d.floatMatrix(x, l.In)}, operand{m: d.weightMatrix(l)}, rows, l.Out, l.In)
	}
	d.blocks(rows, 16, func(from, to int, s *scratch) {
		u := s.outputRow.take(l.Out)
		for r := from; r < to; r++ {
			copy(u, all[r*l.Out:])
			if shifts {
				d.addShifted(u, all, r, l.Out, shift)
			}
			d.affine(u, alpha, theta)
			emit(r, 0, u, s)
		}
	})
}

// integer says whether x·wᵀ is a product of integers.
func integer(x kernels.Activation, l kernels.Linear) bool { return x.Floats == nil && l.Mixed == nil }

// addShifted applies K-shift to u, row r of the plain products.
func (d *Device) addShifted(u, products []float32, r, out int, shift kernels.KShift) {
	keys := u[shift.From:shift.To]
	if !shift.Self {
		clear(keys)
	}
	if r%shift.Seq-shift.Offset < startOf(shift.Starts, r) {
		return
	}
	d.add(keys, keys, products[(r-shift.Offset)*out+shift.From:][:len(keys)])
}

// startOf is the position at which the document of row r starts.
func startOf(starts kernels.Ints, r int) int {
	if starts == nil {
		return 0
	}
	return int(starts.(ints)[r])
}

// integerProducts computes y = x·wᵀ and calls emit with every row or, if rows may be divided, with parts of rows: y =
// unit * (2*sums - offset) are the channels from `from` on, a multiple of 64.
func (d *Device) integerProducts(activation kernels.Activation, l kernels.Linear, divide bool,
	emit func(row, from int, sums []int32, offset int32, unit float32, s *scratch)) {
	x, w := activation.Planes.(*planes), l.Quantized.(*planes)
	unit := x.quantization.Unit() * w.quantization.Unit()
	switch {
	case d.few(x.rows):
		d.fewRowProducts(x, []kernels.Linear{l}, divide,
			func(_, row, from int, sums []int32, offset int32, unit float32, s *scratch) {
				emit(row, from, sums, offset, unit, s)
			})
	case x.bits == 1 && w.bits == 1 && d.counts:
		words := d.wordsOfChannels(w)
		d.blocks(x.rows, d.rowsPerTask(x.rows), func(from, to int, s *scratch) {
			d.signProducts(x, w, words, from, to, s, func(row int, sums []int32, offset int32) {
				emit(row, 0, sums, offset, unit, s)
			})
		})
	case x.bits <= 4 && d.multipliesBytes(x.quantization.Largest(), x.rows, w):
		panels, integers := d.bytesAlongColumns(&d.shared.weightBytes, w), d.integerRows(x)
		d.blocks(x.rows, d.rowsPerTask(x.rows), func(from, to int, s *scratch) {
			d.bytesProducts(integers, panels, from, to, s, func(row int, sums []int32, offset int32) {
				emit(row, 0, sums, offset, unit, s)
			})
		})
	default:
		signs := make([]signPanels, w.bits)
		for b := range signs {
			signs[b] = d.alongColumns(&d.shared.weightColumns[b], w, b)
		}
		d.blocks(x.rows, d.rowsPerTask(x.rows), func(from, to int, s *scratch) {
			d.lookupProducts(levels{x}, signs, from, to, s, func(row int, sums []int32, offset int32) {
				emit(row, 0, sums, offset, unit, s)
			})
		})
	}
}

// fewRows is the number of rows from which on it is worth arranging the signs of a weight for lookup, where bits are
// not counted in registers.
const fewRows = 8

// few says whether all planes of so many rows are counted with the weights where these lie.
func (d *Device) few(rows int) bool {
	return rows < fewRows || d.counts && rows < 4*fewRows || !d.shuffles
}

// mostPerShare is the most bytes of weights that a task multiplies with few rows. They stay in the second cache, and
// weights are seldom fetched ahead for another worker.
const mostPerShare = 128 << 10

// share is the part of several linears that one task computes: channels from..to-1 of one of them.
type share struct{ linear, from, to int }

// fewRowProducts does what integerProducts does, for few rows and several linears: the workers divide the channels. Of
// linear i, emit gets the channels from `from` on.
func (d *Device) fewRowProducts(x *planes, linears []kernels.Linear, divide bool,
	emit func(i, row, from int, sums []int32, offset int32, unit float32, s *scratch)) {
	shares, bytes := d.shared.shares.take(0), 0
	for _, l := range linears {
		bytes += 8 * len(l.Quantized.(*planes).words)
	}
	bytes = min(bytes/d.workers(), mostPerShare)
	for i, l := range linears {
		w, size := l.Quantized.(*planes), l.Out
		if divide {
			size = max(64, bytes/(8*w.bits*w.stride)&^63)
		}
		for from := 0; from < l.Out; from += size {
			shares = append(shares, share{i, from, min(from+size, l.Out)})
		}
	}
	d.shared.shares.memory = shares
	d.parallel(len(shares), func(task int, s *scratch) {
		part := shares[task]
		w := linears[part.linear].Quantized.(*planes)
		unit, sums := x.quantization.Unit()*w.quantization.Unit(), s.fewRowSums.take(part.to-part.from)
		for r := range x.rows {
			d.countProducts(sums, x, w, r, part.from)
			emit(part.linear, r, part.from, sums, countedOffset(x, r, w), unit, s)
		}
	})
}

// LinearAdd adds a linear's output to the residual stream.
func (d *Device) LinearAdd(out, residual kernels.Floats, x kernels.Activation, l kernels.Linear) {
	d.run("LinearAdd", kernels.CheckLinearAdd(out, residual, x, l), func() {
		dst, base := values(out), values(residual)
		d.forward(x, l, kernels.KShift{}, func(row, from int, u []float32, _ *scratch) {
			to := dst[row*l.Out+from:][:len(u)]
			if base == nil {
				copy(to, u)
				return
			}
			d.add(to, base[row*l.Out+from:][:len(u)], u)
		})
	})
}

// scaleIntegersGo writes unit * (2*sums - offset). The difference is rounded to float32 before the product.
func scaleIntegersGo(dst []float32, sums []int32, offset int32, unit float32) {
	for i, n := range sums[:len(dst)] {
		dst[i] = unit * float32(2*n-offset)
	}
}

// scaleToBFloatsGo is scaleIntegersGo with results rounded to bfloat16.
func scaleToBFloatsGo(dst []uint16, sums []int32, offset int32, unit float32) {
	var line [64]float32
	for len(dst) > 0 {
		n := min(len(dst), len(line))
		scaleIntegersGo(line[:n], sums, offset, unit)
		roundLine(dst[:n], line[:])
		dst, sums = dst[n:], sums[n:]
	}
}

// affineSumsGo writes alpha*y - theta for the y that scaleIntegersGo writes. Product and difference are never fused.
func affineSumsGo(dst []float32, sums []int32, alpha, theta []float32, offset int32, unit float32) {
	scaleIntegersGo(dst, sums, offset, unit)
	affineGo(dst, alpha, theta)
}

// signsOfSumsGo packs the signs of the u that affineSumsGo writes, and the STE mask |u| <= 1.
func signsOfSumsGo(signs, mask []uint64, sums []int32, alpha, theta []float32, offset int32, unit float32) {
	var u [64]float32
	for i := 0; i < len(sums); i += 64 {
		part := u[:min(64, len(sums)-i)]
		affineSumsGo(part, sums[i:], alpha[i:], theta[i:], offset, unit)
		packSignsGo(signs[i/64:i/64+1], part)
		packMaskGo(mask[i/64:i/64+1], part, 1)
	}
}

// affineGo replaces u by alpha*u - theta. Product and difference are never fused.
func affineGo(u, alpha, theta []float32) {
	alpha, theta = alpha[:len(u)], theta[:len(u)]
	for i, y := range u {
		u[i] = float32(alpha[i]*y) - theta[i]
	}
}
