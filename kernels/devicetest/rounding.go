package devicetest

import (
	"fmt"
	"math"
	"math/bits"
	"os"
	"strconv"

	"bitnet1/kernels"
)

// Where rounding is tested by its mean, a difference of so many standard deviations is a failure. The seeds are fixed,
// so a test that passed once on one device passes always and on every device.
const deviations = 5.5

// draws is about how many integers a test of a mean looks at for each size of gradient: BITNET1_DRAWS, or as many as a
// second allows.
func (b *bench) draws() int {
	b.t.Helper()
	s := os.Getenv("BITNET1_DRAWS")
	if s == "" {
		return 2 << 20
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		b.t.Fatalf("BITNET1_DRAWS is %q: want a positive number", s)
	}
	return n
}

// plainLinear has scales of 1, so that its weights' gradients are sums of rounded gradients times their channel's
// scale.
func (b *bench) plainLinear(in, out int) linear {
	b.t.Helper()
	l := b.newLinear(in, out, 1)
	l.ID = 77
	for i := range l.alpha {
		l.alpha[i], l.theta[i] = 1, 0
	}
	b.d.Upload(l.Alpha, l.alpha)
	b.d.Upload(l.Theta, l.theta)
	return l
}

// Each gradient lies where its own random number decides, or the number beside it does: so all 32 bits of that number
// count.
func testRoundingThresholds(b *bench) {
	for _, c := range []struct {
		grad kernels.GradBits
		bits int // whose integers the random numbers decide
	}{
		{roundedTo(2, 2), 2}, {roundedTo(4, 4), 4}, {roundedTo(8, 8), 8},
		{roundedTo(4, 8), 4}, {roundedTo(4, 8), 8}, {roundedTo(7, 3), 7}, {roundedTo(7, 3), 3},
	} {
		const rows, in, out = 300, 3, 70
		l, n := b.plainLinear(in, out), float64(largestInteger(c.bits))
		s := kernels.Scalars{Seed: b.r.Uint64(), Step: b.r.Uint64(), Micro: 5}
		dy := make([]float32, rows*out)
		for i := range dy {
			t, c := i/out, i%out
			dy[i] = float32(n) // in every row and channel once
			if t%out == c || t == 0 {
				continue
			}
			r := float64(randomNumber(t, c, out, l.ID, s)) / (1 << 32)
			k := float64(b.r.IntN(2*int(n)) - int(n) + 1)
			if b.r.IntN(3) == 0 {
				k = float64(b.r.IntN(2))
			}
			v := float32((k - r) / (1 - 1./(1<<22)))
			dy[i] = []float32{v, math.Nextafter32(v, 2*v), math.Nextafter32(v, 0)}[b.r.IntN(3)]
		}
		b.d.SetScalars(s)
		x := b.activation(rows, in, 4)
		dx := b.poisoned(rows * in)
		dl := kernels.LinearGradient{Weight: b.floats(make([]float32, out*in)), Alpha: b.floats(make([]float32, out)),
			Theta: b.floats(make([]float32, out))}
		b.d.LinearBackward(dx, dl, b.floats(dy), passes, x, l.Linear, kernels.KShift{}, c.grad)
		want := l.backward(dy, dy, b.values(x), false, rows, c.grad, s)
		what := fmt.Sprintf("gradients of %v bits beside what decides of %d", c.grad, c.bits)
		near(b.t, what+": dx", b.download(dx), want.dx, want.dxSize, 1e-6, in)
		near(b.t, what+": weights", b.download(dl.Weight), want.weight, want.weightSize, 1e-6, in)
	}
}

// The mean of the integers is the gradient, for all sizes of gradients and both signs.
func testRoundingMean(b *bench) {
	b.roundingMean(roundedTo(4, 4))
	b.roundingMean(roundedTo(3, 8))
}

