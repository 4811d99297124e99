package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/terminal"
)

func dlqCommand() *cli.Command {
	run := &cli.StringFlag{Name: "run", Usage: "only those of this `RUN`"}
	return &cli.Command{
		Name: "dlq", Usage: "list the dead letters, show one, or send them again",
		Description: "A dead letter is an event that a stage could not answer, or a message that is none, with the cause. " +
			"The event server keeps it for 90 days. Without NATS_URL the server's files in the data directory are read, " +
			"while no launcher uses them.\n\nExample:\n   pipeline dlq list\n   pipeline dlq show 3\n   pipeline dlq send 3",
		Flags: []cli.Flag{dataFlag(), jsonFlag()},
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the dead letters, the oldest first", Flags: []cli.Flag{dataFlag(), jsonFlag(), run},
				Description: "Example:\n   pipeline dlq list --run v76-nano-8799682f",
				Action:      func(c *cli.Context) error { return onLetters(c, c.NArg() == 0, listLetters) },
			},
			{
				Name: "show", Usage: "show one dead letter: its cause, and its event", ArgsUsage: "NUMBER",
				Flags:       []cli.Flag{dataFlag(), jsonFlag()},
				Description: "Example:\n   pipeline dlq show 3",
				Action:      func(c *cli.Context) error { return onLetters(c, c.NArg() == 1, showLetter) },
			},
			{
				Name: "send", Usage: "announce the events of dead letters again, once the cause is mended", ArgsUsage: "[NUMBER …]",
				Flags:       []cli.Flag{dataFlag(), jsonFlag(), run, &cli.BoolFlag{Name: "all", Usage: "those of all runs"}},
				Description: "Example:\n   pipeline dlq send 3 4\n   pipeline dlq send --run v76-nano-8799682f",
				Action: func(c *cli.Context) error {
					return onLetters(c, c.NArg() > 0 != (c.IsSet("run") || c.Bool("all")), sendLetters)
				},
			},
		},
		Action: func(c *cli.Context) error {
			return command.UsageError(fmt.Errorf("dlq %s: use dlq list, dlq show NUMBER or dlq send NUMBER …", c.Args().First()))
		},
	}
}

// onLetters does something with the dead letters of an event server, if the arguments are right.
func onLetters(c *cli.Context, right bool, do func(*cli.Context, *bus.Bus) error) error {
	if !right {
		return command.UsageError(fmt.Errorf("dlq %s: give, after all flags, nothing to list; one NUMBER to show; NUMBERs, "+
			"--run RUN or --all to send", c.Command.Name))
	}
	if run := c.String("run"); run != "" && !event.ValidRun(run) {
		return command.UsageError(fmt.Errorf("--run %s: not a run's id", run))
	}
	dir := dataOf(c)
	if os.Getenv("NATS_URL") == "" {
		if _, err := artifact.Recognize(dir); err != nil {
			return err
		}
		lock, err := lockData(dir)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	return withEventServer(c.Context, dir, func(b *bus.Bus) error { return do(c, b) })
}

// lettersOf are the dead letters of the run that --run names, or of all.
func lettersOf(c *cli.Context, b *bus.Bus) (all []bus.DeadLetter, err error) {
	run := c.String("run")
	if run == "" {
		run = allRuns
	}
	err = b.DeadLetters(c.Context, run, func(l bus.DeadLetter) {
		l.Data = nil // of many letters the events would be too much to hold
		all = append(all, l)
	})
	return all, err
}

// allRuns stands for every run in a subject.
const allRuns = "*"

func listLetters(c *cli.Context, b *bus.Bus) error {
	all, err := lettersOf(c, b)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		for _, l := range all {
			if err := json.NewEncoder(c.App.Writer).Encode(letterJSON(l)); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintln(c.App.Writer, "no dead letters")
		return nil
	}
	columns := []results.TextColumn{{Heading: "number"}, {Heading: "kept", Left: true}, {Heading: "run", Left: true},
		{Heading: "stage", Left: true}, {Heading: "kind", Left: true}, {Heading: "cause", Left: true}}
	for _, l := range all {
		cells := []string{strconv.FormatUint(l.Number, 10), l.Time.Local().Format("2006-01-02 15:04"), l.Run, l.Stage, l.Kind,
			shortenTo(l.Cause, 60)}
		for i := range columns {
			columns[i].Cells = append(columns[i].Cells, cells[i])
		}
	}
	return results.WriteColumns(c.App.Writer, terminal.Width(c.App.Writer), 1, columns)
}

// letterJSON is a dead letter for programs.
func letterJSON(l bus.DeadLetter) map[string]any {
	return map[string]any{"type": "dead_letter", "number": l.Number, "kept": l.Time.UnixMilli(), "run": l.Run,
		"stage": l.Stage, "kind": l.Kind, "cause": l.Cause}
}

func numbers(c *cli.Context) (all []uint64, err error) {
	for _, text := range c.Args().Slice() {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, command.UsageError(fmt.Errorf("%s is not the number of a dead letter: "+
				"pipeline dlq list shows them", text))
		}
		all = append(all, n)
	}
	return all, nil
}

