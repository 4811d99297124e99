package model

import "math"

// WarmupCosine is the learning rate of a step, counted from 0: linear from peak/warmup to peak over warmup steps, then
// a half cosine that reaches floor at the last of total steps.
func WarmupCosine(step, warmup, total int, peak, floor float64) float64 {
	if step < warmup {
		return peak * float64(step+1) / float64(warmup)
	}
	return floor + (peak-floor)*(1+math.Cos(math.Pi*progress(step-warmup, total-warmup)))/2
}

// Geometric goes from start to end by equal factors over total steps, as gamma does: 0.9 to 0.1.
func Geometric(step, total int, start, end float64) float64 {
	return start * math.Pow(end/start, progress(step, total))
}

// MixAt is bonsai's share of the sign: 0 to 1 linearly over the first fraction of total steps.
func MixAt(step, total int, fraction float64) float64 {
	if !(fraction > 0) {
		return 1
	}
	return min(1, float64(step)/(fraction*float64(total)))
}

// progress is 0 at the first and 1 at the last of total steps.
func progress(step, total int) float64 {
	if total <= 1 {
		return 1
	}
	return min(1, max(0, float64(step)/float64(total-1)))
}
