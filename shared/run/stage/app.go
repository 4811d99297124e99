package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/record"
)

var errStopped = errors.New("stopped by a signal")

func runApp[P any, E event.Body](s Spec[P, E], args []string) int {
	app := &cli.App{
		Name: s.Name, Usage: s.About, HideVersion: true,
		Description: fmt.Sprintf("Answers %s events.\n\nExample:\n   %s", s.kind(), s.Example),
		Commands:    []*cli.Command{serveCommand(s), runCommand(s), describeCommand(s)},
		// Errors are printed once, below, and no library code may exit.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(c *cli.Context, err error, _ bool) error {
			return command.UsageError(s.unknownFlag(err, c.Command.Flags))
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return command.Usagef("unknown command %q: use serve, run or describe", c.Args().First())
			}
			return command.Usagef("say how to run: %s serve, or %s run (--help has an example)", s.Name, s.Name)
		},
		DisableSliceFlagSeparator: true,
	}
	for _, c := range app.Commands {
		c.OnUsageError = app.OnUsageError
	}
	args = arrange(app, param.Spread(args, s.Defaults))
	app.Metadata = map[string]any{argumentsKey: args}
	return command.ExitStatus(s.Name, app.Run(args), os.Stderr)
}

// arrange lets --in take several files, as a shell's pattern gives them.
func arrange(app *cli.App, args []string) []string {
	if len(args) < 2 || args[1] != "run" {
		return args
	}
	return append(args[:2:2], command.Arrange(args[2:], app.Command("run").Flags, "in", nil)...)
}

// flags are those of both forms, the parameters and more.
func (s Spec[P, E]) flags(more ...cli.Flag) []cli.Flag {
	all := []cli.Flag{
		&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"}, Usage: "data `DIR`ectory: artifacts, runs, events"},
		&cli.StringFlag{Name: "run", Usage: "id of the `RUN`"},
	}
	if s.Threads {
		all = append(all, &cli.IntFlag{Name: "threads", Value: runtime.NumCPU(), EnvVars: []string{"BITNET1_THREADS"}, Usage: "worker threads of compute kernels"})
	}
	if s.Device {
		all = append(all, &cli.StringFlag{Name: "device", Value: "auto", EnvVars: []string{"BITNET1_DEVICE"}, Usage: "compute device: cpu, cuda, cuda:1 …, or auto: a GPU if this build and this machine have one"})
	}
	all = append(all,
		&cli.DurationFlag{Name: "deadline", Usage: "longest time for one job (0: none)"},
		&cli.StringFlag{Name: "log-level", Value: "info", EnvVars: []string{"BITNET1_LOG_LEVEL"}, Usage: "debug, info, warn or error"},
		&cli.BoolFlag{Name: "json", EnvVars: []string{"BITNET1_JSON"}, Usage: "log and print JSON lines"},
	)
	return append(append(all, more...), param.Flags(s.Defaults)...)
}

// unknownFlag explains the error about a flag that the command does not take: other stages have it, or it is misspelt.
func (s Spec[P, E]) unknownFlag(err error, taken []cli.Flag) error {
	why := map[string]string{
		"threads":    "the stage does not compute with threads",
		"device":     "the stage does not compute on a device",
		"dataset":    "the stage reads no dataset beside its input",
		"checkpoint": fmt.Sprintf("the stage answers %s events, not checkpoints", s.kind()),
	}
	name, _ := param.UndefinedFlag(err)
	if reason, ok := why[name]; ok {
		return fmt.Errorf("%s does not take --%s: %s", s.Name, name, reason)
	}
	return param.UnknownFlag(err, taken)
}

// given reports whether a flag is on the command line; package cli does not tell it from one that the environment sets.
func given(c *cli.Context, name string) bool {
	args, _ := c.App.Metadata[argumentsKey].([]string)
	return slices.ContainsFunc(args, func(a string) bool {
		flag, _, _ := strings.Cut(a, "=")
		return flag == "--"+name || flag == "-"+name
	})
}

// argumentsKey is where the app has its arguments, arranged.
const argumentsKey = "arguments"

func serveCommand[P any, E event.Body](s Spec[P, E]) *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "react to " + s.kind() + " events",
		Description: "Connects to NATS_URL (with NATS_USER and NATS_PASSWORD, NATS_TOKEN or NATS_CREDS) and answers events until stopped.\n\nExample:\n   NATS_URL=nats://127.0.0.1:4222 " + s.Name + " serve",
		Flags: s.flags(
			&cli.IntFlag{Name: "workers", Value: 1, Usage: "jobs at a time in this process"},
			&cli.IntFlag{Name: "attempts", Value: 4, Usage: "how often a job is begun without getting anywhere before it is given up; crashes count"},
			&cli.DurationFlag{Name: "retry-pause", Value: time.Second, Usage: "pause before a failed job is tried again; doubled every time, up to 30 s"},
			&cli.DurationFlag{Name: "ack-wait", Value: bus.AckWait, Usage: "time without a sign of life after which the server gives a job to another worker"},
			command.OutageFlag(),
			&cli.StringFlag{Name: "from", Value: "all", Usage: "which events to start with when the stage is new: all, or now"},
			&cli.StringFlag{Name: "metrics", Usage: "serve Prometheus metrics on `ADDRESS`, e.g. 127.0.0.1:9100"},
		),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			ctx, stop := signalContext(c.Context)
			defer stop()
			return serveMain(ctx, s, c)
		},
	}
}

