package model

import "math"

// The ways a learning rate falls after the warm-up.
const (
	Cosine    = "cosine"    // half a cosine
	Linear    = "linear"    // a line
	Trapezoid = "trapezoid" // level at the peak, then a line over the last steps: the cool-down
)

// Schedule is the course of a learning rate over Total steps: linear warm-up to the peak over Warmup steps, then as
// Decay says to Final times the peak, which the last step has.
type Schedule struct {
	Decay         string // Cosine, Linear or Trapezoid
	Total, Warmup int
	Cooldown      int     // Trapezoid: number of steps in which the rate falls
	Final         float64 // share of the peak
}

// Rate is the learning rate of a step, counted from 0.
func (s Schedule) Rate(step int, peak float64) float64 {
	floor := peak * s.Final
	switch {
	case step < s.Warmup:
		return peak * float64(step+1) / float64(s.Warmup)
	case s.Decay == Linear:
		return peak - (peak-floor)*progress(step-s.Warmup, s.Total-s.Warmup)
	case s.Decay == Trapezoid:
		level := s.Total - s.Cooldown // steps before the cool-down
		if step < level {
			return peak
		}
		return peak - (peak-floor)*float64(step+1-level)/float64(s.Total-level)
	default:
		return floor + (peak-floor)*(1+math.Cos(math.Pi*progress(step-s.Warmup, s.Total-s.Warmup)))/2
	}
}

// StepsOf is the number of steps that a share of total steps is, rounded.
func StepsOf(share float64, total int) int { return int(math.Round(share * float64(total))) }

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
