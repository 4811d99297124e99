package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

// summary prints the tables of the run and how to look further.
func (l *launcher) summary(c *cli.Context) error {
	return printSummary(c, l.journal, l.run)
}

func printSummary(c *cli.Context, j journal.Journal, run string) error {
	tables, err := tablesOf(j, run)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(summaryJSON(run, tables))
	}
	if err := writeTables(c.App.Writer, tables, columnsOf(c.App.Writer)); err != nil {
		return err
	}
	writeHints(c, j, run)
	return nil
}

// summaryJSON is what programs read of a run: of its first table, which is that of the checkpoints, and of all.
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

// tablesOf reads the tables of a run. A run of an older version has not kept what its stages say of their results: the
// programs beside this one are asked.
func tablesOf(j journal.Journal, run string) ([]*results.Table, error) {
	declared, err := results.Declared(j, run, askProgram())
	if err != nil {
		return nil, err
	}
	return results.Read(j, run, declared)
}

// askProgram asks a program beside this one.
var askProgram = sync.OnceValue(func() func(string) (results.Declaration, bool) {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return results.Ask(filepath.Dir(self))
})

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
	}
	if !some {
		fmt.Fprintln(out, "\nno checkpoints")
	}
	return nil
}

// columnsOf is the width of the terminal that out is; 0 where it is none.
func columnsOf(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// writeHints says how to look further, in commands that find the data directory that this one was told of.
func writeHints(c *cli.Context, j journal.Journal, run string) {
	data := ""
	if c.IsSet("data") {
		dir := c.String("data")
		if strings.ContainsAny(dir, " \t$&;|<>*?()\"\\") {
			dir = "'" + dir + "'"
		}
		data = "--data " + dir + " "
	}
	fmt.Fprintf(c.App.Writer, `
Look further:
  all that it made  %s
  its table again   task runs -- %s%s
  a stage again     task probe -- %s--run %s --force
`, j.RunDir(run), data, run, data, run)
}
