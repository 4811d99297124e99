package seeds

import (
	"math"
	"testing"
)

func near(a, b float64) bool {
	return math.Abs(a-b) < 1e-9 || math.IsNaN(a) && math.IsNaN(b)
}

// Of one seed there is no error, of none nothing at all.
func TestSummaries(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		sample               Sample
		mean, stderr, median float64
	}{
		{nil, nan, nan, nan},
		{Sample{7: 6.5}, 6.5, nan, 6.5},
		{Sample{1: 2, 2: 5}, 3.5, 1.5, 3.5},
		{Sample{1: 9, 2: 1, 3: 2}, 4, math.Sqrt(19.0 / 3), 2}, // squares 25, 9, 4 over 2, over 3
		{Sample{1: 9, 2: 1, 3: 2, 4: 4}, 4, math.Sqrt(38.0 / 3 / 4), 3},
	} {
		if s := c.sample; !near(s.Mean(), c.mean) || !near(s.StandardError(), c.stderr) || !near(s.Median(), c.median) {
			t.Errorf("%v: %v ± %v, median %v; want %v ± %v, %v", s, s.Mean(), s.StandardError(), s.Median(), c.mean,
				c.stderr, c.median)
		}
	}
}

// The quantiles are those of the printed tables: 4.303 of two degrees of freedom, 2.776 of four.
func TestCompare(t *testing.T) {
	three := func(middle, spread float64) Sample { return Sample{1: middle - spread, 2: middle, 3: middle + spread} }
	later := func(s Sample) Sample { return Sample{4: s[1], 5: s[2], 6: s[3]} }
	level := Sample{1: 0, 2: 0, 3: 0}
	for name, c := range map[string]struct {
		a, b        Sample
		mean, error float64
		significant bool
	}{
		"one seed each":               {Sample{1: 6}, Sample{1: 7}, -1, math.NaN(), false},
		"one seed against three":      {Sample{1: 6}, three(7, 0.01), -1, math.NaN(), false},
		"nothing measured":            {nil, three(7, 0.01), math.NaN(), math.NaN(), false},
		"equal":                       {three(6, 0.1), three(6, 0.1), 0, 0, false},
		"a shift of every seed":       {three(6, 0.1), three(6.25, 0.1), -0.25, 0, true},
		"paired, below the quantile":  {three(4.30, math.Sqrt(3)), level, 4.30, 1, false},
		"paired, above the quantile":  {three(4.31, math.Sqrt(3)), level, 4.31, 1, true},
		"Welch, below the quantile":   {three(2.77, math.Sqrt(1.5)), later(three(0, math.Sqrt(1.5))), 2.77, 1, false},
		"Welch, above the quantile":   {three(-2.78, math.Sqrt(1.5)), later(three(0, math.Sqrt(1.5))), -2.78, 1, true},
		"Welch, one without a spread": {three(4.30, math.Sqrt(3)), later(level), 4.30, 1, false},
		"a spread that pairs cancel":  {three(6, 1), Sample{1: 5.51, 2: 6.5, 3: 7.49}, -0.5, 0.01 / math.Sqrt(3), true},
		"the same spread unpaired": {three(6, 1), Sample{4: 5.51, 5: 6.5, 6: 7.49}, -0.5, math.Sqrt((1 + 0.9801) / 3),
			false},
		"two seeds": {Sample{1: 1, 2: 1.2}, Sample{1: 0, 2: 0}, 1.1, 0.1, false},
	} {
		d := c.a.Compare(c.b)
		if !near(d.Mean, c.mean) || !near(d.StandardError, c.error) || d.Significant != c.significant {
			t.Errorf("%s: %+v, want %v ± %v, %v", name, d, c.mean, c.error, c.significant)
		}
		if back := c.b.Compare(c.a); !near(back.Mean, -d.Mean) || back.Significant != d.Significant {
			t.Errorf("%s: the other way around %+v", name, back)
		}
	}
}
