package main

import (
	"time"

	"bitnet1/shared/run/progress"
)

// line is what is shown of one stage, on any kind of screen.
type line struct {
	progress.Line
	Fraction float64 // of the work there is so far
}

// lineOf describes a stage at the given time. The line of a stage with one long job counts in that job's units, and the
// line of a stage with many jobs counts jobs.
func lineOf(s *stageState, now time.Time) line {
	answered, total := s.counts()
	l := line{Line: progress.Line{Stage: s.Name, State: "waiting",
		Report: progress.Report{Done: int64(answered), Total: int64(total), Unit: "events"}}}
	var working float64 // jobs' worth of unfinished work that is done
	var job *workingJob
	for _, j := range s.Jobs {
		working += j.Progress.Fraction()
		job = &j
	}
	if total > 0 {
		l.Fraction = (float64(answered) + working) / float64(total)
	}
	switch {
	case len(s.Failures) > 0:
		l.State = "failed"
	case job != nil:
		l.State = progress.Working
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
	p := job.Progress.Report
	l.Values, l.Left = p.Values, progress.LeftOf(p, job.Before, now.Sub(job.Started))
	if total == 1 {
		l.Report, l.Fraction = p, p.Fraction()
	}
	return l
}
