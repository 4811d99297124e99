package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// resamples is how often documents are drawn anew, and confidence what share of the values lies in an interval.
const (
	resamples  = 1000
	confidence = 0.95
)

// intervals are the confidence intervals of bits per token and per byte: as many documents as there are, drawn with
// replacement, give a value; an interval has the values without the highest and the lowest 2.5 % (Efron and Tibshirani,
// An Introduction to the Bootstrap, 1993, chapter 13). Documents are drawn, and not tokens, because the tokens of a
// document are no independent samples. The draws are the same every time. An interval is nil for fewer than two
// documents, and of bytes where documents without text make the whole of a draw.
func (d *documents) intervals() (token, byte *[2]float64) {
	n := len(d.sums)
	if n < 2 {
		return nil, nil
	}
	r := rand.New(rand.NewPCG(1, 0))
	tokens, bytes := make([]float64, resamples), make([]float64, resamples)
	for i := range resamples {
		var all documentSums
		for range n {
			s := d.sums[r.IntN(n)]
			all.nats += s.nats
			all.tokens += s.tokens
			all.bytes += s.bytes
		}
		tokens[i], bytes[i] = all.nats/math.Ln2/all.tokens, all.nats/math.Ln2/all.bytes
	}
	return middle(tokens), middle(bytes)
}

// middle is the interval with the middle values of x, which it sorts.
func middle(x []float64) *[2]float64 {
	slices.Sort(x)
	tail := int(math.Round((1 - confidence) / 2 * float64(len(x))))
	i := [2]float64{x[tail], x[len(x)-1-tail]}
	if math.IsInf(i[1], 0) {
		return nil
	}
	return &i
}
