//go:build cuda

package cuda

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// The plain Go oracles that the kernels are compared with: written to be read, on any machine.

// hostBits is Bits in host memory: words [planes][rows][ceil(columns/64)].
type hostBits struct {
	rows, columns, planes int
	signed                bool
	words                 []uint64
}

func randomBits(r *rand.Rand, rows, columns, planes int, signed bool) *hostBits {
	h := &hostBits{rows, columns, planes, signed, make([]uint64, planes*rows*ceilDiv(columns, 64))}
	bias := r.Uint64() | r.Uint64() // rows of uneven density, or popcounts would hide their own errors
	for i := range h.words {
		h.words[i] = r.Uint64()
		if r.IntN(3) == 0 {
			h.words[i] &= bias
		}
		if last := columns % 64; last != 0 && i%ceilDiv(columns, 64) == ceilDiv(columns, 64)-1 {
			h.words[i] &= 1<<last - 1
		}
	}
	return h
}

func (h *hostBits) row(plane, row int) []uint64 {
	n := ceilDiv(h.columns, 64)
	return h.words[(plane*h.rows+row)*n:][:n]
}

func (h *hostBits) weight(plane int) int {
	if h.signed && plane == h.planes-1 {
		return -1 << plane
	}
	return 1 << plane
}

func (h *hostBits) popcount(row int) (sum int) {
	for p := range h.planes {
		for _, w := range h.row(p, row) {
			sum += h.weight(p) * bits.OnesCount64(w)
		}
	}
	return sum
}

// dot is row i of a · row j of b from the definition of both kinds of planes, by counting agreeing and disagreeing columns.
func dot(a *hostBits, i int, b *hostBits, j int) (s int) {
	w := b.row(0, j)
	for p := range a.planes {
		both, ones := 0, 0
		differ := 0
		for k, x := range a.row(p, i) {
			both += bits.OnesCount64(x & w[k])
			ones += bits.OnesCount64(x)
			differ += bits.OnesCount64(x ^ w[k])
		}
		if a.signed {
			s += a.weight(p) * (both - (ones - both)) // ones of the plane under +1 less those under -1
		} else {
			s += a.weight(p) * (a.columns - 2*differ)
		}
	}
	return s
}

func products(a, b *hostBits) []int32 {
	out := make([]int32, a.rows*b.rows)
	for i := range a.rows {
		for j := range b.rows {
			out[i*b.rows+j] = int32(dot(a, i, b, j))
		}
	}
	return out
}

// outputBits decides sign and clip of u = alpha * scale * s - theta in exact arithmetic on the given float32 numbers, up to float64.
func outputBits(s int32, alpha, theta, scale float32) (sign, clip bool) {
	u := float64(alpha*scale)*float64(s) - float64(theta) // the product is exact: 24 + 18 bits
	return u >= 0, math.Abs(u) <= 1
}
