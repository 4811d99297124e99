package devicetest

import (
	"fmt"
	"math"
	"math/bits"

	"bitnet1/kernels"
)

func testQuantize(b *bench) {
	for bits := range 8 {
		q := kernels.Normal(bits + 1)
		in, out := b.size(400), b.size(300)
		weight := b.normals(in * out)
		for i := range weight {
			if b.r.IntN(20) == 0 {
				weight[i] = float32(math.Copysign(0, float64(weight[i]))) // sign(±0) is +1
			}
		}
		other := b.newLinearOf(in, out, 1, q) // other values, to be overwritten
		l := kernels.Linear{In: in, Out: out, Weight: b.floats(weight), Quantized: other.Quantized,
			Mixed: b.poisoned(in * out)}
		const mix = 0.3
		b.d.SetScalars(kernels.Scalars{Mix: mix})
		b.d.Quantize(l)
		want, blend, size := weightLevels(weight, in, q), make([]float64, in*out), make([]float64, in*out)
		for r := range out {
			var sum float64
			for _, w := range weight[r*in:][:in] {
				sum += math.Abs(float64(w))
			}
			mean := max(sum/float64(in), 1e-12)
			for i := r * in; i < (r+1)*in; i++ {
				blend[i] = (1-mix)*float64(weight[i])/mean + mix*float64(q.Unit())*float64(want[i])
				size[i] = math.Abs(blend[i]) + 1
			}
		}
		same(b.t, q.String(), b.integers(l.Quantized), want, in)
		near(b.t, "blended weights", b.download(l.Mixed), blend, size, 1e-6, in)
		cut := b.r.IntN(out + 1)
		whole := b.planes(out, in, q)
		for _, part := range [][2]int{{0, cut}, {cut, out}} {
			b.d.Quantize(kernels.Linear{In: in, Out: part[1] - part[0], Weight: l.Weight.Slice(part[0]*in, part[1]*in),
				Quantized: whole.Slice(part[0], part[1])})
		}
		same(b.t, q.String()+" in two parts", b.integers(whole), want, in)
	}
}

func testEmbed(b *bench) {
	for i, mix := range []float64{1, 0.4, 1} {
		rows, vocab := 1+b.r.IntN(3000), b.size(90)
		l := b.newLinearOf(b.size(1500), vocab, mix, kernels.Normal(1+i*b.r.IntN(4)))
		tokens := make([]int32, rows)
		for i := range tokens {
			if tokens[i] = int32(b.r.IntN(vocab)); b.r.IntN(4) == 0 {
				tokens[i] = 0 // a common one
			}
		}
		x := b.poisoned(rows * l.In)
		b.d.Embed(x, b.ints(tokens), l.Linear)
		want := make([]float32, rows*l.In)
		for i, token := range tokens {
			for c := range l.In {
				want[i*l.In+c] = float32(l.effective[int(token)*l.In+c])
			}
		}
		same(b.t, "embedding", b.download(x), want, l.In)

		dx, base := b.normals(rows*l.In), b.normals(vocab*l.In)
		grad := b.floats(base)
		b.d.EmbedBackward(grad, b.floats(dx), b.ints(tokens), l.In)
		sum, size := wide(base), make([]float64, len(base))
		for i, v := range sum {
			size[i] = math.Abs(v)
		}
		for i, token := range tokens {
			for c := range l.In {
				sum[int(token)*l.In+c] += float64(dx[i*l.In+c])
				size[int(token)*l.In+c] += math.Abs(float64(dx[i*l.In+c]))
			}
		}
		near(b.t, "gradient of the embedding", b.download(grad), sum, size, 1e-5, l.In)
	}
}

// reciprocalRMS is 1 / rms(x) of one row.
func reciprocalRMS(x []float32, eps float64) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return 1 / math.Sqrt(sum/float64(len(x))+eps)
}

