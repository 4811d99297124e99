package devicetest

import (
	"fmt"
	"math"
	"math/bits"

	"bitnet1/kernels"
	"bitnet1/kernels/number/float16"
	"bitnet1/kernels/number/philox"
)

func roundToFloat16(x float32) float32 { return float16.Round(x) }

// product is Σ_k x_rk w_ok with w the effective weight: exact where both are integers.
func (l linear) product(x []float64, r, o int) (sum, size float64) {
	for k, v := range x[r*l.In:][:l.In] {
		term := v * l.effective[o*l.In+k]
		sum += term
		size += math.Abs(term)
	}
	return sum, size
}

// output is u of row r and channel o, computed in float32, and a bound on what another order of sums may change.
func (l linear) output(x []float64, r, o int, s keyShift) (u float32, slack float64) {
	var y float32
	var size float64
	for _, from := range sources(r, o, s) {
		sum, terms := l.product(x, from, o)
		y += float32(sum)
		size += terms
	}
	u = float32(l.alpha[o]*y) - l.theta[o]
	return u, 1e-5*math.Abs(float64(l.alpha[o]))*size + 1e-6*math.Abs(float64(l.theta[o]))
}

// shapes of a linear's input and output, and the bits of its input.
type shape struct{ rows, in, out, bits int }

func (b *bench) shapes() []shape {
	list := []shape{{1, 1, 1, 1}, {128, 256, 256, 1}, {129, 1025, 257, 4}, {300, 128, 520, 4}, {64, 70, 100, 8},
		{70, 1100, 64, 2}}
	for range 5 {
		list = append(list, shape{b.size(400), b.size(700), b.size(600), 1 + b.r.IntN(8)})
	}
	return append(list, shape{50, 100, 70, 16}, shape{132, 68, 76, 16})
}

// keyShift is a K-shift and, if it has Starts, the positions where the documents of its rows start.
type keyShift struct {
	kernels.KShift
	starts []int32
}

// start is the position at which the document of row n starts.
func (s keyShift) start(n int) int {
	if s.starts == nil {
		return 0
	}
	return int(s.starts[n])
}

// shift makes a random K-shift for sequences that are one document each or, if several, hold more.
func (b *bench) shift(rows, out int, several bool) (s keyShift) {
	seq := rows
	for _, n := range []int{7, 5, 3, 2} {
		if rows%n == 0 {
			seq = rows / n
		}
	}
	from := b.r.IntN(out)
	s.KShift = kernels.KShift{From: from, To: from + 1 + b.r.IntN(out-from), Offset: b.r.IntN(3),
		Self: b.r.IntN(2) == 0, Seq: seq}
	if several {
		s.starts = b.starts(rows/seq, seq)
		s.Starts = b.ints(s.starts)
	}
	return s
}

func testLinearAdd(b *bench) {
	for i, c := range b.shapes() {
		mix := 1.0
		if i%3 == 2 && c.rows*c.in*c.out < 1<<22 {
			mix = 0.3
		}
		input := b.inputOf(c.bits)
		l, x := b.newLinearOf(c.in, c.out, mix, b.weightOf()), b.activationOf(c.rows, c.in, input)
		b.unpleasant(&l)
		residual := b.normals(c.rows * c.out)
		plain, added := b.poisoned(c.rows*c.out), b.poisoned(c.rows*c.out)
		inPlace := b.floats(residual)
		b.d.LinearAdd(plain, nil, x, l.Linear)
		b.d.LinearAdd(added, inPlace, x, l.Linear)
		b.d.LinearAdd(inPlace, inPlace, x, l.Linear)
		want, sum, size := make([]float64, len(residual)), make([]float64, len(residual)),
			make([]float64, len(residual))
		p := b.preactivations(l, x, c.rows, keyShift{})
		for i, u := range p.u {
			theta := float64(l.theta[i%c.out])
			want[i] = float64(u)
			sum[i] = float64(residual[i]) + want[i]
			size[i] = math.Abs(want[i]+theta) + math.Abs(theta) + math.Abs(float64(residual[i])) + 1e5*p.slack[i]
		}
		what := fmt.Sprintf("%d rows of %v, %v", c.rows, input, l)
		near(b.t, what, b.download(plain), want, size, 1e-6, c.out)
		near(b.t, what+", residual", b.download(added), sum, size, 1e-6, c.out)
		near(b.t, what+", in place", b.download(inPlace), sum, size, 1e-6, c.out)
	}
}

