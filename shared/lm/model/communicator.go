package model

import (
	"errors"
	"fmt"

	"bitnet1/kernels"
)

// A model may be one of several ranks: equal models, each on a device of its own, that are given the same steps. Rank r
// of n computes micro-batches r, r+n, … of a step. Gradients and losses are summed over the ranks as integers
// (fixedSums), and all ranks make the same update. So the number of ranks does not change what is trained.
//
// Parameters and optimizer state are the same on all ranks: any of them can write a checkpoint, and what was done is
// kept when others are lost. What takes time is dealt out: the matrices that Muon makes orthogonal.

// ranks is the number of ranks.
func (m *Model) ranks() int {
	if c := m.options.Communicator; c != nil {
		return c.Ranks()
	}
	return 1
}

// rank is this model's number among the ranks.
func (m *Model) rank() int {
	if c := m.options.Communicator; c != nil {
		return c.Rank()
	}
	return 0
}

// exchanged is why an exchange with the other ranks failed, or nil.
func (m *Model) exchanged() error {
	if c := m.options.Communicator; c != nil {
		return c.Err()
	}
	return nil
}

func (o Options) checkRanks() error {
	switch c := o.Communicator; {
	case c == nil:
	case c.Rank() < 0 || c.Rank() >= c.Ranks():
		return fmt.Errorf("model options: rank %d of %d ranks: want a rank below the number of ranks", c.Rank(), c.Ranks())
	case !o.FixedSums:
		return errors.New("model options: ranks train the same only with FixedSums: float sums depend on their number")
	case o.Inference:
		return errors.New("model options: a model for inference has no other ranks")
	}
	return nil
}

// Updates is the number of updates that the model has made.
func (m *Model) Updates() int { return m.updates }

// Share gives all ranks the parameters and the optimizer's state of rank 0, which has made so many updates. All ranks
// call it, after Init, Load and SetState on rank 0.
func (m *Model) Share(updates int) error {
	c, s := m.options.Communicator, &m.store
	if c == nil {
		return nil
	}
	m.updates = updates
	for _, x := range []kernels.Floats{s.param, s.m, s.v, s.master} {
		if x != nil {
			c.Broadcast(kernels.Broadcast{X: x, Root: 0})
		}
	}
	if s.flips != nil {
		m.dev.Upload(s.grad.Slice(0, s.gains), s.flips.countersAsFloats())
		c.Broadcast(kernels.Broadcast{X: s.grad, Root: 0})
	}
	c.Join()
	if s.flips != nil {
		if err := m.takeFlips(); err != nil {
			return err
		}
	}
	m.quantize()
	m.blended = -1
	return errors.Join(m.dev.Sync(), c.Err())
}

// takeFlips reads weights and counters that Share has brought to the device.
func (m *Model) takeFlips() error {
	s, f := &m.store, m.store.flips
	if err := m.dev.Download(f.weights, s.param.Slice(0, s.gains)); err != nil {
		return err
	}
	if err := m.dev.Download(f.gradient, s.grad.Slice(0, s.gains)); err != nil {
		return err
	}
	for i, c := range f.gradient {
		f.counters[i] = int8(c)
	}
	return nil
}

// countersAsFloats is a copy of the counters.
func (f *flips) countersAsFloats() []float32 {
	list := make([]float32, len(f.counters))
	for i, c := range f.counters {
		list[i] = float32(c)
	}
	return list
}
