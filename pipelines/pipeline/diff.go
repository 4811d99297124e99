package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/terminal"
)

// diffRuns prints in which parameters two runs differ, and their last checkpoints beside each other.
func diffRuns(c *cli.Context, j journal.Journal, a, b string) error {
	if err := errors.Join(knownRun(j, a), knownRun(j, b)); err != nil {
		return err
	}
	store := artifact.ReadOnly(c.String("data"))
	var both []knownOf
	for _, run := range []string{a, b} {
		k, err := know(j, store, run)
		if err != nil {
			return err
		}
		both = append(both, k)
	}
	if c.Bool("json") {
		parameters := map[string][]string{}
		for _, key := range differing(both) {
			parameters[key] = []string{both[0].given[key], both[1].given[key]}
		}
		return json.NewEncoder(c.App.Writer).Encode(
			map[string]any{"type": "diff", "runs": []string{a, b}, "parameters": parameters})
	}
	width := terminal.Width(c.App.Writer)
	given := twoColumns("parameter", a, b)
	for _, key := range differing(both) {
		given.add(key, both[0].given[key], both[1].given[key])
	}
	if len(given[0].Cells) == 0 {
		fmt.Fprintln(c.App.Writer, "the parameters are the same")
	} else if err := results.WriteColumns(c.App.Writer, width, 1, given); err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer)
	return results.WriteColumns(c.App.Writer, width, 1, lastOfBoth(both))
}

// comparison is a table of two runs: a name, then a value of each.
type comparison []results.TextColumn

func twoColumns(heading, a, b string) comparison {
	return comparison{{Heading: heading, Left: true}, {Heading: a}, {Heading: b}}
}

func (c comparison) add(name, a, b string) {
	for i, cell := range []string{name, a, b} {
		c[i].Cells = append(c[i].Cells, cell)
	}
}

// lastOfBoth is the results of two runs' last checkpoints.
func lastOfBoth(both []knownOf) comparison {
	t := twoColumns("last checkpoint", both[0].run, both[1].run)
	last := func(k knownOf) *results.Row {
		if len(k.tables) == 0 || k.tables[0].Last() == nil {
			return &results.Row{Name: "-"}
		}
		return k.tables[0].Last()
	}
	a, b := last(both[0]), last(both[1])
	t.add("checkpoint", a.Name, b.Name)
	seen := map[string]bool{}
	for _, k := range both {
		if len(k.tables) == 0 {
			continue
		}
		for _, column := range k.tables[0].Columns {
			if !seen[column.Key] {
				t.add(column.Name, orDash(a.Cells[column.Key].Text), orDash(b.Cells[column.Key].Text))
			}
			seen[column.Key] = true
		}
	}
	return t
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
