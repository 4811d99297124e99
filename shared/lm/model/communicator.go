package model

import (
	"fmt"

	"bitnet1/kernels"
)

// Communicator tells a model which of the ranks it is that train together: equal models, each on a device of its own,
// that are given the same steps. Rank r of n computes micro-batches r, r+n, … of a step. Gradients and losses are
// summed over the ranks, and all ranks make the same update. The zero value is a model alone.
type Communicator struct {
	Rank, Ranks int
	// AllReduce replaces x by the sum of x over all ranks: the same bits on each rank. It is ordered with the
	// operations of dev.
	AllReduce func(dev kernels.Device, x kernels.Floats) error
}

func (c Communicator) validate() error {
	if c.Rank < 0 || c.Rank >= max(c.Ranks, 1) || (c.Ranks > 1) != (c.AllReduce != nil) {
		return fmt.Errorf("model options: rank %d of %d ranks: "+
			"want a rank below the number of ranks, and AllReduce where there are several", c.Rank, c.Ranks)
	}
	return nil
}

func (c Communicator) addUp(dev kernels.Device, all ...kernels.Floats) error {
	if c.AllReduce == nil {
		return nil
	}
	for _, x := range all {
		if err := c.AllReduce(dev, x); err != nil {
			return fmt.Errorf("adding up gradients over %d ranks: %w", c.Ranks, err)
		}
	}
	return nil
}
