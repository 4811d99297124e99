package main

import (
	"io"
	"strings"
	"unicode"

	"bitnet1/shared/run/terminal"
)

// screen shows what a model writes. On a terminal, control characters become U+FFFD: a model of bytes may write any,
// and they would move the cursor, or worse.
type screen struct {
	out      io.Writer
	terminal bool
}

func newScreen(out io.Writer) *screen { return &screen{out, terminal.Width(out) > 0} }

func (s *screen) write(text string) error {
	if s.terminal {
		text = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) && r != '\n' && r != '\t' {
				return unicode.ReplacementChar
			}
			return r
		}, text)
	}
	_, err := io.WriteString(s.out, text)
	return err
}
