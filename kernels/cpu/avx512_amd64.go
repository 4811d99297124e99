package cpu

// avx512 is avx2 with those loops replaced that gain much from wider registers, more of them, or masks.
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
	set.lookup = func(sums []int32, stride int, tables []byte, s signPanels, from, to, flush int, add bool) {
		groups, n := to-from, s.panels()
		_, _ = sums[(lookupRows-1)*stride+n*panelCols-1], tables[groups*lookupRows*tableSize-1]
		_ = s.panel(n-1, from, to)
		lookupVBMI(&sums[0], stride, &tables[0], &s.bytes[from*panelCols], groups, s.groups-groups, n, flush, add)
	}
	set.randomWords = func(dst []uint32, key [2]uint32, counter [4]uint32) {
		n := len(dst) &^ 127
		if n > 0 {
			randomWordsAVX512(&dst[0], n/128, &key, &counter)
			counter[0] += uint32(n / 4)
		}
		narrow.randomWords(dst[n:], key, counter)
	}
	set.roundRow = func(dst []int8, g, alpha []float32, inverse float32, random []uint16, limit float32) {
		n := len(dst) &^ 63
		if n > 0 {
			_, _, _ = g[n-1], alpha[n-1], random[n-1]
			roundRowAVX512(&dst[0], &g[0], &alpha[0], &random[0], n, inverse, limit)
		}
		if n < len(dst) {
			narrow.roundRow(dst[n:], g[n:], alpha[n:], inverse, random[n:], limit)
		}
	}
	set.roundColumns = func(dst []int8, g, inverse []float32, random []uint16, limit float32) {
		n := len(dst) &^ 63
		if n > 0 {
			_, _, _ = g[n-1], inverse[n-1], random[n-1]
			roundColumnsAVX512(&dst[0], &g[0], &inverse[0], &random[0], n, limit)
		}
		if n < len(dst) {
			narrow.roundColumns(dst[n:], g[n:], inverse[n:], random[n:], limit)
		}
	}
	set.signsOfSums = func(signs, pass []uint64, sums []int32, alpha, theta []float32, offset int32, unit float32) {
		n := len(sums) &^ 63
		if n > 0 {
			_, _, _, _ = signs[n/64-1], pass[n/64-1], alpha[n-1], theta[n-1]
			signsOfSumsAVX512(&signs[0], &pass[0], &sums[0], &alpha[0], &theta[0], n, offset, unit)
		}
		signsOfSumsGo(signs[n/64:], pass[n/64:], sums[n:], alpha[n:], theta[n:], offset, unit)
	}
	set.addBRows = func(sums []float64, most []float32, src []uint16, stride int, words []uint64, wordStride, rows int) {
		n := len(sums) &^ 63
		if n > 0 && rows > 0 {
			_, _, _ = most[n-1], src[(rows-1)*stride+n-1], words[(rows-1)*wordStride+n/64-1]
			addBRowsAVX512(&sums[0], &most[0], &src[0], stride, &words[0], wordStride, rows, n)
		}
		if n < len(sums) {
			addBRowsGo(sums[n:], most[n:], src[n:], stride, words[n/64:], wordStride, rows)
		}
	}
	set.roundBFloats = func(dst []uint16, dstStride int, src []float32, srcStride, rows, cols int) {
		n := cols &^ 31
		if n > 0 && rows > 0 {
			_, _ = dst[(rows-1)*dstStride+n-1], src[(rows-1)*srcStride+n-1]
			roundBFloatsAVX512(&dst[0], dstStride, &src[0], srcStride, rows, n)
		}
		if n < cols {
			narrow.roundBFloats(dst[n:], dstStride, src[n:], srcStride, rows, cols-n)
		}
	}
	set.scaleToBFloats = func(dst []uint16, sums []int32, offset int32, unit float32) {
		n := len(dst) &^ 31
		if unit-unit != 0 {
			n = 0
		}
		if n > 0 {
			_ = sums[n-1]
			scaleToBFloatsAVX512(&dst[0], &sums[0], n, offset, unit)
		}
		if n < len(dst) {
			narrow.scaleToBFloats(dst[n:], sums[n:], offset, unit)
		}
	}
	return set
}
