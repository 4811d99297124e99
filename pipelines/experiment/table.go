package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

// table is what an experiment found: a row for each case, numbers or texts in its columns.
type table struct {
	title   string
	columns []column
	rows    [][]any // string, results.Cell, or float64 with NaN where nothing was measured
}

// column says how its numbers are written for people.
type column struct {
	name    string
	percent bool // numbers are shares of 1
}

// format writes a cell for people.
func (c column) format(cell any) string {
	if result, ok := cell.(results.Cell); ok {
		return result.Text
	}
	v, ok := cell.(float64)
	switch {
	case !ok:
		return fmt.Sprint(cell)
	case v != v:
		return ""
	case c.percent:
		return fmt.Sprintf("%.1f %%", 100*v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// number is a cell's number; NaN where it has none.
func number(cell any) float64 {
	switch v := cell.(type) {
	case float64:
		return v
	case results.Cell:
		return v.Number()
	}
	return math.NaN()
}

// resultsOf reads the tables of a run; its first one is that of the checkpoints.
func resultsOf(j journal.Journal, run, programs string) (*results.Table, error) {
	declared, err := results.Declared(j, run, results.Ask(programs))
	if err != nil {
		return nil, err
	}
	tables, err := results.Read(j, run, declared)
	if err != nil {
		return nil, err
	}
	if len(tables) == 0 || tables[0].Last() == nil {
		return nil, fmt.Errorf("run %s has no checkpoint", run)
	}
	return tables[0], nil
}

// columnsOf are the columns that tables have, each once; percent where a column of theirs is written so.
func columnsOf(tables []*results.Table) (keys []string, columns []column) {
	for _, t := range tables {
		if t == nil {
			continue
		}
		for _, c := range t.Columns {
			if !slices.Contains(keys, c.Key) {
				keys = append(keys, c.Key)
				columns = append(columns, column{name: c.Name, percent: strings.HasSuffix(string(c.Value), "%}")})
			}
		}
	}
	return keys, columns
}

// cellsOf are the values of a table's last row.
func cellsOf(t *results.Table, keys []string) []any {
	row := make([]any, len(keys))
	for i, key := range keys {
		row[i] = results.Cell{}
		if t != nil {
			row[i] = t.Last().Cells[key]
		}
	}
	return row
}

// writeMarkdown writes t for people.
func (t table) writeMarkdown(w io.Writer) error {
	var b strings.Builder
	if t.title != "" {
		fmt.Fprintf(&b, "%s\n\n", t.title)
	}
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	names, rule := make([]string, len(t.columns)), make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i], rule[i] = c.name, "---"
		if len(t.rows) > 0 {
			if slices.ContainsFunc(t.rows, func(row []any) bool { return !math.IsNaN(number(row[i])) }) {
				rule[i] = "---:"
			}
		}
	}
	line(names)
	line(rule)
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = t.columns[i].format(cell)
		}
		line(cells)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeCSV writes t for programs, numbers in full.
func (t table) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.name
	}
	records := [][]string{names}
	for _, row := range t.rows {
		record := make([]string, len(row))
		for i, cell := range row {
			_, isNumber := cell.(float64)
			switch v := number(cell); {
			case !math.IsNaN(v):
				record[i] = strconv.FormatFloat(v, 'g', -1, 64)
			case !isNumber:
				record[i] = t.columns[i].format(cell)
			}
		}
		records = append(records, record)
	}
	return out.WriteAll(records)
}
