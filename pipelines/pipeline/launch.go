package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/process"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/lease"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

// launcherName is the name under which the launcher announces events.
const launcherName = bus.LauncherName

var (
	errSuperseded  = errors.New("the launcher of another host has taken this run over, and this one ends")
	errInterrupted = errors.New("interrupted: the same command continues where it stopped")
	errUnprepared  = errors.New("interrupted before the stages were started: the same command begins again")
	errKilled      = errors.New("ended at once: what the stages had not saved is done again when " +
		"the same command continues")
)

// continues ends the message about a run that could not go on.
const continues = "What was made is kept. Mend the cause and give the same command again: it continues from here."

// launcher drives one run.
type launcher struct {
	*plan
	store    *artifact.Store
	journal  journal.Journal
	outage   time.Duration // how long the event server or the disk may be unusable
	lease    *lease.Lease  // of the run; nil where no other host can drive it
	server   *bus.Server   // nil where NATS_URL names one
	bus      *bus.Bus
	tracker  *tracker
	watchdog *watchdog
	screen   screen
	unkept   atomic.Bool // an event could not be written to the journal

	addressOf func(user string) bus.Address // of the event server
}

// record keeps what the run is: its definition, what its stages declare, its command. The lock names the run.
func (l *launcher) record(lock string) error {
	if err := l.definition.CheckRun(l.journal, l.store, l.run); err != nil {
		return err
	}
	if err := os.WriteFile(lock, []byte(l.run+"\n"), 0o644); err != nil { // for whoever asks what is running
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
	return overview.KeepCommand(l.journal, l.run, commandLine(os.Args[1:]))
}

// launch is the command `pipeline run`.
func launch(c *cli.Context) error {
	unprepared := endAtSignal()
	defer unprepared()
	if c.Bool("check") {
		p, err := prepare(c.Context, c)
		if err != nil || !c.Bool("json") {
			return err
		}
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"type": "check", "stages": p.declarations()})
	}
	if err := command.Attach(c); err != nil {
		return err
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
	held, err := leaseRun(store.Dir(), p.run)
	if err != nil {
		return err
	}
	defer giveBack(held)
	l := &launcher{plan: p, lease: held, store: store, journal: journal.Open(store.Dir()), outage: c.Duration("outage"),
		watchdog: newWatchdog(c.Duration("stall"))}
	if err := l.record(lock.Name()); err != nil {
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
		l.report(c.Context)
		return l.summary(c)
	}
	started := time.Now()
	unmark, err := overview.Mark(l.journal, l.run)
	if err != nil { // of a full disk: the run may go on once there is room
		l.screen.warn("launcher", err.Error())
	}
	unprepared()
	if err := errors.Join(l.withBus(c.Context, c.Int("nats-port"), c.String("view")), unmark()); err != nil {
		return err
	}
	l.screen.note("finished in " + time.Since(started).Round(100*time.Millisecond).String())
	l.report(c.Context)
	return l.summary(c)
}

// endAtSignal has a signal end the program, which says so: until the stages are started there is nothing to save. stop
// ends that, and may be called again.
func endAtSignal() (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			os.Exit(command.ExitStatus("pipeline", errUnprepared, os.Stderr))
		case <-done:
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
	})
}

// whole reports whether the run has ended and all of its files are there.
func (l *launcher) whole() (bool, error) {
	ended, err := overview.HasEnded(l.journal, l.run)
	if err != nil || !ended {
		return false, err
	}
	gap, err := record.Gap(l.store, l.journal, l.run, l.listeners())
	if gap != "" {
		l.screen.note("this run has finished before, but " + gap + ": it goes on")
	}
	return gap == "", err
}

// users are those of the launcher's own event server: every stage may announce what it declares, and nothing else. A
// program that the pipeline file names may be in any language.
func (l *launcher) users() []bus.User {
	all := []bus.User{bus.Viewer()}
	for _, s := range l.stages {
		u := bus.StageUser(s.Name, s.Kind, s.Emits, l.run)
		u.ByPassword = s.foreign
		all = append(all, u)
	}
	return all
}

// listeners are the stages that answer each kind of event.
func (l *launcher) listeners() map[string][]string {
	all := map[string][]string{}
	for _, s := range l.stages {
		all[s.Kind] = append(all[s.Kind], s.Name)
	}
	return all
}

// withBus connects, starting a server unless NATS_URL names one, and drives the run to its end.
func (l *launcher) withBus(parent context.Context, port int, view string) error {
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
		case <-l.lost():
			cancel(errSuperseded)
		case <-ctx.Done():
		}
	}()
	address := bus.AddressFrom(os.Getenv)
	l.addressOf = address.For
	if address.URL == "" {
		var err error
		if l.server, err = bus.StartServer(filepath.Join(l.store.Dir(), "nats"), port, l.users()...); err != nil {
			return err
		}
		defer func() { l.server.Stop() }()
		for _, d := range l.server.Damage {
			l.screen.warn("event server", damageText(d))
		}
		address, l.addressOf = l.server.Address(), l.server.AddressOf
	}
	var err error
	if l.bus, err = bus.Connect(ctx, address, "pipeline"); err != nil {
		return err
	}
	defer l.bus.Close()
	defer l.startView(view, l.addressOf(bus.ViewerName))()
	l.bus.Patience = l.outage
	group := &process.Group{
		Run: l.run, Data: absolute(l.store.Dir()), Keys: l.keys, LogDir: l.journal.LogDir(l.run),
		Outage: l.outage, Advice: continues, Warn: l.screen.warn, Note: l.screen.note,
		OnDeath: func(name string, err error) {
			l.tracker.restarted(name)
			l.screen.warn(name, fmt.Sprintf("ended (%v) and is started again", err))
		},
	}
	err = l.drive(ctx, group)
	if interrupted := context.Cause(ctx); errors.Is(interrupted, errInterrupted) ||
		errors.Is(interrupted, errSuperseded) {
		err = interrupted
	}
	cancel(nil)
	if !group.Stop(signals, err == nil) {
		err = errKilled
	}
	l.forget()
	l.screen.close()
	return err
}

// drive brings the run to its end, or returns the reason why the run cannot end.
func (l *launcher) drive(ctx context.Context, group *process.Group) error {
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
			group.Keep(ctx, s.program(l.addressOf(s.Name)), worker, gaveUp)
		}
	}
	if err := l.announceSources(ctx); err != nil {
		return err
	}
	return l.wait(ctx, changed, gaveUp)
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
