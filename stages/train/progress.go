package main

import (
	"fmt"
	"maps"
	"time"

	"bitnet1/shared/run/stage"
)

// reportStep reports the last step as progress.
func (t *trainer) reportStep(bits, learningRate float64) {
	spent := time.Since(t.startTime)
	values := t.progressValues(spent, bits, learningRate)
	t.estimate(spent, values["tokens_per_second"], values["seconds_left"])
	t.reported = stage.Progress{Done: int64(t.steps), Total: int64(t.job.Params.Steps), Unit: "steps", Values: values}
	t.job.Progress(t.reported)
}

// progressValues are the numbers that a report of the last step holds. Speed and time left are computed from the steps
// of this attempt alone, which took the time spent: an earlier attempt may have run on another machine.
func (t *trainer) progressValues(spent time.Duration, bits, learningRate float64) map[string]float64 {
	speed := float64(t.tokens()-t.batches.tokens(t.startStep)) / spent.Seconds()
	values := map[string]float64{
		"step": float64(t.steps), "loss": bits, "learning_rate": learningRate,
		"tokens_per_second": speed,
		"seconds_left":      float64(t.batches.tokens(t.job.Params.Steps)-t.tokens()) / speed,
	}
	if t.checkpoints > 0 {
		values["val_bpc"] = t.validationBits
	}
	return values
}

// reportValidation reports the last step again, with the validation loss of its checkpoint.
func (t *trainer) reportValidation() {
	if !finite(t.validationBits) || t.reported.Values == nil {
		return
	}
	t.reported.Values = maps.Clone(t.reported.Values)
	t.reported.Values["val_bpc"] = t.validationBits
	t.job.Progress(t.reported)
}

// Limits of the estimate: when it is made, and what is worth saying.
const (
	estimateAfter = 5 * time.Second
	longTraining  = 10 * time.Minute
)

// estimate notes once how long the rest of a long training will take. It waits until a few steps were taken.
func (t *trainer) estimate(spent time.Duration, tokensPerSecond, secondsLeft float64) {
	if t.estimated || spent < estimateAfter {
		return
	}
	t.estimated = true
	if left := time.Duration(secondsLeft * float64(time.Second)); left >= longTraining {
		t.job.Note("about %s to train on %s: %d steps of %d tokens at %.0f tokens/s",
			roughly(left), t.device.Name(), t.job.Params.Steps-t.steps, t.batches.perStep.last*t.batches.seq, tokensPerSecond)
	}
}

// roughly writes d in whole minutes, hours or days.
func roughly(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 72*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
}
