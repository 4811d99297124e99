package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// table is what an experiment found: a row for each case, numbers or texts in its columns.
type table struct {
	title   string
	columns []column
	rows    [][]any // string, or float64 with NaN where nothing was measured
}

// column says how its numbers are written for people.
type column struct {
	name    string
	percent bool // numbers are shares of 1
}

// format writes a cell for people.
func (c column) format(cell any) string {
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
			if _, number := t.rows[0][i].(float64); number {
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
			record[i] = fmt.Sprint(cell)
			if v, ok := cell.(float64); ok {
				record[i] = strconv.FormatFloat(v, 'g', -1, 64)
				if v != v {
					record[i] = ""
				}
			}
		}
		records = append(records, record)
	}
	return out.WriteAll(records)
}
