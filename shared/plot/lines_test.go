package plot

import (
	"strings"
	"testing"
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
