package cpu

import (
	"slices"

	"golang.org/x/sys/cpu"
)

// instructionSets lists what this processor can run, the best last.
func instructionSets() []instructions {
	sets := []instructions{plainGo()}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		sets = append(sets, avx2())
		if x := cpu.X86; x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VBMI && x.HasAVX512VPOPCNTDQ {
			sets = append(sets, avx512())
		}
	}
	return sets
}

// avx2 is the assembly for whole registers, and Go for what is left over.
func avx2() instructions {
	return instructions{
		name: "AVX2", shuffles: true,
		andCounts: func(dst []int32, x, w []uint64) {
			n := len(dst) &^ 3
			if n > 0 {
				_ = w[n*len(x)-1]
				andCountsAVX2(&dst[0], &x[0], &w[0], len(x)/wordsPerStep, n/4)
			}
			andCountsGo(dst[n:], x, w[n*len(x):])
		},
		countSigns: countSignsGo,
		tile: func(c []float64, ldc int, a, b []float64, k int) {
			if k > 0 {
				_, _, _ = c[(tileRows-1)*ldc+tileCols-1], a[k*tileRows-1], b[k*tileCols-1]
				tileAVX2(&c[0], ldc, &a[0], &b[0], k)
			}
		},
		makeTables: func(dst []byte, q []int8) int32 {
			_ = dst[tableAt(len(q)-8)+tableSize-1]
			return makeTablesAVX2(&dst[0], &q[0], len(q))
		},
		lookup: func(sums []int32, stride int, tables []byte, s signPanels, from, to, flush int, add bool) {
			groups, n := to-from, s.panels()
			_, _ = sums[(lookupRows-1)*stride+n*panelCols-1], tables[groups*lookupRows*tableSize-1]
			_ = s.panel(n-1, from, to)
			lookupAVX2(&sums[0], stride, &tables[0], &s.bytes[from*panelCols], groups, s.groups-groups, n, flush, add)
		},
		packSigns: func(words []uint64, x []float32) {
			n := len(x) / 64
			if n > 0 {
				_ = words[n-1]
				packSignsAVX2(&words[0], &x[0], n)
			}
			if rest := x[64*n:]; n < len(words) && len(rest) > 8 { // a head's channels, often half a word
				var line [64]float32
				copy(line[:], rest)
				packSignsAVX2(&words[n], &line[0], 1)
				words[n] &= 1<<len(rest) - 1
				clear(words[n+1:])
				return
			}
			packSignsGo(words[n:], x[64*n:])
		},
		packPass: func(words []uint64, x []float32) {
			n := len(x) / 64
			if n > 0 {
				_ = words[n-1]
				packPassAVX2(&words[0], &x[0], n)
			}
			packPassGo(words[n:], x[64*n:])
		},
		transposeBits: func(dst []byte, src []uint64, stride, groups int) {
			if groups > 0 {
				_, _ = dst[64*groups-1], src[(8*groups-1)*stride]
				transposeBitsAVX2(&dst[0], &src[0], 8*stride, groups)
			}
		},
		transposeBytes: func(dst []byte, dstStride int, src []byte, srcStride, n int) {
			whole := n &^ 15
			if whole > 0 {
				_, _ = dst[(whole-1)*dstStride+7], src[7*srcStride+whole-1]
				transposeBytesAVX2(&dst[0], dstStride, &src[0], srcStride, whole)
			}
			if whole < n {
				transposeBytesGo(dst[whole*dstStride:], dstStride, src[whole:], srcStride, n-whole)
			}
		},
		scaleIntegers: func(dst []float32, sums []int32, offset int32, unit float32) {
			n := len(dst) &^ 7
			if n > 0 {
				_ = sums[n-1]
				scaleIntegersAVX2(&dst[0], &sums[0], n, offset, unit)
			}
			scaleIntegersGo(dst[n:], sums[n:], offset, unit)
		},
		scaleToBFloats: func(dst []uint16, sums []int32, offset int32, unit float32) {
			n := len(dst) &^ 15
			if unit-unit != 0 { // not finite: there may be values that are no numbers
				n = 0
			}
			if n > 0 {
				_ = sums[n-1]
				scaleToBFloatsAVX2(&dst[0], &sums[0], n, offset, unit)
			}
			scaleToBFloatsGo(dst[n:], sums[n:], offset, unit)
		},
		addCounts: func(sums, counts, pops []int32, shift, weight int32) {
			n := len(sums) &^ 7
			if n > 0 {
				_, _ = counts[n-1], pops[n-1]
				addCountsAVX2(&sums[0], &counts[0], &pops[0], n, shift, weight)
			}
			addCountsGo(sums[n:], counts[n:], pops[n:], shift, weight)
		},
		affineSums: func(dst []float32, sums []int32, alpha, theta []float32, offset int32, unit float32) {
			n := len(dst) &^ 7
			if n > 0 {
				_, _, _ = sums[n-1], alpha[n-1], theta[n-1]
				affineSumsAVX2(&dst[0], &sums[0], &alpha[0], &theta[0], n, offset, unit)
			}
			affineSumsGo(dst[n:], sums[n:], alpha[n:], theta[n:], offset, unit)
		},
		signsOfSums: func(signs, pass []uint64, sums []int32, alpha, theta []float32, offset int32, unit float32) {
			n := len(sums) &^ 63
			if n > 0 {
				_, _, _, _ = signs[n/64-1], pass[n/64-1], alpha[n-1], theta[n-1]
				signsOfSumsAVX2(&signs[0], &pass[0], &sums[0], &alpha[0], &theta[0], n, offset, unit)
			}
			signsOfSumsGo(signs[n/64:], pass[n/64:], sums[n:], alpha[n:], theta[n:], offset, unit)
		},
		addScaled: func(dst []float32, sums []int32, signs []uint64, offset int32, factor float32) (sum float64) {
			n := len(dst) &^ 63
			if n > 0 {
				_, _ = sums[n-1], signs[n/64-1]
				sum = addScaledAVX2(&dst[0], &sums[0], &signs[0], n, offset, factor)
			}
			return sum + addScaledGo(dst[n:], sums[n:], signs[n/64:], offset, factor)
		},
		randomWords: func(dst []uint32, key [2]uint32, counter [4]uint32) {
			n := len(dst) &^ 31
			if n > 0 {
				randomWordsAVX2(&dst[0], n/32, &key, &counter)
				counter[0] += uint32(n / 4)
			}
			randomWordsGo(dst[n:], key, counter)
		},
		roundRow: func(dst []int8, g, alpha []float32, inverse float32, random []uint16, limit float32) {
			n := len(dst) &^ 31
			if n > 0 {
				_, _, _ = g[n-1], alpha[n-1], random[n-1]
				roundRowAVX2(&dst[0], &g[0], &alpha[0], &random[0], n, inverse, limit)
			}
			roundRowGo(dst[n:], g[n:], alpha[n:], inverse, random[n:], limit)
		},
		roundColumns: func(dst []int8, g, inverse []float32, random []uint16, limit float32) {
			n := len(dst) &^ 31
			if n > 0 {
				_, _, _ = g[n-1], inverse[n-1], random[n-1]
				roundColumnsAVX2(&dst[0], &g[0], &inverse[0], &random[0], n, limit)
			}
			roundColumnsGo(dst[n:], g[n:], inverse[n:], random[n:], limit)
		},
		affine: func(u, alpha, theta []float32) {
			n := len(u) &^ 7
			if n > 0 {
				_, _ = alpha[n-1], theta[n-1]
				affineAVX2(&u[0], &alpha[0], &theta[0], n)
			}
			affineGo(u[n:], alpha[n:], theta[n:])
		},
		roundBFloats: func(dst []uint16, dstStride int, src []float32, srcStride, rows, cols int) {
			n := cols &^ 15
			if n > 0 && rows > 0 {
				_, _ = dst[(rows-1)*dstStride+n-1], src[(rows-1)*srcStride+n-1]
				roundBFloatsAVX2(&dst[0], dstStride, &src[0], srcStride, rows, n)
			}
			if n < cols {
				roundBFloatsGo(dst[n:], dstStride, src[n:], srcStride, rows, cols-n)
			}
		},
		widenBFloats: func(dst []float32, dstStride int, src []uint16, srcStride, rows, cols int) {
			n := cols &^ 7
			if n > 0 && rows > 0 {
				_, _ = dst[(rows-1)*dstStride+n-1], src[(rows-1)*srcStride+n-1]
				widenBFloatsAVX2(&dst[0], dstStride, &src[0], srcStride, rows, n)
			}
			if n < cols {
				widenBFloatsGo(dst[n:], dstStride, src[n:], srcStride, rows, cols-n)
			}
		},
		maskBFloats: func(dst []float32, src []uint16, words []uint64) {
			n := len(dst) &^ 63
			if n > 0 {
				_, _ = src[n-1], words[n/64-1]
				maskBFloatsAVX2(&dst[0], &src[0], &words[0], n)
			}
			maskBFloatsGo(dst[n:], src[n:], words[n/64:])
		},
		add: func(dst, a, b []float32) {
			n := len(dst) &^ 7
			if n > 0 {
				_, _ = a[n-1], b[n-1]
				addAVX2(&dst[0], &a[0], &b[0], n)
			}
			addGo(dst[n:], a[n:], b[n:])
		},
		mask: func(dst, src []float32, words []uint64) {
			n := len(dst) &^ 63
			if n > 0 {
				_, _ = src[n-1], words[n/64-1]
				maskAVX2(&dst[0], &src[0], &words[0], n)
			}
			maskGo(dst[n:], src[n:], words[n/64:])
		},
		largest: func(most, x []float32) {
			n := len(most) &^ 7
			if n > 0 {
				_ = x[n-1]
				largestAVX2(&most[0], &x[0], n)
			}
			largestGo(most[n:], x[n:])
		},
		largestProduct: func(a, b []float32) (most float32) {
			n := len(a) &^ 7
			if n > 0 {
				_ = b[n-1]
				most = largestProductAVX2(&a[0], &b[0], n)
			}
			return max(most, largestProductGo(a[n:], b[n:]))
		},
		addRows: func(sums []float64, most, src []float32, stride int, words []uint64, wordStride, rows int) {
			n := len(sums) &^ 63 // what is left over begins with a word
			if n > 0 && rows > 0 {
				_, _, _ = most[n-1], src[(rows-1)*stride+n-1], words[(rows-1)*wordStride+n/64-1]
				addRowsAVX2(&sums[0], &most[0], &src[0], stride, &words[0], wordStride, rows, n)
			}
			if n < len(sums) {
				addRowsGo(sums[n:], most[n:], src[n:], stride, words[n/64:], wordStride, rows)
			}
		},
		addBRows: func(sums []float64, most []float32, src []uint16, stride int, words []uint64, wordStride, rows int) {
			n := len(sums) &^ 63
			if n > 0 && rows > 0 {
				_, _, _ = most[n-1], src[(rows-1)*stride+n-1], words[(rows-1)*wordStride+n/64-1]
				addBRowsAVX2(&sums[0], &most[0], &src[0], stride, &words[0], wordStride, rows, n)
			}
			if n < len(sums) {
				addBRowsGo(sums[n:], most[n:], src[n:], stride, words[n/64:], wordStride, rows)
			}
		},
		sumSquares: func(x []float32) (sum float64) {
			n := len(x) &^ 7
			if n > 0 {
				sum = sumSquaresAVX2(&x[0], n)
			}
			return sum + sumSquaresGo(x[n:])
		},
		adam: func(param, grad, m, v []float32, u *update) {
			n := len(param) &^ 7
			if n > 0 {
				_, _, _ = grad[n-1], m[n-1], v[n-1]
				adamAVX2(&param[0], &grad[0], &m[0], &v[0], n, &u.clip)
			}
			adamGo(param[n:], grad[n:], m[n:], v[n:], u)
		},
		multiply: func(dst, a, b []float32) {
			n := len(dst) &^ 7
			if n > 0 {
				_, _ = a[n-1], b[n-1]
				multiplyAVX2(&dst[0], &a[0], &b[0], n)
			}
			multiplyGo(dst[n:], a[n:], b[n:])
		},
		scale: func(x []float32, factor float32) {
			n := len(x) &^ 7
			if n > 0 {
				scaleAVX2(&x[0], n, factor)
			}
			scaleGo(x[n:], factor)
		},
		maximum: func(x []float32) float32 {
			n := len(x) &^ 7
			if n == 0 {
				return maximumGo(x)
			}
			return max(maximumAVX2(&x[0], n), maximumGo(x[n:]))
		},
		exponentials: func(x []float32, top float32) (sum float64) {
			n := len(x) &^ 7
			if n > 0 {
				sum = exponentialsAVX2(&x[0], n, top)
			}
			return sum + exponentialsGo(x[n:], top)
		},
		quantize: func(dst []byte, x, gain []float32, r float64, bits int) {
			n := len(dst) &^ 7
			if n > 0 {
				_, _ = x[n-1], gain[n-1]
				half, step := halfLevels(bits)
				quantizeAVX2(&dst[0], &x[0], &gain[0], n, r, step, half, 2*half-1)
			}
			quantizeGo(dst[n:], x[n:], gain[n:], r, bits)
		},
		passNormalized: func(dst, da, x, gain []float32, r, limit float64) (dot float64) {
			n := len(dst) &^ 7
			if n > 0 {
				_, _, _ = da[n-1], x[n-1], gain[n-1]
				dot = passNormalizedAVX2(&dst[0], &da[0], &x[0], &gain[0], n, r, limit)
			}
			return dot + passNormalizedGo(dst[n:], da[n:], x[n:], gain[n:], r, limit)
		},
		addNormalized: func(dx []float32, dGain []float64, da, x, gain []float32, r, c float64) {
			n := len(dx) &^ 7
			if n > 0 {
				_, _, _, _ = dGain[n-1], da[n-1], x[n-1], gain[n-1]
				addNormalizedAVX2(&dx[0], &dGain[0], &da[0], &x[0], &gain[0], n, r, c)
			}
			addNormalizedGo(dx[n:], dGain[n:], da[n:], x[n:], gain[n:], r, c)
		},
		readGradient: func(dv []float64, do, v []float32, w float64) (dot float64) {
			n := len(dv) &^ 7
			if n > 0 {
				_, _ = do[n-1], v[n-1]
				dot = readGradientAVX2(&dv[0], &do[0], &v[0], n, w)
			}
			return dot + readGradientGo(dv[n:], do[n:], v[n:], w)
		},
		scoreGradient: func(dq, dk []float64, q, k []float32, s float64) {
			n := len(dq) &^ 7
			if n > 0 {
				_, _, _ = dk[n-1], q[n-1], k[n-1]
				scoreGradientAVX2(&dq[0], &dk[0], &q[0], &k[0], n, s)
			}
			scoreGradientGo(dq[n:], dk[n:], q[n:], k[n:], s)
		},
		nearest: func(best, away *[4][4]float64, q, k []uint64, skip, n int, score *[4][4]float64) {
			_ = k[len(k)-skip-n]
			nearestAVX2(best, away, &q[:4][0], &k[len(k)-1-skip], n, float64(skip), score)
		},
		ranked: func(g *ranked) {
			n, words, queries := g.width, wordsOf(g.width), len(g.at)/fewSurvivors
			if n == 0 || n%32 != 0 || queries == 0 {
				rankedGo(g)
				return
			}
			for _, u := range []int32{slices.Min(g.at), slices.Max(g.at)} {
				_, _, _, _ = g.dk[(int(u)+1)*n-1], g.dv[(int(u)+1)*n-1], g.k[(int(u)+1)*words-1], g.v[(int(u)+1)*words-1]
			}
			_, _, _, _ = g.dq(queries-1), g.do(queries-1), g.q[queries*words-1], g.exps[queries*fewSurvivors-1]
			rankedAVX2(&g.dqs[0], &g.dk[0], &g.dv[0], &g.dos[0], &g.q[0], &g.k[0], &g.v[0], &g.at[0], &g.exps[0], &g.weights, g.scale,
				g.dqStride, g.doStride, words, n, queries)
		},
	}
}
