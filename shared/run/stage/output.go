package stage

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/terminal"
)

// printResult says which artifacts a job made and where they are.
func printResult(c *cli.Context, declared []results.Result, res result, dir string) error {
	named := map[string]bool{}
	for _, out := range res.outputs {
		if c.Bool("json") {
			body, err := event.Plain(out.Body)
			if err != nil {
				return err
			}
			line, err := json.Marshal(map[string]any{"kind": out.Kind, "job": res.key, "recorded": res.cached, "body": body})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, string(line))
			continue
		}
		note := ""
		if res.cached {
			note = " (made before; --force makes it again)"
		}
		lines := outputLines(declared, out, dir, named)
		fmt.Fprintln(c.App.Writer, terminal.Fit(lines[0]+note, terminal.Width(c.App.Writer)))
		for _, line := range lines[1:] {
			fmt.Fprintln(c.App.Writer, "  "+line)
		}
	}
	return nil
}

// outputLines say what an output is: its headline or its kind, its values where it is no row of a table, and its files.
// Those that are named already are another output's, which this one refers to, as a checkpoint does to the one before.
func outputLines(declared []results.Result, out record.Output, dir string, named map[string]bool) []string {
	lines := []string{out.Kind}
	i := slices.IndexFunc(declared, func(r results.Result) bool { return r.Kind == out.Kind })
	if body, err := results.Body(out.Body); i >= 0 && err == nil {
		if headline := declared[i].Headline; headline != "" {
			lines[0] = results.Template(headline).Text(body)
		}
		if declared[i].Row == nil {
			lines = append(lines, declared[i].Lines(body)...)
		}
	}
	var names []string
	for _, ref := range record.Mentioned(out.Body) {
		path := filepath.Join(dir, ref.Name)
		if _, err := os.Stat(path); err == nil && !named[path] {
			names, named[path] = append(names, path), true
		}
	}
	slices.Sort(names)
	return append(lines, names...)
}
