package cpu

import (
	"math"
	"testing"

	"bitnet1/kernels"
)

// AdamW divides a gradient by its own size, so what is zero in exact arithmetic must not be noise.

func TestScoresOfEqualKeysHaveNoGradient(t *testing.T) {
	r := random(8)
	for _, a := range []kernels.Attention{
		{Kind: kernels.RWSP, Survivors: 4}, {Kind: kernels.RWSP, Survivors: 3}, {Kind: kernels.RWSP, Survivors: 7},
		{Kind: kernels.Softmax, Survivors: 1}, {Kind: kernels.Pointer, Survivors: 1},
	} {
		d := New(Options{})
		a.Batch, a.Seq, a.Heads, a.HeadDim, a.Alibi = 2, 20, 3, 40, true
		d.SetScalars(kernels.Scalars{Gamma: 0.7, Tau: 0.8})
		rows, width := a.Batch*a.Seq, a.Heads*a.HeadDim
		qkv, _ := randomPlanes(t, d, r, rows, 3*width, 1)
		for n := range rows { // every key is the first row's
			for c := width; c < 2*width; c++ {
				first, bit := qkv.words[c>>6]>>(c&63)&1, uint64(1)<<(c&63)
				qkv.row(n)[c>>6] = qkv.row(n)[c>>6]&^bit | first<<(c&63)
			}
			qkv.count(n)
		}
		out, _ := d.NewPlanes(rows, width, 1)
		pointers := make(ints, rows*a.Heads*a.Survivors)
		d.Attend(out, pointers, qkv, a)
		dqkv := normals(r, rows*3*width)
		d.AttendBackward(dqkv, normals(r, rows*width), qkv, pointers, a)
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		for i, v := range dqkv {
			if i%(3*width) < width && math.Abs(float64(v)) > 1e-14 {
				t.Fatalf("attention %d, %d survivors: a query's gradient is %g where all keys are equal", a.Kind, a.Survivors, v)
			}
		}
	}
}

func TestFloatGradientOfAnUnusedScaleVanishes(t *testing.T) {
	const rows, in, out = 30, 90, 20
	r, d := random(9), New(Options{})
	x, _ := randomPlanes(t, d, r, rows, in, 1)
	for n := range rows { // the second half repeats the first, turned by n, under opposite weights
		row := x.row(n)
		for c := range in / 2 {
			at, bit := in/2+(c+n)%(in/2), row[c>>6]>>(c&63)&1
			row[at>>6] = row[at>>6]&^(1<<(at&63)) | bit<<(at&63)
		}
		x.count(n)
	}
	weight := make(floats, out*in)
	for i := range weight {
		weight[i] = float32(1 - 2*(i%in/(in/2)))
	}
	signs, _ := d.NewPlanes(out, in, 1)
	l := kernels.Linear{In: in, Out: out, Weight: weight, Signs: signs, Alpha: normals(r, out), Theta: normals(r, out)}
	d.Binarize(l)
	dl := kernels.LinearGradient{Weight: make(floats, out*in), Alpha: make(floats, out), Theta: make(floats, out)}
	dx := normals(r, rows*in)
	d.LinearBackward(dx, dl, normals(r, rows*out), nil, kernels.Activation{Planes: x}, l, kernels.KShift{}, kernels.GradFloat)
	for o, v := range values(dl.Alpha) {
		if math.Abs(float64(v)) > 1e-12 {
			t.Errorf("channel %d: the scale of products that are zero has gradient %g", o, v)
		}
	}
}
