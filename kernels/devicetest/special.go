package devicetest

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"bitnet1/kernels"
)

// Values that are not finite, zeros with a sign and subnormal numbers are treated as package kernels says.

var (
	nan          = float32(math.NaN())
	negativeNaN  = math.Float32frombits(0xffc00001)
	infinity     = float32(math.Inf(1))
	negativeZero = float32(math.Copysign(0, -1))
)

// specials are all special values and some ordinary numbers.
func specials() []float32 {
	return []float32{nan, negativeNaN, infinity, -infinity, negativeZero, 0, 1e-45, -1e-45, 1e-39, -1e-39, 1, -1, 0.3,
		math.MaxFloat32, -math.MaxFloat32}
}

// sprinkle puts special values among x.
func (b *bench) sprinkle(x []float32) []float32 {
	for range 1 + len(x)/20 {
		x[b.r.IntN(len(x))] = specials()[b.r.IntN(len(specials()))]
	}
	return x
}

// alike is near for values that may be special: what is not finite must be the same, and any NaN equals any other.
func alike(t testing.TB, what string, got []float32, want, size []float64, tolerance float64, cols int) {
	t.Helper()
	wrong := 0
	for i, v := range got {
		g, w := float64(v), want[i]
		switch {
		case math.IsNaN(w):
			if math.IsNaN(g) {
				continue
			}
		case math.IsInf(w, 0) || math.Abs(w) > math.MaxFloat32:
			if g == math.Copysign(math.Inf(1), w) || math.Abs(g-w) <= 1e-6*math.Abs(w) {
				continue
			}
		case math.Abs(g-w) <= tolerance*size[i]+1e-30:
			continue
		}
		if wrong++; wrong <= 3 {
			t.Errorf("%s: row %d, column %d is %v, want %v", what, i/cols, i%cols, v, w)
		}
	}
	if wrong > 3 {
		t.Errorf("%s: %d of %d values differ", what, wrong, len(want))
	}
}

// sameBits compares bit for bit. Any NaN equals any other.
func sameBits(b *bench, what string, got, want []float32, cols int) {
	b.t.Helper()
	bitsOfNumbers := func(x []float32) []uint32 {
		y := bitsOf(x)
		for i, v := range x {
			if v != v {
				y[i] = math.MaxUint32
			}
		}
		return y
	}
	same(b.t, what, bitsOfNumbers(got), bitsOfNumbers(want), cols)
}

// magnitudes are sizes for near.
func magnitudes(x []float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = math.Abs(v)
	}
	return y
}

func testSpecialSums(b *bench) {
	for _, c := range []struct{ x, sum, squares float32 }{
		{nan, nan, nan}, {negativeNaN, nan, nan}, {infinity, infinity, infinity}, {-infinity, -infinity, infinity},
		{negativeZero, 0, 0}, {math.MaxFloat32, infinity, infinity},
	} {
		x := make([]float32, 5003)
		x[4100], x[37] = c.x, c.x
		dst := b.floats(make([]float32, 2))
		b.d.AddSum(dst, b.floats(x))
		b.d.AddSumSquares(dst.Slice(1, 2), b.floats(x))
		sameBits(b, fmt.Sprintf("sums with %g", c.x), b.download(dst), []float32{c.sum, c.squares}, 2)
	}
	x := make([]float32, 1000)
	for i := range x {
		x[i] = 1e-42
	}
	dst := b.floats(make([]float32, 1))
	b.d.AddSum(dst, b.floats(x))
	near(b.t, "the sum of subnormal numbers", b.download(dst), []float64{1000 * float64(x[0])}, []float64{0}, 0, 1)
	if b.download(dst)[0] == 0 {
		b.t.Error("subnormal numbers add up to 0")
	}
	values := b.sprinkle(b.normals(700))
	source, to := b.floats(values), b.poisoned(700)
	b.d.Copy(to, source)
	sameBits(b, "copy", b.download(to), values, 700)
}

// signOf is the sign that bits hold: +1 of what is at least 0.
func signOf(x float64) int {
	if x >= 0 {
		return 1
	}
	return -1
}

func testSpecialWeights(b *bench) {
	for _, q := range []kernels.Quantization{kernels.Sign(), kernels.Normal(2), kernels.Normal(5)} {
		b.specialWeights(q)
	}
}

