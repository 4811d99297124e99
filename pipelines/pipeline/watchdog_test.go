package main

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/progress"
)

// A stage that runs and never takes the event that it has to answer is reported.
func TestAStageThatGetsNowhereIsReported(t *testing.T) {
	t.Parallel()
	l, room, _ := slow(t, "--stall", "1s")
	m := l.until("a warning", func(m message) bool { return m.Type == "warning" })
	for _, want := range []string{"1 event to answer and no progress for", "slow.log", "--deadline slow="} {
		if !strings.Contains(m.Text, want) {
			t.Errorf("%q is missing: %+v", want, m)
		}
	}
	if err := os.WriteFile(room, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	l.wait()
}

func TestWhatIsProgress(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	at := func(seconds int) time.Time { return begun.Add(time.Duration(seconds) * time.Second) }
	report := func(job string, done int64) bus.Progress {
		return bus.Progress{Stage: "train", Job: job, Report: progress.Report{Done: done, Total: 100}}
	}
	answer := event.Envelope{Stage: "train", Kind: event.JobFinished{}.Kind()}
	for name, c := range map[string]struct {
		left  func(second int) int          // events to answer
		do    func(w *watchdog, second int) // what the stage does
		looks func(second int) bool         // whether the launcher runs
		want  []int                         // seconds at which a stall is reported
		goes  []int                         // seconds at which it is said that the stage goes on
	}{
		"nothing to answer":  {left: func(int) int { return 0 }},
		"a stage that hangs": {want: []int{60, 120, 240}},
		"a job that repeats what it said": {
			do:   func(w *watchdog, second int) { w.progress(report("a", 7), at(second)) },
			want: []int{60, 120, 240},
		},
		"a job that gets on": {do: func(w *watchdog, second int) { w.progress(report("a", int64(second/50)), at(second)) }},
		"jobs that take turns": {do: func(w *watchdog, second int) {
			w.progress(report([]string{"a", "b"}[second%2], int64(second/50)), at(second))
		}},
		"events that are announced": {do: func(w *watchdog, second int) {
			if second%59 == 0 {
				w.event(answer, at(second))
			}
		}},
		"events that are answered":        {left: func(second int) int { return 100 - second/59 }},
		"events that are announced to it": {left: func(second int) int { return 1 + second }, want: []int{60, 120, 240}},
		"work that came late":             {left: func(second int) int { return min(second/100, 1) }, want: []int{160, 220}},
		"a launcher that stood still": {
			looks: func(second int) bool { return second < 50 || second > 200 }, want: []int{261},
		},
		"a stage that goes on": {do: func(w *watchdog, second int) {
			if second == 100 {
				w.progress(report("a", 1), at(second))
			}
		}, want: []int{60, 160, 220}, goes: []int{100}},
	} {
		w := newWatchdog(time.Minute)
		var stalls, goes []int
		for second := range 300 {
			if c.do != nil {
				c.do(w, second)
			}
			if c.looks != nil && !c.looks(second) {
				continue
			}
			left := 3
			if c.left != nil {
				left = c.left(second)
			}
			stalled, goesOn := w.look("train", left, at(second))
			if stalled > 0 {
				stalls = append(stalls, second)
			}
			if goesOn {
				goes = append(goes, second)
			}
		}
		if !slices.Equal(stalls, c.want) || !slices.Equal(goes, c.goes) {
			t.Errorf("%s: stalls %v, want %v; goes on %v, want %v", name, stalls, c.want, goes, c.goes)
		}
	}
	never := newWatchdog(0)
	for second := range 10_000 {
		if stalled, _ := never.look("train", 1, at(second)); stalled > 0 {
			t.Fatal("--stall 0 reports a stall")
		}
	}
}
