package cpu

import "math/bits"

// countProducts computes row r and channels o, o+1, … of x·wᵀ by counting bits: the product is 2*sums - countedOffset.
func (d *Device) countProducts(sums []int32, x, w *planes, r, o int) {
	channels := w.words[o*w.bits*w.stride:][:len(sums)*w.bits*w.stride]
	if x.quantization.PlusMinus() {
		d.countDiffering(sums, x.row(r), x.bits, channels, w.bits)
	} else {
		d.countCommon(sums, x.row(r), x.bits, channels, w.bits)
	}
}

// countedOffset is the offset of row r of x in countProducts, for planes x_b and planes a of w: -Σ_a 2^a Σ_b 2^b K
// where bits of x mean ±1, and otherwise Σ_a 2^a Σ_b 2^b pop(x_b).
func countedOffset(x *planes, r int, w *planes) (offset int32) {
	if x.quantization.PlusMinus() {
		return -int32(w.quantization.Largest() * x.quantization.Largest() * x.cols)
	}
	row := x.row(r)
	for b := range x.bits {
		n := 0
		for _, word := range row[b*x.stride:][:x.stride] {
			n += bits.OnesCount64(word)
		}
		offset += int32(n) << b
	}
	return offset * int32(w.quantization.Largest())
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

// addCountsGo adds counts * 2^shift to sums.
func addCountsGo(sums, counts []int32, shift int32) {
	for i, n := range counts[:len(sums)] {
		sums[i] += n << shift
	}
}

// countDifferingGo writes to dst[c] minus Σ_a 2^a Σ_b 2^b the number of bits that differ between plane b of x and plane
// a of channel c of w. Planes follow one another, and so do channels.
func countDifferingGo(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int) {
	countPlanes(dst, x, xPlanes, w, wPlanes, func(x, y []uint64) (n int) {
		for i, v := range x {
			n -= bits.OnesCount64(v ^ y[i])
		}
		return n
	})
}

// countCommonGo writes to dst[c] Σ_a 2^a Σ_b 2^b the number of bits that both plane b of x and plane a of channel c of
// w have.
func countCommonGo(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int) {
	countPlanes(dst, x, xPlanes, w, wPlanes, func(x, y []uint64) (n int) {
		for i, v := range x {
			n += bits.OnesCount64(v & y[i])
		}
		return n
	})
}

func countPlanes(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int,
	count func(x, y []uint64) int) {
	words := len(x) / xPlanes
	for c := range dst {
		dst[c] = 0
		for a := range wPlanes {
			plane := w[(c*wPlanes+a)*words:][:words]
			for b := range xPlanes {
				dst[c] += int32(count(x[b*words:][:words], plane) << (a + b))
			}
		}
	}
}

// wholeChannels is how many of n channels assembly can count that takes so many channels at a time, and planes of
// multiples of so many words.
func wholeChannels(n, channels int, x []uint64, xPlanes, step int, w []uint64, wPlanes int) int {
	words := len(x) / xPlanes
	if words == 0 || words%step > 0 {
		return 0
	}
	n -= n % channels
	if n > 0 {
		_ = w[n*wPlanes*words-1]
	}
	return n
}
