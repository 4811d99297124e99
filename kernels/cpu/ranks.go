package cpu

import (
	"math"

	"bitnet1/kernels"
)

// rankTables are tables for values that are weighted by the rank of their key. They are made once for an operation.
type rankTables struct {
	// Both are by the number of survivors.
	weights [kernels.MaxSurvivors + 1][kernels.MaxSurvivors]float64 // of ranks
	signs   [fewSurvivors + 1]truthTable                            // of the weighted sum of signs
	sums    [fewSurvivors + 1][1 << fewSurvivors]float32            // of signs, weighted, by their bits
}

// fewSurvivors is the largest number of survivors for which there is a truth table.
const fewSurvivors = 4

// prepare makes the tables for 1 to most survivors. weigh writes the weights of as many ranks as it is given.
func (r *rankTables) prepare(most int, weigh func(w []float64)) {
	for n := 1; n <= most; n++ {
		w := r.rankWeights(n)
		weigh(w)
		if n <= fewSurvivors {
			for pattern := range r.sums[n] {
				r.sums[n][pattern] = kernels.SignedSum(w, pattern&(1<<n-1))
			}
			r.signs[n] = newTruthTable(func(pattern int) bool { return r.sums[n][pattern] >= 0 })
		}
	}
}

// rankWeights returns the weights of the ranks of n survivors.
func (r *rankTables) rankWeights(n int) []float64 { return r.weights[n][:n] }

// readRanked writes the quantized sum of the survivors' values weighted by rank.
func (h *head) readRanked(dst []uint64, survivors []int32) {
	n := len(survivors)
	if h.valueRule != kernels.Sign() {
		h.sumRanked(survivors)
		h.quantizeSums(dst)
		return
	}
	for i := range dst {
		var words [kernels.MaxSurvivors]uint64
		for r, u := range survivors {
			words[r] = h.v[int(u)*h.words+i]
		}
		channels := min(64, h.HeadDim-64*i)
		if n <= fewSurvivors {
			dst[i] = h.signs[n].lookup(words[0], words[1], words[2], words[3]) & (math.MaxUint64 >> (64 - channels))
			continue
		}
		dst[i] = 0
		for c := range channels {
			pattern := 0
			for r, word := range words[:n] {
				pattern |= int(word>>c&1) << r
			}
			if kernels.SignedSum(h.rankWeights(n), pattern) >= 0 {
				dst[i] |= 1 << c
			}
		}
	}
}

// sumRanked adds up the survivors' values weighted by rank: plane by plane, in the order that package kernels defines.
func (h *head) sumRanked(survivors []int32) {
	n, unit := len(survivors), h.valueRule.Unit()
	if n <= fewSurvivors {
		var at [fewSurvivors]int // missing ones count for nothing
		for r, u := range survivors {
			at[r] = int(u) * h.valueRule.Planes() * h.words
		}
		h.weighLevels(h.sums, h.v, &at, h.words, h.valueRule.Planes(), 0, &h.rankTables.sums[n], unit)
		return
	}
	for c := range h.sums {
		sum, factor := float32(0), float32(1)
		for b := range h.valueRule.Planes() {
			pattern := 0
			for r, u := range survivors {
				pattern |= int(h.value(int(u))[b*h.words+c>>6]>>(c&63)&1) << r
			}
			sum += float32(factor * kernels.SignedSum(h.rankWeights(n), pattern))
			factor *= 2
		}
		h.sums[c] = unit * sum
	}
}

// weighLevelsGo writes unit * Σ_b 2^b sums[bits of plane b], for the channels from `from` on. The planes of four values
// begin at at, stride words apart. Bit r of an index of sums is that of value r.
func weighLevelsGo(dst []float32, values []uint64, at *[fewSurvivors]int, stride, planes, from int,
	sums *[1 << fewSurvivors]float32, unit float32) {
	for c := from; c < len(dst); c++ {
		sum, factor := float32(0), float32(1)
		for b := range planes {
			pattern := 0
			for r, first := range at {
				pattern |= int(values[first+b*stride+c>>6]>>(c&63)&1) << r
			}
			sum += float32(factor * sums[pattern])
			factor *= 2
		}
		dst[c] = unit * sum
	}
}

// truthTable is a function of four bits, for 64 arguments at once. Entry p is for arguments whose bits 1, 2 and 3 are
// p: clear is the result where bit 0 is clear, in all bits of a word, and toggled is what setting bit 0 changes.
type truthTable [1 << (fewSurvivors - 1)]struct{ clear, toggled uint64 }

func newTruthTable(f func(bits int) bool) (t truthTable) {
	word := func(bits int) uint64 {
		if f(bits) {
			return math.MaxUint64
		}
		return 0
	}
	for p := range t {
		t[p].clear, t[p].toggled = word(2*p), word(2*p)^word(2*p+1)
	}
	return t
}

// lookup returns the function of bits 0 to 3 given as a, b, c and d, for all 64 bits of the words.
func (t *truthTable) lookup(a, b, c, d uint64) uint64 {
	var x [len(t)]uint64
	for p := range x {
		x[p] = t[p].clear ^ t[p].toggled&a
	}
	pick := func(clear, set, by uint64) uint64 { return clear ^ (clear^set)&by }
	return pick(pick(pick(x[0], x[1], b), pick(x[2], x[3], b), c), pick(pick(x[4], x[5], b), pick(x[6], x[7], b), c), d)
}