func (b *bench) specialWeights(q kernels.Quantization) {
	const in, out = 203, 17
	weight := b.normals(in * out)
	copy(weight, specials())
	weight[3*in+5], weight[7*in+5], weight[9*in+5] = nan, infinity, negativeZero
	clear(weight[11*in : 12*in])
	for i := range in { // their mean square is below what it is divided by at least
		weight[12*in+i] *= 1e-13
	}
	l := kernels.Linear{In: in, Out: out, Weight: b.floats(weight), Quantized: b.newLinearOf(in, out, 1, q).Quantized,
		Mixed: b.poisoned(in * out)}
	const mix = 0.25
	b.d.SetScalars(kernels.Scalars{Mix: mix})
	b.d.Quantize(l)
	levels, mixed := weightLevels(weight, in, q), make([]float64, in*out)
	for i, w := range weight {
		var sum float64
		for _, v := range weight[i/in*in:][:in] {
			sum += math.Abs(float64(v))
		}
		mixed[i] = (1-mix)/max(sum/in, 1e-12)*float64(w) + mix*float64(q.Unit())*float64(levels[i])
	}
	same(b.t, q.String(), b.integers(l.Quantized), levels, in)
	size := magnitudes(mixed)
	for i := range size {
		size[i]++
	}
	alike(b.t, "blended weights", b.download(l.Mixed), mixed, size, 1e-6, in)

	x := b.poisoned(2 * in)
	b.d.Embed(x, b.ints([]int32{7, 3}), l)
	blended := b.download(l.Mixed)
	sameBits(b, "embedding", b.download(x), append(append([]float32(nil), blended[7*in:8*in]...),
		blended[3*in:4*in]...), in)

	dx := b.sprinkle(b.normals(3 * in))
	dWeight := b.floats(make([]float32, 4*in))
	b.d.EmbedBackward(dWeight, b.floats(dx), b.ints([]int32{2, 0, 2}), in)
	want := make([]float64, 4*in)
	for i := range in {
		want[i], want[2*in+i] = float64(dx[in+i]), float64(dx[i]+dx[2*in+i])
	}
	alike(b.t, "gradient of the embedding", b.download(dWeight), want, magnitudes(want), 1e-6, in)
}

// specialRows are rows of the residual stream. The first row holds NaN, the second an infinity, the third tiny numbers
// and zeros, and the others ordinary numbers.
func (b *bench) specialRows(rows, width int) []float32 {
	x := b.normals(rows * width)
	x[width/2] = []float32{nan, negativeNaN}[b.r.IntN(2)]
	x[width+width/2] = infinity
	for i := range width {
		x[2*width+i] = specials()[4+b.r.IntN(6)]
	}
	return x
}

func testSpecialNormalize(b *bench) {
	for _, bits := range []int{1, 2, 4, 7, 16} {
		for _, width := range []int{33, 128, 1024, 1100} {
			const rows = 5
			x, gain, rotation := b.specialRows(rows, width), b.normals(width), b.rotation(width)
			for i := range width { // products with gain pass the range of float32
				x[3*width+i] = float32(math.Copysign(2e38+1e38*b.r.Float64(), float64(x[3*width+i])))
			}
			gain[1], gain[2] = negativeZero, -1e-40
			if bits == 1 {
				gain[3], gain[4] = nan, infinity
			}
			out := kernels.Activation{}
			if bits == 16 {
				out.Floats = b.poisoned(rows * width)
			} else {
				out = b.activation(rows, width, bits)
			}
			b.d.Normalize(out, b.floats(x), kernels.RMSNorm{Gain: b.floats(gain), Eps: eps, Rotation: rotation})
			want, levels := make([]float64, rows*width), make([]int, rows*width)
			for r := range rows {
				values, signs := normalized(x[r*width:][:width], gain, rotation)
				for i, a := range values {
					want[r*width+i] = a
					half, index := math.Ldexp(1, bits-1), 0.0
					if q := math.RoundToEven(a/(2.5/half)-0.5) + half; q > 0 {
						index = min(q, 2*half-1)
					}
					levels[r*width+i] = 2*int(index) - (1<<bits - 1)
					if bits == 1 { // what the row's scale is does not matter
						levels[r*width+i] = signs[i]
					}
				}
			}
			what := fmt.Sprintf("special rows of %d in %d bits, rotation %d", width, bits, rotation)
			if bits == 16 {
				alike(b.t, what, b.download(out.Floats), want, magnitudes(want), 1e-6, width)
			} else {
				same(b.t, what, b.integers(out.Planes), levels, width)
			}
		}
	}
}

