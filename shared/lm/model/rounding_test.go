package model

import (
	"math"
	"slices"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// Gradients of 4 bits, and of 2 bits with 8 for weights, are those of floats on average over the random rounding, for
// every parameter and through every quantization: the mean of n of them is nearer by the root of n than one of them is.
func TestRoundedGradientsHaveNoBias(t *testing.T) {
	for name, c := range variants() {
		t.Run(name, func(t *testing.T) { haveNoBias(t, c, Options{Batch: 3, GradBits: 4}) })
		t.Run(name+", weights of 8", func(t *testing.T) {
			haveNoBias(t, c, Options{Batch: 3, GradBits: 2, WeightGradBits: 8})
		})
	}
}

func haveNoBias(t *testing.T, c Config, o Options) {
	t.Helper()
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
	rounded := build(t, c, 2, o)
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
}

// gradientBits is a device that notes the bits of gradients in what it is asked for.
type gradientBits struct {
	kernels.Device
	blocks, lmHead []kernels.GradBits
}

func (d *gradientBits) LinearBackward(dx kernels.Floats, dl kernels.LinearGradient, dy kernels.Floats,
	derivative kernels.Derivative, x kernels.Activation, l kernels.Linear, shift kernels.KShift, bits kernels.GradBits) {
	d.blocks = append(d.blocks, bits)
	d.Device.LinearBackward(dx, dl, dy, derivative, x, l, shift, bits)
}

func (d *gradientBits) CrossEntropyBackward(losses, dx kernels.Floats, dl kernels.LinearGradient, x kernels.Activation,
	lmHead kernels.Linear, targets kernels.Ints, bits kernels.GradBits) {
	d.lmHead = append(d.lmHead, bits)
	d.Device.CrossEntropyBackward(losses, dx, dl, x, lmHead, targets, bits)
}

// WeightGradBits are for the weights of all linears, and for what leaves the language-model head.
func TestWeightGradBits(t *testing.T) {
	c := small()
	tokens, targets := sequences(c, 1, 12)
	gradBits := func(input, weight int) kernels.GradBits { return kernels.GradBits{Input: input, Weight: weight} }
	for _, v := range []struct {
		o              Options
		blocks, lmHead kernels.GradBits
	}{
		{Options{GradBits: 4}, gradBits(4, 4), gradBits(4, 4)},
		{Options{GradBits: 4, WeightGradBits: 8}, gradBits(4, 8), gradBits(8, 8)},
		{Options{GradBits: 5, WeightGradBits: 3}, gradBits(5, 3), gradBits(3, 3)},
		{Options{WeightGradBits: 8}, gradBits(16, 16), gradBits(16, 16)},
	} {
		d := &gradientBits{Device: cpu.New(cpu.Options{})}
		m, err := New(c, d, v.o)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Backward(tokens, targets, Settings{Gamma: 0.6}); err != nil {
			t.Fatal(err)
		}
		if blocks := slices.Repeat([]kernels.GradBits{v.blocks}, 4*c.Layers); !slices.Equal(d.blocks, blocks) ||
			!slices.Equal(d.lmHead, []kernels.GradBits{v.lmHead}) {
			t.Errorf("%d and %d bits of gradients: blocks %v, language-model head %v", v.o.GradBits, v.o.WeightGradBits,
				d.blocks, d.lmHead)
		}
	}
}
