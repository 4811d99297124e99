//go:build cuda

package cuda

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"bitnet1/kernels"
)

var timings = flag.Bool("timings", false, "print a table of the products' times")

// The numbers to reach on an H100: 8192 cubed 9 P op/s, 65536 × 1024 → 4096 to bits 8 P op/s.
func TestTimings(t *testing.T) {
	if !*timings {
		t.Skip("times products with -timings")
	}
	d := open(t, Options{})
	if !d.hopper {
		t.Skip("needs compute capability 9.0")
	}
	d.StartProfile()
	fmt.Printf("%-30s %-10s %10s %9s\n", "m × n × k / planes", "output", "µs", "P op/s")
	for _, s := range []struct{ m, n, k, planes int }{
		{8192, 8192, 8192, 1}, {16384, 16384, 16384, 1}, {65536, 4096, 1024, 1}, {65536, 4096, 1024, 4},
		{65536, 1024, 4096, 4},
	} {
		a, b := noisePlanes(t, d, s.m, s.k, s.planes), noisePlanes(t, d, s.n, s.k, 1)
		row := func(output string, f func() error) {
			var took time.Duration
			for range 8 { // the first ones warm up
				d.run("product", nil, f)
				list, err := d.Profile()
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range list {
					if strings.HasPrefix(k.Name, "gemm_") && (took == 0 || k.Time < took) {
						took = k.Time
					}
				}
			}
			rate := 2e-15 * float64(s.m) * float64(s.n) * float64(s.k) * float64(s.planes) / took.Seconds()
			shape := fmt.Sprintf("%d × %d × %d / %d", s.m, s.n, s.k, s.planes)
			fmt.Printf("%-30s %-10s %10.1f %9.2f\n", shape, output, 1e6*took.Seconds(), rate)
		}
		out, err := d.NewFloats(s.m * s.n)
		if err != nil {
			t.Fatal(err)
		}
		sign, mask := noisePlanes(t, d, s.m, s.n, 1), noisePlanes(t, d, s.m, s.n, 1)
		alpha, err := d.NewFloats(s.n)
		if err != nil {
			t.Fatal(err)
		}
		at, scale := float32s(out, s.m*s.n), float32s(alpha, s.n)
		row("bits+mask", func() error {
			return d.multiplyBits(quantizedPart{out: sign, mask: mask}, a, b, scale, scale)
		})
		squares, err := d.NewPlanes(s.m, s.n, kernels.Unsigned(4))
		if err != nil {
			t.Fatal(err)
		}
		values, err := d.NewPlanes(s.m, s.n, kernels.MidRise(4))
		if err != nil {
			t.Fatal(err)
		}
		factors, err := d.NewBFloats(s.m * s.n)
		if err != nil {
			t.Fatal(err)
		}
		row("squares+f", func() error {
			to := quantizedPart{out: squares.(*planes), all: s.n, factors: gradientsOf(factors, s.m*s.n)}
			return d.multiplyLevels(to, a, b, scale, scale)
		})
		row("mid-rise+m", func() error {
			return d.multiplyLevels(quantizedPart{out: values.(*planes), mask: mask}, a, b, scale, scale)
		})
		row("float32",
			func() error { return d.multiplyAffine(at, 0, s.n, a, b, affine{alpha: scale, theta: scale, scale: 1}) })
		row("float32+r",
			func() error { return d.multiplyAffine(at, at, s.n, a, b, affine{alpha: scale, theta: scale, scale: 1}) })
		row("int32 add", func() error { return d.multiplyAdd(at, s.n, a, b) })
	}
}

// noisePlanes are planes of random bits.
func noisePlanes(t *testing.T, d *Device, rows, cols, bits int) *planes {
	t.Helper()
	x, err := d.NewPlanes(rows, cols, kernels.MidRise(bits))
	if err != nil {
		t.Fatal(err)
	}
	p, r := x.(*planes), rand.New(rand.NewPCG(1, 2))
	words := make([]uint64, bits*p.planeBytes/8)
	for i := range words {
		words[i] = r.Uint64()
	}
	d.run("fill", nil, func() error { return d.send(p.data, unsafe.Pointer(unsafe.SliceData(words)), 8*len(words)) })
	return p
}

