package cpu

// buffer is memory that is kept for the next time.
type buffer[T any] struct{ memory []T }

// take returns n values of undefined content. What it returned before becomes invalid.
func (b *buffer[T]) take(n int) []T {
	if cap(b.memory) < n {
		b.memory = make([]T, n)
	}
	return b.memory[:n]
}

// scratch is the memory in which one worker computes. Every buffer belongs to one function, as a test checks, so no two
// computations that are under way together can use the same one.
type scratch struct {
	// gemm.go
	packedA, packedB, edgeTile, productSums buffer[float64]
	packedRow, packingRow                   buffer[float32]

	// muon.go
	ownOperand, ownSums                          buffer[float64]
	orthogonal, orthogonalNext, gram, gramSquare buffer[float32]

	// bytes.go, lookup.go, popcount.go
	lookupTotals, lookupSums buffer[int32]
	lookupTables             buffer[byte]
	lookupDigits             buffer[int8]
	byteSums, byteHalves     buffer[int32]
	indexRows, indexRow      buffer[int8]
	fewRowSums, countedSigns buffer[int32]

	// quantize.go
	quantizedRow  buffer[float32]
	scaledWeights buffer[float64]
	weightLevels  buffer[byte]

	// linear.go, linear_quantize.go, linear_backward.go
	outputRow, outputPart, outputFactors, weightRow buffer[float32]
	partMask                                        buffer[uint64]
	outputLevels                                    buffer[byte]
	gradientWeights                                 buffer[float32]
	gradientIntegers                                buffer[int32]
	weightSums                                      buffer[float64]

	// gradient.go, rounding.go
	plainRow, laterRow, rowUnits, factorRow, factoredRow buffer[float32]
	roundedRows, roundedColumns                          buffer[int8]
	randomWords                                          buffer[uint32]

	// embed.go, normalize.go
	tokenRow, signedRow, maskedRows, normalizedRow, inputRow buffer[float32]
	levelIndices                                             buffer[byte]

	// rotation.go
	rotatedRow    buffer[float64]
	rotatedBack   buffer[float32]
	rotatedLevels buffer[byte]

	// attention.go
	head                          head
	queryBits, keyBits, valueBits buffer[uint64]
	cachedQueries                 buffer[uint64] // cache.go
	scores                        buffer[float64]
	outputSums                    buffer[float32]
	outputIndices                 buffer[byte]
	valueSums                     buffer[float64]

	// attention_backward.go, ranks_backward.go
	keyValueGradients, queryGradients, outputGradients buffer[float32]
	survivorExps, filledExps                           buffer[float32]
	headQueries, headKeys, headValues                  buffer[float32]
	filledPointers                                     buffer[int32]
	headIntegers                                       buffer[int8]
	gradientSums, scoreGradients                       buffer[float64]
}

// sharedScratch is the memory of one operation that all workers read. Its buffers too belong to one function each.
type sharedScratch struct {
	// gemm.go
	packedOperand buffer[float64]

	// bytes.go, linear.go, popcount.go
	integerRows                             buffer[int8]
	weightBytes, inputBytes, weightRowBytes buffer[byte]
	inputMatrix, weightMatrix, products     buffer[float32]
	shares                                  buffer[share]
	channelWords                            buffer[uint64]
	weightColumns                           [8]buffer[byte] // of every plane

	// linear_backward.go
	inputGradients           buffer[float32]
	weightRows, inputColumns [8]buffer[byte] // of every plane

	// gradient.go, rounding.go
	channelMaxima, plainGradients, channelUnits, channelInverses buffer[float32]
	channelSums                                                  buffer[float64]
	fullMask                                                     buffer[uint64]
	roundedChannels                                              buffer[int8]

	// reduce.go
	blockSums, rowSums buffer[float64]

	// normalize.go, loss.go
	gainSigns, ones, logits, rowMaxima buffer[float32]
	rowExpSums                         buffer[float64]

	// attention.go
	headOutputs buffer[uint64]
	scores      scoreTables // survivors.go
}
