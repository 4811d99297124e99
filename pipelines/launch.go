package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"bitnet1/shared/artifact"
	"bitnet1/shared/bus"
	"bitnet1/shared/event"
	"bitnet1/shared/journal"
	"bitnet1/shared/results"
	"bitnet1/shared/stage"
)

// launcherName is who announces what the launcher does.
const launcherName = "launcher"

var errInterrupted = errors.New("interrupted: the same command continues where it stopped")

// launcher is one run being driven.
type launcher struct {
	*plan
	store   *artifact.Store
	journal journal.Journal
	bus     *bus.Bus
	tracker *tracker
	screen  screen
}

// launch is the command `pipeline run`.
func launch(c *cli.Context) error {
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	store, err := artifact.Open(c.String("data"))
	if err != nil {
		return err
	}
	lock, err := lockData(store.Dir())
	if err != nil {
		return err
	}
	defer lock.Close()
	p, err := prepare(ctx, c)
	if err != nil {
		return err
	}
	l := &launcher{plan: p, store: store, journal: journal.Open(store.Dir())}
	if err := l.definition.CheckRun(l.journal, l.store, l.run); err != nil {
		return err
	}
	for _, d := range l.declarations() {
		if err := results.Declare(l.journal, l.run, d); err != nil {
			return err
		}
	}
	if _, err := l.definition.Store(l.journal, l.store, l.run); err != nil { // anew where it is lost
		return err
	}
	l.screen = newScreen(c, l)
	l.journal = l.journal.Telling(func(err error) { l.screen.warn("launcher", err.Error()) })
	l.screen.header()
	done, err := finished(l.journal, l.run)
	if err != nil {
		return err
	}
	if done {
		if err := l.announceSources(ctx); err != nil { // to the journal, where an event of theirs is damaged
			return err
		}
		l.screen.note("this run has finished before; nothing is left to do")
		return l.summary(c)
	}
	started := time.Now()
	if err := l.withBus(ctx, c.Int("nats-port")); err != nil {
		return err
	}
	l.screen.note("finished in " + time.Since(started).Round(100*time.Millisecond).String())
	return l.summary(c)
}

const lockName = "launcher.lock"

// lockData makes sure that one launcher at a time uses a data directory.
func lockData(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("data directory %s is in use by another launcher: let it end, or choose another directory with --data", dir)
	}
	return f, nil
}

// withBus connects, starting a server unless NATS_URL names one, and drives the
// run to its end.
func (l *launcher) withBus(ctx context.Context, port int) error {
	address := bus.AddressFrom(os.Getenv)
	if address.URL == "" {
		server, err := bus.StartServer(filepath.Join(l.store.Dir(), "nats"), port)
		if err != nil {
			return err
		}
		defer server.Stop()
		address = server.Address()
	}
	var err error
	if l.bus, err = bus.Connect(ctx, address, "pipeline"); err != nil {
		return err
	}
	defer l.bus.Close()
	return l.drive(ctx, address)
}

func (l *launcher) drive(parent context.Context, address bus.Address) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	l.tracker = newTracker(l.stages, time.Now())
	changed := make(chan struct{}, 1)
	l.tracker.changed = func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	if err := l.listenFirst(ctx); err != nil {
		return err
	}
	if err := l.follow(ctx); err != nil {
		return err
	}
	kids := &children{
		run: l.run, data: absolute(l.store.Dir()), address: address, keys: l.keys, logDir: l.journal.LogDir(l.run),
		warn: l.screen.warn, note: l.screen.note,
		onDeath: func(name string, err error) {
			l.tracker.restarted(name)
			l.screen.warn(name, fmt.Sprintf("ended (%v) and is started again", err))
		},
	}
	gaveUp := make(chan error, 1)
	for _, s := range l.stages {
		for worker := range s.workers {
			kids.keep(ctx, s, worker, gaveUp)
		}
	}
	err := l.announceSources(ctx)
	if err == nil {
		err = l.wait(ctx, changed, gaveUp)
	}
	cancel()
	kids.wg.Wait()
	l.screen.close()
	if parent.Err() != nil {
		return errInterrupted
	}
	return err
}

// listenFirst creates the stages' consumers anew, before anything is announced.
// All events of the run come to them again; what is done is answered from the
// jobs' records, what failed or was interrupted is tried again at once.
func (l *launcher) listenFirst(ctx context.Context) error {
	for _, s := range l.stages {
		listener := bus.Listener{Stage: s.Name, Run: l.run, Kind: s.Kind}
		if err := l.bus.Forget(ctx, listener); err != nil {
			return err
		}
		if _, err := l.bus.Listen(ctx, listener); err != nil {
			return err
		}
	}
	return nil
}

func (l *launcher) follow(ctx context.Context) error {
	err := l.bus.Follow(ctx, l.run, func(k bus.Kept) {
		// A stage in another language knows only the bus, which must not be the
		// only copy of what it says.
		if _, err := l.journal.Write(k.Envelope); err != nil {
			l.screen.warn("launcher", err.Error())
		}
		if l.tracker.observe(k.Envelope) {
			l.screen.event(k.Envelope)
		}
	})
	if err != nil {
		return err
	}
	return l.bus.Watch(ctx, l.run, func(p bus.Progress) {
		l.tracker.progress(p)
		l.screen.progress(p)
	})
}

// announceSources opens the run: its definition, then its sources.
func (l *launcher) announceSources(ctx context.Context) error {
	definition, err := l.definition.Store(l.journal, l.store, l.run)
	if err != nil {
		return err
	}
	announcer := stage.NewAnnouncer(l.journal, l.bus)
	started := event.RunStarted{Pipeline: l.definition.Name, Definition: definition, Sources: len(l.definition.Sources)}
	for _, s := range l.stages {
		started.Stages = append(started.Stages, s.Name)
	}
	if err := l.announce(ctx, announcer, event.Part{}, started); err != nil {
		return err
	}
	for i, s := range l.sources {
		added := event.SourceAdded{Name: s.Name, Path: s.Location, Digest: s.Digest, Size: s.Size, Version: s.Version, Parameters: s.Parameters}
		if err := l.announce(ctx, announcer, event.Part{Index: i, Count: len(l.sources)}, added); err != nil {
			return err
		}
	}
	return nil
}

func (l *launcher) announce(ctx context.Context, a *stage.Announcer, part event.Part, body event.Body) error {
	e, err := event.New(l.run, launcherName, "", part, body)
	if err != nil {
		return err
	}
	return a.Announce(ctx, e)
}

// wait returns when the run is finished or cannot go on.
func (l *launcher) wait(ctx context.Context, changed <-chan struct{}, gaveUp <-chan error) error {
	for !l.tracker.quiet() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-gaveUp:
			return err
		case <-changed:
		}
	}
	failed, stuck := l.tracker.failures()
	if len(failed) > 0 || len(stuck) > 0 {
		return failure(failed, stuck)
	}
	return l.announce(ctx, stage.NewAnnouncer(l.journal, l.bus), event.Part{}, event.RunFinished{Events: l.tracker.eventCount()})
}

func failure(failed []event.JobFinished, stuck []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed:", plural(len(failed), "job"))
	for _, f := range failed {
		fmt.Fprintf(&b, "\n  %s: %s", f.Listener, f.Cause)
	}
	for _, s := range stuck {
		fmt.Fprintf(&b, "\n  %s waits for what they should have made", s)
	}
	b.WriteString("\nWhat was made is kept. Mend the cause and give the same command again: it continues from here.")
	return errors.New(b.String())
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}
