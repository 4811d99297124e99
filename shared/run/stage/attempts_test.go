package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The pause before the next attempt doubles with every failure, up to half a minute or the pause that was asked for.
func TestThePauseGrows(t *testing.T) {
	t.Parallel()
	s := &service[testParams, event.SourceAdded]{retryPause: 10 * time.Millisecond}
	for failures, want := range map[int]time.Duration{
		1: 10 * time.Millisecond, 2: 20 * time.Millisecond, 3: 40 * time.Millisecond, 8: 1280 * time.Millisecond,
		11: 10240 * time.Millisecond, 1000: 10240 * time.Millisecond,
	} {
		if got := s.backOff(failures); got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
	}
	s.retryPause = time.Second
	if got := s.backOff(6); got != 30*time.Second {
		t.Errorf("after 6 failures %v, want 30 s", got)
	}
	s.retryPause = time.Hour
	if got := s.backOff(1); got != time.Hour {
		t.Errorf("after a failure %v, want the hour that was asked for", got)
	}
}

// A failed job is not tried again before its pause is over, whatever else is to be done.
func TestAFailedJobWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve("shout", "--mode", "fail", "--only", "one", "--retry-pause", "1h")
	w.sources("r", "one")
	w.begun(1)
	for _, run := range []string{"r2", "r3", "r4"} {
		w.sources(run, run)
		w.outcomes(run, "shout", 1, event.Done)
	}
	w.wantBegun(4)
}

// Attempts are counted from the last output that is new, and kept with the record.
func TestAttemptsCountFromTheLastOutput(t *testing.T) {
	t.Parallel()
	root, key := t.TempDir(), strings.Repeat("ab", 32)
	open := func() *record {
		r, err := openRecord(root, "climb", key, []byte("{}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := func(r *record, n int) {
		t.Helper()
		if got := r.attempts(); got != n {
			t.Errorf("%d attempts, want %d", got, n)
		}
	}
	r := open()
	want(r, 0)
	for n := 1; n <= 3; n++ {
		if err := r.setAttempts(n); err != nil {
			t.Fatal(err)
		}
	}
	want(r, 3)
	if isNew, err := r.add("tokens.written", []byte{0x80}); err != nil || !isNew {
		t.Fatalf("the output is new: %v, %v", isNew, err)
	}
	want(r, 1)
	if err := r.setAttempts(2); err != nil {
		t.Fatal(err)
	}
	r.close()
	r = open()
	defer r.close()
	want(r, 2)
	if isNew, err := r.add("tokens.written", []byte{0x80}); err != nil || isNew {
		t.Fatalf("the output is the one of before: %v, %v", isNew, err)
	}
	want(r, 2)
	for _, none := range []int{0, -1} { // nothing is written, for the disk may be full
		if err := errors.Join(r.setAttempts(2), r.setAttempts(none)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "attempts")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d attempts are kept in a file: %v", none, err)
		}
	}
	if err := r.commit(); err != nil {
		t.Fatal(err)
	}
	want(r, 0)
}

// What is not the job's failure is no attempt: a stage that is asked to end, a full disk, an event server that is away.
func TestWhatCountsAsAnAttempt(t *testing.T) {
	t.Parallel()
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var outcome func() error
	p := &performer[testParams, event.SourceAdded]{
		spec:  Spec[testParams, event.SourceAdded]{Name: "try", Version: "1", Work: func(context.Context, *Job[testParams], event.SourceAdded) error { return outcome() }},
		space: store, journal: journal.Open(store.Dir()), records: recordsDir(store), log: slog.New(slog.DiscardHandler), report: unheard,
	}
	for i, c := range []struct {
		outcome  func() error
		attempts int
	}{
		{func() error { return errors.New("no good") }, 1},
		{func() error { return errors.New("no good") }, 2},
		{func() error { return syscall.ENOSPC }, 2},
		{func() error { return bus.Unusable(errors.New("gone")) }, 2},
		{func() error { end(); return ctx.Err() }, 2},
	} {
		outcome = c.outcome
		res, err := p.perform(ctx, task[testParams, event.SourceAdded]{run: "r", in: []event.SourceAdded{{Name: "a"}}})
		if err == nil {
			t.Fatalf("%d: no error", i)
		}
		r, err := openRecord(p.records, "try", res.key, []byte("{}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.attempts(); got != c.attempts {
			t.Errorf("%d: %d attempts, want %d", i, got, c.attempts)
		}
		r.close()
	}
}

// The outputs of a job that are taken back are gone from its record, wherever it is opened next; those before them stay.
func TestOutputsAreTakenBack(t *testing.T) {
	t.Parallel()
	root, key := t.TempDir(), strings.Repeat("cd", 32)
	bodies := func(r *record) (all []string) {
		for _, out := range r.Outputs {
			all = append(all, string(out.Body))
		}
		return all
	}
	for _, left := range []int{3, 2, 0} {
		r, err := openRecord(root, "climb", key, []byte("{}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"\x81\xa1n\x01", "\x81\xa1n\x02", "\x81\xa1n\x03"} { // {n: 1} and so on
			if _, err := r.add("tokens.written", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		r.Outputs = slices.Clip(r.Outputs)
		want := bodies(r)[:left]
		if err := r.retract(left); err != nil || !slices.Equal(bodies(r), want) {
			t.Errorf("%d are to be left: %q, %v", left, bodies(r), err)
		}
		r.close()
		if r, err = openRecord(root, "climb", key, []byte("{}"), nil); err != nil || !slices.Equal(bodies(r), want) {
			t.Errorf("%d are to be left: %q are read again, %v", left, bodies(r), err)
		}
		r.close()
	}
}

// A job that was given up has all its attempts again when another run asks for it.
func TestAGivenUpJobIsTriedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve("shout", "--mode", "fail", "--attempts", "2")
	for i, cause := range []string{"one failed for the 2. time", "one failed for the 4. time"} {
		run := fmt.Sprintf("r%d", i)
		w.sources(run, "one")
		wantText(t, run, w.outcomes(run, "shout", 1, event.Failed)[0].Cause, cause)
	}
	w.wantBegun(4)
}

// A cause that is a list or a stack is cut short, and is text whatever it was.
func TestBrief(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cause, want string }{
		{"short", "short"},
		{strings.Repeat("x", 4000), strings.Repeat("x", 4000)},
		{strings.Repeat("x", 4001), strings.Repeat("x", 4000) + " …"},
		{"a\xffb", "a?b"},
		{strings.Repeat("x", 3998) + "é", strings.Repeat("x", 3998) + "é"},
		{strings.Repeat("x", 3999) + "é", strings.Repeat("x", 3999) + "? …"},
	} {
		if got := brief(errors.New(c.cause)); got != c.want {
			t.Errorf("%d bytes became %d, the last %q", len(c.cause), len(got), got[max(0, len(got)-9):])
		}
	}
}