func testSpecialNormalizeBackward(b *bench) {
	for _, bits := range []int{1, 4, 16} {
		for _, width := range []int{33, 128, 1100, 2300} {
			const rows = 7
			limit := map[int]float64{1: 1, 4: 2.5, 16: math.Inf(1)}[bits]
			for _, special := range []string{"row", "gradient"} {
				x, gain, dOut := b.normals(rows*width), b.normals(width), b.normals(rows*width)
				rotation := b.rotation(width)
				if special == "row" {
					x = b.specialRows(rows, width)
				} else {
					dOut[2*width+5], dOut[4*width+7] = nan, infinity
				}
				dx, dGain := b.floats(make([]float32, rows*width)), b.floats(make([]float32, width))
				b.d.NormalizeBackward(dx, dGain, b.floats(dOut), b.floats(x),
					kernels.RMSNorm{Gain: b.floats(gain), Eps: eps, Rotation: rotation}, kernels.MidRise(bits))
				wantX, wantGain, size := make([]float64, rows*width), make([]float64, width), make([]float64, width)
				for r := range rows {
					addNormalizedGradient(wantX[r*width:][:width], wantGain, size, dOut[r*width:][:width], x[r*width:][:width], gain,
						rotation, limit)
				}
				what := fmt.Sprintf("special %s, width %d, %d bits, rotation %d", special, width, bits, rotation)
				norm := make([]float64, rows*width) // of a row
				for i := range norm {
					for _, v := range wantX[i/width*width:][:width] {
						norm[i] = max(norm[i], math.Abs(v))
					}
				}
				alike(b.t, what+": dx", b.download(dx), wantX, norm, 1e-5, width)
				alike(b.t, what+": dgain", b.download(dGain), wantGain, size, 1e-5, width)
			}
		}
	}
}

func testSpecialLinears(b *bench) {
	for _, c := range []shape{{60, 128, 300, 1}, {129, 70, 140, 4}, {3, 33, 90, 2}, {50, 40, 80, 16}} {
		l, x := b.newLinearOf(c.in, c.out, 1, b.weightOf()), b.activationOf(c.rows, c.in, b.inputOf(c.bits))
		for i := range l.alpha {
			switch b.r.IntN(3) {
			case 0:
				l.alpha[i] = specials()[b.r.IntN(len(specials()))]
			case 1:
				l.theta[i] = specials()[b.r.IntN(len(specials()))]
			}
		}
		copy(l.alpha, []float32{nan, infinity, -infinity, infinity, -infinity, 1e-45, negativeZero})
		copy(l.theta, []float32{0, 0, 0, infinity, -infinity, 1e-44, negativeZero})
		b.d.Upload(l.Alpha, l.alpha)
		b.d.Upload(l.Theta, l.theta)
		values := b.values(x)
		if c.bits == 16 {
			floats := b.download(x.Floats)
			floats[5*c.in+3], floats[9*c.in] = nan, -infinity
			x.Floats, values = b.floats(floats), wide(floats)
		}
		residual := b.sprinkle(b.normals(c.rows * c.out))
		added := b.poisoned(c.rows * c.out)
		b.d.LinearAdd(added, b.floats(residual), x, l.Linear)
		sum, size := make([]float64, len(residual)), make([]float64, len(residual))
		u := b.preactivations(l, x, c.rows, keyShift{})
		for i := range sum {
			sum[i] = float64(residual[i] + u.u[i])
			y, _ := l.product(values, i/c.out, i%c.out)
			size[i] = math.Abs(float64(residual[i])) + math.Abs(y*float64(l.alpha[i%c.out])) +
				math.Abs(float64(l.theta[i%c.out]))
		}
		what := fmt.Sprintf("%d rows of %d bits, %v with special scales", c.rows, c.bits, l)
		for _, list := range []outputs{
			{{c.out, kernels.Sign()}}, {{3, kernels.Sign()}, {c.out - 3, kernels.MidRise(4)}}, {{c.out, kernels.Unsigned(3)}},
		} {
			b.quantizes(what, list, l, x, u, keyShift{})
		}
		alike(b.t, what, b.download(added), sum, size, 1e-5, c.out)
	}
}

