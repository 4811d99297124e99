package devicetest

import (
	"fmt"
	"math"

	"bitnet1/kernels"
)

func testCrossEntropy(b *bench) {
	for _, c := range []struct {
		rows, in, vocab, bits int
		grad                  kernels.GradBits
		mix                   float64
	}{
		{40, 30, 50, 1, floatGradients, 1}, {70, 128, 257, 4, floatGradients, 1},
		{300, 64, 1000, 4, roundedTo(4, 4), 1}, {33, 40, 61, 16, floatGradients, 1},
		{50, 32, 90, 4, floatGradients, 0.5},
		{600, 50, 129, 1, roundedTo(8, 8), 1}, {60, 200, 70, 8, roundedTo(4, 4), 1},
		{1, 1, 1, 1, roundedTo(4, 4), 1},
		{300, 64, 500, 4, roundedTo(8, 5), 1}, {70, 50, 129, 1, roundedTo(4, 8), 1},
	} {
		l, x := b.newLinearOf(c.in, c.vocab, c.mix, b.weightOf()), b.activation(c.rows, c.in, c.bits)
		for i := range l.alpha { // logits of a size that softmax likes
			l.alpha[i], l.theta[i] = float32(b.r.NormFloat64()/math.Sqrt(float64(c.in))), float32(b.r.NormFloat64())
		}
		b.d.Upload(l.Alpha, l.alpha)
		b.d.Upload(l.Theta, l.theta)
		targets := make([]int32, c.rows)
		for i := range targets {
			if targets[i] = int32(b.r.IntN(c.vocab)); b.r.IntN(5) == 0 || i%64 >= 40 {
				targets[i] = -1 // here and there, and of many rows in a row
			}
		}
		s := kernels.Scalars{Seed: 7, Step: 3, GradScale: 1 / float64(c.rows), Mix: c.mix}
		b.d.SetScalars(s)
		losses, alone, dx := b.poisoned(c.rows), b.poisoned(c.rows), b.poisoned(c.rows*c.in)
		dl := kernels.LinearGradient{Weight: b.floats(make([]float32, c.vocab*c.in)),
			Alpha: b.floats(make([]float32, c.vocab)), Theta: b.floats(make([]float32, c.vocab))}
		b.d.CrossEntropy(alone, x, l.Linear, b.ints(targets))
		b.d.CrossEntropyBackward(losses, dx, dl, x, l.Linear, b.ints(targets), c.grad)

		values := b.values(x)
		want, size, g := make([]float64, c.rows), make([]float64, c.rows), make([]float32, c.rows*c.vocab)
		for r, target := range targets {
			want[r], size[r] = l.loss(values, r, int(target), s.GradScale, g[r*c.vocab:][:c.vocab])
		}
		what := fmt.Sprintf("%d rows of %d bits, %v, gradients of %v bits", c.rows, c.bits, l, c.grad)
		near(b.t, what+": losses", b.download(losses), want, size, 5e-6, 1)
		same(b.t, what+": losses without gradients", b.download(alone), b.download(losses), 1)
		b.unwanted(what, dx, dl.Theta, make([]float32, c.vocab), func(dx kernels.Floats, dl kernels.LinearGradient) {
			b.d.CrossEntropyBackward(b.poisoned(c.rows), dx, dl, x, l.Linear, b.ints(targets), c.grad)
		})
		// A gradient that differs in its last bit may round to the other integer: few do.
		tolerance := 1e-5
		if c.grad.Rounded() {
			tolerance = 1e-2
		}
		v := l.backward(g, g, values, c.bits == 16, c.rows, c.grad, s)
		norms(b.t, what+": dx", b.download(dx), v.dx, tolerance)
		norms(b.t, what+": weights", b.download(dl.Weight), v.weight, tolerance)
		norms(b.t, what+": alpha", b.download(dl.Alpha), v.alpha, tolerance)
		norms(b.t, what+": theta", b.download(dl.Theta), v.theta, 1e-5)
	}
}

// loss is the loss of one row and the largest magnitude among its terms. It writes the gradient of the row's logits to
// g.
func (l linear) loss(x []float64, r, target int, scale float64, g []float32) (loss, size float64) {
	if target < 0 {
		return 0, 0
	}
	u := make([]float64, l.Out)
	top := math.Inf(-1)
	for o := range u {
		y, _ := l.product(x, r, o)
		u[o] = float64(float32(l.alpha[o]*float32(y)) - l.theta[o])
		top = max(top, u[o])
	}
	var sum float64
	for _, v := range u {
		sum += math.Exp(v - top)
	}
	for o, v := range u {
		p := math.Exp(v-top) / sum
		if o == target {
			p--
		}
		g[o] = float32(p * scale)
	}
	return math.Log(sum) + top - u[target], 1 + math.Abs(top) + math.Abs(u[target])
}
