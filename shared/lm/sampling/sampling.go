// Package sampling chooses the next token from a model's logits: greedily, or at random from the most probable ones.
//
// All functions are pure: equal options, logits and tokens give equal results. The package computes no logits: see
// shared/lm/inference.
package sampling

import (
	"container/heap"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"bitnet1/kernels/number/philox"
)

// Options say how to choose. The zero value is greedy. They apply in the order of the fields, as in Hugging Face's
// transformers.
type Options struct {
	// RepetitionPenalty above 1 makes tokens less probable that are among those so far: their logits are divided by it
	// where they are positive, and multiplied by it elsewhere (Keskar et al. 2019). 0 and 1: none.
	RepetitionPenalty float64
	Temperature       float64 // logits are divided by it; 0: the most probable token alone
	TopK              int     // so many of the most probable tokens remain; 0: all
	// TopP lets the fewest of the most probable tokens remain whose probabilities among those left by TopK add up to at
	// least TopP (Holtzman et al. 2020). 0 and 1: all.
	TopP float64
	MinP float64 // tokens remain whose probability is at least MinP times the largest; 0: all
	Seed uint64  // of the random choice
}

// Validate returns an error for the first option that has no meaning.
func (o Options) Validate() error {
	for _, f := range []struct {
		name        string
		value, most float64
		want        string
	}{
		{"repetition penalty", o.RepetitionPenalty, math.MaxFloat64, "0 or more"},
		{"temperature", o.Temperature, math.MaxFloat64, "0 or more"},
		{"top-k", float64(o.TopK), math.MaxInt32, "0 or more"},
		{"top-p", o.TopP, 1, "0 to 1"},
		{"min-p", o.MinP, 1, "0 to 1"},
	} {
		if !(f.value >= 0 && f.value <= f.most) {
			return fmt.Errorf("%s is %v, want %s", f.name, f.value, f.want)
		}
	}
	return nil
}

// Candidate is a token that may be chosen.
type Candidate struct {
	Token       int32
	Probability float64
}

var errNoToken = errors.New("no token can be chosen: all logits are NaN or -Inf")

// Next chooses the token that follows tokens, from the logits of that token. The random number depends on Seed and on
// the number of tokens alone. So a sequence that is taken up anywhere goes on as it would have gone on. Logits of NaN
// count as -Inf.
func (o Options) Next(logits []float32, tokens []int32) (int32, error) {
	m := memories.Get().(*memory)
	defer memories.Put(m)
	list, err := o.candidates(logits, tokens, m)
	if err != nil {
		return 0, err
	}
	n := uint64(len(tokens))
	b := philox.Block(philox.Key(o.Seed), [4]uint32{uint32(n), uint32(n >> 32)})
	r := float64((uint64(b[0])<<32|uint64(b[1]))>>11) / (1 << 53)
	for _, c := range list[:len(list)-1] {
		if r -= c.Probability; r < 0 {
			return c.Token, nil
		}
	}
	return list[len(list)-1].Token, nil
}

// Candidates returns the tokens that Next chooses from, with their probabilities, which sum to 1. With TopK, TopP or
// MinP the most probable token comes first, and of equal ones the one of the smaller number; otherwise they are in the
// order of tokens. Tokens of probability 0 are left out.
func (o Options) Candidates(logits []float32, tokens []int32) ([]Candidate, error) {
	return o.candidates(logits, tokens, new(memory))
}

// memory is what a choice takes, megabytes of it with a large vocabulary.
type memory struct {
	scores []float64
	list   byProbability
}

// memories are those of choices that were made.
var memories = sync.Pool{New: func() any { return new(memory) }}

// candidates is Candidates in memory that may have been used before. The result lies there.
func (o Options) candidates(logits []float32, tokens []int32, m *memory) ([]Candidate, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m.scores = o.penalized(m.scores[:0], logits, tokens)
	scores := m.scores
	best, top := -1, math.Inf(-1)
	for i, s := range scores {
		if s > top {
			best, top = i, s
		}
	}
	switch {
	case best < 0:
		return nil, errNoToken
	case o.Temperature == 0:
		return []Candidate{{int32(best), 1}}, nil
	}
	list := slices.Grow(m.list[:0], len(scores))
	for i, s := range scores {
		if p := relative(s, top, o.Temperature); p > 0 {
			list = append(list, Candidate{int32(i), p})
		}
	}
	m.list = list
	if o.TopK > 0 || o.TopP > 0 || o.MinP > 0 {
		list = o.most(list)
	}
	total := list.sum()
	for i := range list {
		list[i].Probability /= total
	}
	return list, nil
}

// penalized appends the logits after the repetition penalty to scores, which is empty.
func (o Options) penalized(scores []float64, logits []float32, tokens []int32) []float64 {
	scores = slices.Grow(scores, len(logits))
	for _, l := range logits {
		scores = append(scores, float64(l))
	}
	if o.RepetitionPenalty == 0 {
		return scores
	}
	for _, t := range tokens {
		if t < 0 || int(t) >= len(logits) {
			continue
		}
		if l := float64(logits[t]); l > 0 { // of logits, so that a token that comes twice has the penalty once
			scores[t] = l / o.RepetitionPenalty
		} else {
			scores[t] = l * o.RepetitionPenalty
		}
	}
	return scores
}

// relative is the probability of a score as a part of that of the top score, and 0 where the score is NaN.
func relative(score, top, temperature float64) float64 {
	switch {
	case score == top: // perhaps both are infinite
		return 1
	case score < top:
		return math.Exp((score - top) / temperature)
	}
	return 0
}

// most returns what TopK, TopP and MinP leave of list, whose largest probability is 1. A heap finds few of many tokens
// in less time than sorting takes.
func (o Options) most(list byProbability) (kept byProbability) {
	heap.Init(&list)
	if o.TopK > 0 && o.TopK < len(list) {
		first := make(byProbability, o.TopK)
		for i := range first {
			first[i] = heap.Pop(&list).(Candidate)
		}
		list = first // in the order of probabilities, so it is a heap
	}
	limit, mass := math.Inf(1), 0.0
	if o.TopP > 0 && o.TopP < 1 {
		limit = o.TopP * list.sum()
	}
	for len(list) > 0 && mass < limit && list[0].Probability >= o.MinP {
		c := heap.Pop(&list).(Candidate)
		mass += c.Probability
		kept = append(kept, c)
	}
	return kept
}

// byProbability is a heap whose first token is the most probable one, and the first of equal ones.
type byProbability []Candidate

func (l byProbability) sum() (total float64) {
	for _, c := range l {
		total += c.Probability
	}
	return total
}

func (l byProbability) Len() int      { return len(l) }
func (l byProbability) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l byProbability) Less(i, j int) bool {
	if l[i].Probability != l[j].Probability {
		return l[i].Probability > l[j].Probability
	}
	return l[i].Token < l[j].Token
}

// Push is part of heap.Interface.
func (l *byProbability) Push(x any) { *l = append(*l, x.(Candidate)) }

// Pop is part of heap.Interface.
func (l *byProbability) Pop() any {
	n := len(*l) - 1
	last := (*l)[n]
	*l = (*l)[:n]
	return last
}
