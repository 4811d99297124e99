package devicetest

import (
	"fmt"
	"math"

	"bitnet1/kernels"
)

// bfloat rounds x to 8 significant bits, to nearest, ties to even. Below 2^-126 the unit is 2^-133.
func bfloat(x float32) float32 {
	if v := float64(x); x != 0 && !math.IsInf(v, 0) && x == x {
		_, exponent := math.Frexp(v)
		unit := math.Ldexp(1, max(exponent-8, -133))
		v = math.Copysign(math.RoundToEven(v/unit)*unit, v)
		if math.Abs(v) >= math.Ldexp(1, 128) {
			v = math.Inf(int(math.Copysign(1, v)))
		}
		x = float32(v)
	}
	return x
}

func bfloatsOf(x []float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = bfloat(v)
	}
	return y
}

// bfloats uploads values to memory that keeps bfloat16.
func (b *bench) bfloats(values []float32) kernels.Floats {
	b.t.Helper()
	x, err := b.d.NewBFloats(len(values))
	b.must(err)
	b.d.Upload(x, values)
	return x
}

func (b *bench) poisonedBFloats(n int) kernels.Floats {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.NaN())
	}
	return b.bfloats(x)
}

func testBFloats(b *bench) {
	fresh, err := b.d.NewBFloats(1001)
	b.must(err)
	same(b.t, "fresh bfloats", b.download(fresh), make([]float32, 1001), 1001)
	values := b.normals(999)
	for i := range values {
		if b.r.IntN(2) == 0 { // any bits, and half of those near a tie
			bits := b.r.Uint32()
			if bits&1 == 0 {
				bits = bits&^0xffff | 0x7fff + uint32(b.r.IntN(3))
			}
			values[i] = math.Float32frombits(bits)
		}
		if values[i] != values[i] {
			values[i] = 0
		}
	}
	copy(values, []float32{1.00390625, 1.01171875, math.MaxFloat32, float32(math.Inf(-1)),
		float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32})
	want := bfloatsOf(values)
	x := b.bfloats(values)
	same(b.t, "uploaded bfloats", bitsOf(b.download(x)), bitsOf(want), len(want))
	b.d.Upload(x.Slice(101, 300), []float32{1.001, 2.002})
	b.d.Zero(x.Slice(103, 110).Slice(0, 4))
	copy(want[101:], []float32{bfloat(1.001), bfloat(2.002), 0, 0, 0, 0})
	same(b.t, "changed bfloats", bitsOf(b.download(x)), bitsOf(want), len(want))
	same(b.t, "a part of bfloats", b.download(x.Slice(99, 120)), want[99:120], 21)
	if got := b.download(b.bfloats([]float32{float32(math.NaN()),
		math.Float32frombits(0xff800001)})); got[0] == got[0] || got[1] == got[1] {
		b.t.Errorf("NaN became %v", got)
	}
	if _, err := b.d.NewBFloats(-1); err == nil {
		b.t.Error("-1 bfloats were allocated")
	}
}

func bitsOf(x []float32) []uint32 {
	y := make([]uint32, len(x))
	for i, v := range x {
		y[i] = math.Float32bits(v)
	}
	return y
}

