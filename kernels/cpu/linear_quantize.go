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
			alpha, theta := values(l.Alpha), values(l.Theta)
			d.integerProducts(x, l, func(row int, sums []int32, offset int32, unit float32, s *scratch) {
				q.eachPart(row, s, func(p *planes, mask []uint64, from, to int) {
					if p.quantization == kernels.Sign() {
						d.signsOfSums(p.row(row), mask, sums[from:to], alpha[from:to], theta[from:to], offset, unit)
						return
					}
					u := s.outputPart.take(to - from)
					d.affineSums(u, sums[from:to], alpha[from:to], theta[from:to], offset, unit)
					d.quantizeOutput(&q, p, mask, row, from, u, s)
				})
			})
			return
		}
		d.forward(x, l, shift, func(row int, u []float32, s *scratch) {
			q.eachPart(row, s, func(p *planes, mask []uint64, from, to int) {
				d.quantizeOutput(&q, p, mask, row, from, u[from:to], s)
			})
		})
	})
}

// quantizedOutput is where LinearQuantize writes.
type quantizedOutput struct {
	parts   []*planes // their channels follow one another
	mask    *planes   // of all channels, or nil
	whole   bool      // the mask of every part begins with a whole word
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

// eachPart calls f for every part p of a row, with its channels from..to-1. f writes the part's levels, and its mask to
// the words of mask.
func (q *quantizedOutput) eachPart(row int, s *scratch, f func(p *planes, mask []uint64, from, to int)) {
	var words []uint64 // of the row's mask
	if q.mask != nil {
		words = q.mask.row(row)
		if !q.whole {
			clear(words)
		}
	}
	from := 0
	for _, p := range q.parts {
		to, n := from+p.cols, wordsOf(p.cols)
		if words != nil && q.whole {
			f(p, words[from/64:][:n], from, to)
		} else {
			part := s.partMask.take(n)
			f(p, part, from, to)
			for i, w := range part[:min(n, len(words))] {
				orBits(words, from+64*i, w)
			}
		}
		p.count(row)
		from = to
	}
}

// quantizeOutput writes row u of a linear's output, the channels from `from` on, to p, and the derivative to mask or
// factors.
func (d *Device) quantizeOutput(o *quantizedOutput, p *planes, mask []uint64, row, from int, u []float32, s *scratch) {
	q := p.quantization
	index := s.outputLevels.take(len(u))
	switch {
	case !q.PlusMinus():
		line := s.outputFactors.take(len(u))
		d.squaredReLU(index, line, u, float32(q.Largest())/4)
		if o.factors.given() {
			d.write(o.factors, row*o.stride+from, line)
		}
	case q == kernels.Sign():
		d.packSigns(p.row(row), u)
		d.packMask(mask, u, float32(q.PassLimit()))
		return
	default:
		half, step := halfLevels(q)
		d.quantize(index, u, o.ones, 1, step, half)
		d.packMask(mask, u, float32(q.PassLimit()))
	}
	d.setLevels(p, row, index)
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
