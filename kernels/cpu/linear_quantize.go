package cpu

import (
	"math"

	"bitnet1/kernels"
)

// LinearQuantize writes the quantized output of a linear and the derivative of its straight-through estimator.
func (d *Device) LinearQuantize(out []kernels.Planes, derivative kernels.Derivative, x kernels.Activation,
	l kernels.Linear, shift kernels.KShift) {
	d.run("LinearQuantize", kernels.CheckLinearQuantize(out, derivative, x, l, shift), func() {
		q := d.newQuantizedOutput(out, derivative)
		if integer(x, l) && shift.To <= shift.From {
			d.integerProducts(x, l, q.whole, func(row, from int, sums []int32, offset int32, unit float32, s *scratch) {
				d.quantizeSums(&q, l, row, from, sums, offset, unit, s)
			})
			return
		}
		d.forward(x, l, shift, func(row, from int, u []float32, s *scratch) {
			q.eachPart(row, from, len(u), s, func(p *planes, mask []uint64, at, first, n int) {
				d.quantizeOutput(&q, p, mask, row, at, first, u[first-from:][:n], s)
			})
		})
	})
}

// LinearQuantizeEach is LinearQuantize for several linears that read the same few rows: it writes the quantized output
// of l[i] to out[i]. The workers divide the channels of all of them.
func (d *Device) LinearQuantizeEach(out []kernels.Planes, x kernels.Activation, l []kernels.Linear) {
	few := x.Planes != nil && d.few(x.Planes.Rows())
	outputs := make([]quantizedOutput, len(l))
	for i := range l {
		to := []kernels.Planes{out[i]}
		refusal := kernels.CheckLinearQuantize(to, kernels.Derivative{}, x, l[i], kernels.KShift{})
		if !few || !integer(x, l[i]) || refusal != nil {
			few = false
			break
		}
		outputs[i] = d.newQuantizedOutput(to, kernels.Derivative{})
	}
	if !few {
		for i := range l {
			d.LinearQuantize([]kernels.Planes{out[i]}, kernels.Derivative{}, x, l[i], kernels.KShift{})
		}
		return
	}
	d.run("LinearQuantizeEach", nil, func() {
		d.fewRowProducts(x.Planes.(*planes), l, true,
			func(i, row, from int, sums []int32, offset int32, unit float32, s *scratch) {
				d.quantizeSums(&outputs[i], l[i], row, from, sums, offset, unit, s)
			})
	})
}

// quantizeSums quantizes the products of a row and the channels from `from` on, unit * (2*sums - offset).
func (d *Device) quantizeSums(q *quantizedOutput, l kernels.Linear, row, from int, sums []int32, offset int32,
	unit float32, s *scratch) {
	alpha, theta := values(l.Alpha), values(l.Theta)
	q.eachPart(row, from, len(sums), s, func(p *planes, mask []uint64, at, first, n int) {
		sums, alpha, theta := sums[first-from:][:n], alpha[first:][:n], theta[first:][:n]
		if p.quantization == kernels.Sign() {
			d.signsOfSums(p.row(row)[at/64:], mask, sums, alpha, theta, offset, unit)
			return
		}
		u := s.outputPart.take(n)
		d.affineSums(u, sums, alpha, theta, offset, unit)
		d.quantizeOutput(q, p, mask, row, at, first, u, s)
	})
}

// quantizedOutput is where LinearQuantize writes.
type quantizedOutput struct {
	parts   []*planes // their channels follow one another
	mask    *planes   // of all channels, or nil
	whole   bool      // every part, and its mask, begins with a whole word of the row's channels
	factors anyFloats // rows × channels, or none
	stride  int       // channels
	ones    []float32 // stride values
}

func (d *Device) newQuantizedOutput(out []kernels.Planes, derivative kernels.Derivative) quantizedOutput {
	q := quantizedOutput{parts: make([]*planes, len(out)), whole: true}
	from := 0
	for i, p := range out {
		q.parts[i] = p.(*planes)
		q.whole = q.whole && from%64 == 0
		from += q.parts[i].cols
	}
	if derivative.Mask != nil {
		q.mask = derivative.Mask.(*planes)
	}
	q.factors, q.stride = anyFloatsOf(derivative.Factors), from
	q.ones = d.ones(from)
	return q
}

// eachPart calls f for every part p that has some of n channels of a row, from channel `from` on: p's channels from at
// on, a multiple of 64, are n channels from `first` on. f writes the levels of these, and their mask to the words of
// mask.
func (q *quantizedOutput) eachPart(row, from, n int, s *scratch,
	f func(p *planes, mask []uint64, at, first, n int)) {
	var words []uint64 // of the row's mask
	if q.mask != nil {
		words = q.mask.row(row)
		if !q.whole {
			clear(words)
		}
	}
	begin := 0 // of p
	for _, p := range q.parts {
		first, end := max(from, begin), min(from+n, begin+p.cols)
		at := first - begin
		begin += p.cols
		if first >= end {
			continue
		}
		size := wordsOf(end - first)
		if words != nil && q.whole {
			f(p, words[first/64:][:size], at, first, end-first)
			continue
		}
		part := s.partMask.take(size)
		f(p, part, at, first, end-first)
		for i, w := range part[:min(size, len(words))] {
			orBits(words, first+64*i, w)
		}
	}
}

// quantizeOutput writes part of row u of a linear's output, the channels from `first` on, to the channels of p from at
// on, and the derivative to mask or factors.
func (d *Device) quantizeOutput(o *quantizedOutput, p *planes, mask []uint64, row, at, first int, u []float32,
	s *scratch) {
	q, words := p.quantization, p.row(row)[at/64:]
	index := s.outputLevels.take(len(u))
	switch {
	case !q.PlusMinus():
		line := s.outputFactors.take(len(u))
		d.squaredReLU(index, line, u, float32(q.Largest())/4)
		if o.factors.given() {
			d.write(o.factors, row*o.stride+first, line)
		}
	case q == kernels.Sign():
		d.packSigns(words[:wordsOf(len(u))], u)
		d.packMask(mask, u, float32(q.PassLimit()))
		return
	default:
		half, step := halfLevels(q)
		d.quantize(index, u, o.ones, 1, step, half)
		d.packMask(mask, u, float32(q.PassLimit()))
	}
	for b := range p.bits {
		clear(words[b*p.stride:][:wordsOf(len(u))])
	}
	d.setBits(words, p.stride, p.bits, index)
}

// squaredReLUGo writes the indices of the levels nearest to r = min(relu(u)², 4), which are the integers nearest to r *
// perUnit, and the derivative of r. perUnit has few digits, so a fused or float64 product rounds as the exact one does.
func squaredReLUGo(dst []byte, factors, u []float32, perUnit float32) {
	for i, v := range u[:len(dst)] {
		dst[i], factors[i] = 0, 0
		if v > 0 {
			dst[i] = byte(math.RoundToEven(float64(min(float32(v*v), 4)) * float64(perUnit)))
			if v <= 2 {
				factors[i] = 2 * v
			}
		}
	}
}
