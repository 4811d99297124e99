package main

import (
	"fmt"

	"bitnet1/shared/data/dataset"
)

// sequences divides a step into micro-batches: step is the number of sequences of seq tokens in a step, micro the
// number that is computed at once. A step has exactly batch_tokens. micro is the largest divisor of step whose tokens
// are at most micro_tokens, so all micro-batches are equally large and their size does not change the step.
func (p Params) sequences(seq int) (micro, step int, err error) {
	step = p.BatchTokens / seq
	switch {
	case p.BatchTokens < seq:
		return 0, 0, fmt.Errorf("batch_tokens is %d, and a sequence of the dataset has %d tokens: use %d or a multiple of it",
			p.BatchTokens, seq, seq)
	case p.BatchTokens%seq != 0:
		return 0, 0, fmt.Errorf("batch_tokens is %d, no multiple of the %d tokens of the dataset's sequences: use %d or %d",
			p.BatchTokens, seq, step*seq, (step+1)*seq)
	case p.MicroTokens < seq:
		return 0, 0, fmt.Errorf("micro_tokens is %d, and a sequence of the dataset has %d tokens, which are computed "+
			"together: use %d or more", p.MicroTokens, seq, seq)
	}
	for micro = min(p.MicroTokens/seq, step); step%micro != 0; {
		micro--
	}
	return micro, step, nil
}

// batches reads the sequences of every step. They depend on the dataset, the seed and the step alone: a run reads, as
// its n-th sequence, number n mod N of the N sequences of the split, in the order of epoch n / N.
type batches struct {
	split   *dataset.Split
	seed    uint64
	seq     int // targets of a sequence
	perStep int // sequences in a step

	epoch int // of order; -1: none yet
	order dataset.Permutation
}

func newBatches(split *dataset.Split, seed uint64, seq, perStep int) *batches {
	return &batches{split: split, seed: seed, seq: seq, perStep: perStep, epoch: -1}
}

// step appends the tokens and targets of a step to the given slices. A target of -1 is not predicted.
func (b *batches) step(step int, tokens, targets []int32) (_, _ []int32, err error) {
	first := step * b.perStep
	for n := first; n < first+b.perStep; n++ {
		if epoch := n / b.split.Len(); epoch != b.epoch {
			b.epoch, b.order = epoch, dataset.Order(b.split.Len(), b.seed, epoch)
		}
		if tokens, targets, err = b.split.AppendTargets(b.order.At(n%b.split.Len()), tokens, targets); err != nil {
			return nil, nil, err
		}
	}
	return tokens, targets, nil
}

// prefetcher reads the batch of the next step while the device computes the present one.
type prefetcher struct {
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
func (p *prefetcher) of(step int) (tokens, targets []int32, err error) {
	b := p.wait()
	if b.step != step || b.tokens == nil {
		b = p.read(step)
	}
	if b.err == nil && step+1 < p.steps {
		next := make(chan batch, 1)
		p.next = next
		go func() { next <- p.read(step + 1) }()
	}
	return b.tokens, b.targets, b.err
}

func (p *prefetcher) read(step int) batch {
	tokens, targets, err := p.step(step, nil, nil)
	return batch{step, tokens, targets, err}
}

// wait returns the batch that is being read, if any. The dataset may be closed after wait.
func (p *prefetcher) wait() (b batch) {
	if p.next != nil {
		b = <-p.next
		p.next = nil
	}
	return b
}
