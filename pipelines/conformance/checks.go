package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
)

// check is one property of stages. It says what was seen, or what the stage lacks.
type check struct {
	name string
	run  func(ctx context.Context, s *subject) (said string, err error)
}

// checks are all, in the order in which they are made.
var checks = []check{
	{"answers", answers},
	{"repeats", repeats},
	{"duplicate", duplicate},
	{"two at once", twoAtOnce},
	{"kill", killed},
	{"stop", stopped},
	{"shutdown", shutdown},
	{"partition", partition},
	{"poison", poison},
}

// undisturbed is what the stage announces when nothing happens to it.
func (s *subject) undisturbed(ctx context.Context) (map[string][]string, error) {
	if s.expected != nil {
		return s.expected, nil
	}
	t, err := s.newTrial(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if _, err := t.start(); err != nil {
		return nil, err
	}
	if err := t.answered(ctx); err != nil {
		return nil, err
	}
	s.expected, err = t.results(ctx)
	return s.expected, err
}

// step is the time by which everything that a stage sends is late while it is to be disturbed: even a quick stage is
// then seen at work. It is also the distance between the places at which a stage is killed.
const step = 30 * time.Millisecond

// disturbed has the stage answer all events while disturb happens, and compares what it announces.
func disturbed(ctx context.Context, s *subject, disturb func(t *trial) error) error {
	want, err := s.undisturbed(ctx)
	if err != nil {
		return fmt.Errorf("undisturbed: %w", err)
	}
	t, err := s.newTrial(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	t.relay.delay(step)
	if err := disturb(t); err != nil {
		return err
	}
	t.relay.delay(0)
	if err := t.answered(ctx); err != nil {
		return err
	}
	return t.as(ctx, want)
}

// answers: every event is answered, by events of the kinds that the description names, whose artifacts are there.
func answers(ctx context.Context, s *subject) (string, error) {
	got, err := s.undisturbed(ctx)
	if err != nil {
		return "", err
	}
	var said []string
	for _, kind := range s.description.Emits {
		said = append(said, fmt.Sprintf("%d %s", len(got[kind]), kind))
	}
	return fmt.Sprintf("%d %s answered with %s", len(s.inputs), s.description.Kind, strings.Join(said, ", ")), nil
}

// repeats: the same events have the same answer. An event's id is a digest of its body, so a time or a random number in
// a body makes every repetition another event.
func repeats(ctx context.Context, s *subject) (string, error) {
	err := disturbed(ctx, s, func(t *trial) error {
		_, err := t.start()
		return err
	})
	return "the same events once more, in an empty directory: the same answers", err
}

// duplicate: an event that comes twice is answered as one that comes once.
func duplicate(ctx context.Context, s *subject) (string, error) {
	err := disturbed(ctx, s, func(t *trial) error {
		for _, e := range s.inputs {
			if err := t.again(ctx, e); err != nil {
				return err
			}
		}
		_, err := t.start()
		return err
	})
	return "each event came twice", err
}

// twoAtOnce: two processes of the stage share the events.
func twoAtOnce(ctx context.Context, s *subject) (string, error) {
	err := disturbed(ctx, s, func(t *trial) error {
		_, first := t.start()
		_, second := t.start()
		return errors.Join(first, second)
	})
	return "two processes answered", err
}

// killed: a stage that is killed in the middle of an event answers it when it is started again.
func killed(ctx context.Context, s *subject) (string, error) {
	times := 0
	err := disturbed(ctx, s, func(t *trial) error {
		for times < max(3, len(s.inputs)) {
			p, err := t.start()
			if err != nil {
				return err
			}
			at, err := t.working(ctx)
			if err != nil || !at {
				return err
			}
			pause(ctx, time.Duration(times)*step) // not always at the same place
			p.kill()
			times++
		}
		_, err := t.start()
		return err
	})
	if times == 0 {
		return "the stage was too quick to be killed at work", err
	}
	return fmt.Sprintf("killed %d times at work, and started again", times), err
}

// stopped: a stage that stands still for longer than the server waits is given its event again, and goes on.
func stopped(ctx context.Context, s *subject) (string, error) {
	still := bus.AckWait + 2*time.Second
	did := "the stage was too quick to be stopped at work"
	err := disturbed(ctx, s, func(t *trial) error {
		p, err := t.start()
		if err != nil {
			return err
		}
		at, err := t.working(ctx)
		if err != nil || !at {
			return err
		}
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		pause(ctx, still)
		did = fmt.Sprintf("stood still for %v at work, and went on", still)
		return p.cmd.Process.Signal(syscall.SIGCONT)
	})
	return did, err
}

// again announces an event that the server has already, without the id by which the server would know it.
func (t *trial) again(ctx context.Context, e event.Envelope) error {
	b, err := e.Encode()
	if err == nil {
		_, err = t.js.Publish(ctx, e.Subject(), b)
	}
	return err
}

// pause lasts for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// endsWithin is how long a stage may take to end: the launcher kills it then.
const endsWithin = 20 * time.Second

// shutdown: SIGTERM, and the end of standard input, end the program at any time, and what it was at comes later.
func shutdown(ctx context.Context, s *subject) (string, error) {
	var took [2]time.Duration
	err := disturbed(ctx, s, func(t *trial) error {
		for i := range took {
			p, err := t.start()
			if err != nil {
				return err
			}
			if _, err := t.working(ctx); err != nil {
				return err
			}
			how, ask := "SIGTERM", func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
			if i == 1 {
				how, ask = "the end of standard input", p.stdin.Close
			}
			if took[i], err = p.terminate(ask, endsWithin); err != nil {
				return fmt.Errorf("after %s %w%s", how, err, t.logs())
			}
		}
		_, err := t.start()
		return err
	})
	return fmt.Sprintf("ended %v after SIGTERM and %v after the end of standard input", took[0].Round(time.Millisecond),
		took[1].Round(time.Millisecond)), err
}

// partition: a stage that cannot reach the server for a while goes on when it can.
func partition(ctx context.Context, s *subject) (string, error) {
	const away = 5 * time.Second
	err := disturbed(ctx, s, func(t *trial) error {
		if _, err := t.start(); err != nil {
			return err
		}
		if _, err := t.working(ctx); err != nil {
			return err
		}
		t.relay.cut()
		pause(ctx, away)
		t.relay.mend()
		return nil
	})
	return fmt.Sprintf("cut off from the server for %v, and connected again", away), err
}

// poison: what is no event, or no body that the stage knows, is put aside, and the events after it are answered.
func poison(ctx context.Context, s *subject) (string, error) {
	empty, err := event.Wrap(s.run, "conformance", "", event.Part{}, s.description.Kind, []byte{0x80}) // a map of nothing
	if err != nil {
		return "", err
	}
	later := empty
	later.Version = 99
	bad := [][]byte{[]byte("this is no msgpack"), {}, {0xc1}}
	for _, e := range []event.Envelope{empty, later} {
		b, err := e.Encode()
		if err != nil {
			return "", err
		}
		bad = append(bad, b)
	}
	err = disturbed(ctx, s, func(t *trial) error {
		for _, b := range bad {
			if _, err := t.js.Publish(ctx, event.Subject(s.run, s.description.Kind), b); err != nil {
				return err
			}
		}
		if err := t.again(ctx, s.inputs[0]); err != nil { // so that an event comes after them
			return err
		}
		_, err := t.start()
		return err
	})
	return fmt.Sprintf("%d messages that are no events were put aside", len(bad)), err
}
