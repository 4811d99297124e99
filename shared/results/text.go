package results

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"strings"
	"unicode/utf8"
)

// gap is what stands between two columns.
const gap = 2

// WriteText writes the table for people, at most width characters wide; 0 is any width. Columns that do not fit follow in
// further blocks, each with the rows' names.
func (t *Table) WriteText(w io.Writer, width int) error {
	columns := t.grid()
	fixed := 2 // name and remarks
	if !columns[1].used() {
		columns = append(columns[:1], columns[2:]...)
		fixed = 1
	}
	for first := fixed; first < len(columns) || first == fixed; {
		block, end := columns[:fixed:fixed], first
		room := width - widthOf(block)
		for end < len(columns) && (width == 0 || end == first || columns[end].width+gap <= room) {
			room -= columns[end].width + gap
			block = append(block, columns[end])
			end++
		}
		if first > fixed {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := writeBlock(w, block); err != nil {
			return err
		}
		if first == end {
			return nil
		}
		first = end
	}
	return nil
}

// textColumn is a column as it is written: its heading, then its cells.
type textColumn struct {
	cells []string
	width int
	left  bool // text begins where the column does
}

func (c textColumn) used() bool { return c.width > 0 }

func newTextColumn(heading string, rows int) textColumn {
	return textColumn{cells: append(make([]string, 0, rows+1), heading), width: utf8.RuneCountInString(heading)}
}

func (c *textColumn) add(cell string) {
	c.cells = append(c.cells, cell)
	c.width = max(c.width, utf8.RuneCountInString(cell))
}

func widthOf(columns []textColumn) int {
	total := gap * max(len(columns)-1, 0)
	for _, c := range columns {
		total += c.width
	}
	return total
}

// grid lays the table out: the names of the rows, what is remarked on them, and the columns.
func (t *Table) grid() []textColumn {
	rows := t.inOrder()
	name, remark := newTextColumn(t.Row.Name, len(rows)), newTextColumn("", len(rows))
	remark.left = true
	for _, r := range rows {
		name.add(r.Name)
		remark.add(strings.Join(append(r.Marks[:len(r.Marks):len(r.Marks)], nonEmpty(Label(r.Overrides))...), " "))
	}
	all := []textColumn{name, remark}
	for _, c := range t.Columns {
		column := newTextColumn(c.Name, len(rows))
		for _, r := range rows {
			text := "-"
			if cell, ok := r.Cells[c.Key]; ok {
				text = cell.Text
			}
			column.add(text)
		}
		all = append(all, column)
	}
	return all
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// inOrder are all rows, those of other parameters behind the one of the same name.
func (t *Table) inOrder() []*Row {
	var all []*Row
	others := t.Others
	for _, r := range t.Rows {
		for len(others) > 0 && others[0].place < r.place {
			all, others = append(all, others[0]), others[1:]
		}
		all = append(all, r)
		for len(others) > 0 && others[0].Name == r.Name {
			all, others = append(all, others[0]), others[1:]
		}
	}
	return append(all, others...)
}

func writeBlock(w io.Writer, columns []textColumn) error {
	for row := range columns[0].cells {
		var line strings.Builder
		for i, c := range columns {
			if i > 0 {
				line.WriteString(strings.Repeat(" ", gap))
			}
			fill := strings.Repeat(" ", c.width-utf8.RuneCountInString(c.cells[row]))
			if c.left {
				line.WriteString(c.cells[row] + fill)
			} else {
				line.WriteString(fill + c.cells[row])
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// MarshalJSON writes what programs read of a row: its name, its marks, and its values by the keys of the columns.
func (r *Row) MarshalJSON() ([]byte, error) {
	values := map[string]any{r.key: r.Name}
	if !math.IsInf(r.place, 0) {
		values[r.key] = r.place
	}
	for key, c := range r.Cells {
		values[key] = c.Value
	}
	for _, m := range r.Marks {
		values[m] = true
	}
	if len(r.Overrides) > 0 {
		values["overrides"] = maps.Clone(r.Overrides)
	}
	return json.Marshal(values)
}

// Lines are a result's values for people, one a line: name, value, unit and baseline.
func (r Result) Lines(body map[string]any) []string {
	var lines []string
	names, values := 0, 0
	for _, c := range r.Columns {
		names, values = max(names, utf8.RuneCountInString(c.Name)), max(values, utf8.RuneCountInString(c.text(body)))
	}
	for _, c := range r.Columns {
		if c.Value.Value(body) == nil {
			continue
		}
		line := fmt.Sprintf("%-*s  %*s", names, c.Name, values, c.text(body))
		if c.Unit != "" {
			line += " " + c.Unit
		}
		if c.Baseline != nil && c.Baseline.Value.Value(body) != nil {
			line += fmt.Sprintf("  (%s %s)", c.Baseline.Name, c.Baseline.Value.Text(body))
		}
		lines = append(lines, line)
	}
	return lines
}
