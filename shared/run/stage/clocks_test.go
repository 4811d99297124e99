package stage

import (
	"context"
	"errors"
	"testing"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
)

// hours is how far the clocks of two machines are apart in these tests, in milliseconds.
const hours = int64(5 * time.Hour / time.Millisecond)

// Events of machines whose clocks are hours ahead and behind are all answered, once, and each answer is later than what
// it answers. A rerun is later than all that the run has of its kind.
func TestClocksThatDifferByHours(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	var times []int64
	for i, by := range []int64{hours, -hours, 0} {
		name := string(rune('a' + i))
		e, err := event.New("r", "test", "", event.Part{Index: i, Count: 3},
			event.SourceAdded{Name: name, Digest: digest.Bytes([]byte(name))})
		if err != nil {
			t.Fatal(err)
		}
		e.Time += by
		times = append(times, e.Time)
		if err := bus.NewAnnouncer(w.journal(), w.bus).Announce(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	w.serve("shout")
	w.serve("collect")
	w.outcomes("r", "shout", 3, event.Done)
	w.answers("r", "collect", 3)
	outputs, err := w.journal().Read("r", event.TokensWritten{}.Kind())
	if err != nil || len(outputs) != 3 {
		t.Fatalf("%d outputs, %v", len(outputs), err)
	}
	latest := int64(0)
	for i, e := range outputs {
		if e.Time <= times[i] {
			t.Errorf("output %d is dated %d, what it answers %d", i, e.Time, times[i])
		}
		latest = max(latest, e.Time)
	}
	if status, _, stderr := w.run("shout", "run", "--run", "r"); status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	again, err := w.journal().Read("r", event.TokensWritten{}.Kind())
	if err != nil || len(again) != 3 {
		t.Fatalf("%d outputs after the rerun, %v", len(again), err)
	}
	for i, e := range again {
		if e.Time <= latest {
			t.Errorf("output %d of the rerun is dated %d, and there was one of %d", i, e.Time, latest)
		}
	}
}

// A job that goes on after the clock was set back by hours, or on another machine, dates what it makes after what it
// has made.
func TestAClockThatIsSetBackWhileAJobIsInterrupted(t *testing.T) {
	t.Parallel()
	interrupted := errors.New("interrupted")
	attempts := 0
	spec := Spec[struct{}, event.SourceAdded]{
		Name: "count", Version: "1", Emits: []event.Body{event.PackWritten{}},
		Work: func(ctx context.Context, job *Job[struct{}], in event.SourceAdded) error {
			attempts++
			for step := range 3 {
				if err := job.Emit(ctx, event.PackWritten{Step: step}); err != nil {
					return err
				}
				if attempts == 1 {
					return interrupted
				}
			}
			return nil
		},
	}
	p := newPerformer(t, spec)
	added := newEvent(t, "r", "launcher", event.SourceAdded{Name: "a"})
	do := func() error {
		job := task[struct{}, event.SourceAdded]{run: "r"}
		if err := job.answer(spec, nil, []event.Envelope{added}); err != nil {
			t.Fatal(err)
		}
		_, err := p.perform(t.Context(), job)
		return err
	}
	if err := do(); !errors.Is(err, interrupted) {
		t.Fatal(err)
	}
	first, err := p.journal.Read("r", event.PackWritten{}.Kind())
	if err != nil || len(first) != 1 {
		t.Fatalf("%d outputs, %v", len(first), err)
	}
	first[0].Time += hours // as the clock was then
	if _, err := p.journal.Renew(first[0]); err != nil {
		t.Fatal(err)
	}
	if err := do(); err != nil {
		t.Fatal(err)
	}
	all, err := p.journal.Read("r", event.PackWritten{}.Kind())
	if err != nil || len(all) != 3 {
		t.Fatalf("%d outputs, %v", len(all), err)
	}
	for i, e := range all {
		if body, err := event.Into[event.PackWritten](e); err != nil || body.Step != i {
			t.Errorf("output %d is step %d, %v", i, body.Step, err)
		}
	}
}
