package main

import (
	"math"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/measure/measuretest"
)

// A ramp doubles in equal spans, and its sums are the sums of its numbers.
func TestRamp(t *testing.T) {
	for _, c := range []struct {
		ramp
		want []int // of the first steps
	}{
		{newRamp(2, 16, 6), []int{2, 2, 4, 4, 8, 8, 16, 16}},
		{newRamp(2, 16, 7), []int{2, 2, 2, 4, 4, 8, 8, 16}},
		{newRamp(2, 16, 2), []int{2, 4, 16, 16}}, // fewer steps than doublings
		{newRamp(3, 6, 3), []int{3, 3, 3, 6, 6}},
		{newRamp(3, 6, 0), []int{6, 6}},
		{newRamp(0, 6, 3), []int{6, 6}},
		{newRamp(6, 6, 3), []int{6, 6, 6, 6}},
	} {
		var sum int64
		for step, want := range c.want {
			if got := c.at(step); got != want || !c.doubles() {
				t.Errorf("%v: %d at step %d, want %d", c.ramp, got, step, want)
			}
			if got := c.sum(0, step); got != sum {
				t.Errorf("%v: the first %d steps sum to %d, want %d", c.ramp, step, got, sum)
			}
			if got := c.sum(step/2, step) + c.sum(0, step/2); got != sum {
				t.Errorf("%v: steps to %d and on to %d sum to %d, want %d", c.ramp, step/2, step, got, sum)
			}
			sum += int64(want)
		}
	}
	for _, r := range []ramp{newRamp(3, 16, 4), newRamp(16, 8, 4), newRamp(-2, 8, 4), newRamp(4, 12, 4)} {
		if r.doubles() {
			t.Errorf("%v doubles", r)
		}
	}
}

// Sequences can be cut into 2, 4, 8 … parts; the error names what there is.
func TestLengthsOfSequences(t *testing.T) {
	p := defaults()
	p.Steps, p.SequenceStart, p.SequenceRamp = 8, 12, 0.5
	r, err := p.lengths(48)
	if err != nil || r.at(0) != 12 || r.at(1) != 12 || r.at(2) != 24 || r.at(4) != 48 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, start := range []int{16, 5, 96} {
		p.SequenceStart = start
		if _, err := p.lengths(48); err == nil || !strings.Contains(err.Error(), "[24 12 6 3]") {
			t.Errorf("sequences of 48 begin with %d: %v", start, err)
		}
	}
	manifest := writeDataset(t, 16, proverbs()...)
	cmd, said := program(t, small(manifest, t.TempDir(), "--sequence-start", "5")...)
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "use one of [8 4 2 1]") {
		t.Errorf("sequence_start 5 (%v):\n%s", err, said)
	}
}

// Weight decay is constant, follows the learning rate, or falls to zero.
func TestWeightDecayOfSteps(t *testing.T) {
	p := defaults()
	p.Steps, p.Warmup, p.Decay, p.MuonDecay, p.Schedule, p.FinalShare = 101, 10, 2, 4, "linear", 0.1
	for name, want := range map[string][3]float64{ // at step 4, in the warm-up, at step 55 and at the last one
		"constant": {2, 2, 2}, "rate": {1, 2 * 0.55, 0.2}, "linear": {1.92, 0.9, 0},
	} {
		p.DecaySchedule = name
		for i, step := range []int{4, 55, 100} {
			u := p.update(step)
			if !(math.Abs(u.Decay-want[i]) <= 1e-12) || !(math.Abs(u.Muon.Decay-2*want[i]) <= 1e-12) {
				t.Errorf("%s, step %d: %g and %g, want %g and twice that", name, step, u.Decay, u.Muon.Decay, want[i])
			}
		}
	}
}

