package main

import (
	"math"

	"bitnet1/shared/data/dataset"
)

// unigram counts how often each token is predicted in the training split. A model without context knows no more.
type unigram struct {
	counts []int64 // by id
	total  int64
}

// mostCounted bounds the training tokens that are counted: more of them would change the entropy by less than it is
// printed with.
const mostCounted = 1 << 24

// trainingFrequencies counts the targets of the training split. Of a large split it counts evenly spaced sequences with
// about mostCounted tokens.
func trainingFrequencies(train *dataset.Split, vocab int) (unigram, error) {
	u := unigram{counts: make([]int64, vocab)}
	n := train.Len()
	if n == 0 {
		return u, nil
	}
	var tokens, targets []int32
	var every int
	for i := 0; i < n; i += every {
		var err error
		if tokens, targets, err = train.AppendTargets(i, tokens[:0], targets[:0]); err != nil {
			return u, err
		}
		every = max(1, n*len(tokens)/mostCounted)
		for _, target := range targets {
			if target >= 0 {
				u.counts[target]++
				u.total++
			}
		}
	}
	return u, nil
}

// entropy is the cross-entropy of tokens with the given counts, in bits per token: the mean of -log2 p, where p is the
// frequency of a token in training with one added to every count (Laplace).
func (u unigram) entropy(counts []int64) float64 {
	all := float64(u.total) + float64(len(u.counts))
	var bits float64
	var tokens int64
	for id, n := range counts {
		if n > 0 {
			bits -= float64(n) * math.Log2((float64(u.counts[id])+1)/all)
			tokens += n
		}
	}
	return bits / float64(tokens)
}

// accuracy is the share of the most frequent token of training among tokens with the given counts.
func (u unigram) accuracy(counts []int64) float64 {
	best := 0
	var tokens int64
	for id, n := range counts {
		if u.counts[id] > u.counts[best] {
			best = id
		}
		tokens += n
	}
	return float64(counts[best]) / float64(tokens)
}