func (b *bench) roundingMean(grad kernels.GradBits) {
	b.t.Helper()
	const rows, channels = 1 << 14, 32
	n := float64(largestInteger(grad.Weight))
	var sizes []float64 // in units of the scale
	for _, size := range []float64{1e-9, 1e-7, 1e-6, 7e-6, 1.5e-5, 1e-3, 0.25, 3.7, n} {
		sizes = append(sizes, size, -size)
	}
	out := channels * len(sizes)
	l := b.plainLinear(1, out)
	dy := make([]float32, rows*out)
	for i := range dy {
		dy[i] = float32(sizes[i%out/channels])
		if i < out {
			dy[i] = float32(n) // so the scale of every channel is 1
		}
	}
	passes := (b.draws() + rows*channels - 1) / (rows * channels)
	gradient, x := b.floats(dy), b.signsOf(onesOf(rows), rows, 1)
	dl := kernels.LinearGradient{Weight: b.floats(make([]float32, out)), Alpha: b.floats(make([]float32, out)),
		Theta: b.floats(make([]float32, out))}
	dx := b.poisoned(rows)
	sums := make([]float64, len(sizes))
	for pass := range passes {
		b.d.SetScalars(kernels.Scalars{Seed: 20, Step: uint64(pass)})
		b.d.Zero(dl.Weight)
		b.d.LinearBackward(dx, dl, gradient, kernels.Derivative{}, kernels.Activation{Planes: x}, l.Linear,
			kernels.KShift{}, grad)
		for c, v := range b.download(dl.Weight) {
			sums[c/channels] += float64(v) - n
		}
	}
	draws := float64(passes * channels * (rows - 1))
	for i, size := range sizes {
		size *= 1 - 1./(1<<22) // of inverse
		_, fraction := math.Modf(math.Abs(size))
		sd := math.Sqrt(draws * fraction * (1 - fraction))
		if off := sums[i] - draws*size; math.Abs(off) > deviations*sd+1 {
			b.t.Errorf("%.0f gradients of %v bits and %g units add up to %g instead of %.6g: %.1f standard deviations off",
				draws, grad, sizes[i], sums[i], draws*size, off/sd)
		}
	}
}

func onesOf(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = 1
	}
	return x
}

// The loss pushes very many improbable tokens down by very little each. In the mean that arrives, whatever the tokens'
// probability and the sign of their scale.
func testRoundingOfTheLMHead(b *bench) {
	const rows, in = 1 << 10, 8
	grad := roundedTo(4, 8)
	groups := []struct {
		probability float64
		alpha       float32
	}{{1e-6, 1}, {1e-6, -1}, {2e-6, 1}, {2e-6, -1}, {5e-6, 1}, {5e-6, -1}}
	const channels = 512 // of a group
	// All weights of two channels are +1: one has nearly all of the probability, the other is the target. A group's
	// weights are a pattern that is orthogonal to the others', so a gradient of the input times that pattern is the sum
	// of the group's gradients. The input is +1 throughout, so a group's products are 0 and its logits what theta says.
	out := 2 + len(groups)*channels
	weight, alpha, theta := make([]float32, out*in), onesOf(out), make([]float32, out)
	target, most := -7.0, 0.0 // logits
	theta[0], theta[1] = float32(in-most), float32(in-target)
	pattern := func(group, k int) float32 { return float32(1 - 2*(bits.OnesCount(uint((group+1)&k))%2)) }
	total := math.Exp(most) + math.Exp(target)
	for c := range out {
		group := (c - 2) / channels
		for k := range in {
			weight[c*in+k] = 1
			if c >= 2 {
				weight[c*in+k] = pattern(group, k)
			}
		}
		if c >= 2 {
			alpha[c], theta[c] = groups[group].alpha, float32(-math.Log(groups[group].probability))
			total += groups[group].probability
		}
	}
	signs, err := b.d.NewPlanes(out, in, kernels.Sign())
	b.must(err)
	l := kernels.Linear{In: in, Out: out, ID: 9, Weight: b.floats(weight), Quantized: signs, Alpha: b.floats(alpha),
		Theta: b.floats(theta)}
	b.d.Quantize(l)
	targets := make([]int32, rows)
	for i := range targets {
		targets[i] = 1
	}
	x, wanted := kernels.Activation{Planes: b.signsOf(onesOf(rows*in), rows, in)}, b.ints(targets)
	losses, dx := b.poisoned(rows), b.poisoned(rows*in)
	passes := (2*b.draws() + rows*channels - 1) / (rows * channels)
	sums := make([]float64, len(groups))
	for pass := range passes {
		b.d.SetScalars(kernels.Scalars{Seed: 21, Step: uint64(pass), GradScale: 1})
		b.d.CrossEntropyBackward(losses, dx, kernels.LinearGradient{}, x, l, wanted, grad)
		for i, v := range b.download(dx) {
			for group := range sums {
				sums[group] += float64(v) * float64(pattern(group, i%in)) / in
			}
		}
	}
	scale := (1 - math.Exp(target)/total) / float64(largestInteger(grad.Input))
	for i, g := range groups {
		p := g.probability / total
		want, sd := float64(passes*rows*channels)*p, scale*math.Sqrt(float64(passes*rows*channels)*p/scale)
		if off := sums[i]*float64(g.alpha) - want; math.Abs(off) > deviations*sd+0.001*want {
			b.t.Errorf("tokens of probability %g and scale %g receive a gradient of %.4g instead of %.4g: "+
				"%.1f standard deviations off",
				g.probability, g.alpha, sums[i]*float64(g.alpha), want, off/sd)
		}
	}
}