// Muon's learning rate takes the course of the other one, or a course and a last step of its own.
func TestMuonSchedule(t *testing.T) {
	p := defaults()
	p.Optimizer, p.Steps, p.Warmup, p.LearningRate, p.MuonRate = muon, 100, 10, 1, 2
	p.Schedule, p.FinalShare, p.Cooldown = "linear", 0.5, 0.2
	for _, c := range []struct {
		schedule        string
		final           float64
		warm, mid, last float64 // Muon's rates of steps 4, 79 and 99
	}{
		{"same", 0, 1, 2 - 69./89, 1},
		{"trapezoid", 0, 1, 2, 0},
		{"trapezoid", 0.25, 1, 2, 0.5},
	} {
		p.MuonSchedule, p.MuonFinal, p.DecaySchedule, p.MuonDecay = c.schedule, c.final, decayAsRate, 3
		for step, want := range map[int]float64{4: c.warm, 79: c.mid, 99: c.last} {
			u := p.update(step)
			if math.Abs(u.Muon.LearningRate-want) > 1e-9 || math.Abs(u.Muon.Decay-1.5*want) > 1e-9 {
				t.Errorf("%s to %g: step %d has rate %g and decay %g, want %g and %g", c.schedule, c.final, step,
					u.Muon.LearningRate, u.Muon.Decay, want, 1.5*want)
			}
			if other := p.schedule().Rate(step, 1); u.LearningRate != other {
				t.Errorf("%s: AdamW's rate of step %d is %g, want %g", c.schedule, step, u.LearningRate, other)
			}
		}
	}
}

// The cool-down has the given steps, gamma comes to its end after others.
func TestStepsOfCooldownAndGamma(t *testing.T) {
	p := defaults()
	p.Steps, p.Warmup, p.Schedule, p.Cooldown, p.FinalShare, p.LearningRate = 100, 10, "trapezoid", 0.5, 0, 1
	rates := func() (list []float64) {
		for _, step := range []int{49, 50, 89, 90, 99} {
			list = append(list, math.Round(1e9*p.update(step).LearningRate)/1e9)
		}
		return list
	}
	if got := rates(); !slices.Equal(got, []float64{1, 0.98, 0.2, 0.18, 0}) {
		t.Errorf("cool-down of a half: %v", got)
	}
	p.CooldownSteps = 10
	if got := rates(); !slices.Equal(got, []float64{1, 1, 1, 0.9, 0}) {
		t.Errorf("cool-down of 10 steps: %v", got)
	}
	for _, c := range []struct {
		steps, at int
		want      float64
	}{{0, 99, 0.1}, {21, 10, 0.3}, {21, 20, 0.1}, {21, 99, 0.1}, {199, 99, 0.3}} {
		p.GammaSteps = c.steps
		if got := p.update(c.at).Gamma; !(math.Abs(got-c.want) <= 1e-12) {
			t.Errorf("gamma of %d steps at step %d: %g, want %g", c.steps, c.at, got, c.want)
		}
	}
}

// Steps that grow read the data in the order of steps that do not, and all there is of it.
func TestBatchRamp(t *testing.T) {
	p := Params{Steps: 10, BatchTokens: 8 * 16, BatchStart: 2 * 16, BatchRamp: 0.6, MicroTokens: 5 * 16}
	micro, perStep, err := p.sequences(16)
	if err != nil || micro != 2 || perStep != newRamp(2, 8, 6) {
		t.Fatalf("%d at once of %+v: %v", micro, perStep, err)
	}
	data := measuretest.Open(t, writeDataset(t, 16, proverbs()...))
	grows, one := newBatches(data.Train, 5, 16, perStep, start{}), newBatches(data.Train, 5, 16, newRamp(0, 1, 0), start{})
	later := newBatches(data.Train, 5, 16, perStep, start{step: 4, position: 10, tokens: 160})
	read := 0
	for step, n := range []int{2, 2, 2, 4, 4, 4, 8, 8, 8, 8} {
		if got := grows.tokens(step); got != int64(read*16) {
			t.Errorf("%d tokens before step %d, want %d", got, step, read*16)
		}
		tokens, targets, err := grows.step(step, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var want, wantTargets []int32
		for range n {
			if want, wantTargets, err = one.step(read, want, wantTargets); err != nil {
				t.Fatal(err)
			}
			read++
		}
		if !slices.Equal(tokens, want) || !slices.Equal(targets, wantTargets) {
			t.Errorf("step %d reads other sequences", step)
		}
		if step < 5 {
			continue
		}
		if again, _, err := later.step(step, nil, nil); err != nil || later.tokens(step) != grows.tokens(step) ||
			later.position(step) != grows.position(step) || !slices.Equal(again, tokens) {
			t.Errorf("step %d reads other sequences where training begins with step 4 (%v)", step, err)
		}
	}
	p.BatchStart = 24
	if _, _, err := p.sequences(16); err == nil || !strings.Contains(err.Error(), "batch_start is 24") {
		t.Errorf("batch_start of one and a half sequences: %v", err)
	}
}
