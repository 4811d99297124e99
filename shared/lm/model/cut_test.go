package model

import (
	"fmt"
	"slices"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

func TestCutSequences(t *testing.T) {
	checkCutSequences(t, func() kernels.Device { return cpu.New(cpu.Options{}) })
}

// checkCutSequences trains with sequences of 3, 12, 6, 12 and 3 tokens, all cut from sequences of 12. Losses, pointers
// and parameters are, to the bit, those of models that were built for sequences of each length.
func checkCutSequences(t *testing.T, open func() kernels.Device) {
	list := variants()
	deaf := small() // its keys read further back than the shortest sequence goes
	deaf.KShiftLayers, deaf.KShiftOffset, deaf.RWSPK = []int{0, 1}, 4, 7
	list["far shift, seven survivors"] = deaf
	for name, c := range list {
		for _, separate := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, separate documents %v", name, separate), func(t *testing.T) {
				const batch = 2
				o := Options{Batch: batch, GradBits: 4, Documents: Documents{Separate: separate, EndOfText: endOfText}}
				cut, err := New(c, open(), o)
				if err != nil {
					t.Fatal(err)
				}
				if err := cut.Init(5); err != nil {
					t.Fatal(err)
				}
				for step, seq := range []int{3, 12, 6, 12, 3} {
					short := o
					short.Batch, short.Seq = batch*c.Seq/seq, seq
					alone, err := New(c, open(), short)
					if err != nil {
						t.Fatal(err)
					}
					if err := alone.Load(Each(parametersOf(t, cut))); err != nil {
						t.Fatal(err)
					}
					if err := alone.SetState(stateOf(t, cut)); err != nil {
						t.Fatal(err)
					}
					tokens, targets := sequences(c, 2*batch, uint64(step))
					for i := 0; i < len(tokens); i += 5 {
						tokens[i] = endOfText
					}
					u := Update{Settings: Settings{Gamma: 0.6, Gumbel: true, Seed: 9, Step: uint64(step)}, LearningRate: 3e-3,
						Beta1: 0.9, Beta2: 0.95}
					want := stepOf(t, alone, tokens, targets, u)
					u.Seq = seq
					if got := stepOf(t, cut, tokens, targets, u); got.Result != want.Result ||
						!slices.Equal(got.pointers, want.pointers) {
						t.Errorf("step %d, cut to %d tokens: %+v, want %+v", step, seq, got, want)
					}
					sameParameters(t, fmt.Sprintf("step %d, cut to %d tokens", step, seq), parametersOf(t, cut),
						parametersOf(t, alone))
				}
				whole, targets := sequences(c, batch, 9)
				losses, err := cut.Losses(whole, targets, Settings{Gamma: 0.6})
				if err != nil {
					t.Fatal(err)
				}
				if again, err := cut.Losses(whole, targets, Settings{Gamma: 0.6, Seq: 4}); err != nil ||
					slices.Equal(again, losses) {
					t.Errorf("losses of cut sequences are those of whole ones (%v)", err)
				}
			})
		}
	}
}

type stepped struct {
	Result
	pointers []int32 // of the last layer
}

func stepOf(t *testing.T, m *Model, tokens, targets []int32, u Update) stepped {
	t.Helper()
	if err := m.Step(tokens, targets, u); err != nil {
		t.Fatal(err)
	}
	result, err := m.Result()
	if err != nil {
		t.Fatal(err)
	}
	pointers, err := m.Pointers(m.Config().Layers - 1)
	if err != nil {
		t.Fatal(err)
	}
	return stepped{result, pointers}
}

// Sequences are cut into equal parts, and noise that is given is of these parts.
func TestRefusesUnequalParts(t *testing.T) {
	c := small().V75()
	m := build(t, c, 1, Options{Batch: 2})
	tokens, targets := sequences(c, 2, 1)
	for _, seq := range []int{-1, 5, 24} {
		if _, err := m.Losses(tokens, targets, Settings{Seq: seq}); err == nil {
			t.Errorf("sequences of 12 were cut into sequences of %d", seq)
		}
	}
	noise := [][]float32{make([]float32, 8*3*3*3), make([]float32, 8*3*3*3)} // 8 sequences, 3 heads
	if _, err := m.Losses(tokens, targets, Settings{Seq: 3, Noise: noise}); err != nil {
		t.Error(err)
	}
	if _, err := m.Losses(tokens, targets, Settings{Noise: noise}); err == nil {
		t.Error("noise of short sequences was taken for that of long ones")
	}
}
