package cpu

import (
	"fmt"
	"testing"

	"bitnet1/kernels"
)

// Binary products with everything around them: scale, threshold, signs and STE mask. An operation is a multiplication
// or an addition. Wanted with AVX2 on one core: 560 Gop/s for many rows (the up projection of the 300M preset), 450 for
// one, and 1.9 times that on two: 1,058 and 2,058 were measured, 1,870 and 3,620 with AVX-512.
func BenchmarkBinaryProduct(b *testing.B) {
	for _, workers := range []int{1, 2} {
		for _, set := range instructionSets() {
			for _, c := range []struct{ rows, in, out int }{{256, 1024, 4096}, {1, 4096, 4096}} {
				b.Run(fmt.Sprintf("%dx%dx%d/%s/workers=%d", c.rows, c.in, c.out, set.name, workers), func(b *testing.B) {
					d := New(Options{Workers: workers})
					d.instructions = set
					x, _ := d.NewPlanes(c.rows, c.in, kernels.Sign())
					w, _ := d.NewPlanes(c.out, c.in, kernels.Sign())
					signs, _ := d.NewPlanes(c.rows, c.out, kernels.Sign())
					mask, _ := d.NewPlanes(c.rows, c.out, kernels.Sign())
					l := kernels.Linear{In: c.in, Out: c.out, Quantized: w, Alpha: ones(c.out), Theta: ones(c.out)}
					for b.Loop() {
						d.LinearQuantize([]kernels.Planes{signs}, kernels.Derivative{Mask: mask}, kernels.Activation{Planes: x}, l,
							kernels.KShift{})
					}
					b.ReportMetric(2*float64(c.rows*c.in*c.out)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gop/s")
				})
			}
		}
	}
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
		x, w, counts := make([]uint64, 4*words), make([]uint64, rows*words), make([]int32, rows)
		run("countDiffering", "Gop/s", 2*words*64*rows, func() { set.countDiffering(counts, x[:words], 1, w, 1) })
		run("countCommon/planes=4", "Gop/s", 8*words*64*rows, func() { set.countCommon(counts, x, 4, w, 1) })
		sums, panel := make([]int32, lookupRows*panelCols), newSignPanels(blockDepth, panelCols, new(buffer[byte]))
		tables, q := make([]byte, lookupRows*4*blockDepth), make([]int8, blockDepth)
		for _, flush := range []int{16, 4, 2, 1} {
			run(fmt.Sprintf("lookup/flush=%d", flush), "Gop/s", 2*lookupRows*panelCols*blockDepth,
				func() { set.lookup(sums, panelCols, tables, panel, 0, panel.groups, flush, true) })
		}
		run("makeTables", "Gvalue/s", blockDepth, func() { set.makeTables(tables, q) })
		blocks, random, floats := make([]uint32, blockDepth), make([]uint16, blockDepth), make([]float32, blockDepth)
		run("randomWords", "Gvalue/s", blockDepth, func() { set.randomWords(blocks, [2]uint32{}, [4]uint32{}) })
		run("roundRow", "Gvalue/s", blockDepth, func() { set.roundRow(q, floats, floats, 1, random, 7) })
		run("adam", "Gvalue/s", blockDepth, func() { set.adam(floats, floats, floats, floats, &update{}) })
		run("exponentials", "Gvalue/s", blockDepth, func() { set.exponentials(floats, 1) })
	}
}

// The gradient products of the same linear, rounding included: two products.
func BenchmarkLinearBackward(b *testing.B) {
	const rows, in, out = 256, 1024, 4096
	for _, gradBits := range []int{4, 8, kernels.FloatBits} {
		for _, streamBits := range []int{1, 4} {
			b.Run(fmt.Sprintf("gradients=%d/stream=%d", gradBits, streamBits), func(b *testing.B) {
				d := New(Options{Workers: 1})
				x, _ := d.NewPlanes(rows, in, kernels.MidRise(streamBits))
				w, _ := d.NewPlanes(out, in, kernels.Sign())
				l := kernels.Linear{In: in, Out: out, Quantized: w, Alpha: ones(out), Theta: ones(out)}
				dl := kernels.LinearGradient{Weight: make(floats, out*in), Alpha: make(floats, out), Theta: make(floats, out)}
				dx, dy := make(floats, rows*in), normals(random(1), rows*out)
				for b.Loop() {
					d.LinearBackward(dx, dl, dy, kernels.Derivative{}, kernels.Activation{Planes: x}, l, kernels.KShift{},
						kernels.GradBits{Input: gradBits, Weight: gradBits})
				}
				b.ReportMetric(4*rows*in*out*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gop/s")
			})
		}
	}
}
