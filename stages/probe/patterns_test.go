package main

import (
	"math"
	"math/rand/v2"
	"testing"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
)

// scored are the scores of one head that reads keys as told: for each query of a sequence that is written twice, the
// keys, best first.
func scored(t *testing.T, copyOf []int32, gamma float64, keys func(k int) []int32) (patterns, detected, patternMeans) {
	t.Helper()
	tokens := append(append([]int32{}, copyOf...), copyOf...)
	c := measuretest.Config(len(tokens))
	s := &patternScores{weights: weightsOf(c, model.Settings{Gamma: gamma}), length: len(copyOf), heads: make([]sums, 1)}
	survivors := c.Survivors(c.Seq)
	pointers := make([]int32, len(tokens)*survivors)
	for k := range tokens {
		for j := range survivors {
			pointers[k*survivors+j] = -1
		}
		copy(pointers[k*survivors:][:survivors], keys(k))
	}
	s.add(0, occurrencesOf(tokens, make([]int32, len(tokens))), pointers)
	p, d := s.of(0)
	return p, d, s.random()
}

// Heads of which everything is known: each has one score of 1, and the others 0.
func TestHeadsThatDoOneThing(t *testing.T) {
	letters := []int32{4, 7, 1, 9, 3}
	const n = 5
	second := func(k int, key int32) []int32 { // of the first copy nothing is known: queries read themselves
		if k < n {
			return []int32{int32(k)}
		}
		return []int32{key}
	}
	for name, c := range map[string]struct {
		keys func(k int) []int32
		want patterns
	}{
		"induction": {func(k int) []int32 { return second(k, int32(k-n+1)) }, patterns{Induction: 1}},
		"duplicate": {func(k int) []int32 { return second(k, int32(k-n)) }, patterns{DuplicateToken: 1}},
		"previous":  {func(k int) []int32 { return []int32{int32(max(k-1, 0))} }, patterns{PreviousToken: 1}},
		"itself":    {func(k int) []int32 { return []int32{int32(k)} }, patterns{}},
	} {
		got, share, _ := scored(t, letters, 0.5, c.keys)
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		// Of ten queries, nine have a key before them, and five an earlier occurrence of their token.
		want := detected{c.want.PreviousToken * 9 / 10, c.want.DuplicateToken / 2, c.want.Induction / 2}
		if share != want {
			t.Errorf("%s: shares of all weights %+v, want %+v", name, share, want)
		}
	}
}

// Survivors count with the weights of their ranks: with a gamma of a half and two keys, two thirds and one third.
func TestScoresAreOfWeights(t *testing.T) {
	got, _, _ := scored(t, []int32{4, 7, 1, 9, 3}, 0.5, func(k int) []int32 {
		if k < 5 {
			return []int32{int32(k)}
		}
		return []int32{int32(k - 5), int32(k - 4)}
	})
	want := patterns{DuplicateToken: 2.0 / 3, Induction: 1.0 / 3}
	if math.Abs(got.DuplicateToken-want.DuplicateToken) > 1e-12 || math.Abs(got.Induction-want.Induction) > 1e-12 ||
		got.PreviousToken != 0 {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The shares are those of TransformerLens' detect_head: the sum of attention times pattern, over that of attention.
// Keys that are drawn evenly have the baselines.
func TestDetectionAgainstMatrices(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	const n = 24
	letters := make([]int32, n)
	for i := range letters {
		letters[i] = int32(r.IntN(9))
	}
	token := func(k int) int32 { return letters[k%n] }
	var sum, baseline detected
	const trials = 400
	for range trials {
		attention := [2 * n][2 * n]float64{}
		weights := weightsOf(measuretest.Config(2*n), model.Settings{Gamma: 0.6})
		_, got, random := scored(t, letters, 0.6, func(k int) []int32 {
			var keys []int32
			for _, u := range r.Perm(k + 1)[:min(k+1, 4)] {
				keys = append(keys, int32(u))
			}
			for rank, u := range keys {
				attention[k][u] = weights[len(keys)][rank]
			}
			return keys
		})
		var want detected
		var all float64
		for i := range 2 * n {
			for j := range i + 1 {
				a := attention[i][j]
				all += a
				if j == i-1 {
					want.PreviousToken += a
				}
				if j < i && token(i) == token(j) {
					want.DuplicateToken += a
				}
				if j > 0 && token(i) == token(j-1) {
					want.Induction += a
				}
			}
		}
		near(t, "detect_previous_token", got.PreviousToken, want.PreviousToken/all)
		near(t, "detect_duplicate_token", got.DuplicateToken, want.DuplicateToken/all)
		near(t, "detect_induction", got.Induction, want.Induction/all)
		sum.PreviousToken += got.PreviousToken / trials
		sum.DuplicateToken += got.DuplicateToken / trials
		sum.Induction += got.Induction / trials
		baseline = detected{random.DetectPreviousToken, random.DetectDuplicateToken, random.DetectInduction}
	}
	for what, pair := range map[string][2]float64{
		"previous": {sum.PreviousToken, baseline.PreviousToken}, "duplicate": {sum.DuplicateToken, baseline.DuplicateToken},
		"induction": {sum.Induction, baseline.Induction},
	} {
		if math.Abs(pair[0]-pair[1]) > 0.01 {
			t.Errorf("%s: random keys have %g, the baseline says %g", what, pair[0], pair[1])
		}
	}
}

func TestDistanceBins(t *testing.T) {
	if got := distanceBins(9); len(got) != 5 || got[4] != 8 {
		t.Errorf("bins of 9 distances are %v", got)
	}
	got := binned([]int64{1, 20, 300, 4000, 50000, 0, 7, 0, 600000})
	for i, want := range []int64{1, 20, 4300, 50007, 600000} {
		if got[i] != want {
			t.Errorf("bin %d has %d, want %d", i, got[i], want)
		}
	}
	for _, seq := range []int{1, 2, 3, 8, 128} {
		distances := make([]int64, seq)
		distances[seq-1] = 1
		if got := binned(distances); got[len(got)-1] != 1 {
			t.Errorf("the largest of %d distances is in none of the bins %v", seq, got)
		}
	}
}

// A head that raises the logit of the one token that it points at copies all, one that raises another nothing.
func TestCopyingShare(t *testing.T) {
	for _, c := range []struct {
		logits  []float32
		chosen  []int32
		weights []float64
		want    float64
	}{
		{[]float32{-1, 3, -1, -1}, []int32{5}, []float64{1}, 1},
		{[]float32{-1, 3, -1, -1}, []int32{6}, []float64{1}, 0},
		{[]float32{7, 11, 7, 7}, []int32{5}, []float64{1}, 1}, // a constant for all tokens is nothing
		{[]float32{-3, 1, 1, 1}, []int32{3}, []float64{1}, 1.0 / 3},
		{[]float32{0, 4, 0, 0}, []int32{1, 2}, []float64{2.0 / 3, 1.0 / 3}, 2.0 / 3},
		{[]float32{0, 0, 0, 0}, []int32{1}, []float64{1}, 0},
		{[]float32{0, 4, 0, 0}, []int32{1, 5}, []float64{0.5, 0.5}, 1}, // both keys are the same token
		{[]float32{-2, 2, 2, -2}, []int32{4, 7, 1}, []float64{0.25, 0.25, 0.5}, 0.5 * 0.5},
	} {
		if got := copyingShare(c.logits, 4, c.chosen, c.weights); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("logits %v, keys %v with %v: %g, want %g", c.logits, c.chosen, c.weights, got, c.want)
		}
	}
}