func serveMain[P any, E event.Body](ctx context.Context, s Spec[P, E], c *cli.Context) error {
	log, err := logger(c, os.Stderr)
	if err != nil {
		return err
	}
	run := "*"
	if c.IsSet("run") {
		run = c.String("run")
	}
	if run != "*" && !event.ValidRun(run) {
		return command.Usagef("--run %s: not a run's id", run)
	}
	if err := checkServeFlags(c); err != nil {
		return err
	}
	if _, err := resolve(s, nil, overlayOf[P](c)); err != nil {
		return command.UsageError(err)
	}
	store, err := artifact.Open(c.String("data"))
	if err != nil {
		return err
	}
	b, err := bus.Connect(ctx, bus.AddressFrom(os.Getenv), s.Name)
	if err != nil {
		return err
	}
	defer b.Close()
	b.Patience = c.Duration("outage")
	queue, err := b.Listen(ctx, bus.Listener{
		Stage: s.Name, Run: run, Kind: s.kind(), FromNow: c.String("from") == "now", AckWait: c.Duration("ack-wait"),
	})
	if err != nil {
		return err
	}
	m := newMetrics(s.Name)
	if address := c.String("metrics"); address != "" {
		if err := m.listen(ctx, address); err != nil {
			return err
		}
	}
	j := journal.Open(store.Dir()).Telling(func(err error) { log.Warn(err.Error()) })
	svc := &service[P, E]{
		performer: &performer[P, E]{
			spec: s, space: store, journal: j, records: record.Root(store), announcer: bus.NewAnnouncer(j, b),
			host: hostOf(c), log: log, deadline: c.Duration("deadline"), grace: hangGrace,
			report: reporter(b, s.Name), attempts: c.Int("attempts"),
		},
		bus: b, queue: queue, metrics: m, overlay: overlayOf[P](c), retryPause: c.Duration("retry-pause"), busy: map[string]*rate.Sometimes{},
		outage: c.Duration("outage"), definitions: map[string]*definition.Definition{}, failures: map[string]int{}, parts: map[string]*journal.Parts{}, unended: map[string]unended{},
	}
	log.Info("serving", "stage", s.Name, "kind", s.kind(), "run", run, "workers", c.Int("workers"))
	return svc.serve(ctx, c.Int("workers"))
}

func checkServeFlags(c *cli.Context) error {
	if from := c.String("from"); from != "all" && from != "now" {
		return command.Usagef("--from %s: use all or now", from)
	}
	for _, name := range []string{"workers", "attempts"} {
		if n := c.Int(name); n < 1 {
			return command.Usagef("--%s %d: use 1 or more", name, n)
		}
	}
	for _, name := range []string{"ack-wait", "retry-pause", "outage"} {
		if d := c.Duration(name); d < time.Millisecond {
			return command.Usagef("--%s %s: use 1ms or more", name, d)
		}
	}
	return nil
}

// reporter sends a job's progress at most every 100 ms. The last report, with Done equal to Total, is always sent.
func reporter(b *bus.Bus, stage string) func(run, key string) func(Progress) {
	return func(run, key string) func(Progress) {
		limit := rate.Sometimes{Interval: 100 * time.Millisecond}
		return func(p Progress) {
			send := func() {
				b.Report(run, bus.Progress{Stage: stage, Job: key, Report: p})
			}
			if p.Done >= p.Total {
				send()
				return
			}
			limit.Do(send)
		}
	}
}

func overlayOf[P any](c *cli.Context) func(*P) error {
	return func(p *P) error {
		if err := param.Apply(c, p); err != nil {
			return command.UsageError(err)
		}
		return nil
	}
}

func hostOf(c *cli.Context) Host {
	h := Host{Threads: runtime.NumCPU(), Device: "auto"} // for a stage that heeds what it does not take flags of
	if n := c.Int("threads"); n > 0 {
		h.Threads = n
	}
	return Host{Threads: h.Threads, Device: cmp.Or(c.String("device"), h.Device)}
}

func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return command.Usagef("unexpected argument %q: every input is given by a flag (--help lists them)", c.Args().First())
	}
	return nil
}

func logger(c *cli.Context, stderr io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, command.Usagef("--log-level %s: use debug, info, warn or error", c.String("log-level"))
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: nameNotes}
	if c.Bool("json") || os.Getenv(command.EnvLauncher) != "" {
		return slog.New(slog.NewJSONHandler(stderr, opts)), nil
	}
	return slog.New(slog.NewTextHandler(stderr, opts)), nil
}

// levelNote is the level of what a launcher shows to whoever watches, without being a warning.
const levelNote = slog.LevelInfo + 1

func nameNotes(groups []string, a slog.Attr) slog.Attr {
	if level, ok := a.Value.Any().(slog.Level); ok && len(groups) == 0 && a.Key == slog.LevelKey && level == levelNote {
		a.Value = slog.StringValue("NOTE")
	}
	return a
}

// signalContext ends on SIGINT, SIGTERM and, for a stage that a launcher
// started, when the launcher is gone. A second signal ends the process at once.
func signalContext(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-signals:
			}
			if ctx.Err() != nil {
				os.Exit(command.Failed)
			}
			cancel(errStopped)
		}
	}()
	if os.Getenv(command.EnvLauncher) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel(errStopped)
		}()
	}
	return ctx, func() { signal.Stop(signals); close(done); cancel(nil) }
}
