package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/event"
	"bitnet1/shared/journal"
	"bitnet1/shared/results"
	"bitnet1/shared/stage"
)

func runsCommand() *cli.Command {
	return &cli.Command{
		Name: "runs", Usage: "list the runs, or show the table of one", ArgsUsage: "[RUN]",
		Description: "Example:\n   pipeline runs",
		Flags:       []cli.Flag{dataFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			j := journal.Open(c.String("data"))
			if c.NArg() == 1 {
				return showRun(c, j, c.Args().First())
			}
			return listRuns(c, j)
		},
	}
}

func showRun(c *cli.Context, j journal.Journal, run string) error {
	runs, err := j.Runs()
	if err != nil {
		return err
	}
	if !slices.Contains(runs, run) {
		return stage.NoSuchRun(run, runs)
	}
	return printSummary(c, j, run)
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
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, run := range runs {
		if err := listRun(c, w, j, run); err != nil {
			return err
		}
	}
	return w.Flush()
}

func listRun(c *cli.Context, w io.Writer, j journal.Journal, run string) error {
	started, err := j.Read(run, event.RunStarted{}.Kind())
	if err != nil {
		return err
	}
	done, err := finished(j, run)
	if err != nil {
		return err
	}
	tables, err := tablesOf(j, run)
	if err != nil {
		return err
	}
	state := "unfinished"
	if done {
		state = "finished"
	}
	if c.Bool("json") {
		s := summaryJSON(run, tables)
		s["type"], s["state"], s["started"] = "run", state, started[0].Time
		return json.NewEncoder(c.App.Writer).Encode(s)
	}
	count := 0
	if len(tables) > 0 {
		count = len(tables[0].Rows)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%d checkpoints\t%s\n", run, state,
		time.UnixMilli(started[0].Time).Format("2006-01-02 15:04"), count, bestOf(tables))
	return nil
}

// bestOf names the best row of the run's first table that has one.
func bestOf(tables []*results.Table) string {
	for _, t := range tables {
		if best, c := t.Best(); best != nil {
			return fmt.Sprintf("best %s %s at %s", best.Cells[c.Key].Text, c.Name, best.Name)
		}
	}
	return ""
}
