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
		{8192, 8192, 8192, 1}, {16384, 16384, 16384, 1}, {65536, 4096, 1024, 1}, {65536, 4096, 1024, 4}, {65536, 1024, 4096, 4},
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
			fmt.Printf("%-30s %-10s %10.1f %9.2f\n", fmt.Sprintf("%d × %d × %d / %d", s.m, s.n, s.k, s.planes), output, 1e6*took.Seconds(), rate)
		}
		out, err := d.NewFloats(s.m * s.n)
		if err != nil {
			t.Fatal(err)
		}
		sign, pass := noisePlanes(t, d, s.m, s.n, 1), noisePlanes(t, d, s.m, s.n, 1)
		alpha, err := d.NewFloats(s.n)
		if err != nil {
			t.Fatal(err)
		}
		at, scale := float32s(out, s.m*s.n), float32s(alpha, s.n)
		row("bits+pass", func() error {
			bounds, err := d.thresholds(scale, scale, 1, a, b)
			if err != nil {
				return err
			}
			return d.multiplyBits(sign, pass, a, b, bounds)
		})
		row("float32", func() error { return d.multiplyAffine(at, 0, s.n, a, b, affine{alpha: scale, theta: scale, scale: 1}) })
		row("float32+r", func() error { return d.multiplyAffine(at, at, s.n, a, b, affine{alpha: scale, theta: scale, scale: 1}) })
		row("int32 add", func() error { return d.multiplyAdd(at, s.n, a, b, 1) })
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
