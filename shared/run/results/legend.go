package results

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
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
			strings.Join(wrap(meaning, width-indent), "\n"+strings.Repeat(" ", indent)))
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

// wrap breaks text between words into lines of at most width characters. Words that are longer, and a width of less
// than a few words, are left as they are.
func wrap(text string, width int) []string {
	if width < 20 {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), word
			continue
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
