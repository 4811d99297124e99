package model

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The counters do what the rule says, also at the ends of their range.
func TestFlipRule(t *testing.T) {
	const threshold = 3
	f := newFlips(threshold, 3)
	f.start(0, []float32{0.3, -0.2, 1})
	if f.weights[0] != 1 || f.weights[1] != -1 {
		t.Fatalf("weights begin as %v", f.weights)
	}
	f.gradient = []float32{1e-30, 0, -1} // against, nothing, for
	for step := 1; step <= 200; step++ {
		f.flipped = 0
		f.count(0, 3)
		// After a flip the same gradient speaks for the weight, so it stays.
		if want := step == threshold+1; (f.flipped == 1) != want {
			t.Fatalf("step %d: %d flips", step, f.flipped)
		}
	}
	if f.weights[0] != -1 || f.weights[1] != -1 || f.weights[2] != 1 || f.counters[0] != -127 || f.counters[1] != 0 ||
		f.counters[2] != 127 {
		t.Errorf("weights %v, counters %v", f.weights, f.counters)
	}
}

// Random gradients, against the rule in plain words.
func TestFlipsAgainstPlainRule(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const threshold = 5
	f := newFlips(threshold, 64)
	f.start(0, make([]float32, 64))
	type plain struct{ weight, votes int }
	all := make([]plain, 64)
	for i := range all {
		all[i].weight = 1
	}
	for range 2000 {
		for i := range all {
			f.gradient[i] = float32(r.IntN(3) - 1)
			all[i].votes -= int(f.gradient[i])
			all[i].votes = max(-127, min(127, all[i].votes))
			if all[i].weight == 1 && all[i].votes < -threshold || all[i].weight == -1 && all[i].votes > threshold {
				all[i] = plain{weight: -all[i].weight}
			}
		}
		f.count(0, 64)
		for i, p := range all {
			if int(f.weights[i]) != p.weight || int(f.counters[i]) != p.votes {
				t.Fatalf("weight %d is %v with counter %d, want %+v", i, f.weights[i], f.counters[i], p)
			}
		}
	}
}

// A model that trains by flipping holds ±1 and nothing else, flips some weights, learns, and resumes exactly.
func TestTruebit(t *testing.T) {
	o := Options{Batch: 2, FlipThreshold: 2}
	whole := build(t, small(), 2, o)
	tokens, targets := sequences(small(), 2, 1)
	step := func(m *Model, n int) (first, last Result, flipped int) {
		for i := range n {
			if err := m.Step(tokens, targets, Update{Settings: Settings{Gamma: 0.6}, LearningRate: 3e-3, Beta1: 0.9,
				Beta2: 0.95}); err != nil {
				t.Fatal(err)
			}
			r, err := m.Result()
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = r
			}
			last, flipped = r, flipped+r.Flipped
		}
		return first, last, flipped
	}
	first, last, flipped := step(whole, 12)
	if flipped == 0 || last.Loss > first.Loss-0.1 {
		t.Errorf("%d flips brought the loss from %v to %v", flipped, first.Loss, last.Loss)
	}
	for _, p := range parametersOf(t, whole) {
		for _, w := range p.Data {
			if len(p.Shape) == 2 && w != 1 && w != -1 {
				t.Fatalf("%s holds %v", p.Name, w)
			}
		}
	}
	state, err := whole.State()
	if err != nil {
		t.Fatal(err)
	}
	resumed := build(t, small(), 1, o)
	if err := resumed.Load(Each(parametersOf(t, whole))); err != nil {
		t.Fatal(err)
	}
	if err := resumed.SetState(State{ExpAvg: state.ExpAvg, ExpAvgSq: state.ExpAvgSq,
		Masters: state.Masters}); err == nil {
		t.Error("a state without counters was taken")
	}
	for what, spoil := range map[string]func(c *Counter){
		"a counter too few": func(c *Counter) { c.Data = c.Data[1:] },
		"of no parameter":   func(c *Counter) { c.Name = "codebook.bias" },
		"of no weight":      func(c *Counter) { c.Name, c.Data = "norm_out", c.Data[:small().D] },
	} {
		spoilt := state
		spoilt.Counters = slices.Clone(state.Counters)
		spoil(&spoilt.Counters[0])
		if err := resumed.SetState(spoilt); err == nil {
			t.Errorf("counters %s were taken", what)
		}
	}
	if err := resumed.SetState(state); err != nil {
		t.Fatal(err)
	}
	step(whole, 8)
	step(resumed, 8)
	sameParameters(t, "resumed", parametersOf(t, whole), parametersOf(t, resumed))
}