// backwardOf runs a backward pass of rounded or float gradients with fresh memory.
func (b *bench) backwardOf(l linear, x kernels.Activation, dy []float32, mask kernels.Planes, shift kernels.KShift,
	grad kernels.GradBits, small bool) (dx, weight, alpha, theta []float32) {
	b.t.Helper()
	rows := len(dy) / l.Out
	to, from := b.poisoned(rows*l.In), b.floats(dy)
	if small {
		to, from = b.poisonedBFloats(rows*l.In), b.bfloats(dy)
	}
	dl := kernels.LinearGradient{Weight: b.floats(make([]float32, l.In*l.Out)), Alpha: b.floats(make([]float32, l.Out)),
		Theta: b.floats(make([]float32, l.Out))}
	b.d.LinearBackward(to, dl, from, kernels.Derivative{Mask: mask}, x, l.Linear, shift, grad)
	return b.download(to), b.download(dl.Weight), b.download(dl.Alpha), b.download(dl.Theta)
}

// poison makes all values of some rows NaN.
func poison(x []float32, cols int, rows ...int) []float32 {
	x = append([]float32(nil), x...)
	for _, r := range rows {
		for i := range cols {
			x[r*cols+i] = nan
		}
	}
	return x
}

// A gradient that is not finite makes its row of dx and its channel's gradients NaN. All other gradients are what they
// are without it.
func testSpecialBackward(b *bench) {
	for _, c := range []struct {
		rows, in, out, bits int
		grad                kernels.GradBits
		small               bool
	}{
		{300, 64, 256, 4, roundedTo(4, 4), false}, {256, 128, 256, 1, roundedTo(4, 4), true},
		{70, 37, 29, 1, roundedTo(4, 4), false}, {64, 40, 130, 8, roundedTo(8, 8), false},
		{70, 33, 60, 2, roundedTo(2, 2), true}, {64, 40, 130, 4, roundedTo(4, 8), false},
		{50, 30, 40, 4, floatGradients, false}, {80, 30, 40, 16, roundedTo(4, 4), false},
	} {
		for _, special := range []float32{nan, negativeNaN, infinity, -infinity} {
			l, x := b.newLinear(c.in, c.out, 1), b.activation(c.rows, c.in, c.bits)
			dy, t, o := b.scaled(c.rows*c.out, 1e-3), b.r.IntN(c.rows), b.r.IntN(c.out)
			with := append([]float32(nil), dy...)
			dy[t*c.out+o], with[t*c.out+o] = 0, special
			b.d.SetScalars(kernels.Scalars{Seed: 3, Step: 4})
			dx, weight, alpha, theta := b.backwardOf(l, x, dy, nil, kernels.KShift{}, c.grad, c.small)
			gotX, gotWeight, gotAlpha, gotTheta := b.backwardOf(l, x, with, nil, kernels.KShift{}, c.grad, c.small)
			what := fmt.Sprintf("%g among gradients of %v bits, %d rows of %d bits, %v, bfloats %v", special, c.grad,
				c.rows, c.bits, l, c.small)
			theta[o] -= special
			sameBits(b, what+": theta", gotTheta, theta, c.out)
			// Where a product is one of floats, an infinity may stay one.
			if !c.grad.Rounded() || c.bits == 16 {
				allButOne(b, what+": dx", gotX, dx, c.in, t)
				allButOne(b, what+": weights", gotWeight, weight, c.in, o)
				continue
			}
			sameBits(b, what+": dx", gotX, poison(dx, c.in, t), c.in)
			sameBits(b, what+": weights", gotWeight, poison(weight, c.in, o), c.in)
			sameBits(b, what+": alpha", gotAlpha, poison(alpha, 1, o), 1)

			// Where no gradient passes, nothing counts.
			mask := make([]float32, c.rows*c.out)
			mask[t*c.out+o] = -1
			hides := b.signsOf(mask, c.rows, c.out)
			masked := append([]float32(nil), dy...)
			dx, weight, _, _ = b.backwardOf(l, x, masked, hides, kernels.KShift{}, c.grad, c.small)
			gotX, gotWeight, _, _ = b.backwardOf(l, x, with, hides, kernels.KShift{}, c.grad, c.small)
			sameBits(b, what+", masked: dx", gotX, dx, c.in)
			sameBits(b, what+", masked: weights", gotWeight, weight, c.in)

			// K-shift takes the gradient to the row whose key was read, and leaves it in its own row.
			shift := kernels.KShift{From: 0, To: c.out, Offset: 1, Self: true, Seq: c.rows}
			gotX, _, _, _ = b.backwardOf(l, x, with, nil, shift, c.grad, c.small)
			dx, _, _, _ = b.backwardOf(l, x, dy, nil, shift, c.grad, c.small)
			bad := []int{t}
			if t > 0 {
				bad = append(bad, t-1)
			}
			sameBits(b, what+", shifted: dx", gotX, poison(dx, c.in, bad...), c.in)
		}
	}
	b.specialScale()
	b.tinyGradients()
}

