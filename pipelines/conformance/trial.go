package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
)

// trial is a run for one check: a data directory, an event server, a relay to it, and the stage's programs.
type trial struct {
	*subject
	dir     string
	journal journal.Journal
	store   *artifact.Store
	server  *bus.Server
	bus     *bus.Bus
	raw     *nats.Conn // for what no stage of ours would send
	js      jetstream.JetStream
	relay   *relay

	programs []*program
}

// newTrial prepares a run in which the stage has answered nothing yet. The server has all its events.
func (s *subject) newTrial(ctx context.Context) (t *trial, err error) {
	t = &trial{subject: s}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.dir, err = os.MkdirTemp("", "conformance-*"); err != nil {
		return nil, err
	}
	data := filepath.Join(t.dir, "data")
	if t.journal, err = s.copyTo(data); err != nil {
		return nil, err
	}
	t.store = artifact.ReadOnly(data)
	// As the launcher does for a program that a pipeline file names: it may announce what it declares alone.
	user := bus.StageUser(t.description.Name, t.description.Kind, t.description.Emits, t.run)
	user.ByPassword = true
	if t.server, err = bus.StartServer(filepath.Join(t.dir, "nats"), 0, user); err != nil {
		return nil, err
	}
	address := t.server.Address()
	if t.bus, err = bus.Connect(ctx, address, "conformance"); err != nil {
		return nil, err
	}
	if t.raw, err = nats.Connect(address.URL, nats.UserInfo(address.User, address.Password)); err != nil {
		return nil, err
	}
	if t.js, err = jetstream.New(t.raw); err != nil {
		return nil, err
	}
	if t.relay, err = newRelay(address.URL); err != nil {
		return nil, err
	}
	if _, err = t.bus.Listen(ctx, t.listener()); err != nil { // as the launcher does: before the stage starts
		return nil, err
	}
	_, err = bus.NewAnnouncer(t.journal, t.bus).Restore(ctx, s.run)
	return t, err
}

func (t *trial) listener() bus.Listener {
	return bus.Listener{Stage: t.description.Name, Run: t.run, Kind: t.description.Kind}
}

// close ends the programs and removes all that the trial has made.
func (t *trial) close() {
	for _, p := range t.programs {
		p.kill()
	}
	if t.relay != nil {
		t.relay.close()
	}
	if t.raw != nil {
		t.raw.Close()
	}
	if t.bus != nil {
		t.bus.Close()
	}
	if t.server != nil {
		t.server.Stop()
	}
	os.RemoveAll(t.dir)
}

const pollEvery = 20 * time.Millisecond

// wait calls is until it returns true. What is awaited is a part of a sentence: "the stage has not …".
func (t *trial) wait(ctx context.Context, awaited string, is func() (bool, error)) error {
	for limit := time.Now().Add(t.limit); ; time.Sleep(pollEvery) {
		ok, err := is()
		if err == nil {
			err = context.Cause(ctx)
		}
		switch {
		case ok || err != nil:
			return err
		case time.Now().After(limit):
			return fmt.Errorf("after %v the stage has not %s%s", t.limit, awaited, t.logs())
		}
	}
}

// working waits until the stage has an event that it has not acknowledged. It returns false where the stage was quick
// and has none left.
func (t *trial) working(ctx context.Context) (at bool, err error) {
	err = t.wait(ctx, "asked for an event", func() (bool, error) {
		if err := t.died(); err != nil {
			return false, err
		}
		info, err := t.consumer(ctx)
		if err != nil {
			return false, err
		}
		at = info.NumAckPending > 0
		return at || info.NumPending == 0, nil
	})
	return at, err
}

func (t *trial) consumer(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	c, err := t.js.Consumer(ctx, bus.EventStream, t.description.Name+"--"+t.run)
	if err != nil {
		return nil, err
	}
	return c.CachedInfo(), nil
}

