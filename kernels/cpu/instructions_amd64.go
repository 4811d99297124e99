package cpu

import (
	"slices"

	"golang.org/x/sys/cpu"
)

// instructionSets lists the instruction sets of this processor, the best last.
func instructionSets() []instructions {
	sets := []instructions{plainGo()}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI2 {
		sets = append(sets, avx2())
		x := cpu.X86
		if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VBMI && x.HasAVX512VPOPCNTDQ {
			sets = append(sets, avx512())
		}
	}
	return sets
}

// avx2 has assembly for whole registers, and Go for the remaining values.
func avx2() instructions {
	s := plainGo()
	s.name, s.shuffles = "AVX2", true
	s.useAVX2()
	s.tilePair = tilePairAVX2
	return s
}

// avx512 is avx2 with those loops replaced that gain much from wider registers, more of them, or masks.
func avx512() instructions {
	s := avx2()
	s.name, s.counts = "AVX-512", true
	s.useAVX512()
	return s
}

// Callers of assembly that the generator does not write, because their slices are not rows of values. As in
// callers_amd64.go, they look at the last value that the assembly reads, so that a short slice panics.

func countDifferingAVX2(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int) {
	n := wholeChannels(len(dst), 4, x, xPlanes, wordsPerStep, w, wPlanes)
	if n > 0 {
		countDifferingLoopAVX2(&dst[0], &x[0], xPlanes, &w[0], wPlanes, len(x)/xPlanes/wordsPerStep, n/4)
	}
	countDifferingGo(dst[n:], x, xPlanes, w[n*wPlanes*len(x)/xPlanes:], wPlanes)
}

func countCommonAVX2(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int) {
	n := wholeChannels(len(dst), 4, x, xPlanes, wordsPerStep, w, wPlanes)
	if n > 0 {
		countCommonLoopAVX2(&dst[0], &x[0], xPlanes, &w[0], wPlanes, len(x)/xPlanes/wordsPerStep, n/4)
	}
	countCommonGo(dst[n:], x, xPlanes, w[n*wPlanes*len(x)/xPlanes:], wPlanes)
}

func tileAVX2(c []float64, ldc int, a, b []float64, k int) {
	if k > 0 {
		_, _, _ = c[(tileRows-1)*ldc+tileCols-1], a[k*tileRows-1], b[k*tileCols-1]
		tileLoopAVX2(&c[0], ldc, &a[0], &b[0], k)
	}
}

func tilePairAVX2(c []float64, ldc int, a, b []float64, k int) {
	tileAVX2(c, ldc, a, b[:k*tileCols], k)
	tileAVX2(c[tileCols:], ldc, a, b[k*tileCols:], k)
}

func makeTablesAVX2(dst []byte, q []int8) int32 {
	_ = dst[tableAt(len(q)-8)+tableSize-1]
	return makeTablesLoopAVX2(&dst[0], &q[0], len(q))
}

func lookupAVX2(sums []int32, stride int, tables []byte, s signPanels, from, to, flush int, add bool) {
	groups, n := to-from, s.panels()
	_, _ = sums[(lookupRows-1)*stride+n*panelCols-1], tables[groups*lookupRows*tableSize-1]
	_ = s.panel(n-1, from, to)
	lookupLoopAVX2(&sums[0], stride, &tables[0], &s.bytes[from*panelCols], groups, s.groups-groups, n, flush, add)
}

func packSignsAVX2(words []uint64, x []float32) {
	n := len(x) / 64
	if n > 0 {
		_ = words[n-1]
		packSignsLoopAVX2(&words[0], &x[0], n)
	}
	if rest := x[64*n:]; n < len(words) && len(rest) > 8 { // a head's channels, often half a word
		var line [64]float32
		copy(line[:], rest)
		packSignsLoopAVX2(&words[n], &line[0], 1)
		words[n] &= 1<<len(rest) - 1
		clear(words[n+1:])
		return
	}
	packSignsGo(words[n:], x[64*n:])
}

func packMaskAVX2(words []uint64, x []float32, limit float32) {
	n := len(x) / 64
	if n > 0 {
		_ = words[n-1]
		packMaskLoopAVX2(&words[0], &x[0], limit, n)
	}
	packMaskGo(words[n:], x[64*n:], limit)
}

func setBitsAVX2(words []uint64, stride, planes int, index []byte) {
	n := len(index) / 64
	if n > 0 {
		_ = words[(planes-1)*stride+n-1]
		setBitsLoopAVX2(&words[0], stride, planes, &index[0], n)
	}
	if 64*n < len(index) {
		setBitsGo(words[n:], stride, planes, index[64*n:])
	}
}

func expandBitsAVX2(dst []int8, words []uint64, stride, planes, at int, lowest, weight int8) {
	if len(dst) > 0 {
		_ = words[(planes-1)*stride+(at+len(dst)-1)>>6]
		expandBitsLoopAVX2(&dst[0], &wordBytes(words)[at/8], stride, planes, spread1*uint64(uint8(lowest)),
			spread1*uint64(uint8(weight)), len(dst))
	}
}