// allButOne compares all rows but a bad one, in which nothing may be finite.
func allButOne(b *bench, what string, got, want []float32, cols, bad int) {
	b.t.Helper()
	for i, v := range got {
		if i/cols == bad && !math.IsNaN(float64(v-v)) {
			b.t.Errorf("%s: row %d, column %d is %g", what, bad, i%cols, v)
			return
		}
	}
	sameBits(b, what, poison(got, cols, bad), poison(want, cols, bad), cols)
}

// A scale that is NaN makes all of dx NaN, and the gradients of its own channel's weights.
func (b *bench) specialScale() {
	const rows, in, out, bad = 40, 50, 70, 13
	l, x, dy := b.newLinear(in, out, 1), b.activation(rows, in, 4), b.normals(rows*out)
	_, weight, alpha, _ := b.backwardOf(l, x, dy, nil, kernels.KShift{}, roundedTo(4, 4), false)
	l.alpha[bad] = nan
	b.d.Upload(l.Alpha, l.alpha)
	dx, gotWeight, gotAlpha, _ := b.backwardOf(l, x, dy, nil, kernels.KShift{}, roundedTo(4, 4), false)
	for _, v := range dx {
		if v == v {
			b.t.Errorf("a gradient of the input is %g, one scale being NaN", v)
			break
		}
	}
	sameBits(b, "weights where one scale is NaN", gotWeight, poison(weight, in, bad), in)
	sameBits(b, "scales where one is NaN", gotAlpha, alpha, 1)
}

// Gradients at the end of float32's range: zeros of both signs, subnormal numbers, rows whose greatest is below 1e-30,
// and somewhat above.
func (b *bench) tinyGradients() {
	const rows, in, out = 60, 20, 33
	l, x, dy := b.newLinear(in, out, 1), b.activation(rows, in, 4), b.normals(rows*out)
	for i := range dy {
		switch r := i / out; {
		case r < 10:
			dy[i] *= 1e-39
		case r < 20:
			dy[i] *= 1e-32
		case r < 25:
			dy[i] *= 1e-26
		case r < 30:
			dy[i] = float32(math.Copysign(0, float64(dy[i])))
		case r < 40:
			dy[i] *= 1e30
		case b.r.IntN(5) == 0:
			dy[i] = specials()[4+b.r.IntN(6)]
		}
	}
	s := kernels.Scalars{Seed: 8, Step: 9}
	b.d.SetScalars(s)
	dx, weight, _, _ := b.backwardOf(l, x, dy, nil, kernels.KShift{}, roundedTo(4, 4), false)
	want := l.backward(dy, dy, b.values(x), false, rows, roundedTo(4, 4), s)
	near(b.t, "tiny and large gradients: dx", dx, want.dx, want.dxSize, 2e-6, in)
	near(b.t, "tiny and large gradients: weights", weight, want.weight, want.weightSize, 2e-6, in)
}

