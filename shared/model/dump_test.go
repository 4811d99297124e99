package model

import (
	"encoding/json"
	"os"
	"testing"

	"bitnet1/kernels/cpu"
)

func TestDump(t *testing.T) {
	g, err := readGolden(os.Getenv("DUMP"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(g.config, cpu.New(cpu.Options{}), Options{Batch: len(g.ints["tokens"]) / g.config.Seq, ScaleBits: 32, Bonsai: g.run.Mix < 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load(Each(g.parameters("param."))); err != nil {
		t.Fatal(err)
	}
	var out []map[string]map[string][]float32
	for range g.floats["step.losses"] {
		err := m.Step(g.ints["tokens"], g.ints["targets"], Update{Settings: g.settings(),
			LearningRate: g.adam.LR, Beta1: g.adam.Betas[0], Beta2: g.adam.Betas[1], Eps: g.adam.Eps, Decay: g.adam.Decay})
		if err != nil {
			t.Fatal(err)
		}
		s := map[string]map[string][]float32{"grad": {}, "after": {}}
		gr, _ := m.Gradients()
		for _, p := range gr {
			s["grad"][p.Name] = p.Data
		}
		pr, _ := m.Parameters()
		for _, p := range pr {
			s["after"][p.Name] = append([]float32{}, p.Data...)
		}
		out = append(out, s)
	}
	b, _ := json.Marshal(out)
	os.WriteFile("/tmp/gold/dump.json", b, 0o644)
}