func weighLevelsAVX2(dst []float32, values []uint64, at *[fewSurvivors]int, stride, planes, from int,
	sums *[1 << fewSurvivors]float32, unit float32) {
	n := len(dst) &^ 15
	if from == 0 && n > 0 {
		_ = values[slices.Max(at[:])+(planes-1)*stride+(n-1)>>6]
		weighLevelsLoopAVX2(&dst[0], &values[0], at, stride, planes, sums, unit, n)
		from = n
	}
	weighLevelsGo(dst, values, at, stride, planes, from, sums, unit)
}

func transposeBitsAVX2(dst []byte, src []uint64, stride, groups int) {
	if groups > 0 {
		_, _ = dst[64*groups-1], src[(8*groups-1)*stride]
		transposeBitsLoopAVX2(&dst[0], &src[0], 8*stride, groups)
	}
}

func transposeBytesAVX2(dst []byte, dstStride int, src []byte, srcStride, n int) {
	whole := n &^ 15
	if whole > 0 {
		_, _ = dst[(whole-1)*dstStride+7], src[7*srcStride+whole-1]
		transposeBytesLoopAVX2(&dst[0], dstStride, &src[0], srcStride, whole)
	}
	if whole < n {
		transposeBytesGo(dst[whole*dstStride:], dstStride, src[whole:], srcStride, n-whole)
	}
}

func rotateAVX2(x []float64, block int) {
	if block < 16 || len(x) == 0 {
		rotateGo(x, block)
		return
	}
	rotateLoopAVX2(&x[0], len(x), block)
}

func randomWordsAVX2(dst []uint32, key [2]uint32, counter [4]uint32) {
	n := len(dst) &^ 31
	if n > 0 {
		randomWordsLoopAVX2(&dst[0], n/32, &key, &counter)
		counter[0] += uint32(n / 4)
	}
	randomWordsGo(dst[n:], key, counter)
}

func nearestAVX2(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64) {
	_ = k[len(k)-skip-n]
	nearestLoopAVX2(best, away, &q[:4][0], &k[len(k)-1-skip], n, float64(skip), constants)
}

func nearestOfPlanesAVX2(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64) {
	_ = k[len(k)-skip-n]
	nearestOfPlanesLoopAVX2(best, away, &q[len(q)-4:][:4][0], len(q)/4, &k[len(k)-1-skip], n, float64(skip), constants)
}

func rankedAVX2(g *rankedQueries) {
	if !g.wholeRegisters() {
		rankedGo(g)
		return
	}
	n, words := g.width, wordsOf(g.width)
	_ = g.v[(int(slices.Max(g.survivors))+1)*words-1]
	rankedLoopAVX2(&g.dqs[0], &g.dk[0], &g.dv[0], &g.dos[0], &g.q[0], &g.k[0], &g.v[0], &g.survivors[0], &g.exps[0],
		&g.weights, g.scale, g.dqStride, g.doStride, words, n, len(g.survivors)/fewSurvivors)
}

func rankedLevelsAVX2(g *rankedQueries) {
	if !g.wholeRegisters() {
		rankedLevelsGo(g)
		return
	}
	n, words := g.width, wordsOf(g.width)
	_ = g.levels[(int(slices.Max(g.survivors))+1)*n-1]
	rankedLevelsLoopAVX2(&g.dqs[0], &g.dk[0], &g.dv[0], &g.dos[0], &g.q[0], &g.k[0], &g.levels[0], &g.survivors[0],
		&g.exps[0], &g.weights, g.scale, g.dqStride, g.doStride, words, n, len(g.survivors)/fewSurvivors)
}

func rankedQueriesAVX2(g *rankedQueries) {
	if !g.wholeRegisters() {
		rankedQueriesGo(g)
		return
	}
	n, words := g.width, wordsOf(g.width)
	_, _ = g.levels[(int(slices.Max(g.survivors))+1)*n-1], g.queries[len(g.survivors)/fewSurvivors*n-1]
	rankedQueriesLoopAVX2(&g.dqs[0], &g.dk[0], &g.dv[0], &g.dos[0], &g.queries[0], &g.k[0], &g.levels[0], &g.survivors[0],
		&g.exps[0], &g.weights, g.scale, g.dqStride, g.doStride, words, n, len(g.survivors)/fewSurvivors)
}

// wholeRegisters says whether the assembly can compute all of g. It looks at the ends of what the assembly reads and
// writes.
func (g *rankedQueries) wholeRegisters() bool {
	n, words, queries := g.width, wordsOf(g.width), len(g.survivors)/fewSurvivors
	if n == 0 || n%32 != 0 || queries == 0 {
		return false
	}
	for _, u := range []int32{slices.Min(g.survivors), slices.Max(g.survivors)} {
		_, _, _ = g.dk[(int(u)+1)*n-1], g.dv[(int(u)+1)*n-1], g.k[(int(u)+1)*words-1]
	}
	if g.queries == nil {
		_ = g.q[queries*words-1]
	}
	_, _, _ = g.dq(queries-1), g.do(queries-1), g.exps[queries*fewSurvivors-1]
	return true
}

