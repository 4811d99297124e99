package main

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

// table is what an experiment found: a row for each case, numbers or texts in its columns.
type table struct {
	title   string
	columns []column
	rows    [][]any  // string, results.Cell, or float64 with NaN where nothing was measured
	legend  []column // what is explained below the table
	fixed   int      // how many columns name a row
}

// column is a column as a stage declares it; one of the experiment's own has a name alone.
type column = results.Column

// isPercent reports whether a column's numbers are shares of 1 that people read as percentages.
func isPercent(c column) bool { return strings.HasSuffix(string(c.Value), "%}") }

// isSize reports whether a column's numbers are bytes that people read as kB, MB or GB.
func isSize(c column) bool { return strings.HasSuffix(string(c.Value), ":bytes}") }

// format writes a cell for people.
func format(cell any) string {
	if result, ok := cell.(results.Cell); ok {
		return result.Text
	}
	v, ok := cell.(float64)
	switch {
	case !ok:
		return fmt.Sprint(cell)
	case v != v:
		return ""
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

// errorOf is the standard error of a cell; NaN where it has none.
func errorOf(cell any) float64 {
	if c, ok := cell.(results.Cell); ok {
		if e, ok := c.Error.(float64); ok {
			return e
		}
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

// columnsOf are the columns that tables have, each once.
func columnsOf(tables []*results.Table) (columns []column) {
	for _, t := range tables {
		if t == nil {
			continue
		}
		for _, c := range t.Columns {
			if !slices.ContainsFunc(columns, func(o column) bool { return o.Key == c.Key }) {
				columns = append(columns, c)
			}
		}
	}
	return columns
}

// best is the row with the best value in column i, -1 where no value is better than another.
func (t table) best(i int) int {
	best, differ := -1, false
	for k, row := range t.rows {
		v := number(row[i])
		if t.columns[i].Better == "" || math.IsNaN(v) {
			continue
		}
		if best < 0 {
			best = k
			continue
		}
		lead := number(t.rows[best][i])
		differ = differ || v != lead
		if v < lead == (t.columns[i].Better == results.Lower) && v != lead {
			best = k
		}
	}
	if !differ {
		return -1
	}
	return best
}

// cellsOf are the values of a table's last row.
func cellsOf(t *results.Table, columns []column) []any {
	row := make([]any, len(columns))
	for i, c := range columns {
		row[i] = results.Cell{}
		if t != nil {
			row[i] = t.Last().Cells[c.Key]
		}
	}
	return row
}

// writeMarkdown writes t for people: the best value of a column in bold, and below the table what the columns are.
func (t table) writeMarkdown(w io.Writer) error {
	var b strings.Builder
	if t.title != "" {
		fmt.Fprintf(&b, "%s\n\n", t.title)
	}
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	names, rule, best := make([]string, len(t.columns)), make([]string, len(t.columns)), make([]int, len(t.columns))
	for i, c := range t.columns {
		names[i], rule[i], best[i] = c.Name, "---", t.best(i)
		if len(t.rows) > 0 {
			if slices.ContainsFunc(t.rows, func(row []any) bool { return !math.IsNaN(number(row[i])) }) {
				rule[i] = "---:"
			}
		}
	}
	line(names)
	line(rule)
	for k, row := range t.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = format(cell); best[i] == k {
				value, mark, marked := strings.Cut(cells[i], differs)
				if cells[i] = "**" + value + "**"; marked {
					cells[i] += differs + mark
				}
			}
		}
		line(cells)
	}
	separator := "\n"
	for _, c := range t.explained() {
		if meaning := c.Meaning(); meaning != "" {
			fmt.Fprintf(&b, "%s- `%s`: %s\n", separator, c.Name, meaning)
			separator = ""
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeText writes t for people, at most width characters wide, or of any width for 0 (see results.WriteColumns). Rows
// whose names take more than half of the width have numbers, which stand in every block of columns.
func (t table) writeText(w io.Writer, width int) error {
	columns := make([]results.TextColumn, len(t.columns))
	names, fixed := 0, t.fixed
	for i, c := range t.columns {
		column := results.TextColumn{Heading: c.Name, Left: true}
		for _, row := range t.rows {
			column.Cells = append(column.Cells, cmp.Or(format(row[i]), "-"))
			column.Left = column.Left && math.IsNaN(number(row[i]))
		}
		align(column.Cells)
		if columns[i] = column; i < fixed {
			names += column.Width()
		}
	}
	if width > 0 && names > width/2 {
		numbers := results.TextColumn{Heading: "row"}
		for i := range t.rows {
			numbers.Cells = append(numbers.Cells, strconv.Itoa(i+1))
		}
		columns, fixed = slices.Insert(columns, 0, numbers), 1
	}
	if err := results.WriteColumns(w, width, fixed, columns); err != nil {
		return err
	}
	legend := results.Table{Columns: t.explained()}
	var b strings.Builder
	if err := legend.WriteLegend(&b, cmp.Or(width, legendWidth)); err != nil || b.Len() == 0 {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s", &b)
	return err
}

// explained are the columns of the legend. No row has their marks here.
func (t table) explained() []column {
	legend := slices.Clone(t.legend)
	for i := range legend {
		legend[i].Mark = ""
	}
	return legend
}

// legendWidth is that of a legend where no terminal says how wide lines may be.
const legendWidth = 100

// align lets values end in the same place, whatever stands behind them: their standard error, and the mark.
func align(cells []string) {
	behind := func(cell string) int {
		for _, sign := range []string{" ± ", differs} {
			if i := strings.Index(cell, sign); i >= 0 {
				return utf8.RuneCountInString(cell[i:])
			}
		}
		return 0
	}
	most := 0
	for _, cell := range cells {
		most = max(most, behind(cell))
	}
	for i, cell := range cells {
		cells[i] += strings.Repeat(" ", most-behind(cell))
	}
}

// writeCSV writes t for programs, numbers in full.
func (t table) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.Name
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
				record[i] = format(cell)
			}
		}
		records = append(records, record)
	}
	return out.WriteAll(records)
}
