package stage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
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

// Failures to acknowledge a delivery are counted anew once it was acknowledged.
func TestEndedDeliveriesAreForgotten(t *testing.T) {
	t.Parallel()
	one, two := &bus.Delivery{Data: []byte("one")}, &bus.Delivery{Data: []byte("two")}
	s := &service[testParams, event.SourceAdded]{unended: map[string]unended{}}
	s.ended(one)
	for _, d := range []*bus.Delivery{one, two} {
		s.unended[digest.Bytes(d.Data)] = unended{times: 3}
	}
	s.ended(one)
	if _, kept := s.unended[digest.Bytes(two.Data)]; !kept || len(s.unended) != 1 {
		t.Errorf("kept are %v", s.unended)
	}
}

// Other jobs do not shorten the pause after which a failed job is tried again.
func TestAFailedJobWaits(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout", "--mode", "fail", "--only", "one", "--retry-pause", "1h")
	w.sources("r", "one")
	w.begun(1)
	for _, run := range []string{"r2", "r3", "r4"} {
		w.sources(run, run)
		w.outcomes(run, "shout", 1, event.Done)
	}
	w.wantBegun(4)
}

// Three causes do not count as an attempt: the stage is asked to end, the disk is full, the event server is away.
func TestWhatCountsAsAnAttempt(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var outcome func() error
	p := newPerformer(t, Spec[testParams, event.SourceAdded]{
		Name: "try", Version: "1",
		Work: func(context.Context, *Job[testParams], event.SourceAdded) error { return outcome() },
	})
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
		r, err := record.Open(p.records, "try", res.key, []byte("{}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Attempts(); got != c.attempts {
			t.Errorf("%d: %d attempts, want %d", i, got, c.attempts)
		}
		r.Close()
	}
}

// A job that was given up has all its attempts again when another run asks for it.
func TestAGivenUpJobIsTriedAnew(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout", "--mode", "fail", "--attempts", "2")
	for i, cause := range []string{"one failed for the 2. time", "one failed for the 4. time"} {
		run := fmt.Sprintf("r%d", i)
		w.sources(run, "one")
		wantText(t, run, w.outcomes(run, "shout", 1, event.Failed)[0].Cause, cause)
	}
	w.wantBegun(4)
}

// A long cause, such as a list or a stack, is cut short. The result is valid UTF-8 whatever the cause was.
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