// normalized is gain * x / rms(x) of one row, rotated, and its signs.
func normalized(x, gain []float32, rotation int) (a []float64, signs []int) {
	r := reciprocalRMS(x, eps)
	a, signs = make([]float64, len(x)), make([]int, len(x))
	for i, v := range x {
		a[i] = float64(gain[i]) * float64(v)
	}
	hadamard(a, rotation)
	if rotation > 1 {
		r *= 1 / math.Sqrt(float64(rotation))
	}
	for i := range a {
		signs[i] = signOf(a[i])
		a[i] *= r
	}
	return a, signs
}

// hadamard multiplies blocks of v by the Hadamard matrix of ±1.
func hadamard(v []float64, block int) {
	for n := 1; n < block; n *= 2 {
		for i := range v {
			if i&n == 0 {
				v[i], v[i+n] = v[i]+v[i+n], v[i]-v[i+n]
			}
		}
	}
}

// rotation is 0 or the size of blocks that rows of a width may have.
func (b *bench) rotation(width int) int {
	if b.r.IntN(3) == 0 {
		return 0
	}
	return 1 << b.r.IntN(bits.TrailingZeros(uint(width))+1)
}

const eps = 1e-5

func testNormalize(b *bench) {
	for i, bits := range []int{1, 2, 3, 4, 5, 8, 16, 2, 3, 4, 1, 4, 16, 4, 1, 8} {
		rows, width := b.size(200), b.size(1200)
		if i > 6 {
			width = 128 * (1 + b.r.IntN(16))
		}
		x, gain, n := b.normals(rows*width), b.normals(width), kernels.RMSNorm{Eps: eps, Rotation: b.rotation(width)}
		for i := range x {
			if b.r.IntN(50) == 0 {
				x[i] = float32(math.Copysign(0, float64(x[i])))
			}
		}
		if i%2 == 0 { // sums that cancel
			for i := range x {
				x[i] = float32(b.r.IntN(7)-3) * 0.3
			}
			copy(gain, onesOf(width))
		}
		n.Gain = b.floats(gain)
		what := fmt.Sprintf("%d × %d in %d bits, rotation %d", rows, width, bits, n.Rotation)
		out := kernels.Activation{}
		if bits == 16 {
			out.Floats = b.poisoned(rows * width)
		} else {
			out = b.activation(rows, width, bits) // other values, to be overwritten
		}
		b.d.Normalize(out, b.floats(x), n)
		want, size, levels := make([]float64, rows*width), make([]float64, rows*width), make([]int, rows*width)
		for r := range rows {
			values, signs := normalized(x[r*width:][:width], gain, n.Rotation)
			for i, a := range values {
				at := r*width + i
				want[at], size[at] = a, math.Abs(a)
				if bits == 16 {
					continue
				}
				half := math.Ldexp(1, bits-1)
				index := min(max(math.RoundToEven(a/(2.5/half)-0.5)+half, 0), 2*half-1)
				levels[at] = 2*int(index) - (1<<bits - 1)
				if bits == 1 {
					levels[at] = signs[i]
				}
			}
		}
		if bits == 16 {
			near(b.t, what, b.download(out.Floats), want, size, 1e-6, width)
		} else {
			same(b.t, what, b.integers(out.Planes), levels, width)
		}
	}
}

