package main

import (
	"fmt"
	"strings"
	"time"

	"bitnet1/shared/bus"
	"bitnet1/shared/results"
)

// line is what is shown of one stage, on any kind of screen.
type line struct {
	Stage    string  `json:"stage"`
	State    string  `json:"state"` // waiting, queued, working, done (with what there was so far) or failed
	Done     int64   `json:"done"`
	Total    int64   `json:"total"`
	Unit     string  `json:"unit"`
	Fraction float64 `json:"fraction"`
	Rate     string  `json:"rate,omitempty"`
	Left     string  `json:"left,omitempty"`
	Extra    string  `json:"extra,omitempty"`
}

// lineOf describes a stage at the given time. A stage with one long job (train)
// is shown by that job's own units, one with many jobs by how many are answered.
func lineOf(s *stageState, now time.Time) line {
	answered, total := s.counts()
	l := line{Stage: s.Name, State: "waiting", Done: int64(answered), Total: int64(total), Unit: "events"}
	var working float64 // jobs' worth of unfinished work that is done
	var job *workingJob
	for _, j := range s.Jobs {
		working += fractionOf(j.Progress)
		job = &j
	}
	if total > 0 {
		l.Fraction = (float64(answered) + working) / float64(total)
	}
	switch {
	case len(s.Failures) > 0:
		l.State = "failed"
	case job != nil:
		l.State = "working"
	case total > 0 && answered == total:
		l.State = "done"
	case total > 0:
		l.State = "queued"
	}
	if total == 1 && job == nil && s.Last.Total > 0 {
		job = &s.Last
	}
	if job == nil {
		return l
	}
	if total == 1 {
		l.Done, l.Total, l.Unit, l.Fraction = job.Done, job.Total, job.Unit, fractionOf(job.Progress)
	}
	l.Rate, l.Extra, l.Left = rateOf(job.Progress), extraOf(job.Progress), leftOf(*job, now)
	return l
}

// leftOf is how long a job will go on if it goes on as it did; "" while that is a mere guess.
func leftOf(job workingJob, now time.Time) string {
	elapsed, done := now.Sub(job.Started), fractionOf(job.Progress)
	left := job.Values["seconds_left"]
	if left <= 0 && elapsed > time.Second && done-job.Before > 0.02 {
		left = elapsed.Seconds() * (1 - done) / (done - job.Before)
	}
	if left < 1 || done >= 1 {
		return ""
	}
	return time.Duration(left*float64(time.Second)).Round(time.Second).String() + " left"
}

func fractionOf(p bus.Progress) float64 {
	if p.Total <= 0 {
		return 0
	}
	return min(float64(p.Done)/float64(p.Total), 1)
}

// rateOf formats the first rate among a job's measurements.
func rateOf(p bus.Progress) string {
	for _, name := range []string{"tokens_per_second", "bytes_per_second", "documents_per_second"} {
		if v := p.Values[name]; v > 0 {
			unit := strings.TrimSuffix(name, "_per_second")
			return results.SI(v) + " " + unit + "/s"
		}
	}
	return ""
}

// extraOf formats what a trainer says beside its progress.
func extraOf(p bus.Progress) string {
	var parts []string
	if v, ok := p.Values["loss"]; ok {
		parts = append(parts, fmt.Sprintf("loss %.3f bits/token", v))
	}
	if v, ok := p.Values["val_bpc"]; ok && v > 0 {
		parts = append(parts, fmt.Sprintf("validation %.3f", v))
	}
	if v, ok := p.Values["learning_rate"]; ok {
		parts = append(parts, fmt.Sprintf("lr %.2g", v))
	}
	return strings.Join(parts, "  ")
}
