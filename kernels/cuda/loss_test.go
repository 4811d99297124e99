//go:build cuda

package cuda

import (
	"testing"

	"bitnet1/kernels"
)

// Every sum of x and the head's weights fits the bits that it is kept in, and no fewer would do.
func TestLogitBits(t *testing.T) {
	d := &Device{hopper: true}
	for stream := 1; stream <= 8; stream++ {
		for codebook := 1; codebook <= 8; codebook++ {
			for _, in := range []int{30, 128, 130, 1024, 2048, 2194, 4096, 37283} {
				x, w := kernels.MidRise(stream), kernels.Normal(codebook)
				a := &planes{cols: in, bits: stream, encoding: encodingOf(x), quantization: x}
				b := &planes{cols: in, bits: codebook, encoding: encodingOf(w), quantization: w}
				bits := d.logitBits(kernels.Activation{Planes: a}, kernels.Linear{Quantized: b})
				sum := (1<<stream - 1) * (1<<codebook - 1) * in
				fits := func(bits int) bool { return sum < 1<<(bits-1) && (bits > 16 || codebook == 1) }
				if bits < 32 && !fits(bits) || bits > 24 && fits(24) || bits > 16 && fits(16) {
					t.Errorf("%d bits for sums to %d of streams of %d bits and codebooks of %d", bits, sum, stream, codebook)
				}
			}
		}
	}
	if d.hopper = false; d.logitBits(kernels.Activation{Planes: &planes{}}, kernels.Linear{Quantized: &planes{}}) != 32 {
		t.Error("integers without the kernels that make them")
	}
}

// No piece is left out, and multiprocessors are seldom without one.
func TestRoundingBlocks(t *testing.T) {
	d := &Device{multiprocessors: 132}
	for _, c := range []struct {
		width, rows int
		busy        float64 // share of the time, where all pieces take the same time
	}{
		{512, 65536, 0.9}, {1024, 65536, 0.95}, {3072, 65536, 0.95}, {4096, 65536, 0.95}, {8192, 65536, 0.95},
		{50304, 65536, 0.95}, {50304, 16640, 0.95}, {8, 1, 0}, {1024, 300, 0}, {1000, 256, 0},
	} {
		b := backward[denseGradient]{Device: d, gradient: gradient[denseGradient]{width: c.width}}
		g := b.roundingBlocks(c.rows).Grid
		across, pieces := ceilDiv(c.width, 256), ceilDiv(c.rows, 256)
		if g[0] != across || g[1] < 1 || g[1] > pieces {
			t.Fatalf("%d × %d: blocks %v of %d × %d pieces", c.rows, c.width, g, pieces, across)
		}
		rounds := ceilDiv(across*g[1], 2*d.multiprocessors) * ceilDiv(pieces, g[1])
		if busy := float64(across*pieces) / float64(2*d.multiprocessors*rounds); busy < c.busy {
			t.Errorf("%d × %d: blocks %v are busy %.2f of the time, want %.2f", c.rows, c.width, g, busy, c.busy)
		}
	}
}
