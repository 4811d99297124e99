package devicetest

import (
	"fmt"
	"math"

	"bitnet1/kernels"
)

// AdamW divides a gradient by its own size, and an output's sign may hang on any remainder. So what is zero in exact
// arithmetic must be zero, and not noise.

// The gradients of a query's scores add up to zero, so a query whose keys are all equal has none.
func testEqualKeys(b *bench) {
	for i, a := range []kernels.Attention{
		{Kind: kernels.RWSP, HeadDim: 40, Survivors: 4}, {Kind: kernels.RWSP, HeadDim: 64, Survivors: 4},
		{Kind: kernels.RWSP, HeadDim: 100, Survivors: 3},
		{Kind: kernels.RWSP, HeadDim: 40, Survivors: 7}, {Kind: kernels.Softmax, HeadDim: 64, Survivors: 1},
		{Kind: kernels.Pointer, HeadDim: 40, Survivors: 1},
		{Kind: kernels.Pointer, HeadDim: 64, Survivors: 1, Gumbel: true},
	} {
		a.Batch, a.Seq, a.Heads, a.Alibi = 2, 20, 3, true
		b.d.SetScalars(kernels.Scalars{Gamma: 0.7, Tau: 0.8})
		rows, width := a.Batch*a.Seq, a.Heads*a.HeadDim
		equal := b.normals(rows * width)
		for n := range rows {
			copy(equal[n*width:][:width], equal)
		}
		queries, keys := b.activation(rows, width, 1+i%2*3).Planes, b.signsOf(equal, rows, width)
		values := b.signs(rows, width)
		pointers := b.ints(make([]int32, rows*a.Heads*a.Survivors))
		b.d.Attend(b.signs(rows, width), pointers, queries, keys, values, a)
		dqkv := b.poisoned(rows * 3 * width)
		b.d.AttendBackward(dqkv, b.floats(b.normals(rows*width)), queries, keys, values, pointers, a)
		for i, v := range b.download(dqkv) {
			if i%(3*width) < width && !(math.Abs(float64(v)) <= 1e-14) {
				b.t.Errorf("%+v: a query's gradient is %g where all keys are equal", a, v)
				break
			}
		}
	}
}

// repeated are rows whose second half repeats the first, rotated by the row's number.
func (b *bench) repeated(rows, cols int) []float32 {
	x := b.normals(rows * cols)
	for n := range rows {
		row := x[n*cols:][:cols]
		for c := range cols / 2 {
			row[cols/2+(c+n)%(cols/2)] = row[c]
		}
	}
	return x
}

// opposite is a linear whose channels subtract the second half of their input from the first.
func (b *bench) opposite(in, out int) kernels.Linear {
	weight := make([]float32, out*in)
	for i := range weight {
		weight[i] = float32(1 - 2*(i%in/(in/2)))
	}
	signs, err := b.d.NewPlanes(out, in, kernels.Sign())
	b.must(err)
	l := kernels.Linear{In: in, Out: out, Weight: b.floats(weight), Quantized: signs, Alpha: b.floats(b.normals(out)),
		Theta: b.floats(make([]float32, out))}
	b.d.Quantize(l)
	return l
}

// A scale whose products are all zero has no gradient.
func testUnusedScale(b *bench) {
	const rows, in, out = 30, 90, 20
	x, l := b.signsOf(b.repeated(rows, in), rows, in), b.opposite(in, out)
	dl := kernels.LinearGradient{Weight: b.floats(make([]float32, out*in)), Alpha: b.floats(make([]float32, out)),
		Theta: b.floats(make([]float32, out))}
	b.d.LinearBackward(b.poisoned(rows*in), dl, b.floats(b.normals(rows*out)), passes, kernels.Activation{Planes: x}, l,
		kernels.KShift{}, floatGradients)
	for o, v := range b.download(dl.Alpha) {
		if !(math.Abs(float64(v)) <= 1e-12) {
			b.t.Errorf("channel %d: the scale of products that are zero has gradient %g", o, v)
		}
	}
}

// Where values of one size cancel, the product is zero and its sign +1.
func testCancelledOutput(b *bench) {
	const rows, in, out = 30, 90, 20
	x, l := b.repeated(rows, in), b.opposite(in, out)
	for i, v := range x {
		x[i] = float32(math.Copysign(0.7234567, float64(v)))
	}
	sign := b.signs(rows, out)
	b.d.LinearQuantize([]kernels.Planes{sign}, kernels.Derivative{}, kernels.Activation{Floats: b.floats(x)},
		l, kernels.KShift{})
	want := make([]int, rows*out)
	for i := range want {
		want[i] = 1
	}
	same(b.t, fmt.Sprintf("signs of %d × %d outputs that are zero", rows, out), b.integers(sign), want, out)
}
