package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

// launcherName is who announces what the launcher does.
const launcherName = "launcher"

var (
	errInterrupted = errors.New("interrupted: the same command continues where it stopped")
	errKilled      = errors.New("ended at once: what the stages had not saved is done again when the same command continues")
)

// continues ends the message about a run that could not go on.
const continues = "What was made is kept. Mend the cause and give the same command again: it continues from here."

// launcher is one run being driven.
type launcher struct {
	*plan
	store   *artifact.Store
	journal journal.Journal
	outage  time.Duration // how long the event server or the disk may be unusable
	server  *bus.Server   // nil where NATS_URL names one
	bus     *bus.Bus
	tracker *tracker
	screen  screen
	unkept  atomic.Bool // an event could not be written to the journal
}

// launch is the command `pipeline run`. Until the stages are started a signal
// ends the program: there is nothing to save.
func launch(c *cli.Context) error {
	if c.Bool("check") {
		p, err := prepare(c.Context, c)
		if err != nil || !c.Bool("json") {
			return err
		}
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"type": "check", "stages": p.declarations()})
	}
	store, err := artifact.Open(c.String("data"))
	if err != nil {
		return err
	}
	lock, err := lockData(store.Dir())
	if err != nil {
		return err
	}
	defer lock.Close()
	p, err := prepare(c.Context, c)
	if err != nil {
		return err
	}
	l := &launcher{plan: p, store: store, journal: journal.Open(store.Dir()), outage: c.Duration("outage")}
	if err := l.definition.CheckRun(l.journal, l.store, l.run); err != nil {
		return err
	}
	if err := os.WriteFile(lock.Name(), []byte(l.run+"\n"), 0o644); err != nil { // for whoever asks what is running
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
	whole, err := l.whole()
	if err != nil {
		return err
	}
	if whole {
		if err := l.announceSources(c.Context); err != nil { // to the journal, where an event of theirs is damaged
			return err
		}
		l.screen.note("this run has finished before; nothing is left to do")
		return l.summary(c)
	}
	started := time.Now()
	if err := l.withBus(c.Context, c.Int("nats-port")); err != nil {
		return err
	}
	l.screen.note("finished in " + time.Since(started).Round(100*time.Millisecond).String())
	return l.summary(c)
}

// whole reports whether the run has ended and its files lack nothing.
func (l *launcher) whole() (bool, error) {
	ended, err := finished(l.journal, l.run)
	if err != nil || !ended {
		return false, err
	}
	gap, err := record.Gap(l.store, l.journal, l.run, l.listeners())
	if gap != "" {
		l.screen.note("this run has finished before, but " + gap + ": it goes on")
	}
	return gap == "", err
}

// listeners are the stages that answer each kind of event.
func (l *launcher) listeners() map[string][]string {
	all := map[string][]string{}
	for _, s := range l.stages {
		all[s.Kind] = append(all[s.Kind], s.Name)
	}
	return all
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
func (l *launcher) withBus(parent context.Context, port int) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		select {
		case <-signals:
			l.screen.note("stopping; Ctrl-C ends at once, without saving")
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	address := bus.AddressFrom(os.Getenv)
	if address.URL == "" {
		var err error
		if l.server, err = bus.StartServer(filepath.Join(l.store.Dir(), "nats"), port); err != nil {
			return err
		}
		defer func() { l.server.Stop() }()
		address = l.server.Address()
	}
	var err error
	if l.bus, err = bus.Connect(ctx, address, "pipeline"); err != nil {
		return err
	}
	defer l.bus.Close()
	l.bus.Patience = l.outage
	kids := &children{
		run: l.run, data: absolute(l.store.Dir()), address: address, keys: l.keys, logDir: l.journal.LogDir(l.run), outage: l.outage,
		warn: l.screen.warn, note: l.screen.note,
		onDeath: func(name string, err error) {
			l.tracker.restarted(name)
			l.screen.warn(name, fmt.Sprintf("ended (%v) and is started again", err))
		},
	}
	err = l.drive(ctx, kids)
	if interrupted := context.Cause(ctx); errors.Is(interrupted, errInterrupted) {
		err = interrupted
	}
	cancel(nil)
	if !kids.stop(signals, err == nil) {
		err = errKilled
	}
	l.forget()
	l.screen.close()
	return err
}

// drive brings the run to its end, or returns why that cannot be.
func (l *launcher) drive(ctx context.Context, kids *children) error {
	changed := make(chan struct{}, 1)
	if err := l.prepareBus(ctx, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}); err != nil {
		return err
	}
	gaveUp := make(chan error, 1)
	for _, s := range l.stages {
		for worker := range s.workers {
			kids.keep(ctx, s, worker, gaveUp)
		}
	}
	if err := l.announceSources(ctx); err != nil {
		return err
	}
	return l.wait(ctx, changed, gaveUp)
}

