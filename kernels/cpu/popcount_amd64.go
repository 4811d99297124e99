package cpu

// andCountsAVX2 is andCountsGo for 4*quads rows of 4*steps words.
//
//go:noescape
func andCountsAVX2(dst *int32, x, w *uint64, steps, quads int)

// andCounts writes pop(x & row c of w) to dst[c]. Rows are as long as x, a multiple of wordsPerStep.
func andCounts(dst []int32, x, w []uint64) {
	quads := len(dst) / 4
	if !haveAVX2 || quads == 0 {
		andCountsGo(dst, x, w)
		return
	}
	_ = w[len(dst)*len(x)-1]
	andCountsAVX2(&dst[0], &x[0], &w[0], len(x)/wordsPerStep, quads)
	andCountsGo(dst[quads*4:], x, w[quads*4*len(x):])
}
