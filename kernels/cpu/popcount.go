package cpu

import "math/bits"

// channelsPerBlock channels of a weight stay in the first cache while a block of rows passes over them.
const channelsPerBlock = 128

// binaryProduct writes x·wᵀ of rows r0..r1-1 and channels o0..o1-1 to dst.
func binaryProduct(dst []float32, x, w *planes, r0, r1, o0, o1 int) {
	unit, width := scale(x.bits), o1-o0
	for o := o0; o < o1; o += channelsPerBlock {
		end := min(o+channelsPerBlock, o1)
		for r := r0; r < r1; r++ {
			countedLevels(dst[(r-r0)*width+o-o0:][:end-o], x, w, r, o, unit)
		}
	}
}

// countedLevels writes unit * Σ_b 2^b (x_b · w) of row r and channels o.. to dst, at most channelsPerBlock of them. The sums are
// integers below 2^24 and unit is 5 over a power of two, so the float32 results are exact.
func countedLevels(dst []float32, x, w *planes, r, o int, unit float32) {
	var counts, sums [channelsPerBlock]int32
	var fixed int32 // Σ_b 2^b (K - 2 pop(x_b))
	row, channels := x.row(r), w.words[o*w.stride:(o+len(dst))*w.stride]
	for b := range x.bits {
		fixed += (int32(x.cols) - 2*x.pops[r*x.bits+b]) << b
		andCounts(counts[:len(dst)], row[b*x.stride:][:x.stride], channels)
		for i, n := range counts[:len(dst)] {
			sums[i] += n << (b + 2)
		}
	}
	twice := int32(2<<x.bits - 2) // 2 Σ_b 2^b
	pops := w.pops[o:][:len(dst)]
	for i := range dst {
		dst[i] = unit * float32(fixed-twice*pops[i]+sums[i])
	}
}

// andCountsGo writes pop(x & row c of w) to dst[c].
func andCountsGo(dst []int32, x, w []uint64) {
	for c := range dst {
		channel := w[c*len(x):][:len(x)]
		n := 0
		for i, v := range x {
			n += bits.OnesCount64(v & channel[i])
		}
		dst[c] = int32(n)
	}
}