// prepareBus brings the bus to where the journal is, and listens.
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

// restore announces what the journal has and the bus lacks.
func (l *launcher) restore(ctx context.Context) error {
	missing, err := bus.NewAnnouncer(l.journal, l.bus).Restore(ctx, l.run)
	if missing > 0 {
		l.screen.note(fmt.Sprintf("the event server lacked %s of this run: announced again", plural(missing, "event")))
	}
	return err
}

// checkDirectory makes sure that what a server of others has of this run was
// made in this data directory: the journal and the artifacts are nowhere else.
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
				return fmt.Errorf("run %s was begun on this event server in %s, and this is %s: name that directory with --data, or give the run a name of its own with --run", l.run, began, here)
			}
		}
		if ref, lacks := record.Lacks(l.store, k.Envelope); lacks {
			return fmt.Errorf("the event server has events of run %s that were made in %s, but %s is not in %s (was it removed, or copied from elsewhere?): name another directory with --data, or give the run a name of its own with --run", l.run, began, ref, here)
		}
	}
	return nil
}

// listenFirst creates the stages' consumers anew, before anything is announced.
// All events of the run come to them again; what is done is answered from the
// jobs' records, what failed or was interrupted is tried again at once.
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

// forget removes the stages' consumers: the next launch makes them anew, and a
// stream can only have so many.
func (l *launcher) forget() {
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
		// A stage in another language knows only the bus, which must not be the
		// only copy of what it says.
		if k.ID != "" {
			if _, err := l.journal.Write(k.Envelope); err != nil {
				l.unkept.Store(true)
				l.screen.warn("launcher", err.Error())
			}
		}
		if l.tracker.observe(k) {
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
	announcer := bus.NewAnnouncer(l.journal, l.bus)
	started := event.RunStarted{Pipeline: l.definition.Name, Definition: definition, Sources: len(l.definition.Sources)}
	for _, s := range l.stages {
		started.Stages = append(started.Stages, s.Name)
	}
	if started.Data, err = l.beganIn(); err != nil {
		return err
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

// beganIn names the data directory by the name that it had when the run began:
// a directory that was moved is still the run's.
func (l *launcher) beganIn() (string, error) {
	before, err := journal.Bodies[event.RunStarted](l.journal, l.run)
	if err != nil || len(before) == 0 {
		return artifact.DirectoryName(l.store.Dir()), err
	}
	return before[0].Data, nil
}

func (l *launcher) announce(ctx context.Context, a *bus.Announcer, part event.Part, body event.Body) error {
	e, err := event.New(l.run, launcherName, "", part, body)
	if err != nil {
		return err
	}
	return a.Announce(ctx, e)
}

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

// answered reports whether the stages have answered everything that the server
// has of the run, in this launch: an answer of an earlier one says nothing of
// what was lost since. A stage announces what it makes before it acknowledges,
// so nothing can follow when no stage has anything to answer and nothing was
// announced while they were asked.
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
	for _, s := range l.stages {
		n, err := l.bus.Unanswered(ctx, l.listener(s))
		if err != nil || n > 0 {
			return false, err
		}
	}
	after, err := l.bus.Last(ctx, l.run)
	return before == after && l.tracker.hasRead(after), err
}

// conclude ends the run when its files say that it is whole, and reports whether
// they do. What the server has lost is announced again and the run goes on.
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
		return true, fmt.Errorf("the stages have nothing left to do, but %s: give the same command again; a stage of your own announces job.finished before it acknowledges an event", gap)
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

func failure(failed []event.JobFinished, stuck []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed:", plural(len(failed), "job"))
	for _, f := range failed {
		fmt.Fprintf(&b, "\n  %s: %s", f.Listener, f.Cause)
	}
	for _, s := range stuck {
		fmt.Fprintf(&b, "\n  %s waits for what they should have made", s)
	}
	b.WriteString("\n" + continues)
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
