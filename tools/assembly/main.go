// Command assembly writes the inner loops of kernels/cpu: for amd64 the assembly, its declarations, and the Go functions
// that call it; for arm64 the assembly of the two loops that decoding needs.
//
//	go run -C tools/assembly .
//
// What a loop computes is written in Go in kernels/cpu: the function of its name with Go at its end, whose parameters
// the assembly has too. A test compares the two, bit by bit. Floating-point products and sums round separately
// everywhere.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	. "github.com/mmcloughlin/avo/build"
)

const dir = "../../kernels/cpu"

func main() {
	for option, value := range map[string]string{
		"pkg": "cpu", "out": filepath.Join(dir, "loops_amd64.s"), "stubs": filepath.Join(dir, "loops_amd64.go"),
	} {
		if err := flag.Set(option, value); err != nil {
			log.Fatal(err)
		}
	}
	ConstraintExpr("amd64")
	for _, write := range []func(){
		countDiffering, countCommon, addCounts, tile, byteProducts, makeTables, lookup,
		packSigns, packMask, setBits, expandBits, transposeBits, transposeBytes,
		scaleBytes, scaleIntegers, scaleToBFloats, affineSums, signsOfSums, addScaled, randomWords, roundRow, roundColumns,
		affine, squaredReLU, roundBFloats, widenBFloats, mask, maskBFloats, add, multiply, scale,
		sumSquares, addRows, addBFloatRows, absMax, absMaxProduct, maximum, exponentials,
		quantize, nearestLevels, products, rotate, maskRotated, narrowScaled, maskNormalized, addNormalized,
		valueGradient, scoreGradient, nearest, nearestOfPlanes, weighLevels, ranked, rankedLevels,
		rankedQueries, adam,
		// With long registers, more registers, or masks, where these gain much. Looking up does not gain from long registers:
		// they shuffle at half the rate.
		wideCountDiffering, wideCountCommon, wideCountSigns, wideTilePair, wideByteProducts, wideMakeTables, wideLookup,
		wideScaleToBFloats,
		wideSignsOfSums, wideRandomWords, wideRoundRow,
		wideRoundColumns, wideRoundBFloats, wideAddBFloatRows, wideNearest, wideNearestOfPlanes,
		wideLastBelow, wideLastBelowOfPlanes,
	} {
		write()
	}
	Generate()
	if err := os.WriteFile(filepath.Join(dir, "callers_amd64.go"), callers(), 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "loops_arm64.s"), neonCounts(), 0o644); err != nil {
		log.Fatal(err)
	}
}
