package model

import "bitnet1/kernels"

// Memory returns how many bytes of dev's memory training with these options takes: all memory of a step and a
// validation, working memory included. Nothing is computed and dev's memory stays as it is.
func Memory(c Config, dev kernels.DryRunner, o Options) (int, error) {
	o.Communicator = nil // whose exchanges are no dry run
	return dev.DryRun(func(dev kernels.Device) error {
		m, err := New(c, dev, o)
		if err != nil {
			return err
		}
		tokens := make([]int32, m.rows())
		for _, mix := range []float64{0, 1} { // bonsai passes through both
			u := Update{Settings: Settings{Gamma: 0.5, Mix: mix, Gumbel: c.AttentionRule().Noise}, LearningRate: 1,
				MaxNorm: 1, Muon: Muon{LearningRate: 1, Steps: 1}}
			if err := m.Step(tokens, tokens, u); err != nil {
				return err
			}
			if _, err := m.Losses(tokens, tokens, u.Settings); err != nil {
				return err
			}
		}
		return dev.Sync()
	})
}

// Fits returns the first of the given batches that Memory finds room for on dev, and 0 if none fits.
func Fits(c Config, dev kernels.DryRunner, o Options, batches []int) (int, error) {
	room, err := dev.Room()
	if err != nil {
		return 0, err
	}
	room -= room / 32 // graphs, and what the driver keeps
	for _, o.Batch = range batches {
		need, err := Memory(c, dev, o)
		if err != nil {
			return 0, err
		}
		if need <= room {
			return o.Batch, nil
		}
	}
	return 0, nil
}
