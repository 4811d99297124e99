package model_test

import (
	"fmt"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/model"
)

// Train a small model to count in a circle, then let it predict.
func Example() {
	c, err := model.Preset("nano")
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Vocab, c.D, c.FF, c.Layers, c.Heads, c.Seq = 5, 32, 64, 2, 2, 10
	dev := cpu.New(cpu.Options{})
	defer dev.Close()
	m, err := model.New(c, dev, model.Options{Batch: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := m.Init(42); err != nil {
		fmt.Println(err)
		return
	}

	tokens := []int32{0, 1, 2, 3, 4, 0, 1, 2, 3, 4}
	targets := []int32{1, 2, 3, 4, 0, 1, 2, 3, 4, 0}
	for step := range 60 {
		err := m.Step(tokens, targets, model.Update{
			Settings:     model.Settings{Gamma: 0.5, Seed: 42, Step: uint64(step)},
			LearningRate: 1e-2, Beta1: 0.9, Beta2: 0.95, MaxNorm: 1,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}

	next, err := m.Greedy(tokens, model.Settings{Gamma: 0.5})
	fmt.Println(next, err)
	// Output: [1 2 3 4 0 1 2 3 4 0] <nil>
}
