package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"bitnet1/pipelines/experiment/seeds"
	"bitnet1/shared/run/results"
)

// overSeeds makes a table of what was measured with several seeds: a row for each case.
type overSeeds struct {
	title    string
	labels   []column // what names a row
	columns  []column // what was measured, and the columns that are computed of it
	mainKey  string   // of the column that matters most; "": the first that says which values are better
	rows     []seedRow
	baseline string // name of the row with which the others are compared; "": each column's best
}

// seedRow is one case.
type seedRow struct {
	labels []string // one for each of overSeeds.labels
	seeds  int      // that have ended
	values map[string]seeds.Sample
	texts  map[string]string // of columns that are no numbers
}

// Columns that are computed of others. The last two are about the main column.
var (
	seedsColumn      = column{Key: "seeds", Name: "seeds"}
	medianColumn     = column{Key: "median", Name: "median"}
	differenceColumn = column{Key: "difference", Name: "difference"}
)

// differs marks a value that is another than the reference's.
const differs = " *"

// table compares every row with one: a table of all pairs could not be read.
func (o overSeeds) table() (table, error) {
	t := table{title: o.title, fixed: len(o.labels), legend: o.legend()}
	baseline, err := o.find(o.baseline)
	if err != nil {
		return t, err
	}
	t.columns = append(slices.Clone(o.labels), o.columns...)
	t.rows = make([][]any, len(o.rows))
	for i, r := range o.rows {
		for _, label := range r.labels {
			t.rows[i] = append(t.rows[i], label)
		}
	}
	main := o.main()
	for _, c := range o.columns {
		of := c
		if c.Key == medianColumn.Key || c.Key == differenceColumn.Key {
			of = main
		}
		reference := baseline
		if reference < 0 && of.Better != "" {
			reference = o.best(of)
		}
		for i := range o.rows {
			t.rows[i] = append(t.rows[i], o.cell(c, of, i, reference))
		}
	}
	return t, nil
}

// main is the column that matters most. Where no column says which values are better, it is the first with numbers.
func (o overSeeds) main() (main column) {
	for _, c := range o.columns {
		measured := slices.ContainsFunc(o.rows, func(r seedRow) bool { return len(r.values[c.Key]) > 0 })
		if measured && (c.Key == o.mainKey || o.mainKey == "" && c.Better != "") {
			return c
		}
		if measured && main.Key == "" {
			main = c
		}
	}
	return main
}

// best is the row with the best mean of those with several seeds: with another, nothing can be compared. It is -1 where
// there is none.
func (o overSeeds) best(c column) int {
	best, lead := -1, math.Inf(1)
	for i, r := range o.rows {
		v := r.values[c.Key].Mean()
		if c.Better == results.Higher {
			v = -v
		}
		if len(r.values[c.Key]) > 1 && v < lead {
			best, lead = i, v
		}
	}
	return best
}

// find is the row of a name; -1 for no name.
func (o overSeeds) find(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	var names []string
	found := -1
	for i, r := range o.rows {
		if !o.named(r, name) {
			names = append(names, o.name(r))
			continue
		}
		if found >= 0 {
			return -1, fmt.Errorf("--baseline %s: %s and %s are called that: say more", name, o.name(o.rows[found]), o.name(r))
		}
		found = i
	}
	if found < 0 {
		return -1, fmt.Errorf("--baseline %s: no row is called that; the rows are\n  %s", name, strings.Join(names, "\n  "))
	}
	return found, nil
}

// named reports whether every word of a name is a label of the row, alone or behind its column's name and "=".
func (o overSeeds) named(r seedRow, name string) bool {
	if slices.Contains(r.labels, name) {
		return true // a label of several words
	}
	for _, word := range strings.Fields(name) {
		is := func(label string) bool { return word == label }
		for i, c := range o.labels {
			if key, value, ok := strings.Cut(word, "="); ok && key == c.Name {
				is = func(string) bool { return value == r.labels[i] }
			}
		}
		if !slices.ContainsFunc(r.labels, is) {
			return false
		}
	}
	return true
}

// name is how --baseline may call a row.
func (o overSeeds) name(r seedRow) string {
	var parts []string
	for i, label := range r.labels {
		parts = append(parts, o.labels[i].Name+"="+label)
	}
	return strings.Join(parts, " ")
}

// cell is the value of row i in column c, which is of, or computed of it.
func (o overSeeds) cell(c, of column, i, reference int) results.Cell {
	r := o.rows[i]
	sample := r.values[of.Key]
	var d seeds.Difference
	if reference >= 0 && reference != i {
		d = sample.Compare(o.rows[reference].values[of.Key])
	}
	switch {
	case c.Key == seedsColumn.Key:
		return results.Cell{Text: fmt.Sprint(r.seeds), Value: float64(r.seeds)}
	case len(sample) == 0:
		return results.Cell{Text: r.texts[c.Key]}
	case c.Key == medianColumn.Key:
		return results.Cell{Text: of.Value.Number(sample.Median()), Value: sample.Median()}
	case c.Key == differenceColumn.Key:
		if reference < 0 || reference == i || math.IsNaN(d.Mean) {
			return results.Cell{}
		}
		return results.Cell{Text: withError(of, signed(of, d.Mean), d.StandardError), Value: d.Mean}
	}
	mean := of.Value.Number(sample.Mean())
	text := withError(of, mean, sample.StandardError())
	if d.Significant && mean != of.Value.Number(o.rows[reference].values[of.Key].Mean()) { // less cannot be seen
		text += differs
	}
	cell := results.Cell{Text: text, Value: sample.Mean()}
	if e := sample.StandardError(); isError(e) {
		cell.Error = e
	}
	return cell
}

// isError reports whether a standard error is shown. A single seed has none, and what is the same for all seeds, such
// as the number of tokens, needs none.
func isError(stderr float64) bool { return !math.IsNaN(stderr) && stderr != 0 }

// withError adds the standard error to a value.
func withError(c column, value string, stderr float64) string {
	if !isError(stderr) {
		return value
	}
	return strings.TrimSuffix(value, " %") + " ± " + c.Value.Number(stderr)
}

func signed(c column, v float64) string {
	if v < 0 {
		return "-" + c.Value.Number(-v)
	}
	return "+" + c.Value.Number(v)
}

// legend says what the columns are, and how the numbers were made of those of the seeds.
func (o overSeeds) legend() []column {
	reference := "the column's best of several seeds"
	if o.baseline != "" {
		reference = "the row " + o.baseline
	}
	main := o.main()
	columns := slices.Clone(o.columns)
	for i := range columns {
		c := &columns[i]
		c.Error = "" // of one run, over sequences
		switch c.Key {
		case medianColumn.Key:
			c.About = "of " + main.Name + ", over seeds"
		case differenceColumn.Key:
			c.About = "by how much " + main.Name + " is above that of " + reference
		}
	}
	if slices.ContainsFunc(o.rows, func(r seedRow) bool { return r.seeds > 1 }) {
		columns = append(columns,
			column{Name: "±", About: "standard error of the mean over seeds (standard deviation / √seeds); one seed has none " +
				"and no mark"})
		if o.baseline != "" || main.Better != "" {
			columns = append(columns, column{Name: strings.TrimSpace(differs), About: "differs from " + reference + " by more " +
				"than chance: two-sided t-test at 95 %, paired where both rows have the same seeds, else Welch's"})
		}
	}
	return columns
}
