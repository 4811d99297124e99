package main

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
)

// watchdog notices stages that have events to answer and get nowhere. A stage gets somewhere when it announces an
// event, answers one, or reports that a job of it is further than before.
type watchdog struct {
	stall time.Duration // without progress, before the watchdog barks; 0: never

	mu     sync.Mutex
	looked time.Time
	stages map[string]*watched
}

// watched is a stage.
type watched struct {
	left  int              // events to answer
	since time.Time        // when it last got somewhere, or was given the first of them
	done  map[string]int64 // by job, as last reported
	next  time.Duration    // without progress, at which the watchdog barks again; 0: it has not barked
}

func newWatchdog(stall time.Duration) *watchdog {
	return &watchdog{stall: stall, stages: map[string]*watched{}}
}

func (w *watchdog) of(stage string) *watched {
	if w.stages[stage] == nil {
		w.stages[stage] = &watched{done: map[string]int64{}}
	}
	return w.stages[stage]
}

// event takes an event that was announced.
func (w *watchdog) event(e event.Envelope, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.of(e.Stage)
	s.since = now
	if f, err := event.Into[event.JobFinished](e); err == nil {
		delete(s.done, f.Key)
	}
}

// progress takes what a stage says while it works.
func (w *watchdog) progress(p bus.Progress, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.of(p.Stage)
	if done, known := s.done[p.Job]; !known || done != p.Done {
		s.since, s.done[p.Job] = now, p.Done
	}
}

// standstill is the time between two looks from which on the watchdog itself did not run: the stages did not either, or
// the watchdog has not read yet what they did.
const standstill = 10 * time.Second

// look takes how many events a stage has to answer. It returns for how long the stage has got nowhere, when a person
// should be told: after w.stall, and whenever that time has doubled. goesOn says that the stage has got somewhere
// since.
func (w *watchdog) look(stage string, left int, now time.Time) (stalled time.Duration, goesOn bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.of(stage)
	if s.left == 0 || left < s.left || now.Sub(w.looked) > standstill {
		s.since = now
	}
	s.left, w.looked = left, now
	quiet := now.Sub(s.since)
	switch {
	case w.stall == 0:
	case left > 0 && quiet >= max(w.stall, s.next):
		s.next = 2 * quiet
		return quiet, false
	case s.next > 0 && quiet < w.stall:
		s.next = 0
		return 0, true
	}
	return 0, false
}

// watch tells whoever watches the run of a stage that has events to answer and gets nowhere.
func (l *launcher) watch(s plannedStage, left int) {
	stalled, goesOn := l.watchdog.look(s.Name, left, time.Now())
	switch {
	case goesOn:
		l.screen.note(s.Name + " goes on")
	case stalled > 0:
		l.screen.warn(s.Name, fmt.Sprintf("it has %s to answer and no progress for %s: its log is %s; with --deadline "+
			"%s=DURATION a job that hangs is begun anew", plural(left, "event"), stalled.Round(time.Second),
			filepath.Join(l.journal.LogDir(l.run), s.Name+".log"), s.Name))
	}
}
