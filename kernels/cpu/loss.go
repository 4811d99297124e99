package cpu

import (
	"math"

	"bitnet1/kernels"
)

// CrossEntropy computes losses in nats, for as many rows at a time as their logits may take memory.
func (d *Device) CrossEntropy(losses kernels.Floats, x kernels.Activation, lmHead kernels.Linear,
	targets kernels.Ints) {
	d.run("CrossEntropy", kernels.CheckCrossEntropy(losses, x, lmHead, targets), func() {
		h := d.newLMHeadPass(losses, x, lmHead, targets)
		clear(h.loss)
		for _, rows := range h.spans() {
			h.rowParts(rows[0], rows[1], func(from, to int, logits floats) { h.losses(from, to, logits) })
		}
	})
}

// spans are the ranges of rows that have targets, with the short gaps between them: logits of few rows cost less than
// another pass over the weights. Where the last tokens of long texts are predicted alone, most rows have no target.
func (h *lmHeadPass) spans() (all [][2]int) {
	for r, t := range h.targets {
		last := len(all) - 1
		switch {
		case t < 0:
		case last < 0 || r-all[last][1] > fewRows:
			all = append(all, [2]int{r, r + 1})
		default:
			all[last][1] = r + 1
		}
	}
	return all
}

// CrossEntropyBackward computes losses and the gradients that follow from them.
func (d *Device) CrossEntropyBackward(losses, dx kernels.Floats, dl kernels.LinearGradient, x kernels.Activation,
	lmHead kernels.Linear, targets kernels.Ints, gradBits kernels.GradBits) {
	d.run("CrossEntropyBackward", kernels.CheckCrossEntropyBackward(losses, dx, dl, x, lmHead, targets, gradBits), func() {
		h := d.newLMHeadPass(losses, x, lmHead, targets)
		// Integers of a channel have one scale for all rows. If the logits of all rows do not fit at once, those of all rows
		// and some channels are computed again.
		weights := ofProducts(&dl)
		byChannel := weights != nil && gradBits.Rounded() && x.Planes != nil
		whole := h.rows*lmHead.Out <= d.logitsAtOnce
		h.rowParts(0, h.rows, func(from, to int, logits floats) {
			h.losses(from, to, logits)
			h.gradients(from, to, logits, 0, lmHead.Out)
			g := &gradient{output: anyFloats{floats: logits}, stride: lmHead.Out, row: from, rows: to - from, to: lmHead.Out}
			d.summarize(values(dl.Theta), g)
			now := weights
			if byChannel && !whole {
				now = nil
			}
			input := x.Slice(lmHead.In, from, to)
			d.productGradients(dx.Slice(from*lmHead.In, to*lmHead.In), now, g, input, lmHead, gradBits)
		})
		if byChannel && !whole {
			h.channelParts(func(from, to int, logits floats) {
				h.exponents(logits, to-from)
				h.gradients(0, h.rows, logits, from, to)
				g := &gradient{output: anyFloats{floats: logits}, stride: to - from, rows: h.rows, from: from, to: to}
				d.summarize(nil, g)
				d.productGradients(nil, &dl, g, x, lmHead, gradBits)
			})
		}
	})
}

// lmHeadPass computes logits, losses, and the gradients of logits, of the language-model head.
type lmHeadPass struct {
	*Device
	rows    int
	loss    []float32
	x       kernels.Activation
	linear  kernels.Linear
	targets ints
	top     []float32 // largest logit of every row
	sum     []float64 // Σ exp(logit - top)
}

func (d *Device) newLMHeadPass(losses kernels.Floats, x kernels.Activation, lmHead kernels.Linear,
	targets kernels.Ints) *lmHeadPass {
	rows := x.Rows(lmHead.In)
	return &lmHeadPass{
		Device: d, rows: rows, loss: values(losses)[:rows], x: x, linear: lmHead, targets: targets.(ints)[:rows],
		top: d.shared.rowMaxima.take(rows), sum: d.shared.rowExpSums.take(rows),
	}
}

// rowParts calls f for ranges of rows first..end-1, with all logits of the rows.
func (h *lmHeadPass) rowParts(first, end int, f func(from, to int, logits floats)) {
	size := min(end-first, max(1, h.logitsAtOnce/h.linear.Out))
	all := h.logits(size * h.linear.Out)
	for from := first; from < end && h.err == nil; from += size {
		to := min(from+size, end)
		logits := all[:(to-from)*h.linear.Out]
		h.LinearAdd(logits, nil, h.x.Slice(h.linear.In, from, to), h.linear)
		f(from, to, logits)
	}
}

