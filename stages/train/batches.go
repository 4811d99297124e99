package main

import (
	"fmt"

	"bitnet1/shared/data/dataset"
)

// sequences says how many sequences of seq tokens are computed at once and how many make a step. A step has exactly
// batch_tokens; micro_tokens is the most that is computed at once: of the numbers of sequences that divide the step, the
// largest that stays within it. Every micro-batch is then a whole one, and the step the same however it is divided.
func (p Params) sequences(seq int) (micro, step int, err error) {
	step = p.BatchTokens / seq
	switch {
	case p.BatchTokens < seq:
		return 0, 0, fmt.Errorf("batch_tokens is %d, and a sequence of the dataset has %d tokens: use %d or a multiple of it", p.BatchTokens, seq, seq)
	case p.BatchTokens%seq != 0:
		return 0, 0, fmt.Errorf("batch_tokens is %d, no multiple of the %d tokens of the dataset's sequences: use %d or %d", p.BatchTokens, seq, step*seq, (step+1)*seq)
	case p.MicroTokens < seq:
		return 0, 0, fmt.Errorf("micro_tokens is %d, and a sequence of the dataset has %d tokens, which are computed together: use %d or more", p.MicroTokens, seq, seq)
	}
	for micro = min(p.MicroTokens/seq, step); step%micro != 0; {
		micro--
	}
	return micro, step, nil
}

// batches gives the sequences of every step. They are a function of the
// dataset, the seed and the step alone: sequence number n of the run is number
// n mod N of the split of N sequences, in the order of epoch n / N.
type batches struct {
	split *dataset.Split
	seed  uint64
	seq   int // targets of a sequence
	per   int // sequences in a step

	epoch int // of order; -1: none yet
	order dataset.Permutation
}

func newBatches(split *dataset.Split, seed uint64, seq, per int) *batches {
	return &batches{split: split, seed: seed, seq: seq, per: per, epoch: -1}
}

// step appends the tokens and targets of a step to the given slices. Targets
// are -1 where there is nothing to predict.
func (b *batches) step(step int, tokens, targets []int32) (_, _ []int32, err error) {
	first := step * b.per
	for n := first; n < first+b.per; n++ {
		if epoch := n / b.split.Len(); epoch != b.epoch {
			b.epoch, b.order = epoch, dataset.Order(b.split.Len(), b.seed, epoch)
		}
		if tokens, targets, err = b.split.AppendTargets(b.order.At(n%b.split.Len()), tokens, targets); err != nil {
			return nil, nil, err
		}
	}
	return tokens, targets, nil
}

// ahead reads the batch of the next step while the present one is computed.
type ahead struct {
	*batches
	steps int        // of the run
	next  chan batch // nil: none is being read
}

type batch struct {
	step            int
	tokens, targets []int32
	err             error
}

// of returns the batch of a step.
func (a *ahead) of(step int) (tokens, targets []int32, err error) {
	b := a.wait()
	if b.step != step || b.tokens == nil {
		b = a.read(step)
	}
	if b.err == nil && step+1 < a.steps {
		next := make(chan batch, 1)
		a.next = next
		go func() { next <- a.read(step + 1) }()
	}
	return b.tokens, b.targets, b.err
}

func (a *ahead) read(step int) batch {
	tokens, targets, err := a.step(step, nil, nil)
	return batch{step, tokens, targets, err}
}

// wait returns what was being read. Only then may the dataset be closed.
func (a *ahead) wait() (b batch) {
	if a.next != nil {
		b = <-a.next
		a.next = nil
	}
	return b
}
