package cpu

// instructionSets lists the instruction sets of this processor, the best last. Every arm64 has NEON.
func instructionSets() []instructions {
	s := plainGo()
	s.name = "NEON"
	s.countDiffering, s.countCommon = countDifferingNEON, countCommonNEON
	return []instructions{plainGo(), s}
}

// The assembly is for multiples of 4 channels and of 4 words.
//
//go:noescape
func countDifferingLoopNEON(dst *int32, x *uint64, xPlanes int, w *uint64, wPlanes, steps, groups int)

//go:noescape
func countCommonLoopNEON(dst *int32, x *uint64, xPlanes int, w *uint64, wPlanes, steps, groups int)

func countDifferingNEON(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int) {
	n := wholeChannels(len(dst), 4, x, xPlanes, wordsPerStep, w, wPlanes)
	if n > 0 {
		countDifferingLoopNEON(&dst[0], &x[0], xPlanes, &w[0], wPlanes, len(x)/xPlanes/wordsPerStep, n/4)
	}
	countDifferingGo(dst[n:], x, xPlanes, w[n*wPlanes*len(x)/xPlanes:], wPlanes)
}

func countCommonNEON(dst []int32, x []uint64, xPlanes int, w []uint64, wPlanes int) {
	n := wholeChannels(len(dst), 4, x, xPlanes, wordsPerStep, w, wPlanes)
	if n > 0 {
		countCommonLoopNEON(&dst[0], &x[0], xPlanes, &w[0], wPlanes, len(x)/xPlanes/wordsPerStep, n/4)
	}
	countCommonGo(dst[n:], x, xPlanes, w[n*wPlanes*len(x)/xPlanes:], wPlanes)
}
