package stage

import (
	"context"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/vfs"
)

func serveCommand[P any, E event.Body](s Spec[P, E]) *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "react to " + s.kind() + " events",
		Description: "Connects to NATS_URL (docs/bus.md lists the variables that let a program in) and answers events " +
			"until stopped.\n\nExample:\n   NATS_URL=nats://127.0.0.1:4222 " + s.Name + " serve",
		Flags: s.flags(
			&cli.IntFlag{Name: "workers", Value: 1, Usage: "jobs at a time in this process"},
			&cli.IntFlag{Name: "attempts", Value: 4, Usage: "how often a job is begun without getting anywhere before it is " +
				"given up; crashes count"},
			&cli.DurationFlag{Name: "retry-pause", Value: time.Second, Usage: "pause before a failed job is tried again; " +
				"doubled every time, up to 30 s"},
			&cli.DurationFlag{Name: "ack-wait", Value: bus.AckWait, EnvVars: []string{command.EnvAckWait},
				Usage: "time without a sign of life after which the " +
					"server gives a job to another worker"},
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
	if _, err := resolve(s, nil, s.overlayOf(c)); err != nil {
		return command.UsageError(err)
	}
	if err := command.Attach(c); err != nil {
		return err
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
	m := newMetrics(s.Name, s.Version)
	if address := c.String("metrics"); address != "" {
		if err := m.listen(ctx, address); err != nil {
			return err
		}
	}
	j := journal.Open(store.Dir()).Telling(func(err error) { log.Warn(err.Error()) })
	svc := &service[P, E]{
		performer: &performer[P, E]{
			spec: s, fs: vfs.OS, space: store, journal: j, records: record.Root(store), announcer: bus.NewAnnouncer(j, b),
			host: hostOf(c), log: log, deadline: c.Duration("deadline"), grace: hangGrace,
			report: m.reporting(reporter(b, s.Name)), attempts: c.Int("attempts"),
		},
		bus: b, queue: queue, metrics: m, overlay: s.overlayOf(c), retryPause: c.Duration("retry-pause"),
		busy:   map[string]*rate.Sometimes{},
		outage: c.Duration("outage"), definitions: map[string]*definition.Definition{}, failures: map[string]int{},
		sets: map[string]*set{}, unended: map[string]unended{},
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