// answered waits until the stage has acknowledged all events, and has said of each of the inputs what came of it.
func (t *trial) answered(ctx context.Context) error {
	left := 0
	err := t.wait(ctx, "acknowledged all events", func() (ok bool, err error) {
		if err := t.died(); err != nil {
			return false, err
		}
		left, err = t.bus.Unanswered(ctx, t.listener())
		return left == 0, err
	})
	if err != nil {
		return err
	}
	finished, err := t.finished(ctx)
	if err != nil {
		return err
	}
	for _, e := range t.inputs {
		switch said := finished[e.ID]; {
		case len(said) == 0:
			return fmt.Errorf("the stage has acknowledged the event %s and has not announced job.finished for it: the run "+
				"would never end%s", e.ID[:8], t.logs())
		case said[len(said)-1].Outcome == event.Failed:
			return fmt.Errorf("the stage says of the event %s that it failed: %s", e.ID[:8], said[len(said)-1].Cause)
		}
	}
	return nil
}

// finished are what the stage has said of its jobs, by the events that they answer.
func (t *trial) finished(ctx context.Context) (map[string][]event.JobFinished, error) {
	events, _, err := t.bus.History(ctx, t.run, event.JobFinished{}.Kind(), 0)
	if err != nil {
		return nil, err
	}
	all := map[string][]event.JobFinished{}
	for _, e := range events {
		body, err := event.Into[event.JobFinished](e.Envelope)
		if err != nil {
			return nil, err
		}
		if body.Listener == t.description.Name {
			all[body.Input] = append(all[body.Input], body)
		}
	}
	return all, nil
}

// results are the events that the stage has announced, checked: their ids by kind, in order.
func (t *trial) results(ctx context.Context) (ids map[string][]string, err error) {
	ids = map[string][]string{}
	for _, kind := range t.description.Emits {
		events, bad, err := t.bus.History(ctx, t.run, kind, 0)
		if err != nil {
			return nil, err
		}
		if bad > 0 {
			return nil, fmt.Errorf("%d events %s are none: an envelope has version 1, kind, run, stage, part, time, body, and "+
				"as id the SHA-256 of kind, run and body, with zero bytes between (docs/reference/events.md)", bad, kind)
		}
		for _, e := range events {
			if err := t.checkResult(e.Envelope); err != nil {
				return nil, fmt.Errorf("event %s %s: %w", kind, e.ID[:8], err)
			}
			ids[kind] = append(ids[kind], e.ID)
		}
		slices.Sort(ids[kind])
	}
	return ids, nil
}

// checkResult checks that an event says who announced it and what it answers, and that its artifacts are there.
func (t *trial) checkResult(e event.Envelope) error {
	if e.Stage != t.description.Name {
		return fmt.Errorf("its stage is %q, and the stage's name is %s", e.Stage, t.description.Name)
	}
	if e.Input != "" && !slices.ContainsFunc(t.inputs, func(in event.Envelope) bool { return in.ID == e.Input }) {
		return fmt.Errorf("its input %q is the id of no event that the stage answers", e.Input)
	}
	for _, ref := range record.Mentioned(e.Body) {
		if _, err := t.store.Path(ref); err != nil {
			return fmt.Errorf("an artifact that it names: %w", err)
		}
	}
	return nil
}

// as checks that the stage has announced what it announces when nothing disturbs it.
func (t *trial) as(ctx context.Context, undisturbed map[string][]string) error {
	got, err := t.results(ctx)
	if err != nil {
		return err
	}
	for _, kind := range t.description.Emits {
		want, got := undisturbed[kind], got[kind]
		if n, distinct := len(got), len(slices.Compact(slices.Clone(got))); n != distinct {
			err = errors.Join(err, fmt.Errorf("%d of %d events %s came more than once: publish them with their id as "+
				"Nats-Msg-Id", n-distinct, n, kind))
		} else if !slices.Equal(got, want) {
			err = errors.Join(err, fmt.Errorf("%d events %s, of which %d are those of an undisturbed run, which has %d", n, kind,
				common(got, want), len(want)))
		}
	}
	return err
}

func common(a, b []string) (n int) {
	for _, id := range a {
		if slices.Contains(b, id) {
			n++
		}
	}
	return n
}
