// Command conformance tests a stage, in whatever language it is written: does it keep what the launcher and the other
// stages rely on? It gives the stage the events of a finished run, each time in a data directory and with an event
// server of their own, and disturbs it: events come twice, the program is killed, stopped and cut off from the server.
// It changes nothing in the run's own data directory.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
)

func main() {
	os.Exit(command.Main(newApp(), os.Args))
}

func newApp() *cli.App {
	return &cli.App{
		Name: "conformance", Usage: "test whether a program is a stage",
		ArgsUsage: "PROGRAM [WORD …]", HideVersion: true, HideHelpCommand: true,
		Description: "PROGRAM and WORDs start the stage, as under `commands` in a pipeline file; `describe` and `serve` " +
			"are added.\nThe stage answers the events of a finished RUN, once for each check, in directories that are " +
			"removed afterwards.\n\nExample:\n   conformance --run v77-nano-a5ed9c9c python3 docs/examples/watch.py",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"},
				Usage: "data `DIR`ectory: artifacts, runs, events"},
			&cli.StringFlag{Name: "run", Usage: "`RUN` whose events the stage answers"},
			&cli.StringSliceFlag{Name: "check", Usage: "only the `CHECK` of this name; give one flag for each (default: all)"},
			&cli.DurationFlag{Name: "limit", Value: time.Minute, Usage: "longest time that the stage may take for all events"},
		},
		Before:                    command.Required("run RUN"),
		ExitErrHandler:            func(*cli.Context, error) {},
		DisableSliceFlagSeparator: true,
		OnUsageError:              command.OnUsageError,
		Action:                    conform,
	}
}

// errDiffers says that the stage fails a check. Its reasons have been printed.
var errDiffers = errors.New("the stage does not conform")

func conform(c *cli.Context) error {
	words := c.Args().Slice()
	if len(words) == 0 {
		return command.Usagef("name the program of the stage: conformance --run RUN PROGRAM [WORD …]")
	}
	wanted := c.StringSlice("check")
	for _, name := range wanted {
		if !slices.ContainsFunc(checks, func(k check) bool { return k.name == name }) {
			return command.Usagef("--check %s: there is no such check: choose among %s", name, names())
		}
	}
	s, err := newSubject(c.Context, words, c.String("data"), c.String("run"), c.Duration("limit"))
	if err != nil {
		return err
	}
	failed := 0
	for _, k := range checks {
		if len(wanted) > 0 && !slices.Contains(wanted, k.name) {
			continue
		}
		said, err := k.run(c.Context, s)
		if c.Context.Err() != nil {
			return context.Cause(c.Context)
		}
		if err != nil {
			failed++
			fmt.Fprintf(c.App.Writer, "FAILED  %-12s %s\n", k.name, indent(err.Error()))
			continue
		}
		fmt.Fprintf(c.App.Writer, "ok      %-12s %s\n", k.name, said)
	}
	if failed > 0 {
		return fmt.Errorf("stage %s: %w: %d of its checks failed", s.description.Name, errDiffers, failed)
	}
	return nil
}

func names() string {
	var all []string
	for _, k := range checks {
		all = append(all, k.name)
	}
	return strings.Join(all, ", ")
}

// indent puts the lines after the first under the first.
func indent(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+strings.Repeat(" ", len("FAILED  ")+13))
}
