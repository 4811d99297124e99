package cpu

import "bitnet1/kernels"

// LinearQuantize writes the quantized output of a linear and the derivative of its straight-through estimator.
func (d *Device) LinearQuantize(out []kernels.Planes, derivative kernels.Derivative, x kernels.Activation,
	l kernels.Linear, shift kernels.KShift) {
	d.run("LinearQuantize", kernels.CheckLinearQuantize(out, derivative, x, l, shift), func() {
		q := d.newQuantizedOutput(out, derivative)
		if integer(x, l) && shift.To <= shift.From {
			alpha, theta := values(l.Alpha), values(l.Theta)
			d.integerProducts(x, l, func(row int, sums []int32, offset int32, unit float32, s *scratch) {
				q.eachPart(row, s, func(p *planes, mask []uint64, from, to int) {
					d.signsOfSums(p.row(row), mask, sums[from:to], alpha[from:to], theta[from:to], offset, unit)
				})
			})
			return
		}
		d.forward(x, l, shift, func(row int, u []float32, s *scratch) {
			q.eachPart(row, s, func(p *planes, mask []uint64, from, to int) {
				d.packSigns(p.row(row), u[from:to])
				d.packMask(mask, u[from:to])
			})
		})
	})
}

// quantizedOutput is where LinearQuantize writes.
type quantizedOutput struct {
	parts []*planes // their channels follow one another
	mask  *planes   // of all channels, or nil
	whole bool      // the mask of every part begins with a whole word
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