// Given bfloat16 gradients, an operation computes what it computes from float32 gradients of the same values. Where it
// writes bfloat16, it rounds what it writes as float32.
func testBFloatGradients(b *bench) {
	for i, c := range []struct {
		rows, in, out, bits int
		grad                kernels.GradBits
		mix                 float64
	}{
		{256, 512, 256, 4, roundedTo(4, 4), 1}, {256, 512, 256, 4, roundedTo(4, 8), 1},
		{256, 256, 512, 1, roundedTo(3, 8), 1}, {300, 256, 520, 1, roundedTo(4, 4), 1},
		{60, 37, 29, 1, roundedTo(4, 4), 1}, {513, 70, 65, 8, roundedTo(8, 8), 1},
		{140, 64, 64, 16, roundedTo(4, 4), 1}, {75, 50, 60, 4, roundedTo(4, 4), 0.5},
		{90, 41, 53, 4, floatGradients, 1},
		{b.size(300), b.size(200), b.size(200), 1 + b.r.IntN(8), roundedTo(2+b.r.IntN(7), 2+b.r.IntN(7)), 1},
		{b.size(300), 4 * b.size(100), 4 * b.size(100), 4, roundedTo(4, 4), 1},
	} {
		input := b.inputOf(c.bits)
		l, x := b.newLinearOf(c.in, c.out, c.mix, b.weightOf()), b.activationOf(c.rows, c.in, input)
		shift := keyShift{}
		if i%3 == 1 {
			shift = b.shift(c.rows, c.out, i%2 == 0)
		}
		derivative := b.derivative(c.rows, c.out, i%4)
		targets := make([]int32, c.rows)
		for i := range targets {
			targets[i] = int32(b.r.IntN(c.out))
		}
		b.d.SetScalars(kernels.Scalars{Seed: b.r.Uint64(), Step: 3, Mix: c.mix, GradScale: 1e-3})
		what := fmt.Sprintf("%d rows of %v, %v, shift %+v, derivative %d, gradients of %v bits", c.rows, input, l, shift,
			i%4, c.grad)
		empty := func() kernels.LinearGradient {
			return kernels.LinearGradient{Weight: b.floats(make([]float32, c.in*c.out)),
				Alpha: b.floats(make([]float32, c.out)), Theta: b.floats(make([]float32, c.out))}
		}
		b.agree(what, c.rows*c.in, b.scaled(c.rows*c.out, 1e-3), func(dx, dy kernels.Floats) []kernels.Floats {
			dl := empty()
			b.d.LinearBackward(dx, dl, dy, derivative, x, l.Linear, shift.KShift, c.grad)
			return []kernels.Floats{dl.Weight, dl.Alpha, dl.Theta}
		})
		b.agree("loss of "+what, c.rows*c.in, nil, func(dx, _ kernels.Floats) []kernels.Floats {
			dl, losses := empty(), b.poisoned(c.rows)
			b.d.CrossEntropyBackward(losses, dx, dl, x, l.Linear, b.ints(targets), c.grad)
			return []kernels.Floats{dl.Weight, dl.Alpha, dl.Theta, losses}
		})
	}
	for _, a := range b.readings() {
		v, queries, keys, values := b.reading(a)
		rows, width := v.Batch*v.Seq, v.Heads*v.HeadDim
		pointers := b.ints(make([]int32, v.Batch*v.Heads*v.Seq*v.Survivors))
		b.d.Attend(b.signs(rows, width), pointers, queries, keys, values, v.Attention)
		if v.rule.SoftmaxOverAll {
			dOut := bfloatsOf(b.normals(rows * width))
			plain, small := b.poisoned(3*rows*width), b.poisonedBFloats(3*rows*width)
			b.d.AttendBackward(plain, b.floats(dOut), queries, keys, values, pointers, v.Attention)
			b.d.AttendBackward(small, b.bfloats(dOut), queries, keys, values, pointers, v.Attention)
			b.nearParts(fmt.Sprintf("%+v: rounded", a), b.download(small), bfloatsOf(b.download(plain)), width)
			continue
		}
		b.agree(fmt.Sprintf("%+v", a), 3*rows*width, b.normals(rows*width),
			func(dqkv, dOut kernels.Floats) []kernels.Floats {
				b.d.AttendBackward(dqkv, dOut, queries, keys, values, pointers, v.Attention)
				return nil
			})
	}
	for _, width := range []int{b.size(256), 1024, b.size(1100), 1536, 2300} {
		rows := b.size(150)
		x, base := b.floats(b.normals(rows*width)), bfloatsOf(b.normals(rows*width))
		n := kernels.RMSNorm{Gain: b.floats(b.normals(width)), Eps: eps, Rotation: b.rotation(width)}
		b.agree(fmt.Sprintf("%d × %d normalized", rows, width), rows*width, b.normals(rows*width),
			func(dx, dOut kernels.Floats) []kernels.Floats {
				dGain := b.floats(make([]float32, width))
				b.d.Upload(dx, base)
				b.d.NormalizeBackward(dx, dGain, dOut, x, n, kernels.MidRise(4))
				return []kernels.Floats{dGain}
			})
		tokens := make([]int32, rows)
		for i := range tokens {
			tokens[i] = int32(b.r.IntN(20))
		}
		b.agree(fmt.Sprintf("%d × %d embedded", rows, width), 0, b.normals(rows*width),
			func(_, dx kernels.Floats) []kernels.Floats {
				dWeight := b.floats(make([]float32, 20*width))
				b.d.EmbedBackward(dWeight, dx, b.ints(tokens), width)
				return []kernels.Floats{dWeight}
			})
	}
}

// nearParts compares the gradients of queries, of keys and of values by their norms: a few values may be rounded to the
// other neighbour.
func (b *bench) nearParts(what string, got, want []float32, width int) {
	b.t.Helper()
	for part, name := range []string{"queries", "keys", "values"} {
		var g []float32
		var w []float64
		for at := part * width; at < len(want); at += 3 * width {
			g, w = append(g, got[at:at+width]...), append(w, wide(want[at:at+width])...)
		}
		norms(b.t, what+", "+name, g, w, 1e-3)
	}
}

// agree calls f twice, once with float32 memory and once with bfloat16 memory. `from` holds the same values both times,
// those of the argument rounded to bfloat16. f overwrites the n values of `to`: bfloat16 memory must then hold the
// rounded float32 values. What f returns must be the same both times.
func (b *bench) agree(what string, n int, from []float32, f func(to, from kernels.Floats) []kernels.Floats) {
	b.t.Helper()
	from = bfloatsOf(from)
	plain, small := b.poisoned(n), b.poisonedBFloats(n)
	want, got := f(plain, b.floats(from)), f(small, b.bfloats(from))
	if n > 0 {
		same(b.t, what+": rounded", b.download(small), bfloatsOf(b.download(plain)), 1)
	}
	for i := range want {
		same(b.t, fmt.Sprintf("%s: result %d", what, i), b.download(got[i]), b.download(want[i]), 1)
	}
}
