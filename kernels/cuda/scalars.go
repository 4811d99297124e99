//go:build cuda

package cuda

import (
	"bitnet1/kernels"
)

// The kernels keep weights for as many survivors as every device has to know.
var _ = [1]struct{}{}[kernels.MaxSurvivors-kMaxSurvivors]

// SetScalars replaces the scalars. They travel as the argument of a kernel, so nothing waits for a copy.
func (d *Device) SetScalars(s kernels.Scalars) {
	v := scalars{
		seed: [2]uint32{uint32(s.Seed), uint32(s.Seed >> 32)}, step: [2]uint32{uint32(s.Step), uint32(s.Step >> 32)},
		micro: s.Micro, tau: s.Tau, mix: s.Mix, gradScale: s.GradScale,
		learningRate: s.LearningRate, correction1: s.Correction1, correction2: s.Correction2, muonRate: s.MuonRate,
		decay: s.Decay, muonDecay: s.MuonDecay,
	}
	for alive := 1; alive <= kernels.MaxSurvivors; alive++ {
		kernels.RankWeights(v.weights[alive][:alive], s.Gamma)
		if alive < len(v.signs) {
			v.signs[alive] = patternSums(v.weights[alive][:alive], &v.sums[alive])
		}
	}
	d.run("SetScalars", nil, func() error {
		g := grid(1)
		g.Block[0] = 256
		return d.launch(g).setScalars(d.memory.scalars, v)
	})
}

// patternSums writes for each pattern p the sum of w, each added where p has a bit and subtracted elsewhere. It returns
// signs, with bit p set where the sum is not negative.
func patternSums(w []float64, sums *[16]float32) (signs uint32) {
	for p := range 1 << len(w) {
		if sums[p] = kernels.SignedSum(w, p); sums[p] >= 0 {
			signs |= 1 << p
		}
	}
	return signs
}
