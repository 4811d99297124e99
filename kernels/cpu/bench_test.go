package cpu

import (
	"testing"

	"bitnet1/kernels"
)

// One linear of the 300M preset on one worker. An operation is a multiplication or an addition.
func BenchmarkBinaryLinear(b *testing.B) {
	const rows, in, out = 256, 1024, 4096
	d := New(Options{Workers: 1})
	x, _ := d.NewPlanes(rows, in, 1)
	w, _ := d.NewPlanes(out, in, 1)
	signs, _ := d.NewPlanes(rows, out, 1)
	pass, _ := d.NewPlanes(rows, out, 1)
	l := kernels.Linear{In: in, Out: out, Signs: w, Alpha: ones(out), Theta: ones(out)}
	for b.Loop() {
		d.LinearSigns(signs, pass, kernels.Activation{Planes: x}, l, kernels.KShift{})
	}
	b.ReportMetric(2*rows*in*out*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gop/s")
}

// The counting loop alone: about 600 Gop/s is what AVX2 allows on a Zen 3 core.
func BenchmarkAndCounts(b *testing.B) {
	const words, rows = 16, 128
	sets := instructionSets()
	set := sets[len(sets)-1]
	x, w, dst := make([]uint64, words), make([]uint64, rows*words), make([]int32, rows)
	for b.Loop() {
		set.andCounts(dst, x, w)
	}
	b.ReportMetric(2*words*64*rows*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gop/s")
}

// The gradient products of a linear, in float32, on one worker.
func BenchmarkLinearBackward(b *testing.B) {
	const rows, in, out = 256, 1024, 1024
	d := New(Options{Workers: 1})
	x, _ := d.NewPlanes(rows, in, 1)
	w, _ := d.NewPlanes(out, in, 1)
	l := kernels.Linear{In: in, Out: out, Signs: w, Alpha: ones(out), Theta: ones(out)}
	dl := kernels.LinearGradient{Weight: make(floats, out*in), Alpha: make(floats, out), Theta: make(floats, out)}
	dx, dy := make(floats, rows*in), ones(rows*out)
	for b.Loop() {
		d.LinearBackward(dx, dl, dy, nil, kernels.Activation{Planes: x}, l, kernels.KShift{}, kernels.GradFloat)
	}
	b.ReportMetric(4*rows*in*out*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFlop/s")
}
