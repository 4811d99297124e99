package cpu

// instructions are the inner loops in one instruction set. Every set computes the same bits.
//
// A loop is a Go function, addGo, which says what the loop computes, and a field here. Its assembly, addLoopAVX2, is declared in
// tools/assembly by that name; the generator writes addAVX2, which gives whole registers to the assembly and the rest to addGo.
type instructions struct {
	name     string
	shuffles bool // looking up is faster than counting bits
	counts   bool // unless both sides are signs

	// Products.
	andCounts  func(dst []int32, x, w []uint64)
	countSigns func(dst []int32, stride int, x []uint64, xStride int, w []uint64, words int)
	addCounts  func(sums, counts, pops []int32, shift, weight int32)
	tile       func(c []float64, ldc int, a, b []float64, k int)
	makeTables func(dst []byte, q []int8) int32
	lookup     func(sums []int32, stride int, tables []byte, s signPanels, from, to, flush int, add bool)

	// Arrangement of bits and bytes.
	packSigns      func(words []uint64, x []float32)
	packPass       func(words []uint64, x []float32)
	transposeBits  func(dst []byte, src []uint64, stride, groups int)
	transposeBytes func(dst []byte, dstStride int, src []byte, srcStride, n int)

	// Between floats and integers.
	scaleIntegers  func(dst []float32, sums []int32, offset int32, unit float32)
	scaleToBFloats func(dst []uint16, sums []int32, offset int32, unit float32)
	affineSums     func(dst []float32, sums []int32, alpha, theta []float32, offset int32, unit float32)
	signsOfSums    func(signs, pass []uint64, sums []int32, alpha, theta []float32, offset int32, unit float32)
	addScaled      func(dst []float32, sums []int32, signs []uint64, offset int32, factor float32) float64
	randomWords    func(dst []uint32, key [2]uint32, counter [4]uint32)
	roundRow       func(dst []int8, gradient, alpha []float32, inverse float32, random []uint16, limit float32)
	roundColumns   func(dst []int8, gradient, inverse []float32, random []uint16, limit float32)

	// Floats.
	affine         func(u, alpha, theta []float32)
	roundBFloats   func(dst []uint16, dstStride int, src []float32, srcStride, rows, cols int)
	widenBFloats   func(dst []float32, dstStride int, src []uint16, srcStride, rows, cols int)
	maskBFloats    func(dst []float32, src []uint16, words []uint64)
	add            func(dst, a, b []float32)
	mask           func(dst, src []float32, words []uint64)
	largest        func(most, x []float32)
	largestProduct func(a, b []float32) float32
	addRows        func(sums []float64, most, src []float32, stride int, words []uint64, wordStride, rows int)
	addBRows       func(sums []float64, most []float32, src []uint16, stride int, words []uint64, wordStride, rows int)
	sumSquares     func(x []float32) float64
	multiply       func(dst, a, b []float32)
	scale          func(x []float32, factor float32)
	maximum        func(x []float32) float32
	exponentials   func(x []float32, top float32) float64
	quantize       func(dst []byte, x, gain []float32, r, step, half float64)
	passNormalized func(dst, da, x, gain []float32, r, limit float64) float64
	addNormalized  func(dx []float32, dGain []float64, da, x, gain []float32, r, c float64)
	readGradient   func(dv []float64, do, v []float32, w float64) float64
	scoreGradient  func(dq, dk []float64, q, k []float32, s float64)
	nearest        func(best, away *[4][4]float64, q, k []uint64, skip, n int, score *[4][4]float64)
	ranked         func(g *ranked)
	adam           func(param, grad, m, v []float32, u *update)
}

// plainGo runs everywhere.
func plainGo() instructions {
	return instructions{
		name:      "Go",
		andCounts: andCountsGo, countSigns: countSignsGo, addCounts: addCountsGo, tile: tileGo, makeTables: makeTablesGo, lookup: lookupGo,
		packSigns: packSignsGo, packPass: packPassGo, transposeBits: transposeBitsGo, transposeBytes: transposeBytesGo,
		scaleIntegers: scaleIntegersGo, scaleToBFloats: scaleToBFloatsGo, affineSums: affineSumsGo, signsOfSums: signsOfSumsGo, addScaled: addScaledGo,
		randomWords: randomWordsGo, roundRow: roundRowGo, roundColumns: roundColumnsGo,
		affine: affineGo, roundBFloats: roundBFloatsGo, widenBFloats: widenBFloatsGo, maskBFloats: maskBFloatsGo, add: addGo, mask: maskGo, largest: largestGo, largestProduct: largestProductGo,
		addRows: addRowsGo, addBRows: addBRowsGo, sumSquares: sumSquaresGo, adam: adamGo,
		multiply: multiplyGo, scale: scaleGo, maximum: maximumGo, exponentials: exponentialsGo,
		quantize: quantizeGo, passNormalized: passNormalizedGo, addNormalized: addNormalizedGo,
		readGradient: readGradientGo, scoreGradient: scoreGradientGo,
		nearest: nearestGo, ranked: rankedGo,
	}
}
