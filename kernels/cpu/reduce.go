package cpu

import (
	"bitnet1/kernels"
	"bitnet1/kernels/number/bfloat16"
)

// reduceBlock is the number of values that one task sums up. The sums of blocks are then added in order.
const reduceBlock = 4096

// Copy copies src to dst.
func (d *Device) Copy(dst, src kernels.Floats) {
	d.run("Copy", kernels.CheckCopy(dst, src), func() {
		to, from := values(dst)[:src.Len()], values(src)
		d.blocks(len(from), 1<<16, func(a, b int, _ *scratch) { copy(to[a:b], from[a:b]) })
	})
}

// Zero clears x.
func (d *Device) Zero(x kernels.Floats) {
	d.run("Zero", kernels.CheckZero(x), func() {
		all := anyFloatsOf(x)
		d.blocks(x.Len(), 1<<16, func(from, to int, _ *scratch) {
			if all.bfloats != nil {
				clear(all.bfloats[from:to])
			} else {
				clear(all.floats[from:to])
			}
		})
	})
}

// AddSum adds the sum of x to dst[0].
func (d *Device) AddSum(dst, x kernels.Floats) {
	d.run("AddSum", kernels.CheckAddSum(dst, x), func() {
		d.reduce(values(dst), values(x), func(x []float32) (sum float64) {
			for _, v := range x {
				sum += float64(v)
			}
			return sum
		})
	})
}

// AddSumSquares adds the sum of squares of x to dst[0].
func (d *Device) AddSumSquares(dst, x kernels.Floats) {
	d.run("AddSumSquares", kernels.CheckAddSum(dst, x), func() { d.reduce(values(dst), values(x), d.sumSquares) })
}

func (d *Device) reduce(dst, x []float32, f func(x []float32) float64) {
	partial := d.shared.blockSums.take((len(x) + reduceBlock - 1) / reduceBlock)
	d.blocks(len(x), reduceBlock, func(from, to int, _ *scratch) { partial[from/reduceBlock] = f(x[from:to]) })
	var sum float64
	for _, v := range partial {
		sum += v
	}
	dst[0] += float32(sum)
}

// rowsPerSum is the number of rows whose sums, or maxima, one task computes. They are then combined in order.
const rowsPerSum = 128

// sumRows calls f for ranges of rows. f adds to sums, one for each of cols columns. sumRows then adds factor times the
// total of the sums to dst, unless dst is nil.
func (d *Device) sumRows(dst []float32, rows, cols int, factor float64,
	f func(from, to int, sums []float64, s *scratch)) {
	parts := (rows + rowsPerSum - 1) / rowsPerSum
	all := d.shared.rowSums.take(parts * cols)
	d.blocks(rows, rowsPerSum, func(from, to int, s *scratch) {
		sums := all[from/rowsPerSum*cols:][:cols]
		clear(sums)
		f(from, to, sums, s)
	})
	if dst != nil {
		addParts(dst, all, factor)
	}
}

// addParts adds factor times the sum of the parts to dst. all has the parts, each as long as dst, one after the other.
// The first part is overwritten.
func addParts(dst []float32, all []float64, factor float64) {
	sums := all[:len(dst)]
	for p := len(dst); p < len(all); p += len(dst) {
		for c, v := range all[p : p+len(dst)] {
			sums[c] += v
		}
	}
	for c, v := range sums {
		dst[c] += float32(factor * v)
	}
}

// lane8 are partial sums, as a vector register holds them: value i is added to lane i%8. The values after the last
// eight are summed up in lanes of their own.
type lane8[F float32 | float64] [8]F

func (l *lane8[F]) sum() F {
	return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

// inLanes sums term over 0..n-1.
func inLanes[F float32 | float64](n int, term func(i int) F) F {
	var whole, rest lane8[F]
	for i := range n &^ 7 {
		whole[i&7] += term(i)
	}
	for i := n &^ 7; i < n; i++ {
		rest[i&7] += term(i)
	}
	return whole.sum() + rest.sum()
}

// sumSquaresGo is Σ x².
func sumSquaresGo(x []float32) float64 {
	return inLanes(len(x), func(i int) float64 { return float64(x[i]) * float64(x[i]) })
}

// addRowsGo adds the rows of src to sums, and raises most to the largest absolute values of the columns. Where a row's
// bit in words is clear, its value is taken as zero.
func addRowsGo(sums []float64, most, src []float32, stride int, words []uint64, wordStride, rows int) {
	for r := range rows {
		addRow(sums, most, words[r*wordStride:], func(i int) float32 { return src[r*stride+i] })
	}
}

// addBFloatRowsGo is addRowsGo for bfloat16.
func addBFloatRowsGo(sums []float64, most []float32, src []uint16, stride int, words []uint64, wordStride, rows int) {
	for r := range rows {
		addRow(sums, most, words[r*wordStride:], func(i int) float32 { return bfloat16.ToFloat32(src[r*stride+i]) })
	}
}

func addRow(sums []float64, most []float32, words []uint64, value func(i int) float32) {
	for i := range sums {
		var v float32
		if words[i>>6]>>(i&63)&1 == 1 {
			v = value(i)
		}
		sums[i] += float64(v)
		most[i] = max(most[i], magnitude(v))
	}
}