// rounded is what the contract makes of a gradient: integers for dx and for the weights, and their scales.
type rounded struct {
	q, w                  []float64 // rows × out
	rowScale, columnScale []float32
}

// floatGradients are multiplied as they are.
var floatGradients = roundedTo(kernels.FloatBits, kernels.FloatBits)

// roundedTo is gradients of so many bits for dx, and of so many for weights.
func roundedTo(input, weight int) kernels.GradBits {
	return kernels.GradBits{Input: input, Weight: weight}
}

// largestInteger is n of the contract.
func largestInteger(bits int) float32 { return float32(int(1)<<(bits-1) - 1) }

// round follows the contract of package kernels word by word. g is rows × out.
func round(g, alpha []float32, rows, out int, grad kernels.GradBits, id uint16, s kernels.Scalars) rounded {
	forRows, forColumns := largestInteger(grad.Input), largestInteger(grad.Weight)
	v := rounded{make([]float64, rows*out), make([]float64, rows*out), make([]float32, rows), make([]float32, out)}
	rowMax, columnMax := make([]float32, rows), make([]float32, out)
	for i, x := range g {
		t, c := i/out, i%out
		rowMax[t] = max(rowMax[t], float32(math.Abs(float64(float32(alpha[c]*x)))))
		columnMax[c] = max(columnMax[c], float32(math.Abs(float64(x))))
	}
	inverse := func(most, n float32) float32 {
		if most < 1e-30 {
			return 0
		}
		return float32(n/most) * (1 - 1./(1<<22))
	}
	for i, x := range g {
		t, c := i/out, i%out
		r := randomNumber(t, c, out, id, s)
		v.q[i] = roundOne(float32(alpha[c]*x), inverse(rowMax[t], forRows), r)
		v.w[i] = roundOne(x, inverse(columnMax[c], forColumns), r)
	}
	for t, most := range rowMax {
		v.rowScale[t] = most / forRows
	}
	for c, most := range columnMax {
		v.columnScale[c] = most / forColumns
	}
	return v
}

// randomNumber is 2^32 r for row t and channel c.
func randomNumber(t, c, out int, id uint16, s kernels.Scalars) uint32 {
	block := philox.Block(philox.Key(s.Seed^kernels.RoundingSeed),
		[4]uint32{uint32(t*((out+7)/8) + c/8), uint32(id) | s.Micro<<16, uint32(s.Step), uint32(s.Step >> 32)})
	word := block[c%8/2]
	if c%2 == 0 {
		return bits.RotateLeft32(word, 16)
	}
	return word
}

// roundOne is floor(v * inverse + r) with an exact sum: both terms are counted in units of 2^-32. Less than one unit
// decides nothing.
func roundOne(v, inverse float32, r uint32) float64 {
	const one = 1 << 32
	units := int64(math.Floor(float64(float32(v*inverse))*one)) + int64(r)
	return float64(units >> 32)
}

// gradients are the results of LinearBackward, each with the sum of the magnitudes of its terms.
type gradients struct {
	dx, weight, alpha, theta                 []float64
	dxSize, weightSize, alphaSize, thetaSize []float64
}

