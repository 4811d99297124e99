package plot

import (
	"strings"
	"testing"

	"gonum.org/v1/plot/vg"
)

// Numbers on an axis are round, and neither few nor many.
func TestTicks(t *testing.T) {
	for want, of := range map[string][2]float64{
		"0 20 40 60 80":             {0, 91},
		"5 6 7 8 9 10":              {4.9, 10.4},
		"5.2 5.4 5.6 5.8 6.0":       {5.1, 6.05},
		"0.00 0.05 0.10 0.15 0.20":  {0, 0.23},
		"-1000 -500 0 500 1000":     {-1200, 1200},
		"0 50 100 150":              {0, 199},
		"2 4 6 8":                   {1, 9},
		"0.00 0.02 0.04 0.06 0.08":  {-4e-19, 0.09}, // rounding leaves a little less than 0
		"3.00 3.01 3.02 3.03 3.04 ": {2.9999, 3.0401},
	} {
		var labels []string
		for _, tick := range (ticks{}).Ticks(of[0], of[1]) {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != strings.TrimSpace(want) {
			t.Errorf("%v: %s, want %s", of, got, want)
		}
	}
}

// Wide numbers do not run into one another: fewer of them stand on an axis that has no room for all.
func TestTicksThatFit(t *testing.T) {
	for _, c := range []struct {
		room vg.Length
		high float64
		want string
	}{
		{200, 28500, "0 5000 10000 15000 20000 25000"},
		{80, 28500, "0 10000 20000"},
		{20, 28500, "0 20000"}, // a single number says nothing
		{80, 0.9, "0.0 0.2 0.4 0.6 0.8"},
		{20, 0.9, "0.0 0.5"},
		{80, 9e6, "0 5000000"},
	} {
		var labels []string
		for _, tick := range (ticks{c.room}).Ticks(0, c.high) {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != c.want {
			t.Errorf("%v, room %v: %s, want %s", c.high, c.room, got, c.want)
		}
	}
}
