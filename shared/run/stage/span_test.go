package stage

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

// Of checkpoints at steps 10 to 60, announced an hour apart, a span takes those since a step or a time, and of them
// those that are far enough apart, from the first on.
func TestSpanOfCheckpoints(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 28, 9, 0, 0, 0, time.Local)
	var events []event.Envelope
	for i := range 6 {
		e := newEvent(t, "r", "train",
			event.CheckpointSaved{Step: 10 * (i + 1), ValidationBits: float64(6 - i%4), Model: artifact.Ref{Name: "m"}})
		e.Time = begin.Add(time.Duration(i) * time.Hour).UnixMilli()
		events = append(events, e)
	}
	for _, c := range []struct {
		over        span
		which, want string
	}{
		{span{}, "all", "[10 20 30 40 50 60]"},
		{span{number: 30}, "all", "[30 40 50 60]"},
		{span{from: begin.Add(2 * time.Hour)}, "all", "[30 40 50 60]"},
		{span{every: 20}, "all", "[10 30 50]"},
		{span{every: 25}, "all", "[10 40]"},
		{span{number: 20, every: 20}, "all", "[20 40 60]"},
		{span{}, "best", "[40]"},
		{span{number: 50}, "best", "[60]"},
		{span{every: 20}, "last", "[50]"},
		{span{since: "61", number: 61}, "all", "run r has no checkpoint since 61; its steps are [10 20 30 40 50 60]"},
		{span{every: 20}, "30", "leave out --since and --every"},
	} {
		found, err := ByStep().choose(events, events, "r", c.which, c.over)
		var steps []int
		for _, e := range found {
			saved, err := event.Into[event.CheckpointSaved](e)
			if err != nil {
				t.Fatal(err)
			}
			steps = append(steps, saved.Step)
		}
		got := fmt.Sprint(steps)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s of %+v: %s, want %s", c.which, c.over, got, c.want)
		}
	}
}

// Of events without numbers a span takes one in so many of those that are recent enough.
func TestSpanOfEvents(t *testing.T) {
	t.Parallel()
	var all []event.Envelope
	for i := range 7 {
		all = append(all, event.Envelope{ID: fmt.Sprint(i), Time: int64(1000 * i)})
	}
	for want, s := range map[string]span{"0123456": {}, "0246": {every: 2}, "3456": {from: time.UnixMilli(2500)},
		"36": {from: time.UnixMilli(3000), every: 3}} {
		got := ""
		for _, e := range s.events(all) {
			got += e.ID
		}
		if got != want {
			t.Errorf("%+v takes %s, want %s", s, got, want)
		}
	}
}

func TestMoments(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 15, 30, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"36h": now.Add(-36 * time.Hour), "7d": time.Date(2026, 11, 21, 15, 30, 0, 0, time.Local),
		"2026-11-28":                time.Date(2026, 11, 28, 0, 0, 0, 0, time.Local),
		"2026-11-28T09:30":          time.Date(2026, 11, 28, 9, 30, 0, 0, time.Local),
		"2026-11-28T09:30:00+02:00": time.Date(2026, 11, 28, 7, 30, 0, 0, time.UTC),
	} {
		if got, err := moment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "d", "2026-13-01", "10 h"} {
		if got, err := moment(text, now); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// historyOfRuns adds a run s of three checkpoints to the run of looked.
func historyOfRuns(t *testing.T) *harness {
	t.Helper()
	w, _, _ := looked(t)
	store, err := artifact.Open(w.data)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := artifact.Put(store, "manifest", "", "own.json", []byte("s"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		model, err := artifact.Put(store, "checkpoint", "", fmt.Sprint("s", i), []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		e := newEvent(t, "s", "train", event.CheckpointSaved{Step: 100 * (i + 1), Model: model, Manifest: manifest})
		if _, err := w.journal().Write(e); err != nil {
			t.Fatal(err)
		}
	}
	definition, err := artifact.Put(store, "definition", "", "definition.json", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{"r", "s"} {
		started := newEvent(t, run, "launcher", event.RunStarted{Pipeline: "test", Definition: definition})
		if _, err := w.journal().Write(started); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// A rerun over a part of the history answers the checkpoints of that part, of one run or of all.
func TestRerunsOverHistory(t *testing.T) {
	t.Parallel()
	w := historyOfRuns(t)
	for _, c := range []struct {
		args   string
		status int
		want   []string // of what is answered, the steps
		says   string
	}{
		{"--run s", command.Done, []string{"300"}, ""},
		{"--run s --since 200", command.Done, []string{"200", "300"}, ""},
		{"--run s --every 200", command.Done, []string{"100", "300"}, ""},
		{"--run s --since 1h --checkpoint last", command.Done, []string{"300"}, ""},
		{"--run s --since 301", command.Failed, nil, "no checkpoint since 301"},
		{"--run s --since soon", command.Usage, nil, "--since soon: give a number, a time"},
		{"--run s --since=-5", command.Usage, nil, "--since -5: give a number, a time"},
		{"--run s --since=-7d", command.Usage, nil, "--since -7d: give a number, a time"},
		{"--run s --every 0", command.Usage, nil, "--every 0: use 1 or more"},
		{"--run s --since 100 --checkpoint 100", command.Usage, nil, "leave out --since"},
	} {
		status, stdout, stderr := w.run("look", append([]string{"run", "--json"}, strings.Fields(c.args)...)...)
		if status != c.status || strings.Count(stdout, "\n") != len(c.want) {
			t.Errorf("%s: status %d: %s%s", c.args, status, stdout, stderr)
		}
		wantText(t, c.args, stderr, c.says)
		for _, step := range c.want {
			wantText(t, c.args, stdout, `"step":`+step+`}`)
		}
	}
}

// With '*' a rerun is over all runs. Runs without events of the span are no failure, as long as one has some.
func TestRerunsOverAllRuns(t *testing.T) {
	t.Parallel()
	w := historyOfRuns(t)
	for _, c := range []struct {
		since  string
		status int
		lines  int
	}{{"", command.Done, 2}, {"150", command.Done, 2}, {"1000", command.Failed, 0}} {
		args := []string{"run", "--json", "--run", "*"}
		if c.since != "" {
			args = append(args, "--since", c.since)
		}
		status, stdout, stderr := w.run("look", args...)
		if status != c.status || strings.Count(stdout, "\n") != c.lines {
			t.Errorf("since %q: status %d: %s%s", c.since, status, stdout, stderr)
		}
	}
	for _, run := range []string{"r", "s"} {
		if got := w.text(run, "look", "seen.txt"); !strings.HasPrefix(got, "seen: ") {
			t.Errorf("run %s: %q", run, got)
		}
	}
}

// The flag of the Choice takes a file as well. Without --out the outputs lie in a folder with the stage's name.
func TestCheckpointFile(t *testing.T) {
	t.Parallel()
	w, in, dataset := looked(t)
	dir := t.TempDir()
	file, err := filepath.Abs(in[1])
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.command("look", "run", "--checkpoint", file, "--dataset", dataset)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "look", "seen.txt")); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	status, _, stderr := w.run("look", "run", "--checkpoint", "best")
	if status != command.Usage {
		t.Errorf("status %d", status)
	}
	wantText(t, "best of what", stderr, "--checkpoint best is no file here", "--run RUN")
}