// backward is the oracle of LinearBackward. g is the gradient of the plain product in float32, u that of the output.
func (l linear) backward(g, u []float32, x []float64, floatInput bool, rows int, grad kernels.GradBits,
	s kernels.Scalars) gradients {
	v := gradients{
		make([]float64, rows*l.In), make([]float64, l.Out*l.In), make([]float64, l.Out), make([]float64, l.Out),
		make([]float64, rows*l.In), make([]float64, l.Out*l.In), make([]float64, l.Out), make([]float64, l.Out),
	}
	// What dx and the weights are sums of: factor_row * factor_channel * (element).
	forX, forW := wide(g), wide(g)
	rowScale, columnScale := make([]float32, rows), make([]float32, l.Out)
	for i := range forX {
		forX[i] *= float64(l.alpha[i%l.Out])
	}
	for i := range rowScale {
		rowScale[i] = 1
	}
	for i := range columnScale {
		columnScale[i] = 1
	}
	if grad.Rounded() {
		r := round(g, l.alpha, rows, l.Out, grad, l.ID, s)
		if l.Mixed == nil {
			forX, rowScale = r.q, r.rowScale
		}
		if !floatInput {
			forW, columnScale = r.w, r.columnScale
		}
	}
	sums := make([]float64, l.Out*l.In)
	for t := range rows {
		for c := range l.Out {
			i := t*l.Out + c
			v.theta[c] -= float64(u[i])
			v.thetaSize[c] += math.Abs(float64(u[i]))
			for k := range l.In {
				term := float64(rowScale[t]) * forX[i] * l.effective[c*l.In+k]
				v.dx[t*l.In+k] += term
				v.dxSize[t*l.In+k] += math.Abs(term)
				term = float64(columnScale[c]) * forW[i] * x[t*l.In+k]
				sums[c*l.In+k] += term
				v.weightSize[c*l.In+k] += math.Abs(term)
			}
		}
	}
	for c := range l.Out {
		for k := range l.In {
			i := c*l.In + k
			v.weight[i] = float64(l.alpha[c]) * sums[i]
			v.alpha[c] += l.effective[i] * sums[i]
			v.alphaSize[c] += math.Abs(l.effective[i]) * v.weightSize[i]
			v.weightSize[i] *= math.Abs(float64(l.alpha[c]))
		}
	}
	return v
}

