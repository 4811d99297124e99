package cpu

import (
	"encoding/binary"
	"math"

	"bitnet1/kernels"
)

// LinearBackward computes the gradients of a linear's input and parameters from the gradient of its output.
func (d *Device) LinearBackward(dx kernels.Floats, dl kernels.LinearGradient, dy kernels.Floats,
	derivative kernels.Derivative, x kernels.Activation, l kernels.Linear, shift kernels.KShift,
	gradBits kernels.GradBits) {
	d.run("LinearBackward", kernels.CheckLinearBackward(dx, dl, dy, derivative, x, l, shift, gradBits), func() {
		rows := x.Rows(l.In)
		g := &gradient{output: anyFloatsOf(dy), factors: anyFloatsOf(derivative.Factors), stride: l.Out, shift: shift,
			rows: rows, to: l.Out}
		if derivative.Mask != nil {
			g.mask = derivative.Mask.(*planes)
		}
		d.summarize(values(dl.Theta), g)
		d.productGradients(dx, ofProducts(&dl), g, x, l, gradBits)
	})
}

// ofProducts returns dl, or nil if no gradient is wanted that needs a product.
func ofProducts(dl *kernels.LinearGradient) *kernels.LinearGradient {
	if dl.Weight == nil {
		return nil
	}
	return dl
}

// productGradients overwrites dx with the gradient of the input, and adds to the gradients of the latent weight and of
// alpha in the channels of g. dx or dl may be nil. With p = gᵀ·x, the gradient of the latent weight is alpha * p and
// that of alpha is Σ w * p. Both need p alone, so the forward pass keeps no products.
func (d *Device) productGradients(dx kernels.Floats, dl *kernels.LinearGradient, g *gradient, x kernels.Activation,
	l kernels.Linear, gradBits kernels.GradBits) {
	var byRow func(from, to int, q roundedGradient, s *scratch)
	var byChannel *roundedGradient
	if dx != nil && gradBits.Rounded() && l.Mixed == nil {
		byRow = d.inputGradient(dx, l, gradBits.Input)
	}
	if dl != nil && gradBits.Rounded() && x.Planes != nil {
		byChannel = new(roundedGradient)
	}
	if byRow != nil || byChannel != nil {
		d.round(d.rounding(l, gradBits), g, values(l.Alpha), byRow, byChannel)
	}
	if dx != nil && byRow == nil {
		scaled := dense{data: d.matrix(g), cols: l.Out, scale: values(l.Alpha)}
		input := anyFloatsOf(dx)
		all := input.floats
		if input.bfloats != nil {
			all = d.shared.inputGradients.take(g.rows * l.In)
		}
		d.product(all, operand{m: scaled}, operand{m: d.weightMatrix(l), byK: true}, g.rows, l.In, l.Out)
		d.blocks(g.rows, 16, func(from, to int, _ *scratch) { d.write(input, from*l.In, all[from*l.In:to*l.In]) })
	}
	switch {
	case byChannel != nil:
		d.weightGradient(*dl, *byChannel, g, x.Planes.(*planes), l, gradBits.Weight)
	case dl != nil:
		d.floatWeightGradient(*dl, g, x, l)
	}
}

// inputGradient returns a function that overwrites rows from..to-1 of dx with products of rounded gradients by the
// planes of the weight. It is called for a few rows at a time, while their integers are in the cache.
func (d *Device) inputGradient(dx kernels.Floats, l kernels.Linear,
	gradBits int) func(from, to int, q roundedGradient, s *scratch) {
	w := l.Quantized.(*planes)
	products := d.productsAlongRows(&d.shared.weightRows, &d.shared.weightRowBytes, w, gradBits, rowsPerRounding)
	to, unit := anyFloatsOf(dx), w.quantization.Unit()
	return func(from, end int, q roundedGradient, s *scratch) {
		products(q.values, 0, end-from, s, func(r int, sums []int32, offset int32) {
			if at := (from + r) * l.In; to.bfloats != nil {
				d.scaleToBFloats(to.bfloats[at:][:l.In], sums, offset, q.units[r]*unit)
			} else {
				d.scaleIntegers(to.floats[at:][:l.In], sums, offset, q.units[r]*unit)
			}
		})
	}
}

// integerProduct computes products of rows r0..r1-1 of q and calls emit with every row: the product is 2*sums - offset.
type integerProduct func(q int8Matrix, r0, r1 int, s *scratch, emit func(row int, sums []int32, offset int32))

// productsAlongRows returns the product of integers of so many bits, rows rows of them, by x. The sums are over the
// rows of x.
func (d *Device) productsAlongRows(signMemory *[8]buffer[byte], byteMemory *buffer[byte], x *planes, gradBits,
	rows int) integerProduct {
	if d.multipliesBytes(1<<(gradBits-1)-1, rows, x) {
		panels := d.bytesAlongRows(byteMemory, x)
		return func(q int8Matrix, r0, r1 int, s *scratch, emit func(row int, sums []int32, offset int32)) {
			d.bytesProducts(q, panels, r0, r1, s, emit)
		}
	}
	signs := make([]signPanels, x.bits)
	for b := range signs {
		signs[b] = d.alongRows(&signMemory[b], x, b)
	}
	return func(q int8Matrix, r0, r1 int, s *scratch, emit func(row int, sums []int32, offset int32)) {
		d.lookupProducts(q, signs, r0, r1, s, emit)
	}
}

