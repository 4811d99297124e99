package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
)

// prepareBus announces what the event server lacks of the run, and subscribes to its events.
func (l *launcher) prepareBus(ctx context.Context, changed func()) error {
	if l.server != nil {
		if err := l.bus.ForgetAll(ctx); err != nil {
			return err
		}
	} else if err := l.checkDirectory(ctx); err != nil {
		return err
	}
	if err := l.restore(ctx); err != nil {
		return err
	}
	last, err := l.bus.Last(ctx, l.run)
	if err != nil {
		return err
	}
	l.tracker = newTracker(l.stages, last)
	l.tracker.changed = changed
	if err := l.listenFirst(ctx); err != nil {
		return err
	}
	return l.follow(ctx)
}

// damageText says what becomes of a damaged file of the event server.
func damageText(d bus.Damage) string {
	switch {
	case !d.Lost:
		return d.Error() + ": it is made again"
	case d.Stream == bus.EventStream:
		return d.Error() + ": a new stream takes its place, and all events are announced again from the journals"
	default:
		return d.Error() + ": a new stream takes its place, and its dead letters are lost"
	}
}

// restore announces the events that the journal has and the event server lacks: those of the run, and those of all runs
// where the server has lost them all.
func (l *launcher) restore(ctx context.Context) error {
	announcer := bus.NewAnnouncer(l.journal, l.bus)
	missing, err := announcer.Restore(ctx, l.run)
	if missing > 0 {
		l.screen.note(fmt.Sprintf("the event server lacked %s of this run: announced again", plural(missing, "event")))
	}
	if err != nil || l.server == nil || !l.server.LacksHistory() {
		return err
	}
	missing, err = restoreAll(ctx, l.server, l.journal, announcer)
	if missing > 0 {
		l.screen.note("the event server lacked " + plural(missing, "event") + " of other runs: announced again")
	}
	return err
}

// restoreAll announces the events of all runs that the journal has and the server lacks.
func restoreAll(ctx context.Context, server *bus.Server, j journal.Journal, announcer *bus.Announcer) (missing int,
	err error) {
	runs, err := j.Runs()
	if err != nil {
		return 0, err
	}
	for _, run := range runs {
		n, err := announcer.Restore(ctx, run)
		if missing += n; err != nil {
			return missing, err
		}
	}
	return missing, server.HasHistory()
}

// checkDirectory compares an event server that the launcher did not start with this data directory. The run's events
// there must have been made here: the journal and the artifacts are nowhere else.
func (l *launcher) checkDirectory(ctx context.Context) error {
	there, _, err := l.bus.History(ctx, l.run, "*.*", 0)
	if err != nil {
		return err
	}
	here := artifact.DirectoryName(l.store.Dir())
	began := "another data directory"
	for _, k := range there {
		if l.journal.Keeps(k.Envelope) {
			continue
		}
		if started, err := event.Into[event.RunStarted](k.Envelope); err == nil {
			if began = cmp.Or(started.Data, began); began != here {
				return fmt.Errorf("run %s was begun on this event server in %s, and this is %s: name that directory with --data, "+
					"or give the run a name of its own with --run", l.run, began, here)
			}
		}
		if ref, lacks := record.Lacks(l.store, k.Envelope); lacks {
			return fmt.Errorf("the event server has events of run %s that were made in %s, but %s is not in %s (was it "+
				"removed, or copied from elsewhere?): name another directory with --data, or give the run a "+
				"name of its own with --run", l.run, began, ref, here)
		}
	}
	return nil
}

// listenFirst creates the stages' consumers anew, before anything is announced. Every stage receives all events of the
// run again. It answers finished jobs from their records, and tries at once those that failed or were interrupted.
func (l *launcher) listenFirst(ctx context.Context) error {
	for _, s := range l.stages {
		if err := l.bus.Forget(ctx, l.listener(s)); err != nil {
			return err
		}
		if _, err := l.bus.Listen(ctx, l.listener(s)); err != nil {
			return err
		}
	}
	return nil
}

func (l *launcher) listener(s plannedStage) bus.Listener {
	return bus.Listener{Stage: s.Name, Run: l.run, Kind: s.Kind}
}

// forget removes the stages' consumers: the next launch makes them anew, and a stream can only have so many. A launcher
// that has taken the run over needs them.
func (l *launcher) forget() {
	if l.confirm() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, s := range l.stages {
		if l.bus.Forget(ctx, l.listener(s)) != nil {
			return // the server removes them after a while
		}
	}
}

func (l *launcher) follow(ctx context.Context) error {
	err := l.bus.Follow(ctx, l.run, func(k bus.Kept) {
		// A stage in another language knows only the bus, which must not be the only copy of what it says.
		if k.ID != "" {
			if _, err := l.journal.Write(k.Envelope); err != nil {
				l.unkept.Store(true)
				l.screen.warn("launcher", err.Error())
			}
		}
		if l.tracker.observe(k) {
			l.watchdog.event(k.Envelope, time.Now())
			l.screen.event(k.Envelope)
		}
	})
	if err != nil {
		return err
	}
	return l.bus.Watch(ctx, l.run, func(p bus.Progress) {
		l.tracker.progress(p)
		l.watchdog.progress(p, time.Now())
		l.screen.progress(p)
	})
}
