package main

import (
	"context"
	"slices"

	"bitnet1/shared/measure"
	"bitnet1/shared/run/stage"
)

// olsson are the measures of Olsson et al. 2022: 25 different random tokens, written four times.
type olsson struct {
	// PrefixMatching is the mean weight, of queries after the first copy, of keys after earlier occurrences of their
	// token.
	PrefixMatching float64 `json:"prefix_matching"`
	// Copying is the share of a head's direct effect that raises the logits of what the head points at. Among the logits
	// of the sequence's tokens those count that the head raises above their mean. The paper rescales the share to -1 … 1.
	Copying float64 `json:"copying"`
}

const (
	olssonTokens = 25
	olssonCopies = 4
)

// copying measures sequences of a few tokens that are written several times.
type copying struct {
	randomTokens
	short   int // tokens of the sequences into which the model's are cut
	copies  int
	weights survivorWeights

	queries int64
	heads   []olsson // sums
	prefix  float64  // expected prefix matching of random keys, summed
}

// probeCopying runs the model over as many short sequences as the induction probe has.
func probeCopying(ctx context.Context, job *stage.Job[Params], s *measure.Subject) (*copying, error) {
	on, err := newRandomTokens(s, job.Params)
	if err != nil {
		return nil, err
	}
	c := newCopying(on)
	if err := s.Model.KeepReads(); err != nil {
		return nil, err
	}
	each := s.Seq / c.short // short sequences in one of the model's
	for done := 0; done < c.repeats; done += each {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := c.measure(done, min(each, c.repeats-done)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func newCopying(on randomTokens) *copying {
	c := &copying{randomTokens: on, heads: make([]olsson, on.Model.Config().Layers*on.Model.Config().Heads),
		weights: weightsOf(on.Model.Config(), on.Settings)}
	c.length = min(olssonTokens, on.Seq/2, on.symbols)
	c.copies = min(olssonCopies, on.Seq/c.length)
	for c.short = c.copies * c.length; on.Seq%c.short != 0; c.short++ {
	}
	return c
}

// distinct are the different tokens of a short sequence.
func (c *copying) distinct(sequence int) (tokens []int32) {
	for k := 0; len(tokens) < c.length; k++ {
		if id := c.token(sequence, k); !slices.Contains(tokens, id) {
			tokens = append(tokens, id)
		}
	}
	return tokens
}

// measure computes n short sequences, from the first on, as one sequence of the model that is cut.
func (c *copying) measure(first, n int) error {
	tokens := make([]int32, c.Seq)
	for i := range n {
		once := c.distinct(first + i)
		for k := range c.short { // what follows the copies is read by none of them
			tokens[i*c.short+k] = once[k%c.length]
		}
	}
	cut := c.Settings
	cut.Seq = c.short
	if _, err := c.Model.Logits(tokens, 0, 0, cut); err != nil { // the pass alone
		return err
	}
	for layer := range c.Model.Config().Layers {
		pointers, err := c.Model.Pointers(layer)
		if err != nil {
			return err
		}
		for i := range n {
			sequence := tokens[i*c.short:][:c.short]
			logits, err := c.Model.DirectLogits(layer, i*c.short, (i+1)*c.short, sequence[:c.length])
			if err != nil {
				return err
			}
			c.add(layer, i, sequence, pointers, logits)
		}
	}
	return nil
}

// add adds a layer's heads in the i-th short sequence. Logits are those of the sequence's different tokens, which each
// head adds at each position: positions × heads × tokens.
func (c *copying) add(layer, i int, sequence, pointers []int32, logits []float32) {
	heads := c.Model.Config().Heads
	survivors := c.Model.Config().Survivors(c.short)
	for k := c.length; k < c.copies*c.length; k++ {
		if layer == 0 {
			c.queries++
			c.prefix += float64(k/c.length) / float64(k+1) // keys after earlier occurrences
		}
		for h := range heads {
			all := pointers[((i*heads+h)*c.short+k)*survivors:][:survivors]
			chosen, weights := c.weights.live(all)
			sum := &c.heads[layer*heads+h]
			for r, u := range chosen {
				if u > 0 && sequence[u-1] == sequence[k] {
					sum.PrefixMatching += weights[r]
				}
			}
			sum.Copying += copyingShare(logits[(k*heads+h)*c.length:][:c.length], c.length, chosen, weights)
		}
	}
}

// copyingShare is the share of the logits that a head raises above their mean which belongs to the tokens of the keys
// that it points at. The token of key u is number u modulo the number of different tokens. It is 0 if the head raises
// none.
func copyingShare(logits []float32, tokens int, chosen []int32, weights []float64) float64 {
	var mean, raised, attended float64
	for _, x := range logits {
		mean += float64(x) / float64(len(logits))
	}
	raise := func(token int) float64 { return max(0, float64(logits[token])-mean) }
	for token := range logits {
		raised += raise(token)
	}
	for r, u := range chosen {
		attended += weights[r] * raise(int(u)%tokens)
	}
	if raised == 0 {
		return 0
	}
	return attended / raised
}

// of are the means of a head.
func (c *copying) of(head int) olsson {
	n := float64(max(c.queries, 1))
	return olsson{c.heads[head].PrefixMatching / n, c.heads[head].Copying / n}
}

// random are the means of a head that points at keys which are drawn evenly, whatever it does to the logits.
func (c *copying) random() (prefix, copied float64) {
	return c.prefix / float64(max(c.queries, 1)), 1 / float64(c.length)
}
