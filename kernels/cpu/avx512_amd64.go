package cpu

// avx512 is avx2 with those loops replaced that gain much from wider registers.
func avx512() instructions {
	set := avx2()
	narrow := set
	set.name = "AVX-512"
	set.counts = true
	set.countSigns = func(dst []int32, stride int, x []uint64, xStride int, w []uint64, words int) {
		n := len(w) / words
		_, _ = dst[3*stride+n-1], x[3*xStride+words-1]
		countSignsAVX512(&dst[0], stride, &x[0], xStride, &w[0], n, words)
	}
	set.nearest = func(best, away *[4][4]float64, q, k []uint64, skip, n int, score *[4][4]float64) {
		if score[3][0] == 0 {
			narrow.nearest(best, away, q, k, skip, n, score)
			return
		}
		_ = k[len(k)-skip-n]
		nearestAVX512(best, away, &q[:4][0], &k[len(k)-1-skip], n, float64(skip), score)
	}
	set.makeTables = func(dst []byte, q []int8) int32 {
		_ = dst[tableAt(len(q)-8)+tableSize-1]
		return makeTablesVBMI(&dst[0], &q[0], len(q))
	}
	set.randomWords = func(dst []uint32, key [2]uint32, counter [4]uint32) {
		n := len(dst) &^ 127
		if n > 0 {
			randomWordsAVX512(&dst[0], n/128, &key, &counter)
			counter[0] += uint32(n / 4)
		}
		narrow.randomWords(dst[n:], key, counter)
	}
	return set
}