// Logits that are not finite. A row without a target has no loss, and its logits no gradient, whatever the logits are.
func testSpecialLosses(b *bench) {
	const rows, in, vocab, target = 40, 30, 61, 17
	for _, c := range []struct {
		what         string
		channel      int
		alpha, theta float32
		loss         float32 // 0: that of a vocabulary without the channel
	}{
		{"a scale is NaN", 3, nan, 0, nan}, {"an offset is NaN", 60, 1, negativeNaN, nan},
		{"a logit is +Inf", 5, 1, -infinity, nan},
		{"a logit is -Inf", 5, 1, infinity, 0}, {"the target's logit is -Inf", target, 1, infinity, infinity},
	} {
		for _, bits := range []int{4, 16} {
			l, x := b.newLinear(in, vocab, 1), b.activation(rows, in, bits)
			l.alpha[c.channel], l.theta[c.channel] = c.alpha, c.theta
			b.d.Upload(l.Alpha, l.alpha)
			b.d.Upload(l.Theta, l.theta)
			targets := make([]int32, rows)
			for i := range targets {
				if targets[i] = target; i%3 == 0 {
					targets[i] = -1
				}
			}
			b.d.SetScalars(kernels.Scalars{Seed: 2, GradScale: 1})
			losses, alone, dx := b.poisoned(rows), b.poisoned(rows), b.poisoned(rows*in)
			dl := kernels.LinearGradient{Weight: b.floats(make([]float32, vocab*in)),
				Alpha: b.floats(make([]float32, vocab)), Theta: b.floats(make([]float32, vocab))}
			b.d.CrossEntropy(alone, x, l.Linear, b.ints(targets))
			b.d.CrossEntropyBackward(losses, dx, dl, x, l.Linear, b.ints(targets), roundedTo(4, 4))
			values, want, size := b.values(x), make([]float64, rows), make([]float64, rows)
			for r, t := range targets {
				if want[r], size[r] = l.loss(values, r, int(t), 1, make([]float32, vocab)); t >= 0 && c.loss != 0 {
					want[r] = float64(c.loss)
				}
			}
			what := fmt.Sprintf("%s, input of %d bits", c.what, bits)
			alike(b.t, what+": losses", b.download(losses), want, size, 5e-6, 1)
			alike(b.t, what+": losses alone", b.download(alone), want, size, 5e-6, 1)
			for i, v := range b.download(dx) {
				// A scale multiplies the gradients of rows without a target too.
				row, isNaN := i/in, c.alpha != c.alpha || c.loss != c.loss && targets[i/in] >= 0
				if (v != v) != isNaN || targets[row] < 0 && !isNaN && v != 0 {
					b.t.Errorf("%s: target %d: the input's gradient in row %d is %g", what, targets[row], row, v)
					break
				}
			}
		}
	}
	b.specialInput()
}

// NaN in one row of a stream of floats stays in that row.
func (b *bench) specialInput() {
	const rows, in, vocab, bad = 20, 30, 50, 7
	l := b.newLinear(in, vocab, 1)
	x := b.normals(rows * in)
	x[bad*in+3] = nan
	losses := b.poisoned(rows)
	b.d.CrossEntropy(losses, kernels.Activation{Floats: b.floats(x)}, l.Linear, b.ints(make([]int32, rows)))
	for r, v := range b.download(losses) {
		if (v != v) != (r == bad) {
			b.t.Errorf("row %d of a stream with NaN in row %d has loss %g", r, bad, v)
		}
	}
}

