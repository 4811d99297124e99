package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/terminal"
)

func runsCommand() *cli.Command {
	return &cli.Command{
		Name: "runs", Usage: "list the runs, show the table of one, compare two, or remove one", ArgsUsage: "[RUN]",
		Description: "The list has the checkpoints that a run has saved and the best of them. A run is running (a launcher " +
			"is at it), paused (its command goes on with it), failed (the same, once the cause is mended), crashed (its " +
			"launcher was killed, or the machine stopped; its command goes on with it) or finished. The list shows in which " +
			"parameters the runs differ.\n\nExample:\n" +
			"   pipeline runs --diff v76-nano-8799682f v76-nano-1a2b3c4d",
		Flags:       []cli.Flag{dataFlag(), jsonFlag(), &cli.BoolFlag{Name: "diff", Usage: "compare two runs: --diff A B"}},
		Subcommands: []*cli.Command{removeCommand()},
		Action: func(c *cli.Context) error {
			j := journal.Open(c.String("data"))
			switch {
			case c.Bool("diff") && c.NArg() == 2:
				return diffRuns(c, j, c.Args().Get(0), c.Args().Get(1))
			case c.Bool("diff"):
				return command.UsageError(errors.New("give two runs: pipeline runs --diff A B"))
			case c.NArg() == 1:
				if err := knownRun(j, c.Args().First()); err != nil {
					return err
				}
				return showRun(c, j, c.Args().First())
			case c.NArg() > 1:
				return command.UsageError(errors.New("give one run, after all flags, or two with --diff"))
			}
			return listRuns(c, j)
		},
	}
}

// showRun prints the table of a run and, if the run has failed, why.
func showRun(c *cli.Context, j journal.Journal, run string) error {
	state, err := overview.State(j, c.String("data"), run)
	if err != nil {
		return err
	}
	if state == overview.Failed && !c.Bool("json") {
		failed, err := overview.FailedJobs(j, run)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.App.Writer, failure(failed, nil))
	}
	return printSummary(c, j, run)
}

func knownRun(j journal.Journal, run string) error {
	runs, err := j.Runs()
	if err != nil {
		return err
	}
	if !slices.Contains(runs, run) {
		return command.NoSuchRun(run, runs)
	}
	return nil
}

// knownOf is the row of a run in the list.
type knownOf struct {
	run     string
	state   string
	started int64
	tables  []*results.Table
	given   map[string]string // what defines it
}

func listRuns(c *cli.Context, j journal.Journal) error {
	runs, err := j.Runs()
	if err != nil {
		return err
	}
	if len(runs) == 0 && !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "no runs in %s: start one with task pipeline:v76\n", c.String("data"))
		return nil
	}
	store := artifact.ReadOnly(c.String("data"))
	var all []knownOf
	var problems []error
	for _, run := range runs {
		k, err := know(j, store, run)
		if err != nil { // the others are there all the same
			problems = append(problems, fmt.Errorf("run %s: %w", run, err))
			continue
		}
		if !c.Bool("json") {
			all = append(all, k)
			continue
		}
		s := summaryJSON(run, k.tables)
		s["type"], s["state"], s["started"], s["parameters"] = "run", k.state, k.started, k.given
		if err := json.NewEncoder(c.App.Writer).Encode(s); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		if err := results.WriteColumns(c.App.Writer, terminal.Width(c.App.Writer), 1, listColumns(all)); err != nil {
			return err
		}
	}
	return errors.Join(problems...)
}

// know reads the row of a run.
func know(j journal.Journal, store *artifact.Store, run string) (k knownOf, err error) {
	k.run = run
	started, err := j.Read(run, event.RunStarted{}.Kind())
	if err != nil {
		return k, err
	}
	k.started = started[0].Time
	if k.state, err = overview.State(j, store.Dir(), run); err != nil {
		return k, err
	}
	if k.tables, err = overview.Tables(j, run); err != nil {
		return k, err
	}
	if k.given, err = overview.Parameters(j, store, run); err != nil { // a definition that is lost hides no run
		k.given = map[string]string{}
	}
	return k, nil
}

// differing lists the keys in which runs differ.
func differing(all []knownOf) []string {
	given := make([]map[string]string, len(all))
	for i, k := range all {
		given[i] = k.given
	}
	return overview.Differing(given)
}

func listColumns(all []knownOf) []results.TextColumn {
	columns := []results.TextColumn{{Heading: "run"}, {Heading: "state"}, {Heading: "started"}, {Heading: "saved"},
		{Heading: "best"}}
	keys := differing(all)
	for _, key := range keys {
		columns = append(columns, results.TextColumn{Heading: overview.ShortKey(key, keys)})
	}
	for _, k := range all {
		count := 0
		if len(k.tables) > 0 {
			count = len(k.tables[0].Rows)
		}
		cells := []string{k.run, k.state, time.UnixMilli(k.started).Format("2006-01-02 15:04"), fmt.Sprint(count),
			bestOf(k.tables)}
		for _, key := range keys {
			cells = append(cells, shorten(k.given[key]))
		}
		for i := range columns {
			columns[i].Cells, columns[i].Left = append(columns[i].Cells, cells[i]), true
		}
	}
	return columns
}

// longestValue bounds a value in a list, in characters.
const longestValue = 24

func shorten(value string) string { return shortenTo(value, longestValue) }

func shortenTo(text string, characters int) string {
	if r := []rune(text); len(r) > characters {
		return string(r[:characters-1]) + "…"
	}
	return text
}

// bestOf names the best row of the run's first table that has one.
func bestOf(tables []*results.Table) string {
	for _, t := range tables {
		if best, c := t.Best(); best != nil {
			value, _, _ := strings.Cut(best.Cells[c.Key].Text, " ±") // the error is in the run's own table
			return fmt.Sprintf("%s %s at %s", value, c.Name, best.Name)
		}
	}
	return ""
}