// logits is memory for n logits.
func (h *lmHeadPass) logits(n int) floats { return h.shared.logits.take(n) }

// channelParts calls f for ranges of channels, with the logits of all rows. The ranges are multiples of 8 channels.
func (h *lmHeadPass) channelParts(f func(from, to int, logits floats)) {
	size := max(8, h.logitsAtOnce/h.rows&^7)
	all := h.logits(size * h.rows)
	for from := 0; from < h.linear.Out && h.err == nil; from += size {
		to := min(from+size, h.linear.Out)
		logits := all[:(to-from)*h.rows]
		h.LinearAdd(logits, nil, h.x, channelsFrom(h.linear, from, to))
		f(from, to, logits)
	}
}

// channelsFrom returns channels from..to-1 of l, for a forward pass.
func channelsFrom(l kernels.Linear, from, to int) kernels.Linear {
	part := kernels.Linear{
		In: l.In, Out: to - from, ID: l.ID,
		Quantized: l.Quantized.Slice(from, to), Alpha: l.Alpha.Slice(from, to), Theta: l.Theta.Slice(from, to),
	}
	if l.Mixed != nil {
		part.Mixed = l.Mixed.Slice(from*l.In, to*l.In)
	}
	return part
}

// losses computes log Σ exp(logits) - logits[target] for rows from..to-1, and replaces the logits by exp(logits - top).
func (h *lmHeadPass) losses(from, to int, logits []float32) {
	out := h.linear.Out
	h.blocks(to-from, 4, func(r0, r1 int, _ *scratch) {
		for r := r0; r < r1; r++ {
			row, t := logits[r*out:][:out], h.targets[from+r]
			h.loss[from+r] = 0
			if t < 0 {
				continue
			}
			top, wanted := h.maximum(row), row[t]
			sum := h.exponentials(row, top)
			h.top[from+r], h.sum[from+r] = top, sum
			h.loss[from+r] = float32(math.Log(sum) + float64(top) - float64(wanted))
		}
	})
}

// exponents replaces the logits of all rows by exp(logits - top), as losses does.
func (h *lmHeadPass) exponents(logits []float32, out int) {
	h.blocks(h.rows, 16, func(r0, r1 int, _ *scratch) {
		for r := r0; r < r1; r++ {
			h.exponentials(logits[r*out:][:out], h.top[r])
		}
	})
}

// gradients replaces exp(logits - top) of rows from..to-1 and channels c0..c1-1 by GradScale * (softmax - onehot).
func (h *lmHeadPass) gradients(from, to int, e []float32, c0, c1 int) {
	out, factor := c1-c0, h.scalars.GradScale
	h.blocks(to-from, 16, func(r0, r1 int, _ *scratch) {
		for r := r0; r < r1; r++ {
			row, t := e[r*out:][:out], int(h.targets[from+r])
			if t < 0 {
				clear(row)
				continue
			}
			sum := h.sum[from+r]
			if t < c0 || t >= c1 {
				h.scale(row, float32(factor/sum))
				continue
			}
			wanted := float32((float64(row[t-c0])/sum - 1) * factor)
			h.scale(row, float32(factor/sum))
			row[t-c0] = wanted
		}
	})
}

// exponentialsGo replaces x by exp(x - top), for x <= top, and returns the sum. The exponential is expf of Cephes
// (Moshier), 2^k times a polynomial: its relative error is about 1e-7. Below exp(-87) it is exp(-87).
func exponentialsGo(x []float32, top float32) float64 {
	return inLanes(len(x), func(i int) float64 {
		v := max(x[i]-top, -87)
		k := float32(math.RoundToEven(float64(float32(v * 1.44269504))))
		v -= float32(k * 0.693359375)
		v -= float32(k * -2.12194440e-4)
		y := float32(1.9875691500e-4)
		for _, c := range [...]float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
			y = float32(y*v) + c
		}
		y = float32(y*float32(v*v)) + v + 1
		y *= math.Float32frombits(uint32(int32(k)+127) << 23)
		x[i] = y
		return float64(y)
	})
}
