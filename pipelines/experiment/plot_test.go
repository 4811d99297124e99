package main

import (
	"math"
	"slices"
	"testing"

	"bitnet1/pipelines/experiment/seeds"
	"bitnet1/shared/run/results"
)

// A bar has the standard error of its value, in the same unit.
func TestPanelsHaveErrors(t *testing.T) {
	all := table{columns: []column{{Name: "it", Value: "{share:.1%}"}}, rows: [][]any{
		{results.Cell{Value: 0.5, Error: 0.02}}, {results.Cell{Value: 0.25}}, {0.75}}}
	got := panel(all, 0).Errors
	if len(got) != 3 || math.Abs(got[0]-2) > 1e-9 || !math.IsNaN(got[1]) || !math.IsNaN(got[2]) {
		t.Errorf("errors of %v, want 2 and none", got)
	}
}

// Of several seeds the error is that of their mean. One seed has none, and what all seeds have the same needs none.
func TestPanelsOverSeeds(t *testing.T) {
	c := column{Key: "loss", Name: "loss", Value: "{loss:.3}", Better: results.Lower}
	row := func(of seeds.Sample) seedRow {
		return seedRow{seeds: len(of), values: map[string]seeds.Sample{"loss": of}}
	}
	all, err := overSeeds{columns: []column{c}, rows: []seedRow{
		row(seeds.Sample{1: 2, 2: 4}), row(seeds.Sample{1: 3}), row(seeds.Sample{1: 5, 2: 5}),
	}}.table()
	if err != nil {
		t.Fatal(err)
	}
	p := panel(all, 0)
	if want := []float64{3, 3, 5}; !slices.Equal(p.Parts[0].Values, want) {
		t.Errorf("bars of %v, want %v", p.Parts[0].Values, want)
	}
	if got := p.Errors; math.Abs(got[0]-1) > 1e-9 || !math.IsNaN(got[1]) || !math.IsNaN(got[2]) {
		t.Errorf("errors of %v, want 1 and none", got)
	}
}

// The axis of a panel says in what unit its bars are, and bars have the values that people read in the table.
func TestPanelsHaveUnits(t *testing.T) {
	for _, c := range []struct {
		value results.Template
		cells []any
		label string
		want  []float64
	}{
		{"{loss:.3}", []any{4.5, math.NaN()}, "it", []float64{4.5, math.NaN()}},
		{"{share:.1%}", []any{0.25, 1.0}, "it (%)", []float64{25, 100}},
		{"{pack.size:bytes}", []any{28_400.0, math.NaN(), 28_500.0}, "it (kB)", []float64{28.4, math.NaN(), 28.5}},
		{"{pack.size:bytes}", []any{19.8e6, 900.0}, "it (MB)", []float64{19.8, 0.0009}},
		{"{pack.size:bytes}", []any{math.NaN()}, "it (bytes)", []float64{math.NaN()}},
	} {
		all := table{columns: []column{{Name: "it", Value: c.value}}}
		for _, cell := range c.cells {
			all.rows = append(all.rows, []any{cell})
		}
		p := panel(all, 0)
		if p.X.Label != c.label {
			t.Errorf("%s: axis %q, want %q", c.value, p.X.Label, c.label)
		}
		for i, got := range p.Parts[0].Values {
			if want := c.want[i]; math.IsNaN(got) != math.IsNaN(want) || math.Abs(got-want) > 1e-9 {
				t.Errorf("%s: bar %d is %g, want %g", c.value, i, got, want)
			}
		}
	}
}
