package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/terminal"
)

// summary prints the tables of the run, and commands that show more.
func (l *launcher) summary(c *cli.Context) error {
	return printSummary(c, l.journal, l.run)
}

func printSummary(c *cli.Context, j journal.Journal, run string) error {
	tables, err := overview.Tables(j, run)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		s := summaryJSON(run, tables)
		if path := reportOf(j, run); path != "" {
			s["report"] = path
		}
		return json.NewEncoder(c.App.Writer).Encode(s)
	}
	if err := writeTables(c.App.Writer, tables, terminal.Width(c.App.Writer)); err != nil {
		return err
	}
	writeHints(c, j, run, tables)
	return nil
}

// summaryJSON is the summary for programs. The first table, which is that of the checkpoints, is at the top level.
func summaryJSON(run string, tables []*results.Table) map[string]any {
	s := map[string]any{"type": "summary", "run": run, "checkpoints": []any{}}
	for i, t := range tables {
		if i == 0 {
			s["columns"], s["checkpoints"], s["others"] = t.Columns, t.Rows, t.Others
			continue
		}
		s[t.Row.Name] = map[string]any{"columns": t.Columns, "rows": t.Rows, "others": t.Others}
	}
	return s
}

// legendWidth is how wide a legend is in a file, in characters.
const legendWidth = 120

func writeTables(out io.Writer, tables []*results.Table, width int) error {
	some := false
	for _, t := range tables {
		if len(t.Rows)+len(t.Others) == 0 {
			continue
		}
		some = true
		fmt.Fprintln(out)
		if err := t.WriteText(out, width); err != nil {
			return err
		}
		fmt.Fprintln(out)
		if err := t.WriteLegend(out, cmp.Or(width, legendWidth)); err != nil {
			return err
		}
	}
	if !some {
		fmt.Fprintln(out, "\nno checkpoints")
	}
	return nil
}

// writeHints prints commands that show more of the run. They name the data directory if this command did.
func writeHints(c *cli.Context, j journal.Journal, run string, tables []*results.Table) {
	data := ""
	if c.IsSet("data") {
		data = "--data " + command.Quoted(c.String("data")) + " "
	}
	fmt.Fprintf(c.App.Writer, `
Look further:
  all that it made  %s
  its table again   %s runs %s%s
`, j.RunDir(run), command.Quoted(program("pipeline")), data, run)
	if path := reportOf(j, run); path != "" {
		fmt.Fprintf(c.App.Writer, "  its report        %s\n", path)
	}
	for _, t := range tables {
		if len(t.Rows) == 0 { // nothing that a stage could answer
			continue
		}
		for _, stage := range t.Stages {
			if path := program(stage); hasFile(path) { // it may be of somebody else's, in another language
				fmt.Fprintf(c.App.Writer, "  a stage again     %s run %s--run %s --force\n", command.Quoted(path), data, run)
				return
			}
		}
	}
}

func hasFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// program is the path of a program beside this one. It is relative to the current directory if that is shorter.
func program(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	path := filepath.Join(filepath.Dir(self), name)
	if here, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(short) {
			path = short
		}
	}
	return path
}