func testLinearBackward(b *bench) {
	for i, c := range []struct {
		rows, in, out, bits int
		grad                kernels.GradBits
		mix                 float64
	}{
		{60, 37, 29, 1, floatGradients, 1}, {60, 128, 256, 1, roundedTo(4, 4), 1},
		{300, 65, 130, 4, roundedTo(4, 4), 1}, {259, 130, 257, 2, roundedTo(3, 3), 1},
		{513, 70, 65, 8, roundedTo(8, 8), 1},
		{33, 300, 70, 3, roundedTo(2, 2), 1}, {140, 64, 64, 16, roundedTo(4, 4), 1},
		{75, 50, 60, 4, roundedTo(4, 4), 0.5}, {90, 41, 53, 16, floatGradients, 1},
		{77, 33, 129, 1, floatGradients, 0.2}, {68, 36, 100, 1, floatGradients, 1},
		{132, 196, 140, 1, floatGradients, 0.4},
		{1, 1, 1, 1, roundedTo(5, 5), 1}, {300, 300, 260, 1, roundedTo(4, 8), 1},
		{259, 130, 257, 4, roundedTo(4, 8), 1},
		{270, 130, 129, 1, roundedTo(7, 3), 1}, {140, 64, 270, 3, roundedTo(8, 4), 1},
		{75, 50, 60, 4, roundedTo(3, 6), 0.5},
		{b.size(300), b.size(200), b.size(200), 1 + b.r.IntN(8), roundedTo(2+b.r.IntN(7), 2+b.r.IntN(7)), 1},
		{b.size(300), b.size(200), b.size(200), 1, roundedTo(4, 4), 1},
	} {
		input := b.inputOf(c.bits)
		l, x := b.newLinearOf(c.in, c.out, c.mix, b.weightOf()), b.activationOf(c.rows, c.in, input)
		shift := keyShift{}
		if i%3 == 1 {
			shift = b.shift(c.rows, c.out, i%2 == 0)
		}
		dy := b.scaled(c.rows*c.out, 1e-3)
		for j := range dy {
			if b.r.IntN(10) == 0 {
				dy[j] *= 50
			}
			if j/c.out == 2 || j%c.out == 1 {
				dy[j] = 0 // a row and a channel without any gradient
			}
		}
		u := append([]float32(nil), dy...)
		derivative := b.derivative(c.rows, c.out, i%4)
		b.derive(u, derivative)
		s := kernels.Scalars{Seed: b.r.Uint64(), Step: b.r.Uint64(), Micro: uint32(b.r.IntN(1 << 16)), Mix: c.mix}
		b.d.SetScalars(s)
		base := gradients{weight: wide(b.scaled(c.out*c.in, 1e-3)), alpha: wide(b.scaled(c.out, 1e-3)),
			theta: wide(b.scaled(c.out, 1e-3))}
		dx := b.poisoned(c.rows * c.in)
		dl := kernels.LinearGradient{Weight: b.floats(narrow(base.weight)), Alpha: b.floats(narrow(base.alpha)),
			Theta: b.floats(narrow(base.theta))}
		b.d.LinearBackward(dx, dl, b.floats(dy), derivative, x, l.Linear, shift.KShift, c.grad)

		want := l.backward(unshift(u, c.rows, c.out, shift), u, b.values(x), c.bits == 16, c.rows, c.grad, s)
		what := fmt.Sprintf("%d rows of %v, %v, shift %+v, derivative %d, gradients of %v bits", c.rows, input, l, shift,
			i%4, c.grad)
		b.unwanted(what, dx, dl.Theta, narrow(base.theta), func(dx kernels.Floats, dl kernels.LinearGradient) {
			b.d.LinearBackward(dx, dl, b.floats(dy), derivative, x, l.Linear, shift.KShift, c.grad)
		})
		tolerance := 2e-6
		near(b.t, what+": dx", b.download(dx), want.dx, want.dxSize, tolerance, c.in)
		near(b.t, what+": weights", b.download(dl.Weight), plus(want.weight, base.weight),
			plusSize(want.weightSize, base.weight), tolerance, c.in)
		near(b.t, what+": alpha", b.download(dl.Alpha), plus(want.alpha, base.alpha),
			plusSize(want.alphaSize, base.alpha), tolerance, c.out)
		near(b.t, what+": theta", b.download(dl.Theta), plus(want.theta, base.theta),
			plusSize(want.thetaSize, base.theta), tolerance, c.out)
	}
}

// derivative is, by kind, a mask, nothing, factors in float32, and factors in bfloat16.
func (b *bench) derivative(rows, cols, kind int) kernels.Derivative {
	factors := b.normals(rows * cols)
	for i := range factors {
		if factors[i] = 2 * float32(math.Abs(float64(factors[i]))); factors[i] > 4 || b.r.IntN(2) == 0 {
			factors[i] = 0
		}
	}
	switch kind {
	case 0:
		return kernels.Derivative{Mask: b.signs(rows, cols)}
	case 2:
		return kernels.Derivative{Factors: b.floats(factors)}
	case 3:
		return kernels.Derivative{Factors: b.bfloats(factors)}
	}
	return kernels.Derivative{}
}

// derive applies a derivative to the gradient u.
func (b *bench) derive(u []float32, derivative kernels.Derivative) {
	if derivative.Mask != nil {
		for i, s := range b.integers(derivative.Mask) {
			if s < 0 {
				u[i] = 0
			}
		}
	}
	if derivative.Factors != nil {
		for i, f := range b.download(derivative.Factors) {
			u[i] *= f
		}
	}
}

