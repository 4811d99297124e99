package main

import (
	"cmp"
	"fmt"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/stage"
)

// sequences divides steps into micro-batches: perStep is the course of the number of sequences of seq tokens in a step,
// micro the number that is computed at once. A step has exactly batch_tokens, or what batch_start has become. micro is
// the largest divisor of the first step whose tokens are at most micro_tokens, so all micro-batches of all steps are
// equally large and their size does not change a step.
func (p Params) sequences(seq int) (micro int, perStep ramp, err error) {
	for _, f := range []struct {
		key    string
		tokens int
	}{{"batch_tokens", p.BatchTokens}, {"batch_start", cmp.Or(p.BatchStart, p.BatchTokens)}} {
		switch n := f.tokens / seq; {
		case f.tokens < seq:
			return 0, ramp{}, fmt.Errorf("%s is %d, and a sequence of the dataset has %d tokens: use %d or a multiple of it",
				f.key, f.tokens, seq, seq)
		case f.tokens%seq != 0:
			return 0, ramp{}, fmt.Errorf("%s is %d, no multiple of the %d tokens of the dataset's sequences: use %d or %d",
				f.key, f.tokens, seq, n*seq, (n+1)*seq)
		}
	}
	if p.MicroTokens < seq {
		return 0, ramp{}, fmt.Errorf("micro_tokens is %d, and a sequence of the dataset has %d tokens, which are computed "+
			"together: use %d or more", p.MicroTokens, seq, seq)
	}
	perStep = newRamp(p.BatchStart/seq, p.BatchTokens/seq, model.StepsOf(p.BatchRamp, p.Steps))
	for micro = min(p.MicroTokens/seq, perStep.first); perStep.first%micro != 0; {
		micro--
	}
	return micro, perStep, nil
}

// batches reads the sequences of every step. They depend on the dataset, the seed and the step alone: a run reads, as
// its n-th sequence, number n mod N of the N sequences of the split, in the order of epoch n / N.
type batches struct {
	split   *dataset.Split
	seed    uint64
	seq     int  // targets of a sequence
	perStep ramp // sequences in a step
	start   start

	epoch int // of order; -1: none yet
	order dataset.Permutation
}

func newBatches(split *dataset.Split, seed uint64, seq int, perStep ramp, from start) *batches {
	return &batches{split: split, seed: seed, seq: seq, perStep: perStep, start: from, epoch: -1}
}

// position is the number of sequences of the data order that the steps before the given one have read.
func (b *batches) position(step int) int64 {
	return b.start.position + b.perStep.sum(b.start.step, step)
}

// tokens is the number of tokens that the steps before the given one have read.
func (b *batches) tokens(step int) int64 {
	return b.start.tokens + b.perStep.sum(b.start.step, step)*int64(b.seq)
}

// step appends the tokens and targets of a step to the given slices. A target of -1 is not predicted.
func (b *batches) step(step int, tokens, targets []int32) (_, _ []int32, err error) {
	first := int(b.position(step))
	for n := first; n < first+b.perStep.at(step); n++ {
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
	steps int               // of the run
	tell  func(batch) error // tells the other ranks to take the step of a batch; nil: there are none
	next  chan batch        // nil: none is being read
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

// read reads a batch and gives it to the other ranks, which are to have it when their devices are done with the step
// before.
func (p *prefetcher) read(step int) batch {
	tokens, targets, err := p.step(step, nil, nil)
	b := batch{step, tokens, targets, err}
	switch {
	case err != nil:
		b.err = stage.Permanent(err)
	case p.tell != nil:
		b.err = p.tell(b)
	}
	return b
}

// wait returns the batch that is being read, if any. The dataset may be closed after wait.
func (p *prefetcher) wait() (b batch) {
	if p.next != nil {
		b = <-p.next
		p.next = nil
	}
	return b
}