// letterAt reads a dead letter that a user has named.
func letterAt(ctx context.Context, b *bus.Bus, number uint64) (bus.DeadLetter, error) {
	l, err := b.DeadLetter(ctx, number)
	if errors.Is(err, bus.ErrNoMessage) {
		err = fmt.Errorf("%w: pipeline dlq list shows those that there are", err)
	}
	return l, err
}

func showLetter(c *cli.Context, b *bus.Bus) error {
	given, err := numbers(c)
	if err != nil {
		return err
	}
	l, err := letterAt(c.Context, b, given[0])
	if err != nil {
		return err
	}
	known := letterJSON(l)
	e, problem := event.Decode(l.Data)
	if problem == nil {
		known["event"] = e
		var body map[string]any
		if problem = event.Unmarshal(e.Body, &body); problem == nil {
			known["body"] = body
		}
	}
	if problem != nil {
		known["problem"], known["data"] = problem.Error(), l.Data
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(known)
	}
	fmt.Fprintf(c.App.Writer, "dead letter %d, kept %s\nstage  %s\nrun    %s\nkind   %s\ncause  %s\n", l.Number,
		l.Time.Local().Format(time.DateTime), l.Stage, l.Run, l.Kind, l.Cause)
	if problem != nil {
		fmt.Fprintf(c.App.Writer, "no event: %v\n%d bytes, which begin with %q\n", problem, len(l.Data),
			l.Data[:min(len(l.Data), 200)])
		return nil
	}
	return writeEvent(c.App.Writer, e, known["body"])
}

func writeEvent(w io.Writer, e event.Envelope, body any) error {
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event  %s, announced by %s at %s\n%s\n", e.ID, e.Stage,
		time.UnixMilli(e.Time).Format(time.DateTime), text)
	return err
}

// sendLetters sends the given letters again. One that cannot be sent keeps no other back.
func sendLetters(c *cli.Context, b *bus.Bus) error {
	given, err := numbers(c)
	if err != nil {
		return err
	}
	if len(given) == 0 {
		all, err := lettersOf(c, b)
		if err != nil {
			return err
		}
		for _, l := range all {
			given = append(given, l.Number)
		}
	}
	var problems []error
	sent := 0
	for _, number := range given {
		l, err := letterAt(c.Context, b, number)
		if err == nil {
			err = b.SendAgain(c.Context, l)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		sent++
		if c.Bool("json") {
			known := letterJSON(l)
			known["type"] = "sent"
			if err := json.NewEncoder(c.App.Writer).Encode(known); err != nil {
				return err
			}
		}
	}
	if !c.Bool("json") {
		note := ""
		if sent > 0 && os.Getenv("NATS_URL") == "" {
			note = "; the command of its run goes on with it"
		}
		fmt.Fprintf(c.App.Writer, "%s sent again%s\n", plural(sent, "event"), note)
	}
	return errors.Join(problems...)
}
