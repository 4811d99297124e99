// Package progress is about jobs at work: what a stage reports of one, how long it will go on, and the line in which
// people see it. It does not carry reports (package bus does) or write to a terminal.
package progress

import "time"

// Report is how far a job is.
type Report struct {
	Done   int64              `msgpack:"done"`
	Total  int64              `msgpack:"total"`
	Unit   string             `msgpack:"unit"`   // what is counted: "documents", "steps", "tokens" …
	Values map[string]float64 `msgpack:"values"` // measurements such as step, loss, tokens_per_second or learning_rate
}

// Fraction is how much of a job is done, from 0 to 1.
func (r Report) Fraction() float64 {
	if r.Total <= 0 {
		return 0
	}
	return min(float64(r.Done)/float64(r.Total), 1)
}

// LeftOf is how long a job will go on if it goes on as it did in the time elapsed, at whose beginning the fraction
// before of its work was done; 0 while that is a mere guess.
func LeftOf(r Report, before float64, elapsed time.Duration) time.Duration {
	done := r.Fraction()
	if done >= 1 {
		return 0
	}
	if left := r.Values["seconds_left"]; left > 0 {
		return time.Duration(left * float64(time.Second))
	}
	if elapsed > time.Second && done-before > 0.02 {
		return time.Duration(float64(elapsed) * (1 - done) / (done - before))
	}
	return 0
}
