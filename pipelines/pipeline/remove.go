package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
)

func removeCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove a run: its events, links and logs; pipeline gc then frees what only it had",
		ArgsUsage: "RUN",
		Description: "It asks first; without a terminal it wants --yes. A data directory that a program uses is left " +
			"alone.\n\nExample:\n   pipeline runs rm --yes v76-nano-8799682f",
		Flags: []cli.Flag{dataFlag(), &cli.BoolFlag{Name: "yes", Usage: "do not ask"}},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return command.UsageError(errors.New("give one run, after all flags: pipeline runs rm [--yes] RUN"))
			}
			dir, run := dataOf(c), c.Args().First()
			j := journal.Open(dir)
			if err := knownRun(j, run); err != nil {
				return err
			}
			if !c.Bool("yes") && !confirmed(c, fmt.Sprintf("remove run %s (%s)?", run, j.RunDir(run))) {
				return errors.New("nothing is removed: add --yes to do it")
			}
			release, err := seize(dir)
			if err != nil {
				return err
			}
			defer release()
			if err := forgetEvents(c.Context, dir, run); err != nil {
				return err
			}
			if err := j.Remove(run); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "run %s is removed; pipeline gc frees what only it had made\n", run)
			return nil
		},
	}
}

// dataOf is the data directory of a subcommand. The flag --data may also stand before the subcommand.
func dataOf(c *cli.Context) string {
	for _, at := range c.Lineage() {
		if slices.Contains(at.LocalFlagNames(), "data") {
			return at.String("data")
		}
	}
	return c.String("data")
}

// confirmed asks a person. Without a terminal the answer is no.
func confirmed(c *cli.Context, question string) bool {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false
	}
	fmt.Fprint(c.App.Writer, question+" [y/N] ")
	var answer string
	_, _ = fmt.Fscanln(os.Stdin, &answer)
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes")
}

// forgetEvents removes a run from the event server, so that a run of the same name begins anew.
func forgetEvents(ctx context.Context, dir, run string) error {
	return withEventServer(ctx, dir, func(b *bus.Bus) error { return b.ForgetRun(ctx, run) })
}

// withEventServer connects to the event server that NATS_URL names, or to one over the streams of the data directory,
// which the caller has locked. Without streams it does nothing.
func withEventServer(ctx context.Context, dir string, do func(*bus.Bus) error) error {
	b, _, stop, err := eventServer(ctx, dir)
	if err != nil || b == nil {
		return err
	}
	defer stop()
	return do(b)
}

// eventServer is withEventServer for a caller who calls stop at the end. The server is nil where NATS_URL names one,
// and the connection where there are no streams.
func eventServer(ctx context.Context, dir string) (b *bus.Bus, server *bus.Server, stop func(), err error) {
	address, stop := bus.AddressFrom(os.Getenv), func() {}
	if address.URL == "" {
		store := filepath.Join(dir, "nats")
		if _, err := os.Stat(store); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, stop, nil
		}
		if server, err = bus.StartServer(store, 0); err != nil {
			return nil, nil, stop, err
		}
		for _, d := range server.Damage {
			fmt.Fprintln(os.Stderr, "warning:", damageText(d))
		}
		address, stop = server.Address(), server.Stop
	}
	if b, err = bus.Connect(ctx, address, "pipeline"); err != nil {
		stop()
		return nil, nil, nil, err
	}
	end := stop
	return b, server, func() { b.Close(); end() }, nil
}
