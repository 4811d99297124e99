//go:build cuda

package model

import (
	"errors"
	"slices"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/kernels/cuda"
)

// gpu returns device 0, or skips the test where there is none.
func gpu(t *testing.T) *cuda.Device {
	t.Helper()
	d, err := cuda.Open(0, cuda.Options{})
	if errors.Is(err, cuda.ErrNoDevice) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Muon multiplies in bfloat16 on a GPU. The reference with bfloat16 in the same places differs from itself in float64
// after six steps: by 4 % of the loss, 6 % of a weight and 70 % of a threshold. A few weights change their signs then,
// and what a threshold learns depends on these signs.
func TestGoldenOnGPU(t *testing.T) {
	checkGolden(t, gpu(t), tolerances{loss: 0.08, norm: 0.5, after: 1})
}

// What a GPU trains is what the processor trains, to rounding; and the same bytes every time. Attention that reads all
// keys is not among the cases: a GPU's bfloat16 gradients of it need only be near the processor's (kernels.Device), and
// AdamW makes much of small differences.
func TestTrainingOnGPU(t *testing.T) {
	dev, all := gpu(t), variants()
	mixed := all["v77 pointer"].V76()
	for name, o := range map[string]struct {
		config           Config
		grad, weightGrad int
	}{
		"float": {all["stream float"], kernels.FloatBits, 0}, "strict": {all["strict"], 4, 0},
		"stream4": {all["stream 4"], 4, 0}, "v77": {all["v77"], 4, 0}, "v77 float": {all["v77"], kernels.FloatBits, 0},
		"v77 mixed": {mixed, 5, 0}, "strict, weights": {all["strict"], 4, 8}, "v77, weights": {all["v77"], 4, 8},
	} {
		t.Run(name, func(t *testing.T) {
			c := o.config
			var first, second []Parameter
			for i, d := range []kernels.Device{cpu.New(cpu.Options{}), dev, dev} {
				m, err := New(c, d, Options{Batch: 2, GradBits: o.grad, WeightGradBits: o.weightGrad})
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Init(5); err != nil {
					t.Fatal(err)
				}
				train(t, m, 0, 3)
				list := parametersOf(t, m)
				switch i {
				case 0:
					first = list
				case 1:
					second = list
				}
				if i == 0 {
					continue
				}
				for j, p := range list {
					if e := distance(p.Data, widen(first[j].Data)); e > 1e-3 {
						t.Errorf("run %d: %s is %.2g of its norm from the processor's", i, p.Name, e)
					}
					if !slices.Equal(p.Data, second[j].Data) {
						t.Errorf("%s differs between two runs on one GPU", p.Name)
					}
				}
			}
		})
	}
}

func TestDocumentsAloneOnGPU(t *testing.T) {
	dev := gpu(t)
	checkDocumentsAlone(t, func() kernels.Device { return dev })
}

func TestCutSequencesOnGPU(t *testing.T) {
	dev := gpu(t)
	checkCutSequences(t, func() kernels.Device { return dev })
}
