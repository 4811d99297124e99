// Package terminal writes text for the width of the terminal on which people read it.
package terminal

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// Width is the number of columns of the terminal that out writes to, 0 if out writes elsewhere.
func Width(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Wrap breaks text between words into lines of at most width characters. Longer words, and texts for a width of less
// than a few words, are left as they are.
func Wrap(text string, width int) (lines []string) {
	for width >= 20 && utf8.RuneCountInString(text) > width {
		end := strings.LastIndexByte(string([]rune(text)[:width+1]), ' ')
		if end < 0 {
			end = strings.IndexByte(text, ' ')
		}
		if end < 0 {
			break
		}
		lines = append(lines, strings.TrimRight(text[:end], " "))
		text = strings.TrimLeft(text[end:], " ")
	}
	return append(lines, text)
}

// Fit breaks the lines of text that have more than width characters; 0 is any width. If a line is a name and a text
// with two spaces or more between them, the text continues in the column in which it begins, or below the name if that
// is too narrow. A line without a name continues with the spaces it begins with, at least two.
func Fit(text string, width int) string {
	if width == 0 {
		return text
	}
	var fitted strings.Builder
	for line := range strings.Lines(text) {
		line, ended := strings.CutSuffix(line, "\n")
		fitted.WriteString(fitLine(line, width))
		if ended {
			fitted.WriteByte('\n')
		}
	}
	return fitted.String()
}

func fitLine(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	words := strings.TrimLeft(line, " ")
	begin := len(line) - len(words)
	first, below := line[:begin], max(begin, 2)
	if name, rest, found := strings.Cut(words, "  "); found {
		rest = strings.TrimLeft(rest, " ")
		first, words = line[:len(line)-len(rest)], rest
		if below = utf8.RuneCountInString(first); below > width/2 {
			below = begin + 4
			first = line[:begin] + name + "\n" + strings.Repeat(" ", below)
		}
	}
	indent := strings.Repeat(" ", below)
	return first + strings.Join(Wrap(words, width-below), "\n"+indent)
}
