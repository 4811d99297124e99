package main

import (
	"math"
	"testing"

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