func testNormalizeBackward(b *bench) {
	for _, bits := range []int{1, 4, 16} {
		for _, width := range []int{b.size(256), b.size(1100), 2300, 128 * (1 + b.r.IntN(8)), 256 * (5 + b.r.IntN(4)), 64} {
			rows, rotation := b.size(150), b.rotation(width)
			limit := map[int]float64{1: 1, 4: 2.5, 16: math.Inf(1)}[bits]
			x, gain, dOut := b.normals(rows*width), b.normals(width), b.normals(rows*width)
			base, baseGain := b.normals(rows*width), b.normals(width)
			dx, dGain := b.floats(base), b.floats(baseGain)
			b.d.NormalizeBackward(dx, dGain, b.floats(dOut), b.floats(x),
				kernels.RMSNorm{Gain: b.floats(gain), Eps: eps, Rotation: rotation}, kernels.MidRise(bits))
			wantX, wantGain := wide(base), wide(baseGain)
			for r := range rows {
				row := x[r*width:][:width]
				addNormalizedGradient(wantX[r*width:][:width], wantGain, make([]float64, width), dOut[r*width:][:width], row,
					gain, rotation, limit)
			}
			what := fmt.Sprintf("%d × %d, %d bits, rotation %d", rows, width, bits, rotation)
			norms(b.t, what+": dx", b.download(dx), wantX, 1e-6)
			norms(b.t, what+": dgain", b.download(dGain), wantGain, 1e-6)
		}
	}
}

// addNormalizedGradient is the oracle of NormalizeBackward for one row. size receives the sizes of what is added to
// dGain.
func addNormalizedGradient(dx, dGain, size []float64, dOut, x, gain []float32, rotation int, limit float64) {
	r, width, dot := reciprocalRMS(x, eps), len(x), 0.0
	passed := make([]float64, width)
	values, _ := normalized(x, gain, rotation)
	for i, a := range values {
		if math.Abs(a) <= limit {
			passed[i] = float64(dOut[i])
		}
	}
	hadamard(passed, rotation)
	for i, v := range x {
		passed[i] /= math.Sqrt(float64(max(rotation, 1)))
		dot += passed[i] * float64(gain[i]) * float64(v)
		dGain[i] += passed[i] * float64(v) * r
		size[i] += math.Abs(passed[i] * float64(v) * r)
	}
	for i, v := range x {
		dx[i] += r * (passed[i]*float64(gain[i]) - float64(v)*r*r/float64(width)*dot)
	}
}

func testAdamW(b *bench) {
	const n = 3001
	for variant := range 8 {
		param, grad, m, v := b.normals(n), b.normals(n), b.scaled(n, 0.1), b.normals(n)
		for i := range v {
			v[i] *= v[i]
		}
		a := kernels.Adam{Param: b.floats(param), Grad: b.floats(grad), M: b.floats(m), V: b.floats(v), Beta1: 0.9,
			Beta2: 0.95, Eps: 1e-8, Decays: variant&4 == 0}
		clip := 1.0
		if variant&1 == 1 {
			a.SquaredNorm, a.MaxNorm = b.floats([]float32{900}), 3
			clip = 3 / (30 + 1e-6)
		}
		if variant&2 == 2 {
			a.Master = b.floats(param)
		}
		s := kernels.Scalars{LearningRate: 0.02, Correction1: 1 - math.Pow(0.9, 7), Correction2: 1 - math.Pow(0.95, 7),
			Decay: 0.1}
		decay := s.Decay
		if !a.Decays {
			decay = 0
		}
		b.d.SetScalars(s)
		b.d.AdamW(a)
		want, size := make([]float64, n), make([]float64, n)
		for i := range want {
			g := float64(grad[i]) * clip
			mean, square := 0.9*float64(m[i])+0.1*g, 0.95*float64(v[i])+0.05*g*g
			denominator := math.Sqrt(square)/math.Sqrt(s.Correction2) + a.Eps
			want[i] = float64(param[i])*(1-s.LearningRate*decay) - s.LearningRate/s.Correction1*mean/denominator
			size[i] = math.Abs(float64(param[i])) + s.LearningRate/s.Correction1*
				(0.9*math.Abs(float64(m[i]))+0.1*math.Abs(g))/denominator
		}
		updated := a.Param
		if a.Master != nil {
			updated = a.Master
			rounded := b.download(a.Master)
			for i, x := range rounded {
				rounded[i] = roundToFloat16(x)
			}
			same(b.t, "parameters rounded to float16", b.download(a.Param), rounded, n)
		}
		near(b.t, "parameters", b.download(updated), want, size, 1e-6, n)
	}
}
