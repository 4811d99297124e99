package measure

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Of equal weights the mean and its error are those of any textbook.
func TestMeanOfEqualWeights(t *testing.T) {
	var m Mean
	values := []float64{1, 4, 2, 9}
	for _, v := range values {
		m.Add(3*v, 3)
	}
	m.Add(0, 0)
	variance := (9.0 + 0 + 4 + 25) / 3 // about 4
	if got := m.Value(); got != 4 {
		t.Errorf("mean %g, want 4", got)
	}
	if got, want := *m.Error(), math.Sqrt(variance/4); math.Abs(got-want) > 1e-12 {
		t.Errorf("error %g, want %g", got, want)
	}
	if m.Weight() != 12 {
		t.Errorf("weight %g, want 12", m.Weight())
	}
}

func TestMeanOfTooFewSequences(t *testing.T) {
	var m Mean
	if m.Error() != nil || m.Value() != 0 {
		t.Error("nothing has an error or a value")
	}
	m.Add(2, 4)
	if m.Error() != nil || m.Value() != 0.5 {
		t.Errorf("one sequence gave %g and an error", m.Value())
	}
	m.Add(6, 4)
	if e := m.Error(); e == nil || math.Abs(*e-0.5) > 1e-12 || m.Value() != 1 {
		t.Errorf("two sequences of 0.5 and 1.5 gave %g ± %v", m.Value(), e)
	}
}

// The error is how far means of other sequences lie from the truth: each sequence has a rate of its own, and its
// positions are no independent draws.
func TestErrorIsOverSequences(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const trials, sequences = 2000, 40
	var squared, predicted float64
	for range trials {
		var m Mean
		for range sequences {
			positions, matches := 20+r.IntN(200), 0
			rate := 0.2 + 0.6*r.Float64()
			for range positions {
				if r.Float64() < rate {
					matches++
				}
			}
			m.Add(float64(matches), float64(positions))
		}
		squared += (m.Value() - 0.5) * (m.Value() - 0.5)
		predicted += *m.Error() * *m.Error()
	}
	if ratio := predicted / squared; ratio < 0.85 || ratio > 1.15 {
		t.Errorf("the predicted variance is %.2f of the observed one", ratio)
	}
}
