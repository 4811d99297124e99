package cpu

// instructions are the inner loops for one instruction set. All instruction sets compute the same bits.
//
// A new loop, add, is a Go function addGo that says what it computes, a field here, an entry in plainGo, and a
// comparison in instructions_test.go. If it is worth assembly, tools/assembly has that by the same name: the generator
// takes the parameters from addGo and writes addAVX2, which gives whole registers to the assembly and the remaining
// values to addGo.
type instructions struct {
	name     string
	shuffles bool // it has shuffles, so products by lookup are faster than products by counting bits
	counts   bool // it counts bits in registers, so products of signs with signs are faster by counting

	// Products.
	countDiffering func(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int)
	countCommon    func(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int)
	countSigns     func(dst []int32, stride int, x []uint64, xStride int, w []uint64, words int)
	addCounts      func(sums, counts []int32, shift int32)
	tile           func(c []float64, ldc int, a, b []float64, k int)
	tilePair       func(c []float64, ldc int, a, b []float64, k int)
	makeTables     func(dst []byte, q []int8) int32
	// byteProducts is nil where products by lookup are faster.
	byteProducts func(dst []int32, panel []byte, q []int8, qStride, groups, flush int)
	lookup       func(sums []int32, stride int, tables []byte, s signPanels, from, to, flush int, add bool)

	// Arrangement of bits and bytes.
	packSigns      func(words []uint64, x []float32)
	packMask       func(words []uint64, x []float32, limit float32)
	setBits        func(words []uint64, stride, planes int, index []byte)
	expandBits     func(dst []int8, words []uint64, stride, planes, at int, lowest, weight int8)
	transposeBits  func(dst []byte, src []uint64, stride, groups int)
	transposeBytes func(dst []byte, dstStride int, src []byte, srcStride, n int)

	// Between floats and integers.
	scaleBytes     func(dst []float32, q []int8, unit float32)
	scaleIntegers  func(dst []float32, sums []int32, offset int32, unit float32)
	scaleToBFloats func(dst []uint16, sums []int32, offset int32, unit float32)
	affineSums     func(dst []float32, sums []int32, alpha, theta []float32, offset int32, unit float32)
	signsOfSums    func(signs, mask []uint64, sums []int32, alpha, theta []float32, offset int32, unit float32)
	addScaled      func(dst []float32, sums []int32, signs []uint64, offset int32, factor float32) float64
	randomWords    func(dst []uint32, key [2]uint32, counter [4]uint32)
	roundRow       func(dst []int8, gradient, alpha []float32, inverse float32, random []uint16, limit float32)
	roundColumns   func(dst []int8, gradient, inverse []float32, random []uint16, limit float32)

	// Floats.
	affine        func(u, alpha, theta []float32)
	squaredReLU   func(dst []byte, factors, u []float32, perUnit float32)
	roundBFloats  func(dst []uint16, dstStride int, src []float32, srcStride, rows, cols int)
	widenBFloats  func(dst []float32, dstStride int, src []uint16, srcStride, rows, cols int)
	mask          func(dst, src []float32, words []uint64)
	maskBFloats   func(dst []float32, src []uint16, words []uint64)
	add           func(dst, a, b []float32)
	multiply      func(dst, a, b []float32)
	scale         func(x []float32, factor float32)
	sumSquares    func(x []float32) float64
	addRows       func(sums []float64, most, src []float32, stride int, words []uint64, wordStride, rows int)
	addBFloatRows func(sums []float64, most []float32, src []uint16, stride int, words []uint64, wordStride, rows int)
	absMax        func(most, x []float32)
	absMaxProduct func(a, b []float32) float32
	maximum       func(x []float32) float32
	exponentials  func(x []float32, top float32) float64

	// Normalization, attention and the optimizer.
	quantize          func(dst []byte, x, gain []float32, r, step, half float64)
	nearestLevels     func(dst []byte, x []float64, r, step, half float64)
	products          func(dst []float64, a, b []float32)
	rotate            func(x []float64, block int)
	maskRotated       func(v []float64, da []float32, r, limit float64)
	narrowScaled      func(dst []float32, x []float64, factor float64)
	maskNormalized    func(dst, da, x, gain []float32, r, limit float64) float64
	addNormalized     func(dx []float32, dGain []float64, da, x, gain []float32, r, c float64)
	valueGradient     func(dv []float64, do, v []float32, w float64) float64
	scoreGradient     func(dq, dk []float64, q, k []float32, s float64)
	nearest           func(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64)
	lastBelow         func(k []uint64, q uint64, below int) int
	nearestOfPlanes   func(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64)
	lastBelowOfPlanes func(k, q []uint64, below int) int
	weighLevels       func(dst []float32, values []uint64, at *[fewSurvivors]int, stride, planes, from int,
		sums *[1 << fewSurvivors]float32, unit float32)
	ranked        func(g *rankedQueries)
	rankedLevels  func(g *rankedQueries)
	rankedQueries func(g *rankedQueries)
	adam          func(param, grad, m, v []float32, u *update)
}

// plainGo runs everywhere.
func plainGo() instructions {
	return instructions{
		name: "Go",

		countDiffering: countDifferingGo, countCommon: countCommonGo, countSigns: countSignsGo,
		addCounts: addCountsGo, tile: tileGo, tilePair: tilePairGo,
		makeTables: makeTablesGo, lookup: lookupGo,

		packSigns: packSignsGo, packMask: packMaskGo, setBits: setBitsGo, expandBits: expandBitsGo,
		transposeBits: transposeBitsGo, transposeBytes: transposeBytesGo,

		scaleBytes: scaleBytesGo, scaleIntegers: scaleIntegersGo, scaleToBFloats: scaleToBFloatsGo, affineSums: affineSumsGo,
		signsOfSums: signsOfSumsGo, addScaled: addScaledGo,
		randomWords: randomWordsGo, roundRow: roundRowGo, roundColumns: roundColumnsGo,

		affine: affineGo, squaredReLU: squaredReLUGo, roundBFloats: roundBFloatsGo, widenBFloats: widenBFloatsGo,
		mask: maskGo, maskBFloats: maskBFloatsGo,
		add: addGo, multiply: multiplyGo, scale: scaleGo, sumSquares: sumSquaresGo,
		addRows: addRowsGo, addBFloatRows: addBFloatRowsGo,
		absMax: absMaxGo, absMaxProduct: absMaxProductGo, maximum: maximumGo, exponentials: exponentialsGo,

		quantize: quantizeGo, nearestLevels: nearestLevelsGo, products: productsGo, rotate: rotateGo,
		maskRotated: maskRotatedGo, narrowScaled: narrowScaledGo,
		maskNormalized: maskNormalizedGo, addNormalized: addNormalizedGo,
		valueGradient: valueGradientGo, scoreGradient: scoreGradientGo, nearest: nearestGo, lastBelow: lastBelowGo,
		nearestOfPlanes: nearestOfPlanesGo, lastBelowOfPlanes: lastBelowOfPlanesGo,
		weighLevels: weighLevelsGo, ranked: rankedGo,
		rankedLevels: rankedLevelsGo, rankedQueries: rankedQueriesGo,
		adam: adamGo,
	}
}
