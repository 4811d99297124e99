package measure

import "math"

// Mean is a mean over sequences of different weights: the sum of what was counted over the sum of what it is counted of.
// Sequences, not tokens, are what is drawn at random, so its standard error is over sequences.
type Mean struct {
	sequences   int
	sum, weight float64
	ss, sw, ww  float64 // sums of sum², sum·weight and weight²
}

// Add counts one sequence. A sequence of weight 0 counts for nothing.
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

// Value is the mean; 0 where nothing was counted.
func (m Mean) Value() float64 {
	if m.weight == 0 {
		return 0
	}
	return m.sum / m.weight
}

// Error is the standard error of the mean as a ratio of two sums (Cochran, Sampling Techniques, 1977, 2.45); nil where fewer
// than two sequences were counted, which tell nothing of it.
func (m Mean) Error() *float64 {
	if m.sequences < 2 {
		return nil
	}
	n, r := float64(m.sequences), m.Value()
	squares := m.ss - 2*r*m.sw + r*r*m.ww // of sum - r·weight
	e := math.Sqrt(max(squares, 0)*n/(n-1)) / m.weight
	return &e
}
