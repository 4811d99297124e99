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

// TextColumn is a column as it is written: its heading, then its cells, one for each row.
type TextColumn struct {
	Heading string
	Cells   []string
	Left    bool // cells begin where the column does; numbers end where it does
}

// Width is that of its widest cell, in characters.
func (c TextColumn) Width() int {
	w := utf8.RuneCountInString(c.Heading)
	for _, cell := range c.Cells {
		w = max(w, utf8.RuneCountInString(cell))
	}
	return w
}

// WriteColumns writes columns beside each other, at most width characters wide; 0 is any width. Columns that do not fit
// follow in further blocks, each with the first fixed ones.
func WriteColumns(w io.Writer, width, fixed int, columns []TextColumn) error {
	names := columns[:fixed:fixed]
	for first := fixed; ; {
		block, room, end := names, width, first
		for _, c := range names {
			room -= c.Width() + gap
		}
		for ; end < len(columns) && (width == 0 || end == first || columns[end].Width() <= room); end++ {
			room -= columns[end].Width() + gap
			block = append(block, columns[end])
		}
		if first > fixed {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := writeBlock(w, block); err != nil {
			return err
		}
		if first = end; end == len(columns) {
			return nil
		}
	}
}

// WriteText writes the table for people, as WriteColumns does.
func (t *Table) WriteText(w io.Writer, width int) error {
	all := t.TextColumns()
	fixed := 1
	if len(all) > 1 && all[1].Left {
		fixed = 2
	}
	return WriteColumns(w, width, fixed, all)
}

// TextColumns are the columns of the table for people: the rows' names, then their marks and what their parameters
// differ in where there are any, which is a column of texts, then the values.
func (t *Table) TextColumns() []TextColumn {
	rows := t.InOrder()
	name, remark := TextColumn{Heading: t.Row.Name}, TextColumn{Left: true}
	for _, r := range rows {
		name.Cells = append(name.Cells, r.Name)
		remark.Cells = append(remark.Cells,
			strings.Join(append(r.Marks[:len(r.Marks):len(r.Marks)], nonEmpty(Label(r.Overrides))...), " "))
	}
	all := []TextColumn{name}
	if remark.Width() > 0 {
		all = append(all, remark)
	}
	for _, c := range t.Columns {
		column := TextColumn{Heading: c.Name}
		for _, r := range rows {
			text := "-"
			if cell, ok := r.Cells[c.Key]; ok {
				text = cell.Text
			}
			column.Cells = append(column.Cells, text)
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

// InOrder are all rows, those of other parameters behind the one of the same name.
func (t *Table) InOrder() []*Row {
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

func writeBlock(w io.Writer, columns []TextColumn) error {
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = c.Width()
	}
	for row := -1; row < len(columns[0].Cells); row++ {
		var line strings.Builder
		for i, c := range columns {
			text := c.Heading
			if row >= 0 {
				text = c.Cells[row]
			}
			fill := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if i > 0 {
				line.WriteString(strings.Repeat(" ", gap))
			}
			if c.Left {
				line.WriteString(text + fill)
			} else {
				line.WriteString(fill + text)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// MarshalJSON writes what programs read of a row: its name, its marks, and its values by the keys of the columns. The
// standard error of a value is behind the key with _error.
func (r *Row) MarshalJSON() ([]byte, error) {
	values := map[string]any{r.key: r.Name}
	if !math.IsInf(r.place, 0) {
		values[r.key] = r.place
	}
	for key, c := range r.Cells {
		values[key] = c.Value
		if c.Error != nil {
			values[key+"_error"] = c.Error
		}
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
