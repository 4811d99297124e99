package cpu

import (
	"fmt"
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

// The inner loops of the products and of rounding, on data in the first cache. About 620 Gop/s is what counting bits
// allows with AVX2 on a Zen 3 core.
func BenchmarkLoops(b *testing.B) {
	for _, set := range instructionSets() {
		run := func(name, unit string, amount float64, f func()) {
			b.Run(set.name+"/"+name, func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(amount*float64(b.N)/b.Elapsed().Seconds()/1e9, unit)
			})
		}
		const words, rows = 16, 128
		x, w, counts := make([]uint64, words), make([]uint64, rows*words), make([]int32, rows)
		run("andCounts", "Gop/s", 2*words*64*rows, func() { set.andCounts(counts, x, w) })
		sums, panel := make([]int32, lookupRows*panelCols), make([]byte, blockDepth/8*panelCols)
		tables, q := make([]byte, lookupRows*4*blockDepth), make([]int8, blockDepth)
		for _, flush := range []int{4, 2, 1} {
			run(fmt.Sprintf("lookup/flush=%d", flush), "Gop/s", 2*lookupRows*panelCols*blockDepth,
				func() { set.lookup(sums, panelCols, tables, panel, flush) })
		}
		run("makeTables", "Gvalue/s", blockDepth, func() { set.makeTables(tables, q) })
		random, floats := make([]uint32, blockDepth), make([]float32, blockDepth)
		run("randomWords", "Gvalue/s", blockDepth, func() { set.randomWords(random, [2]uint32{}, [4]uint32{}) })
		run("roundRow", "Gvalue/s", blockDepth, func() { set.roundRow(q, floats, floats, 1, random, 7) })
		run("adam", "Gvalue/s", blockDepth, func() { set.adam(floats, floats, floats, floats, &update{}) })
		run("exponentials", "Gvalue/s", blockDepth, func() { set.exponentials(floats, 0) })
	}
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
