package main

import (
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/stage"
)

// line is what is shown of one stage, on any kind of screen.
type line struct {
	stage.Line
	Fraction float64 // of the work there is so far
}

// lineOf describes a stage at the given time. A stage with one long job (train)
// is shown by that job's own units, one with many jobs by how many are answered.
func lineOf(s *stageState, now time.Time) line {
	answered, total := s.counts()
	l := line{Line: stage.Line{Stage: s.Name, State: "waiting", Progress: stage.Progress{Done: int64(answered), Total: int64(total), Unit: "events"}}}
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
		l.State = stage.Working
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
	p := progressOf(job.Progress)
	l.Values, l.Left = p.Values, stage.LeftOf(p, job.Before, now.Sub(job.Started))
	if total == 1 {
		l.Progress, l.Fraction = p, p.Fraction()
	}
	return l
}

// progressOf is what a stage said, as it travels.
func progressOf(p bus.Progress) stage.Progress {
	return stage.Progress{Done: p.Done, Total: p.Total, Unit: p.Unit, Values: p.Values}
}

func fractionOf(p bus.Progress) float64 { return progressOf(p).Fraction() }
