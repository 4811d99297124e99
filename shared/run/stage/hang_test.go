package stage

import (
	"context"
	"errors"
	"testing"
	"time"

	"bitnet1/shared/run/event"
)

// A job that ignores its deadline is abandoned, and its process is unfit for other jobs. A job that saves its work at
// the deadline is waited for. A job that ends because its process is asked to end is waited for, too.
func TestAJobThatHangsBeyondItsDeadlineIsLeftBehind(t *testing.T) {
	p := &performer[testParams, event.SourceAdded]{deadline: time.Millisecond, grace: time.Hour}
	ended := func() context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return ctx
	}
	saved := errors.New("saved")
	if err := p.abandonable(t.Context(), ended(), func() error { return saved }); !errors.Is(err, saved) || unfit(err) {
		t.Errorf("a job that saves: %v", err)
	}
	p.grace = time.Millisecond
	if err := p.abandonable(ended(), ended(),
		func() error { time.Sleep(20 * time.Millisecond); return saved }); !errors.Is(err, saved) {
		t.Errorf("a job of a process that is to end: %v", err)
	}
	release := make(chan struct{})
	defer close(release)
	if err := p.abandonable(t.Context(), ended(), func() error { <-release; return nil }); !unfit(err) {
		t.Errorf("a job that hangs: %v", err)
	}
	p.deadline = 0
	if err := p.abandonable(t.Context(), ended(),
		func() error { time.Sleep(20 * time.Millisecond); return saved }); !errors.Is(err, saved) {
		t.Errorf("a job without a deadline: %v", err)
	}
}