func countDifferingAVX512(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int) {
	n := wholeChannels(len(dst), 8, x, xPlanes, 8, w, wPlanes)
	if n > 0 {
		countDifferingLoopAVX512(&dst[0], &x[0], xPlanes, &w[0], wPlanes, len(x)/xPlanes/8, n/8)
	}
	countDifferingAVX2(dst[n:], x, xPlanes, w[n*wPlanes*len(x)/xPlanes:], wPlanes)
}

func countCommonAVX512(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int) {
	n := wholeChannels(len(dst), 8, x, xPlanes, 8, w, wPlanes)
	if n > 0 {
		countCommonLoopAVX512(&dst[0], &x[0], xPlanes, &w[0], wPlanes, len(x)/xPlanes/8, n/8)
	}
	countCommonAVX2(dst[n:], x, xPlanes, w[n*wPlanes*len(x)/xPlanes:], wPlanes)
}

func countSignsAVX512(dst []int32, stride int, x []uint64, xStride int, w []uint64, words int) {
	n := len(w) / words
	_, _ = dst[3*stride+n-1], x[3*xStride+words-1]
	countSignsLoopAVX512(&dst[0], stride, &x[0], xStride, &w[0], n, words)
}

func nearestAVX512(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64) {
	if constants[3][0] == 0 {
		nearestAVX2(best, away, q, k, skip, n, constants)
		return
	}
	_ = k[len(k)-skip-n]
	nearestLoopAVX512(best, away, &q[:4][0], &k[len(k)-1-skip], n, float64(skip), constants)
}

func nearestOfPlanesAVX512(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64) {
	if constants[3][0] == 0 {
		nearestOfPlanesAVX2(best, away, q, k, skip, n, constants)
		return
	}
	_ = k[len(k)-skip-n]
	nearestOfPlanesLoopAVX512(best, away, &q[len(q)-4:][:4][0], len(q)/4, &k[len(k)-1-skip], n, float64(skip), constants)
}

func lastBelowAVX512(k []uint64, q uint64, below int) int {
	rest := len(k) % 16
	if rest < len(k) {
		if at := lastBelowLoopAVX512(&k[rest], q, below, len(k)-rest); at >= 0 {
			return rest + at
		}
	}
	return lastBelowGo(k[:rest], q, below)
}

func lastBelowOfPlanesAVX512(k, q []uint64, below int) int {
	rest := len(k) % 16
	if rest < len(k) {
		at := lastBelowOfPlanesLoopAVX512(&k[rest], &q[len(q)-1], len(q), below, len(k)-rest)
		if at >= 0 {
			return rest + at
		}
	}
	return lastBelowOfPlanesGo(k[:rest], q, below)
}

func tilePairAVX512(c []float64, ldc int, a, b []float64, k int) {
	if k > 0 {
		_, _, _ = c[(tileRows-1)*ldc+2*tileCols-1], a[k*tileRows-1], b[2*k*tileCols-1]
		tilePairLoopAVX512(&c[0], ldc, &a[0], &b[0], k)
	}
}

func byteProductsAVX2(dst []int32, panel []byte, q []int8, qStride, groups, flush int) {
	if hasGroups(dst, panel, q, qStride, groups) {
		byteProductsLoopAVX2(&dst[0], &panel[0], &q[0], qStride, groups, flush)
	}
}

func byteProductsAVX512(dst []int32, panel []byte, q []int8, qStride, groups, flush int) {
	if hasGroups(dst, panel, q, qStride, groups) {
		byteProductsLoopAVX512(&dst[0], &panel[0], &q[0], qStride, groups, flush)
	}
}

// hasGroups says whether there is a group to multiply. It looks at the ends of what the assembly reads and writes.
func hasGroups(dst []int32, panel []byte, q []int8, qStride, groups int) bool {
	if groups < 1 {
		return false
	}
	_, _ = dst[byteRows*2*byteCols-1], panel[groups*byteGroup*byteCols-1]
	_ = q[(byteRows-1)*qStride+groups*byteGroup-1]
	return true
}

func makeTablesAVX512(dst []byte, q []int8) int32 {
	_ = dst[tableAt(len(q)-8)+tableSize-1]
	return makeTablesLoopAVX512(&dst[0], &q[0], len(q))
}

func lookupAVX512(sums []int32, stride int, tables []byte, s signPanels, from, to, flush int, add bool) {
	groups, n := to-from, s.panels()
	_, _ = sums[(lookupRows-1)*stride+n*panelCols-1], tables[groups*lookupRows*tableSize-1]
	_ = s.panel(n-1, from, to)
	lookupLoopAVX512(&sums[0], stride, &tables[0], &s.bytes[from*panelCols], groups, s.groups-groups, n, flush, add)
}

func randomWordsAVX512(dst []uint32, key [2]uint32, counter [4]uint32) {
	n := len(dst) &^ 127
	if n > 0 {
		randomWordsLoopAVX512(&dst[0], n/128, &key, &counter)
		counter[0] += uint32(n / 4)
	}
	randomWordsAVX2(dst[n:], key, counter)
}
