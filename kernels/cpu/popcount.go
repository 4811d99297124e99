package cpu

import "math/bits"

// channelsPerBlock is the number of planes of a weight's channels that stay in the first cache while they are
// multiplied with all planes of many rows.
const channelsPerBlock = 128

// countProducts computes rows r0..r1-1 and channels o0..o1-1 of x·wᵀ by counting bits: the product is 2*sums -
// countedOffset. A row of sums has stride values.
func (d *Device) countProducts(sums []int32, stride int, x, w *planes, r0, r1, o0, o1 int, s *scratch) {
	block := channelsPerBlock / w.bits
	for o := o0; o < o1; o += block {
		end := min(o+block, o1)
		n := (end - o) * w.bits // planes of channels
		counts, byPlane := s.channelCounts.take(n), s.planeSums.take(n)
		channels, pops := w.words[o*w.bits*w.stride:][:n*w.stride], w.pops[o*w.bits:][:n]
		for r := r0; r < r1; r++ {
			row, to := x.row(r), sums[(r-r0)*stride+o:][:end-o]
			if w.bits == 1 {
				byPlane = to
			}
			clear(byPlane)
			shift, weight := int32(0), int32(0)
			if x.quantization.PlusMinus() {
				shift, weight = 1, int32(1)<<x.bits-1 // of the channel's own bits
			}
			for b := range x.bits {
				d.andCounts(counts, row[b*x.stride:][:x.stride], channels)
				d.addCounts(byPlane, counts, pops, int32(b)+shift, weight)
				weight = 0
			}
			if w.bits > 1 {
				addPlanes(to, byPlane, w.bits)
			}
		}
	}
}

// addPlanes writes Σ_b 2^b of the sums of every channel's planes.
func addPlanes(dst, byPlane []int32, bits int) {
	for c := range dst {
		dst[c] = 0
		for b, n := range byPlane[c*bits:][:bits] {
			dst[c] += n << b
		}
	}
}

// Products of signs by signs.
const (
	rowsPerCount     = 4  // rows that are multiplied together
	channelsPerCount = 16 // channels are padded to a multiple
)

// signProducts computes rows r0..r1-1 of x·wᵀ for signs and calls emit with every row: the product is 2*sums[c] -
// offset. words is w arranged by wordsOfChannels.
func (d *Device) signProducts(x, w *planes, words []uint64, r0, r1 int, s *scratch,
	emit func(row int, sums []int32, offset int32)) {
	n := wordsOf(w.cols)
	width := len(words) / n
	sums := s.countedSigns.take(rowsPerCount * width)
	for r := r0; r < r1; r += rowsPerCount {
		first := min(r, x.rows-rowsPerCount) // the last four may repeat rows
		d.countSigns(sums, width, x.words[first*x.stride:], x.stride, words, n)
		for i := r; i < min(r+rowsPerCount, r1); i++ {
			emit(i, sums[(i-first)*width:][:w.rows], -int32(w.cols))
		}
	}
}

// wordsOfChannels arranges w word by word: the first words of all channels, then the second words, and so on.
func (d *Device) wordsOfChannels(w *planes) []uint64 {
	n, width := wordsOf(w.cols), (w.rows+channelsPerCount-1)/channelsPerCount*channelsPerCount
	words := d.shared.channelWords.take(n * width)
	d.blocks(width, 128, func(from, to int, _ *scratch) {
		for k := range n {
			for c := from; c < to; c++ {
				words[k*width+c] = 0
				if c < w.rows {
					words[k*width+c] = w.words[c*w.stride+k]
				}
			}
		}
	})
	return words
}

// countSignsGo writes minus the number of bits that differ between 4 rows of x and all channels of w.
func countSignsGo(dst []int32, stride int, x []uint64, xStride int, w []uint64, words int) {
	n := len(w) / words
	for r := range rowsPerCount {
		for c := range n {
			differ := 0
			for k, v := range x[r*xStride:][:words] {
				differ += bits.OnesCount64(v ^ w[k*n+c])
			}
			dst[r*stride+c] = -int32(differ)
		}
	}
}

// countedOffset is the offset of row r of x in countProducts: Σ_a 2^a Σ_b 2^b (2 pop(x_b) - K) over the planes a of w,
// or pop(x_b) in place of the difference where bits of x mean {0,1}.
func countedOffset(x *planes, r int, w *planes) (offset int32) {
	for b, n := range x.pops[r*x.bits : (r+1)*x.bits] {
		if x.quantization.PlusMinus() {
			n = 2*n - int32(x.cols)
		}
		offset += n << b
	}
	return offset * int32(w.quantization.Largest())
}

// addCountsGo adds counts * 2^shift - weight * pops to sums.
func addCountsGo(sums, counts, pops []int32, shift, weight int32) {
	for i, n := range counts[:len(sums)] {
		sums[i] += n<<shift - weight*pops[i]
	}
}

// andCountsGo writes pop(x & row c of w) to dst[c]. A row has len(x) words.
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
