package cpu

import (
	"math"

	"bitnet1/kernels"
)

// headElements bounds the logits that exist at a time: 64 MiB.
const headElements = 1 << 24

// CrossEntropy computes losses in nats, a part of the rows at a time.
func (d *Device) CrossEntropy(losses kernels.Floats, x kernels.Activation, head kernels.Linear, targets kernels.Ints) {
	d.headParts(x, head, func(from, to int, part kernels.Activation, logits floats) {
		d.losses(values(losses)[from:to], logits, targets.(ints)[from:to], head.Out, false)
	})
}

// CrossEntropyBackward computes losses and the gradients that follow from them.
func (d *Device) CrossEntropyBackward(losses, dx kernels.Floats, dl kernels.LinearGradient, x kernels.Activation,
	head kernels.Linear, targets kernels.Ints, gradBits int) {
	d.headParts(x, head, func(from, to int, part kernels.Activation, logits floats) {
		d.losses(values(losses)[from:to], logits, targets.(ints)[from:to], head.Out, true)
		d.LinearBackward(dx.Slice(from*head.In, to*head.In), dl, logits, nil, part, head, kernels.KShift{}, gradBits)
	})
}

// headParts calls f with the logits of some rows at a time.
func (d *Device) headParts(x kernels.Activation, head kernels.Linear, f func(from, to int, part kernels.Activation, logits floats)) {
	d.run("CrossEntropy", func() {
		rows := rowsOf(x, head.In)
		size := min(rows, max(1, headElements/head.Out))
		all := floats(d.shared.floats(4, size*head.Out))
		for from := 0; from < rows && d.err == nil; from += size {
			to := min(from+size, rows)
			part, logits := rowsFrom(x, head.In, from, to), all[:(to-from)*head.Out]
			d.LinearAdd(logits, nil, part, head)
			f(from, to, part, logits)
		}
	})
}

// losses fills loss and, with backward, turns logits into their gradient.
func (d *Device) losses(loss, logits []float32, targets ints, vocab int, backward bool) {
	factor := d.scalars.GradScale
	d.blocks(len(targets), 4, func(from, to int, s *scratch) {
		for r := from; r < to; r++ {
			row := logits[r*vocab:][:vocab]
			if targets[r] < 0 {
				loss[r] = 0
				if backward {
					clear(row)
				}
				continue
			}
			loss[r] = float32(rowLoss(row, int(targets[r]), factor, backward, s))
		}
	})
}

// rowLoss is log Σ exp(logits) - logits[target]; with backward, logits become factor * (softmax - onehot).
func rowLoss(logits []float32, target int, factor float64, backward bool, s *scratch) float64 {
	top := logits[0]
	for _, v := range logits {
		top = max(top, v)
	}
	e := s.doubles(0, len(logits))
	var sum float64
	for i, v := range logits {
		e[i] = math.Exp(float64(v) - float64(top))
		sum += e[i]
	}
	loss := math.Log(sum) + float64(top) - float64(logits[target])
	if backward {
		for i, v := range e {
			logits[i] = float32(v / sum * factor)
		}
		logits[target] = float32((e[target]/sum - 1) * factor)
	}
	return loss
}
