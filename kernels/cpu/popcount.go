package cpu

import "math/bits"

// channelsPerBlock channels of a weight stay in the first cache while rows pass over them.
const channelsPerBlock = 128

// countChannels computes x·wᵀ by counting bits and hands it to emit, a row at a time, as lookupProducts does. The workers
// divide the channels, so that even one row keeps them busy.
func (d *Device) countChannels(x, w *planes, emit func(row int, sums []int32, offset int32)) {
	all := d.shared.int32s(0, x.rows*w.rows)
	d.blocks(w.rows, channelsPerBlock, func(from, to int, s *scratch) {
		counts := s.int32s(0, to-from)
		channels := w.words[from*w.stride : to*w.stride]
		for r := range x.rows {
			row, sums := x.row(r), all[r*w.rows:][from:to]
			for i, n := range w.pops[from:to] {
				sums[i] = -n * (1<<x.bits - 1)
			}
			for b := range x.bits {
				d.andCounts(counts, row[b*x.stride:][:x.stride], channels)
				for i, n := range counts {
					sums[i] += n << (b + 1)
				}
			}
		}
	})
	for r := range x.rows {
		var offset int32 // Σ_b 2^b (2 pop(x_b) - K)
		for b, n := range x.pops[r*x.bits : (r+1)*x.bits] {
			offset += (2*n - int32(x.cols)) << b
		}
		emit(r, all[r*w.rows:][:w.rows], offset)
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
