package cpu

import "math/bits"

// channelsPerBlock channels of a weight stay in the first cache while rows pass over them.
const channelsPerBlock = 128

// countProducts writes to sums, rows × channels, what lookupProducts computes, by counting bits.
func (d *Device) countProducts(sums []int32, stride int, x, w *planes, r0, r1, o0, o1 int, s *scratch) {
	for o := o0; o < o1; o += channelsPerBlock {
		end := min(o+channelsPerBlock, o1)
		counts := s.int32s(1, end-o)
		channels, pops := w.words[o*w.stride:end*w.stride], w.pops[o:end]
		for r := r0; r < r1; r++ {
			row, to := x.row(r), sums[(r-r0)*stride+o:][:end-o]
			clear(to)
			weight := int32(1)<<x.bits - 1 // of the channel's own bits
			for b := range x.bits {
				d.andCounts(counts, row[b*x.stride:][:x.stride], channels)
				d.addCounts(to, counts, pops, int32(b+1), weight)
				weight = 0
			}
		}
	}
}

// countedOffset is Σ_b 2^b (2 pop(x_b) - K) of row r.
func (p *planes) countedOffset(r int) (offset int32) {
	for b, n := range p.pops[r*p.bits : (r+1)*p.bits] {
		offset += (2*n - int32(p.cols)) << b
	}
	return offset
}

// addCountsGo adds counts * 2^shift - weight * pops to sums.
func addCountsGo(sums, counts, pops []int32, shift, weight int32) {
	for i, n := range counts[:len(sums)] {
		sums[i] += n<<shift - weight*pops[i]
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
