package main

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
)

// tracker learns from events how far a run is and which jobs have failed. The screen shows that. Whether the run is
// finished is read from its files instead.
type tracker struct {
	listeners map[string][]string // kind -> stages
	since     uint64              // failures up to this sequence are of earlier starts

	mu       sync.Mutex
	events   int
	last     uint64          // sequence of the last event that was read
	seen     map[string]bool // ids
	sources  int
	expected int // sources that were announced in run.started; -1 before
	stages   map[string]*stageState
	changed  func()
}

// stageState is what the screen shows of a stage.
type stageState struct {
	Name     string
	Answers  map[string]string // event id -> outcome; "" while it is not answered
	answered int               // events that have an outcome
	Failures []event.JobFinished
	Jobs     map[string]workingJob // by job key
	Last     workingJob            // the last that has ended
}

// workingJob is a job that is being done.
type workingJob struct {
	bus.Progress           // what it last said
	Started      time.Time // when it was first heard of
	Before       float64   // its fraction at that time: a resumed job has some
}

// counts returns how many events the stage has answered and how many there are.
func (s *stageState) counts() (answered, total int) {
	return s.answered, len(s.Answers)
}

func newTracker(stages []plannedStage, since uint64) *tracker {
	t := &tracker{
		listeners: map[string][]string{}, since: since, expected: -1,
		seen: map[string]bool{}, stages: map[string]*stageState{}, changed: func() {},
	}
	for _, s := range stages {
		t.listeners[s.Kind] = append(t.listeners[s.Kind], s.Name)
		t.stages[s.Name] = &stageState{Name: s.Name, Answers: map[string]string{}, Jobs: map[string]workingJob{}}
	}
	return t
}

// observe takes the next event of the run; it reports whether it is new.
func (t *tracker) observe(k bus.Kept) bool {
	t.mu.Lock()
	defer t.changed()
	defer t.mu.Unlock()
	e := k.Envelope
	t.last = max(t.last, k.Sequence)
	if e.ID == "" || t.seen[e.ID] {
		return false
	}
	t.seen[e.ID] = true
	t.events++
	for _, name := range t.listeners[e.Kind] {
		if answers := t.stages[name].Answers; answers[e.ID] == "" { // the answer may have come first
			answers[e.ID] = ""
		}
	}
	switch e.Kind {
	case event.RunStarted{}.Kind():
		if started, err := event.Into[event.RunStarted](e); err == nil {
			t.expected = started.Sources
		}
	case event.SourceAdded{}.Kind():
		t.sources++
	case event.JobFinished{}.Kind():
		if f, err := event.Into[event.JobFinished](e); err == nil {
			t.answered(f, k.Sequence)
		}
	}
	return true
}

func (t *tracker) answered(f event.JobFinished, sequence uint64) {
	s := t.stages[f.Listener]
	if s == nil || f.Outcome == "" {
		return // a stage that listens along without being part of the pipeline, or no answer
	}
	if job, ok := s.Jobs[f.Key]; ok {
		s.Last = job
		delete(s.Jobs, f.Key)
	}
	switch {
	case f.Outcome == event.Failed && sequence <= t.since:
		return // of an earlier start: it is tried again
	case f.Outcome == event.Failed:
		s.Failures = append(s.Failures, f)
	case f.Outcome == event.Waiting && s.Answers[f.Input] == event.Done:
		return
	}
	if f.Outcome == event.Done {
		s.Failures = slices.DeleteFunc(s.Failures, func(old event.JobFinished) bool { return old.Input == f.Input })
	}
	if s.Answers[f.Input] == "" {
		s.answered++
	}
	s.Answers[f.Input] = f.Outcome
}

// hasRead reports whether every event up to the given sequence was observed.
func (t *tracker) hasRead(sequence uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last >= sequence
}

// progress takes what a stage says while it works.
func (t *tracker) progress(p bus.Progress) {
	t.mu.Lock()
	defer t.changed()
	defer t.mu.Unlock()
	if s := t.stages[p.Stage]; s != nil {
		job, known := s.Jobs[p.Job]
		if !known {
			job.Started, job.Before = time.Now(), p.Fraction()
		}
		job.Progress = p
		s.Jobs[p.Job] = job
	}
}

func (t *tracker) restarted(name string) {
	t.mu.Lock()
	defer t.changed()
	defer t.mu.Unlock()
	clear(t.stages[name].Jobs)
}

// quiet reports whether nothing seems to be left to happen.
func (t *tracker) quiet() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.expected < 0 || t.sources < t.expected {
		return false
	}
	for _, s := range t.stages {
		if answered, total := s.counts(); answered < total {
			return false
		}
	}
	return true
}

// failures returns what went wrong since this launch, and the stages that wait for parts that will not come.
func (t *tracker) failures() (failed []event.JobFinished, stuck []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.stages {
		failed = append(failed, s.Failures...)
		waiting, done := 0, 0
		for _, outcome := range s.Answers {
			switch outcome {
			case event.Waiting:
				waiting++
			case event.Done:
				done++
			}
		}
		if waiting > 0 && done == 0 {
			stuck = append(stuck, s.Name)
		}
	}
	slices.SortFunc(failed, func(a, b event.JobFinished) int { return cmp.Compare(a.At, b.At) })
	slices.Sort(stuck)
	return failed, stuck
}

// lines describes the stages in the given order.
func (t *tracker) lines(order []plannedStage, now time.Time) []line {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]line, len(order))
	for i, s := range order {
		all[i] = lineOf(t.stages[s.Name], now)
	}
	return all
}

func (t *tracker) eventCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.events
}
