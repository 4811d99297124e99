package measure

import "math"

// Mean is the weighted mean of sequences: Σ sum / Σ weight, where a sequence has, say, a sum of losses and a weight of
// predicted tokens. Its standard error is over sequences, because sequences, and not tokens, are independent samples.
type Mean struct {
	sequences   int
	sum, weight float64
	ss, sw, ww  float64 // sums of sum², sum·weight and weight²
}

// Add adds one sequence. A sequence of weight 0 is ignored.
func (m *Mean) Add(sum, weight float64) {
	if weight == 0 {
		return
	}
	m.sequences++
	m.sum += sum
	m.weight += weight
	m.ss += sum * sum
	m.sw += sum * weight
	m.ww += weight * weight
}

// Weight is the sum of all weights.
func (m Mean) Weight() float64 { return m.weight }

// Value is the mean, 0 without sequences.
func (m Mean) Value() float64 {
	if m.weight == 0 {
		return 0
	}
	return m.sum / m.weight
}

// Error is the standard error of the mean, a ratio of two sums (Cochran, Sampling Techniques, 1977, 2.45). It is nil
// for fewer than two sequences.
func (m Mean) Error() *float64 {
	if m.sequences < 2 {
		return nil
	}
	n, r := float64(m.sequences), m.Value()
	squares := m.ss - 2*r*m.sw + r*r*m.ww // of sum - r·weight
	e := math.Sqrt(max(squares, 0)*n/(n-1)) / m.weight
	return &e
}
