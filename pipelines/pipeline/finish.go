package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
)

// wait returns when the run is finished or cannot go on.
func (l *launcher) wait(ctx context.Context, changed <-chan struct{}, gaveUp <-chan error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var away time.Time // since when the event server cannot be used
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-gaveUp:
			return err
		case <-changed:
			if !l.tracker.quiet() {
				continue
			}
		case <-tick.C:
		}
		answered, err := l.answered(ctx)
		switch {
		case ctx.Err() != nil:
			continue
		case err != nil && away.IsZero():
			away = time.Now()
			l.screen.warn("launcher", fmt.Sprintf("the event server cannot be used and has %s to come back: %v", l.outage, err))
		case err != nil && time.Since(away) > l.outage:
			return fmt.Errorf("the event server cannot be used (tried for %s): %w\n%s", l.outage, err, continues)
		case err == nil && !away.IsZero():
			away = time.Time{}
			l.screen.note("the event server can be used again")
		}
		if answered {
			ended, err := l.conclude(ctx)
			if ended || err != nil {
				return err
			}
		}
	}
}

// answered reports whether the stages have answered, in this launch, every event of the run that the server has.
// Answers of an earlier launch do not count: files may have been lost since. A stage announces its outputs before it
// acknowledges an event. So nothing can follow when no stage has an event left to answer and no event was announced
// while the stages were asked.
func (l *launcher) answered(ctx context.Context) (bool, error) {
	if l.server != nil {
		if err := l.server.Mend(); err != nil {
			return false, err
		}
	}
	before, err := l.bus.Last(ctx, l.run)
	if err != nil {
		return false, err
	}
	left := 0
	for _, s := range l.stages {
		n, err := l.bus.Unanswered(ctx, l.listener(s))
		if err != nil {
			return false, err
		}
		l.watch(s, n)
		left += n
	}
	if left > 0 {
		return false, nil
	}
	after, err := l.bus.Last(ctx, l.run)
	return before == after && l.tracker.hasRead(after), err
}

// conclude ends the run if all of its files are there, and reports whether it did. If the server has lost events,
// conclude announces them again and the run goes on.
func (l *launcher) conclude(ctx context.Context) (ended bool, err error) {
	failed, stuck := l.tracker.failures()
	if len(failed) > 0 || len(stuck) > 0 {
		return true, failure(failed, stuck)
	}
	if l.unkept.Load() {
		if err := l.keep(ctx); err != nil {
			return true, err
		}
	}
	announcer := bus.NewAnnouncer(l.journal, l.bus)
	if missing, err := announcer.Restore(ctx, l.run); err != nil || missing > 0 {
		return err != nil, err
	}
	gap, err := record.Gap(l.store, l.journal, l.run, l.listeners())
	if err != nil {
		return true, err
	}
	if gap != "" {
		return true, fmt.Errorf("the stages have nothing left to do, but %s: give the same command again; a stage of your "+
			"own announces job.finished before it acknowledges an event", gap)
	}
	if err := l.confirm(); err != nil {
		return true, err
	}
	return true, l.announce(ctx, announcer, event.Part{}, event.RunFinished{Events: l.tracker.eventCount()})
}

// keep writes to the journal what could not be written when it was announced.
func (l *launcher) keep(ctx context.Context) error {
	events, _, err := l.bus.History(ctx, l.run, "*.*", 0)
	if err != nil {
		return err
	}
	for _, k := range events {
		if _, err := l.journal.Write(k.Envelope); err != nil {
			return err
		}
	}
	return nil
}

// failure says why a run could not end: each cause once, with the stages that it kept from their jobs.
func failure(failed []event.JobFinished, stuck []string) error {
	var causes []string
	stages := map[string][]string{} // by cause
	for _, f := range failed {
		if stages[f.Cause] == nil {
			causes = append(causes, f.Cause)
		}
		if !slices.Contains(stages[f.Cause], f.Listener) {
			stages[f.Cause] = append(stages[f.Cause], f.Listener)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed:", plural(len(failed), "job"))
	for _, cause := range causes {
		fmt.Fprintf(&b, "\n  %s: %s", strings.Join(stages[cause], ", "), cause)
	}
	for _, s := range stuck {
		fmt.Fprintf(&b, "\n  %s waits for what they should have made", s)
	}
	b.WriteString("\n" + continues)
	return errors.New(b.String())
}