// The time of Muon for the matrices of the 300M preset. The number to reach on an H200: 10 ms with five steps.
func TestTimingsOfMuon(t *testing.T) {
	if !*timings {
		t.Skip("times Muon with -timings")
	}
	d := open(t, Options{})
	const layers, width, ff = 21, 1024, 4096
	const block = 4*width*width + 2*width*ff
	var buffers [3]kernels.Floats
	for i := range buffers {
		x, err := d.NewFloats(layers * block)
		if err != nil {
			t.Fatal(err)
		}
		d.Upload(x, normals(1<<20))
		buffers[i] = x
	}
	update := func(rows, cols, steps int, offsets ...int) kernels.Muon {
		u := kernels.Muon{
			Param: buffers[0], Grad: buffers[1], Momentum: buffers[2], Rows: rows, Cols: cols, Beta: 0.95, Steps: steps,
		}
		for l := range layers {
			for _, at := range offsets {
				u.At = append(u.At, l*block+at)
			}
		}
		return u
	}
	const square = width * width
	for _, steps := range []int{3, 5} {
		updates := []kernels.Muon{
			update(width, width, steps, 0, square, 2*square, 3*square),
			update(ff, width, steps, 4*square), update(width, ff, steps, 4*square+width*ff),
		}
		d.StartProfile()
		var best time.Duration
		for range 5 {
			for _, u := range updates {
				d.Muon(u)
			}
			list, err := d.Profile()
			if err != nil {
				t.Fatal(err)
			}
			var sum time.Duration
			for _, k := range list {
				sum += k.Time
			}
			if best == 0 || sum < best {
				best = sum
				for _, k := range list {
					fmt.Printf("  %-24s %4d %8.0f µs\n", k.Name, k.Calls, 1e6*k.Time.Seconds())
				}
			}
		}
		fmt.Printf("Muon, %d steps: %.2f ms\n", steps, 1e3*best.Seconds())
	}
}

// The times of products of floats at 65,536 tokens. The number to reach on an H200: 40 TFLOP/s.
func TestTimingsOfFloatProducts(t *testing.T) {
	if !*timings {
		t.Skip("times products with -timings")
	}
	d := open(t, Options{})
	const tokens, width, ff = 65536, 512, 2048
	rows, columns := newFloats(t, d, tokens*ff), newFloats(t, d, ff*width)
	values := normals(ff * width)
	for from := 0; from < tokens*ff; from += len(values) {
		d.Upload(rows.Slice(from, from+len(values)), values)
	}
	d.Upload(columns, values)
	x, w, out := float32s(rows, tokens*ff), float32s(columns, ff*width), newFloats(t, d, tokens*ff)
	at := float32s(out, tokens*ff)
	d.StartProfile()
	row := func(output string, m, n, k int, f func() error) {
		var took time.Duration
		for range 5 { // the first one warms up
			d.run("product", nil, f)
			list, err := d.Profile()
			if err != nil {
				t.Fatal(err)
			}
			for _, kernel := range list {
				if took == 0 || kernel.Time < took {
					took = kernel.Time
				}
			}
		}
		rate := 2e-12 * float64(m) * float64(n) * float64(k) / took.Seconds()
		fmt.Printf("%-22s %-14s %8.0f µs %6.1f TFLOP/s\n", fmt.Sprintf("%d × %d × %d", m, n, k), output,
			1e6*took.Seconds(), rate)
	}
	for _, s := range []struct{ in, out int }{{width, width}, {width, ff}, {ff, width}} {
		row("outputs", tokens, s.out, s.in, func() error {
			return d.multiplyDense(at, s.out, rowMajor(x, s.in), rowMajor(w, s.in), tokens, s.out, s.in)
		})
		row("inputs' grads", tokens, s.in, s.out, func() error {
			return d.multiplyDense(at, s.in, rowMajor(x, s.out), columnMajor(w, s.in), tokens, s.in, s.out)
		})
		row("weights' grads", s.out, s.in, tokens, func() error {
			return d.multiplyDenseAdd(at, s.in, columnMajor(x, s.out), columnMajor(x, s.in), s.out, s.in, tokens)
		})
	}
}

func normals(n int) []float32 {
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}