func testSpecialAdamW(b *bench) {
	const n = 1003
	for _, norm := range []float32{900, nan, infinity, negativeZero} {
		param, grad, m, v := b.normals(n), b.sprinkle(b.normals(n)), b.sprinkle(b.normals(n)), b.normals(n)
		for i := range v {
			v[i] = float32(math.Abs(float64(v[i])))
		}
		v[5], m[6], param[7] = infinity, 1e-42, nan
		a := kernels.Adam{Param: b.floats(param), Grad: b.floats(grad), M: b.floats(m), V: b.floats(v), Beta1: 0.9,
			Beta2: 0.95, Eps: 1e-8,
			Master: b.floats(param), SquaredNorm: b.floats([]float32{norm}), MaxNorm: 3}
		b.d.SetScalars(kernels.Scalars{LearningRate: 0.02, Correction1: 0.5, Correction2: 0.4})
		b.d.AdamW(a)
		clip := float32(min(1, 3/(math.Sqrt(float64(norm))+1e-6)))
		want, size := make([]float64, n), make([]float64, n)
		for i := range want { // as float32, for what overflows
			g := grad[i] * clip
			mean, square := 0.9*m[i]+0.1*g, 0.95*v[i]+float32(0.05)*float32(g*g)
			step := float64(float32(0.04)*mean) / (float64(float32(math.Sqrt(float64(square))))/math.Sqrt(0.4) + 1e-8)
			want[i] = float64(param[i]) - step
			size[i] = math.Abs(float64(param[i])) + math.Abs(step)
		}
		alike(b.t, fmt.Sprintf("parameters, squared norm %g", norm), b.download(a.Master), want, size, 1e-5, n)
		master := b.download(a.Master)
		for i, x := range master {
			master[i] = roundToFloat16(x)
		}
		sameBits(b, "parameters rounded to float16", b.download(a.Param), master, n)
	}
}

// What depends on a gradient that is not finite is not finite either. No other sequence is affected.
func testSpecialAttention(b *bench) {
	for _, a := range b.readings() {
		v, queries, keys, values := b.reading(a)
		rows, width := v.Batch*v.Seq, v.Heads*v.HeadDim
		pointers := b.ints(make([]int32, v.Batch*v.Heads*v.Seq*v.Survivors))
		b.d.Attend(b.signs(rows, width), pointers, queries, keys, values, v.Attention)
		for _, special := range []float32{nan, infinity} {
			dOut, plain := b.normals(rows*width), b.poisoned(3*rows*width)
			b.d.AttendBackward(plain, b.floats(dOut), queries, keys, values, pointers, v.Attention)
			t, c := b.r.IntN(v.Seq), b.r.IntN(width)
			dOut[t*width+c] = special
			dqkv := b.poisoned(3 * rows * width)
			b.d.AttendBackward(dqkv, b.floats(dOut), queries, keys, values, pointers, v.Attention)
			got, before := b.download(dqkv), b.download(plain)
			what := fmt.Sprintf("%+v: %g in row %d, channel %d", a, special, t, c)
			sameBits(b, what+": other sequences", got[3*v.Seq*width:], before[3*v.Seq*width:], 3*width)
			for _, u := range v.readKeys(c/v.HeadDim, t) {
				if x := got[(3*u+2)*width+c]; !math.IsNaN(float64(x - x)) {
					b.t.Errorf("%s: the gradient of value %d is %g", what, u, x)
				}
			}
		}
	}
}

// Sums that may not fit 32 bits are refused; those that just fit are right.
func testSumsThatOverflow(b *bench) {
	const most = (1<<31 - 1) / (127 * 255)
	l := b.plainLinear(1, 1)
	run := func(rows int) float32 {
		x, err := b.d.NewPlanes(rows, 1, kernels.MidRise(8))
		b.must(err)
		b.d.Normalize(kernels.Activation{Planes: x}, b.floats(onesOf(rows)),
			kernels.RMSNorm{Gain: b.floats([]float32{100}), Eps: eps})
		dl := kernels.LinearGradient{Weight: b.floats(make([]float32, 1)), Alpha: b.floats(make([]float32, 1)),
			Theta: b.floats(make([]float32, 1))}
		b.d.LinearBackward(b.poisoned(rows), dl, b.floats(onesOf(rows)), passes, kernels.Activation{Planes: x}, l.Linear,
			kernels.KShift{}, roundedTo(2, 8))
		v := make([]float32, 1)
		if b.d.Download(v, dl.Weight) != nil {
			return nan
		}
		return v[0]
	}
	want := float64(most) * 2.5 * 255 / 256
	near(b.t, "the largest sum", []float32{run(most)}, []float64{want}, []float64{want}, 1e-5, 1)
	run(most + 1)
	if err := b.d.Sync(); err == nil || !strings.Contains(err.Error(), "LinearBackward") ||
		!strings.Contains(err.Error(), "66311 rows") {
		b.t.Errorf("sums over %d rows of 8 by 8 bits gave %v", most+1, err)
	}
}
