package cpu

import (
	"math"

	"bitnet1/kernels"
)

// CrossEntropy computes losses in nats and, with backward, turns logits into their gradient.
func (d *Device) CrossEntropy(losses, logits kernels.Floats, targets kernels.Ints, vocab int, backward bool) {
	d.run("CrossEntropy", func() {
		loss, all, ids := values(losses), values(logits), targets.(ints)
		factor := d.scalars.GradScale
		d.blocks(len(ids), 4, func(from, to int, s *scratch) {
			for r := from; r < to; r++ {
				row := all[r*vocab:][:vocab]
				if ids[r] < 0 {
					loss[r] = 0
					if backward {
						clear(row)
					}
					continue
				}
				loss[r] = float32(rowLoss(row, int(ids[r]), factor, backward, s))
			}
		})
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