// weightGradient adds products of rounded gradients by inputs to the gradients of the latent weight and of alpha.
func (d *Device) weightGradient(dl kernels.LinearGradient, q roundedGradient, g *gradient, input *planes,
	l kernels.Linear, gradBits int) {
	out := g.to - g.from
	products := d.productsAlongRows(&d.shared.inputColumns, &d.shared.inputBytes, input, gradBits, out)
	dWeight, dAlpha, alpha := values(dl.Weight), values(dl.Alpha), values(l.Alpha)
	d.blocks(out, lookupTask, func(from, to int, s *scratch) {
		products(q.values, from, to, s, func(r int, sums []int32, offset int32) {
			o, unit := g.from+r, q.units[r]*input.quantization.Unit()
			dst, factor := dWeight[o*l.In:][:l.In], alpha[o]*unit
			w, _ := effective(l).(*planes)
			if w != nil && w.bits == 1 && input.quantization.PlusMinus() {
				sum := d.addScaled(dst, sums, w.row(o), offset, factor)
				dAlpha[o] += unit * float32(sum)
				return
			}
			integers := s.gradientIntegers.take(l.In)
			integersOf(integers, sums, offset, input, q.values.row(r)[:padded(g.rows)])
			weight := s.gradientWeights.take(l.In)
			effective(l).segment(weight, o, 0)
			var sum float64
			for i, n := range integers {
				p := float32(n)
				sum += float64(p) * float64(weight[i])
				dst[i] += float32(factor * p)
			}
			dAlpha[o] += unit * float32(sum)
		})
	})
}

// integersOf writes the products of a row q by the planes of x: 2*sums - offset where their bits mean ±1, and half of
// that plus what all bits being set would give where they mean {0,1}.
func integersOf(dst, sums []int32, offset int32, x *planes, q []int8) {
	if x.quantization.PlusMinus() {
		for i, n := range sums {
			dst[i] = 2*n - offset
		}
		return
	}
	less := int32((int64(offset) - int64(x.quantization.Largest())*int64(sumOfBytes(q))) / 2)
	for i, n := range sums {
		dst[i] = n - less
	}
}

// sumOfBytes is Σ q. q has a multiple of 8 values.
func sumOfBytes(q []int8) int {
	sum := 0
	for words := asBytes(q); len(words) > 0; {
		// Sums of up to 128 words of the bytes q + 128, of two bytes in 16 bits.
		var pairs uint64
		n := min(len(words), 128*8)
		for i := 0; i < n; i += 8 {
			w := binary.LittleEndian.Uint64(words[i:]) ^ spread1*128
			pairs += w&0x00ff00ff00ff00ff + w>>8&0x00ff00ff00ff00ff
		}
		pairs = pairs&0x0000ffff0000ffff + pairs>>16&0x0000ffff0000ffff
		sum += int(pairs&math.MaxUint32+pairs>>32) - 128*n
		words = words[n:]
	}
	return sum
}

// floatWeightGradient is weightGradient with float products.
func (d *Device) floatWeightGradient(dl kernels.LinearGradient, g *gradient, x kernels.Activation, l kernels.Linear) {
	dWeight, dAlpha, alpha := values(dl.Weight), values(dl.Alpha), values(l.Alpha)
	input, w := d.floatMatrix(x, l.In), effective(l)
	grad := dense{data: d.matrix(g), cols: l.Out}
	d.blocks(l.Out, d.rowsPerTask(l.Out), func(from, to int, s *scratch) {
		p := s.weightSums.take((to - from) * l.In)
		clear(p)
		d.addProduct(p, l.In, operand{m: grad, byK: true}, operand{m: input, byK: true}, from, to-from, l.In, g.rows, s)
		line := s.weightRow.take(l.In)
		for o := from; o < to; o++ {
			w.segment(line, o, 0)
			var sum float64
			dst := dWeight[o*l.In:][:l.In]
			for i, v := range p[(o-from)*l.In:][:l.In] {
				sum += v * float64(line[i])
				dst[i] += float32(float64(alpha[o]) * v)
			}
			dAlpha[o] += float32(sum)
		}
	})
}

// addScaledGo adds factor * p to dst, with p = 2*sums - offset, and returns Σ ±p with the given signs. That is a sum of
// integers, exact in any order.
func addScaledGo(dst []float32, sums []int32, signs []uint64, offset int32, factor float32) (sum float64) {
	for i, n := range sums[:len(dst)] {
		p := float32(2*n - offset)
		dst[i] += float32(factor * p)
		sum += float64(p) * float64(int(signs[i>>6]>>(i&63)&1)*2-1)
	}
	return sum
}
