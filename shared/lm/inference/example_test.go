package inference_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/inference"
	"bitnet1/shared/lm/model"
)

// A packed model that has learned to count in a circle continues a prompt, greedily.
func Example() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "model.bit2")
	packCounting(path)

	m, err := inference.Open(path)
	if err != nil {
		panic(err)
	}
	defer m.Close()
	s, err := m.NewSession(inference.Options{})
	if err != nil {
		panic(err)
	}
	logits, err := s.Prefill([]int32{2, 3, 4})
	if err != nil {
		panic(err)
	}
	for s.Len() < m.Config.Seq {
		next := int32(slices.Index(logits, slices.Max(logits)))
		fmt.Print(next, " ")
		if logits, err = s.Decode(next); err != nil {
			panic(err)
		}
	}
	_, err = s.Decode(0)
	fmt.Println(err)
	// Output: 0 1 2 3 4 0 1 1 tokens after 10, and the model's context is 10: the context is full
}

// packCounting trains a model of five tokens and packs it.
func packCounting(path string) {
	c, err := model.Preset("nano")
	if err != nil {
		panic(err)
	}
	c.Vocab, c.D, c.FF, c.Layers, c.Heads, c.Seq = 5, 32, 64, 2, 2, 10
	m, err := model.New(c, cpu.New(cpu.Options{}), model.Options{})
	if err != nil {
		panic(err)
	}
	if err := m.Init(42); err != nil {
		panic(err)
	}
	tokens, targets := []int32{0, 1, 2, 3, 4, 0, 1, 2, 3, 4}, []int32{1, 2, 3, 4, 0, 1, 2, 3, 4, 0}
	for step := range 60 {
		if err := m.Step(tokens, targets, model.Update{
			Settings:     model.Settings{Gamma: 0.5, Seed: 42, Step: uint64(step)},
			LearningRate: 1e-2, Beta1: 0.9, Beta2: 0.95, MaxNorm: 1,
		}); err != nil {
			panic(err)
		}
	}
	parameters, err := m.Parameters()
	if err != nil {
		panic(err)
	}
	file, err := os.Create(path)
	if err != nil {
		panic(err)
	}
	about := checkpoint.Provenance{Step: 60, Gamma: 0.5, Mix: 1, Recipe: json.RawMessage(`{}`)}
	if err := bit2.Write(file, c, about, model.Each(parameters), nil); err != nil {
		panic(err)
	}
	if err := file.Close(); err != nil {
		panic(err)
	}
}
