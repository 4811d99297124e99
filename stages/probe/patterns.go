package main

import (
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure"
)

// patterns are mean weights, over the queries that can have them: TransformerLens' scores of heads on repeated random
// tokens. A head that always points at the token after the earlier occurrence of the present one has induction 1.
type patterns struct {
	PreviousToken  float64 `json:"previous_token"`  // of the key before the query
	DuplicateToken float64 `json:"duplicate_token"` // of keys whose token is the query's; second copy
	Induction      float64 `json:"induction"`       // of keys after such keys; second copy
}

// detected are the same weights as shares of all weights: TransformerLens' detect_head (error_measure "mul"). A query
// of the first copy, which has no such keys, counts as well.
type detected struct {
	PreviousToken  float64 `json:"detect_previous_token"`
	DuplicateToken float64 `json:"detect_duplicate_token"`
	Induction      float64 `json:"detect_induction"`
}

// patternMeans are patterns and detected of keys that are drawn evenly.
type patternMeans struct {
	PreviousToken        float64 `json:"random_previous_token"`
	DuplicateToken       float64 `json:"random_duplicate_token"`
	Induction            float64 `json:"random_induction"`
	DetectPreviousToken  float64 `json:"random_detect_previous_token"`
	DetectDuplicateToken float64 `json:"random_detect_duplicate_token"`
	DetectInduction      float64 `json:"random_detect_induction"`
}

// patternScores adds up the weights of heads on sequences of random tokens that are written twice.
type patternScores struct {
	weights survivorWeights
	length  int   // of a copy
	queries int64 // of the first head, as of every other
	second  int64 // those of the second copies
	first   int64 // those that have no key before them
	heads   []sums
	chance  sums // of random keys
}

// sums are sums of weights: of all queries and, of duplicates and induction, of those that count in the second copy.
type sums struct {
	previous, duplicate, induction   float64
	secondDuplicate, secondInduction float64
}

func newPatternScores(s *measure.Subject) *patternScores {
	c := s.Model.Config()
	return &patternScores{weights: weightsOf(c, s.Settings), length: s.Seq / 2, heads: make([]sums, c.Layers*c.Heads)}
}

// add adds a head's pointers in one sequence: survivors of each query, best first, -1 where there are fewer.
func (s *patternScores) add(head int, seen occurrences, pointers []int32) {
	h := &s.heads[head]
	survivors := len(pointers) / len(seen.tokens)
	for k := range 2 * s.length {
		counts := k >= s.length
		if head == 0 {
			s.addQuery(k, seen, counts)
		}
		chosen, weights := s.weights.live(pointers[k*survivors:][:survivors])
		for r, u := range chosen {
			w := weights[r]
			if int(u) == k-1 {
				h.previous += w
			}
			if int(u) < k && seen.tokens[u] == seen.tokens[k] {
				h.duplicate += w
				if counts {
					h.secondDuplicate += w
				}
			}
			if seen.matches(k, u) {
				h.induction += w
				if counts {
					h.secondInduction += w
				}
			}
		}
	}
}

// addQuery counts a query, and adds the expected weights of a random key. Each earlier occurrence of the query's token
// is one duplicate, and has one key after it.
func (s *patternScores) addQuery(k int, seen occurrences, counts bool) {
	s.queries++
	if k == 0 {
		s.first++
	} else {
		s.chance.previous += 1 / float64(k+1)
	}
	share := float64(seen.before[k]) / float64(k+1)
	s.chance.duplicate += share
	if counts {
		s.second++
		s.chance.secondDuplicate += share
	}
}

func (s *patternScores) of(head int) (patterns, detected) { return s.means(s.heads[head]) }

func (s *patternScores) random() patternMeans {
	s.chance.induction, s.chance.secondInduction = s.chance.duplicate, s.chance.secondDuplicate
	p, d := s.means(s.chance)
	return patternMeans{p.PreviousToken, p.DuplicateToken, p.Induction, d.PreviousToken, d.DuplicateToken, d.Induction}
}

func (s *patternScores) means(h sums) (patterns, detected) {
	second, all := float64(max(s.second, 1)), float64(max(s.queries, 1))
	later := float64(max(s.queries-s.first, 1))
	return patterns{h.previous / later, h.secondDuplicate / second, h.secondInduction / second},
		detected{h.previous / all, h.duplicate / all, h.induction / all}
}

// survivorWeights are the weights of ranks, by the number of survivors that a query has.
type survivorWeights [][]float64

func weightsOf(c model.Config, s model.Settings) survivorWeights {
	all := make(survivorWeights, c.Survivors(c.Seq)+1)
	for n := range all {
		all[n] = make([]float64, n)
		if n > 0 {
			c.AttentionRule().Weights(all[n], s.Gamma)
		}
	}
	return all
}

// live are the keys that a query has among its survivors, and their weights.
func (w survivorWeights) live(survivors []int32) ([]int32, []float64) {
	n := 0
	for n < len(survivors) && survivors[n] >= 0 {
		n++
	}
	return survivors[:n], w[n]
}
