package model

import (
	"math"
	"testing"

	"bitnet1/kernels"
)

// Gradients of 4 bits are those of floats on average over the random rounding, for every parameter and through every
// quantization: the mean of n of them is nearer by the root of n than one of them is.
func TestRoundedGradientsHaveNoBias(t *testing.T) {
	for name, c := range variants() {
		t.Run(name, func(t *testing.T) {
			const n = 100
			tokens, targets := sequences(c, 3, 12)
			gradients := func(m *Model, step int) []Parameter {
				if err := m.Backward(tokens, targets, Settings{Gamma: 0.6, Seed: 3, Step: uint64(step)}); err != nil {
					t.Fatal(err)
				}
				list, err := m.Gradients()
				if err != nil {
					t.Fatal(err)
				}
				return list
			}
			want := gradients(build(t, c, 2, Options{Batch: 3, GradBits: kernels.FloatBits}), 0)
			rounded := build(t, c, 2, Options{Batch: 3, GradBits: 4})
			mean, one := make([][]float32, len(want)), make([]float64, len(want))
			for step := range n {
				for i, p := range gradients(rounded, step) {
					if mean[i] == nil {
						mean[i] = make([]float32, len(p.Data))
					}
					for j, v := range p.Data {
						mean[i][j] += v / n
					}
					one[i] += math.Pow(distance(p.Data, widen(want[i].Data)), 2) / n
				}
			}
			for i, p := range want {
				of, d := math.Sqrt(one[i]), distance(mean[i], widen(p.Data))
				if !(d <= 2*of/math.Sqrt(n)+0.004) { // and the bfloat16 between operations
					t.Errorf("the mean gradient of %s is %.3g of its norm from the float one, single ones are %.3g", p.Name, d, of)
				}
			}
		})
	}
}
