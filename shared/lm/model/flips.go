package model

import (
	"fmt"
)

// flips trains weights without float latents ("truebit"): a weight is ±1 and has an integer counter. In every step the
// counter loses the sign of the weight's gradient. When the counter says, by more than a threshold, that the weight
// should have the other sign, the weight flips and its counter starts again from 0.
//
// There is no learning rate. The size of a gradient does not count, and a flip throws away what the counter had above
// the threshold.
//
// The device needs no operations of its own for it: the host downloads the gradients, and uploads the weights when any
// of them has flipped.
type flips struct {
	threshold int
	counters  []int8    // saturating, one for each weight, in the store's order
	weights   []float32 // ±1
	gradient  []float32
	flipped   int // weights in the last step
}

// maxFlipThreshold is the largest threshold that a counter of 8 bits can exceed.
const maxFlipThreshold = 126

func newFlips(threshold, weights int) *flips {
	return &flips{
		threshold: threshold,
		counters:  make([]int8, weights), weights: make([]float32, weights), gradient: make([]float32, weights),
	}
}

// start sets the weights from index at on to the signs of latents, clears their counters, and returns these weights.
func (f *flips) start(at int, latents []float32) []float32 {
	weights := f.weights[at:][:len(latents)]
	for i, w := range latents {
		weights[i] = 1
		if w < 0 {
			weights[i] = -1
		}
	}
	clear(f.counters[at:][:len(latents)])
	return weights
}

// count takes the gradients of weights from..to-1 into their counters, and flips the weights that ask for it.
func (f *flips) count(from, to int) {
	for i := from; i < to; i++ {
		c := int(f.counters[i])
		switch g := f.gradient[i]; {
		case g > 0:
			c = max(c-1, -127)
		case g < 0:
			c = min(c+1, 127)
		}
		if c*int(f.weights[i]) < -f.threshold {
			f.weights[i] = -f.weights[i]
			c = 0
			f.flipped++
		}
		f.counters[i] = int8(c)
	}
}

// flip trains the weights by the last gradients. The update that follows refreshes the signs on the device.
func (m *Model) flip() error {
	f, s := m.store.flips, &m.store
	if err := m.dev.Download(f.gradient, s.grad.Slice(0, s.gains)); err != nil {
		return err
	}
	f.flipped = 0
	for _, t := range s.trained(0, s.gains) {
		f.count(t.from, t.to)
	}
	if f.flipped > 0 {
		m.dev.Upload(s.param.Slice(0, s.gains), f.weights)
	}
	return nil
}

// Counter holds the counters of one parameter: the balance of the gradients that wanted each weight larger and smaller.
type Counter struct {
	Name  string
	Shape []int
	Data  []int8
}

// list returns a copy of the counters, by parameter.
func (f *flips) list(s *store) []Counter {
	var list []Counter
	for i, p := range s.list {
		if at := s.at[i]; at < s.gains {
			list = append(list, Counter{Name: p.Name, Shape: p.Shape,
				Data: append([]int8(nil), f.counters[at:at+p.Size()]...)})
		}
	}
	return list
}

// restore sets the counters to those that list returned.
func (f *flips) restore(s *store, list []Counter) error {
	found := 0
	for _, c := range list {
		i, ok := s.index[c.Name]
		if !ok || s.at[i] >= s.gains || len(c.Data) != s.list[i].Size() {
			return fmt.Errorf("counter %s with %d values is none of this model's", c.Name, len(c.Data))
		}
		copy(f.counters[s.at[i]:], c.Data)
		found += len(c.Data)
	}
	if found != s.gains {
		return fmt.Errorf("%d counters for %d weights", found, s.gains)
	}
	return nil
}
