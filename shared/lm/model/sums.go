package model

import (
	"fmt"
	"strings"

	"bitnet1/kernels"
)

// fixedSums are the sums of gradients and losses over the micro-batches of a step, as integers (Options.FixedSums). The
// gradient of one micro-batch is float32, and its sums are the device's own. What is added up over micro-batches, and
// over ranks, is integers: their sums depend neither on the order nor on who has computed which micro-batch.
//
// A gradient's unit is 2^-40, 9e-13: gradients of 1.5e-5 and more keep all of their 24 bits, and the error of smaller
// ones is far below AdamW's epsilon, 1e-8. Gradients of 2^15 and more make the step's gradients NaN, as infinities do.
type fixedSums struct {
	parts []fixedPart   // the codebook's weight, the weights of each layer, gains and scales, the loss
	rest  kernels.Longs // the sums from the gains on, and odd
	odd   kernels.Longs // the counts of overflow, one for each part
}

// fixedPart is what is added together, as soon as the backward pass has it.
type fixedPart struct {
	kernels.FixedSums
	terms kernels.Floats
}

// Fractions of fixedSums: a loss is a sum over up to 2^20 tokens, in nats.
const (
	gradientFraction = 40
	lossFraction     = 20
)

// newFixedSums allocates the sums of s.grad, in the store's order, and of totalLoss, with the counts of overflow behind
// them.
func (s *store) newFixedSums(a *kernels.Allocator, layers int, totalLoss kernels.Floats) *fixedSums {
	count := layers + 3
	all, f := a.Longs(s.size+1+count), new(fixedSums)
	if a.Err != nil {
		return nil
	}
	add := func(terms kernels.Floats, from, to, fraction int) {
		n := s.size + 1 + len(f.parts)
		f.parts = append(f.parts, fixedPart{kernels.FixedSums{
			Sums: all.Slice(from, to), Overflow: all.Slice(n, n+1), Fraction: fraction}, terms})
	}
	weights := func(prefix string) {
		from, to := s.size, 0
		for i, p := range s.list {
			if strings.HasPrefix(p.Name, prefix) && strings.HasSuffix(p.Name, ".weight") {
				from, to = min(from, s.at[i]), max(to, s.at[i]+p.Size())
			}
		}
		add(s.grad.Slice(from, to), from, to, gradientFraction)
	}
	weights("codebook.")
	for l := range layers {
		weights(fmt.Sprintf("blocks.%d.", l))
	}
	add(s.grad.Slice(s.gains, s.size), s.gains, s.size, gradientFraction)
	add(totalLoss, s.size, s.size+1, lossFraction)
	f.rest, f.odd = all.Slice(s.gains, all.Len()), all.Slice(s.size+1, all.Len())
	return f
}

// The parts of fixedSums.
const codebookPart = 0

func layerPart(layer int) int { return 1 + layer }

// place is where a micro-batch lies in the step, as far as that changes what is enqueued.
type place struct {
	first bool // of this rank: its gradients are the sums, which are integers, so far
	last  bool // of this rank, one of several: exchanges begin with it
}

func (m *Model) placeOf(micro, count int) place {
	return place{
		first: m.sums != nil && micro == m.rank(),
		last:  m.options.Communicator != nil && micro+m.ranks() >= count,
	}
}

// clearGradients readies gradients and loss for a micro-batch.
func (m *Model) clearGradients(at place) {
	if m.sums == nil {
		return // the step has
	}
	m.dev.Zero(m.store.grad)
	m.dev.Zero(m.buffers.totalLoss)
	if at.first {
		m.dev.ZeroLongs(m.sums.odd)
	}
}

// addPart adds a part of a micro-batch's gradients to its sums.
func (m *Model) addPart(part int, at place) {
	if m.sums == nil {
		return
	}
	p, add := m.sums.parts[part], m.dev.AddFixed
	if at.first {
		add = m.dev.SetFixed
	}
	add(p.FixedSums, p.terms)
}

// exchangeOfPart sums a part up over all ranks. It is nil unless this is the last micro-batch.
func (m *Model) exchangeOfPart(part int, at place) func() {
	if !at.last {
		return nil
	}
	return func() { m.options.Communicator.AllReduce(m.sums.parts[part].Sums) }
}

// addRest adds the parts that are complete with the backward pass: gains, scales and the loss.
func (m *Model) addRest(at place) {
	m.addPart(layerPart(len(m.layers)), at)
	m.addPart(layerPart(len(m.layers)+1), at)
}

// exchangeOfRest is exchangeOfPart of the codebook and of what is added with it, counts of overflow included.
func (m *Model) exchangeOfRest(at place) func() {
	if !at.last {
		return nil
	}
	return func() {
		m.options.Communicator.AllReduce(m.sums.parts[codebookPart].Sums)
		m.options.Communicator.AllReduce(m.sums.rest)
	}
}

// readSums replaces the gradients and the loss by their sums over all micro-batches of all ranks. It fails where a rank
// was lost.
func (m *Model) readSums() error {
	if m.sums == nil {
		return nil
	}
	if c := m.options.Communicator; c != nil {
		c.Join()
		if err := c.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrAbandoned, err)
		}
	}
	run, err := m.program("sums", func() {
		for _, p := range m.sums.parts {
			m.dev.ReadFixed(p.terms, p.FixedSums)
		}
	})
	if err == nil {
		run()
	}
	return err
}
