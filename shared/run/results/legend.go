package results

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"bitnet1/shared/run/terminal"
)

// WriteLegend writes what each column is, a line for each, at most width characters wide; 0 is any width.
func (t *Table) WriteLegend(w io.Writer, width int) error {
	columns := append([]Column{t.Row}, t.Columns...)
	names := 0
	for _, c := range columns {
		names = max(names, utf8.RuneCountInString(c.Name))
	}
	for _, c := range columns {
		meaning := c.Meaning()
		if meaning == "" {
			continue
		}
		indent := names + gap
		text := fmt.Sprintf("%-*s%s", indent, c.Name,
			strings.Join(terminal.Wrap(meaning, width-indent), "\n"+strings.Repeat(" ", indent)))
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

// Meaning says what a column is, its unit and which values are better.
func (c Column) Meaning() string {
	var notes []string
	if c.Unit != "" && !strings.Contains(c.About, c.Unit) {
		notes = append(notes, c.Unit)
	}
	if c.Error != "" {
		notes = append(notes, "± standard error")
	}
	if c.Better != "" {
		notes = append(notes, c.Better+" is better")
	}
	if c.Mark != "" {
		notes = append(notes, `"`+c.Mark+`" marks the row`)
	}
	parts := nonEmpty(c.About)
	if len(notes) > 0 {
		parts = append(parts, "("+strings.Join(notes, "; ")+")")
	}
	return strings.Join(parts, " ")
}
