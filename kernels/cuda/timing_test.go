//go:build cuda

package cuda

import (
	"flag"
	"fmt"
	"sort"
	"testing"

	"gorgonia.org/cu"
)

var timings = flag.Bool("timings", false, "print the tables of kernel times")

// time is the median time in microseconds of one f, over runs of several without a gap.
func timeOf(t testing.TB, d *Device, f func() error) float64 {
	t.Helper()
	const runs, each = 9, 8
	begin, err := cu.MakeEvent(cu.DefaultEvent)
	must(t, err)
	end, err := cu.MakeEvent(cu.DefaultEvent)
	must(t, err)
	for range 3 {
		must(t, f())
	}
	var micros []float64
	for range runs {
		must(t, begin.Record(d.stream))
		for range each {
			must(t, f())
		}
		must(t, end.Record(d.stream))
		must(t, end.Synchronize())
		ms, err := begin.Elapsed(end)
		must(t, err)
		micros = append(micros, 1000*ms/each)
	}
	sort.Float64s(micros)
	return micros[runs/2]
}

// peakBinary is what one H200 does on operands that stay in shared memory, in 10^15 op/s (NOTES.md).
const peakBinary = 15.4

// The numbers to reach: 8192 cubed 9 P op/s, 65536x4096x1024 to bits 8 P op/s.
func TestTimings(t *testing.T) {
	if !*timings {
		t.Skip("times kernels with -timings")
	}
	d, r := open(t), random(t)
	fmt.Printf("%-28s %-10s %10s %9s %7s\n", "m x n x k / planes", "output", "µs", "P op/s", "peak")
	for _, s := range []shape{{8192, 8192, 8192, 1}, {4096, 4096, 4096, 1}, {16384, 16384, 16384, 1}, {65536, 4096, 1024, 1}, {65536, 4096, 1024, 4},
		{65536, 1024, 1024, 1}, {65536, 3072, 1024, 4}, {65536, 1024, 4096, 1}, {65536, 4096, 1024, 2}} {
		a, b := randomBits(r, s.m, s.k, s.planes, false).upload(t, d), randomBits(r, s.n, s.k, 1, false).upload(t, d)
		row := func(output string, f func() error) {
			micros := timeOf(t, d, f)
			rate := 2e-9 * float64(s.m) * float64(s.n) * float64(s.k) * float64(s.planes) / micros
			fmt.Printf("%-28v %-10s %10.1f %9.2f %6.0f%%\n", s, output, micros, rate, 100*rate/peakBinary)
		}
		alpha, theta := channels(r, s.n, s.k)
		gain, offset := uploadFloats(t, d, alpha), uploadFloats(t, d, theta)
		out, err := d.Alloc(4 * s.m * s.n)
		must(t, err)
		sign, err := d.NewBits(s.m, s.n, 1, false)
		must(t, err)
		clip, err := d.NewBits(s.m, s.n, 1, false)
		must(t, err)
		thresholds, err := d.NewThresholds(s.n)
		must(t, err)
		must(t, d.SetThresholds(thresholds, gain, offset, 1, a, b))
		row("int32", func() error { return d.MultiplyInt32(out, s.n, a, b) })
		row("float32+r", func() error { return d.MultiplyAffine(out, out, s.n, false, a, b, Affine{Alpha: gain, Theta: offset}) })
		row("bfloat16", func() error {
			return d.MultiplyAffine(out, Buffer{}, s.n, true, a, b, Affine{Alpha: gain, Theta: offset})
		})
		row("bits", func() error { return d.MultiplyBits(sign, nil, a, b, thresholds) })
		row("bits+clip", func() error { return d.MultiplyBits(sign, clip, a, b, thresholds) })
		if s.m == 4096 {
			row("mma int32", func() error { return d.MultiplySimple(out, s.n, a, b) })
		}
		must(t, d.Free(out))
		must(t, d.FreeBits(sign, clip))
		must(t, d.FreeThresholds(thresholds))
	}
}
