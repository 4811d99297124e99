package model

import (
	"fmt"
	"slices"
	"testing"
)

// A snapshot holds what the model was when it was taken, whatever training does meanwhile.
func TestSnapshotStaysAsItWas(t *testing.T) {
	for _, o := range []Options{{Batch: 2, Snapshots: true}, {Batch: 2, Snapshots: true, ScaleBits: 32},
		{Batch: 2, Snapshots: true, FlipThreshold: 2}} {
		m := build(t, small(), 2, o)
		for round := range 2 {
			train(t, m, 3*round, 3*round+2)
			parameters := parametersOf(t, m)
			state, err := m.State()
			if err != nil {
				t.Fatal(err)
			}
			snapshot, err := m.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error, 1)
			go func() { read <- sameValues(snapshot, parameters, state) }()
			train(t, m, 3*round+2, 3*round+3)
			if err := <-read; err != nil {
				t.Errorf("%+v, snapshot %d: %v", o, round, err)
			}
		}
	}
	if _, err := build(t, small(), 1, Options{}).Snapshot(); err == nil {
		t.Error("a model without room for a snapshot gave one")
	}
}

func sameValues(s Snapshot, parameters []Parameter, state State) error {
	if s.State.Updates != state.Updates || len(s.State.Counters) != len(state.Counters) {
		return fmt.Errorf("%d updates and %d counters, want %d and %d", s.State.Updates, len(s.State.Counters),
			state.Updates, len(state.Counters))
	}
	for i, c := range s.State.Counters {
		if !slices.Equal(c.Data, state.Counters[i].Data) {
			return fmt.Errorf("counters of %s differ", c.Name)
		}
	}
	for what, lists := range map[string][2][]Parameter{
		"parameter": {s.Parameters, parameters}, "mean": {s.State.ExpAvg, state.ExpAvg},
		"square": {s.State.ExpAvgSq, state.ExpAvgSq}, "master": {s.State.Masters, state.Masters},
	} {
		if len(lists[0]) != len(lists[1]) {
			return fmt.Errorf("%d tensors of kind %s, want %d", len(lists[0]), what, len(lists[1]))
		}
		for i, p := range lists[0] {
			want := lists[1][i]
			values := make([]float32, p.Size())
			half := len(values) / 2
			if err := p.Read(values[:half], 0); err != nil {
				return err
			}
			if err := p.Read(values[half:], half); err != nil {
				return err
			}
			if p.Name != want.Name || !slices.Equal(values, want.Data) {
				return fmt.Errorf("%s %s differs", what, p.Name)
			}
		}
	}
	return nil
}