// unwanted repeats a backward pass without the gradients that need products, and without any gradients. dx and dTheta,
// which began as base, must be those of the whole pass.
func (b *bench) unwanted(what string, dx, dTheta kernels.Floats, base []float32,
	backward func(dx kernels.Floats, dl kernels.LinearGradient)) {
	b.t.Helper()
	theta := b.floats(base)
	for _, dl := range []kernels.LinearGradient{{Theta: theta}, {}} {
		alone := b.poisoned(dx.Len())
		backward(alone, dl)
		same(b.t, what+": dx without the weights' gradients", b.download(alone), b.download(dx), 1)
	}
	same(b.t, what+": theta without the weights' gradients", b.download(theta), b.download(dTheta), 1)
}

// unshift returns the gradient of the plain products, given u, the gradient of the shifted ones: g[t] = u[t] (if Self)
// + u[t+Offset].
func unshift(u []float32, rows, out int, s keyShift) []float32 {
	if s.To <= s.From {
		return u
	}
	g := append([]float32(nil), u...)
	for t := range rows {
		for c := s.From; c < s.To; c++ {
			sum := float32(0)
			if s.Self {
				sum = u[t*out+c]
			}
			if at := t % s.Seq; at+s.Offset < s.Seq && at >= s.start(t+s.Offset) {
				sum += u[(t+s.Offset)*out+c]
			}
			g[t*out+c] = sum
		}
	}
	return g
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

func plus(x, y []float64) []float64 {
	sum := make([]float64, len(x))
	for i := range x {
		sum[i] = x[i] + y[i]
	}
	return sum
}

func plusSize(size, y []float64) []float64 {
	sum := make([]float64, len(size))
	for i := range size {
		sum[i] = size[i] + math.Abs(y[i])
	}
	return sum
}

// Equal inputs give equal bits.
func testDeterminism(b *bench) {
	const rows, in, out = 700, 130, 260
	for _, grad := range []kernels.GradBits{roundedTo(4, 8), floatGradients} {
		l, x, dy := b.newLinear(in, out, 1), b.activation(rows, in, 4), b.floats(b.normals(rows*out))
		b.d.SetScalars(kernels.Scalars{Seed: 5})
		var first [4][]float32
		for range 3 {
			dx := b.poisoned(rows * in)
			dl := kernels.LinearGradient{Weight: b.floats(make([]float32, in*out)),
				Alpha: b.floats(make([]float32, out)), Theta: b.floats(make([]float32, out))}
			b.d.LinearBackward(dx, dl, dy, passes, x, l.Linear, kernels.KShift{}, grad)
			for i, v := range []kernels.Floats{dx, dl.Weight, dl.Alpha, dl.Theta} {
				got := b.download(v)
				if first[i] == nil {
					first[i] = got
				}
				same(b.t, fmt.Sprintf("gradient %d of the same inputs, %v bits", i, grad), got, first[i], len(got))
			}
		}
	}
}

// Rounded gradients of very many channels add up to more than 2^22.
func testWideSums(b *bench) {
	const rows, in, out = 3, 16, 50304
	signs, err := b.d.NewPlanes(out, in, kernels.Sign())
	b.must(err)
	ones := make([]float32, out*max(in, rows))
	for i := range ones {
		ones[i] = 1
	}
	l := kernels.Linear{In: in, Out: out, Weight: b.floats(ones[:out*in]), Quantized: signs, Alpha: b.floats(ones[:out]),
		Theta: b.floats(ones[:out])}
	b.d.Quantize(l)
	x := kernels.Activation{Planes: b.signs(rows, in)}
	for name, dx := range map[string]kernels.Floats{"floats": b.poisoned(rows * in),
		"bfloats": b.poisonedBFloats(rows * in)} {
		dy := b.floats(ones[:rows*out])
		if name == "bfloats" {
			dy = b.bfloats(ones[:rows*out])
		}
		b.d.LinearBackward(dx, kernels.LinearGradient{}, dy, passes, x, l, kernels.KShift{}, roundedTo(8, 8))
		for i, v := range b.download(dx) {
			if math.Abs(float64(v)-out) > 0.005*out {
				b.t.Fatalf("%s: entry %d of the input's gradient is %g, want about %d", name, i, v, out)
			}
		}
	}
}
