//go:build cuda

package cuda

import (
	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"
)

// deviceScalars is prelude.cuh's Scalars.
type deviceScalars struct {
	seed, step  [2]uint32
	micro       uint32
	signs       [5]uint32
	tau, mix    float64
	gradScale   float64
	rate        float64
	correction1 float64
	correction2 float64
	weights     [kernels.MaxSurvivors + 1][kernels.MaxSurvivors]float64
}

// SetScalars replaces the scalars: they travel as the argument of a kernel, so that nothing waits for a copy.
func (d *Device) SetScalars(s kernels.Scalars) {
	v := deviceScalars{
		seed: [2]uint32{uint32(s.Seed), uint32(s.Seed >> 32)}, step: [2]uint32{uint32(s.Step), uint32(s.Step >> 32)},
		micro: s.Micro, tau: s.Tau, mix: s.Mix, gradScale: s.GradScale,
		rate: s.LearningRate, correction1: s.Correction1, correction2: s.Correction2,
	}
	for alive := 1; alive <= kernels.MaxSurvivors; alive++ {
		kernels.RankWeights(v.weights[alive][:alive], s.Gamma)
		if alive < len(v.signs) {
			v.signs[alive] = patternSigns(v.weights[alive][:alive])
		}
	}
	d.run("SetScalars", func() error {
		return d.launch("set_scalars", grid(256, 1), arg(d.memory.scalars), driver.Bytes(&v))
	})
}

// patternSigns has bit p set where the sum of w, each added where p has a bit and subtracted elsewhere, is not negative.
func patternSigns(w []float64) (signs uint32) {
	for p := range 1 << len(w) {
		if kernels.SignedSum(w, p) >= 0 {
			signs |= 1 << p
		}
	}
	return signs
}
