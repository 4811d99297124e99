package main

import (
	"io"
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"bitnet1/shared/run/terminal"
)

// screen shows what a model writes. On a terminal it breaks lines between words, so it holds a word back until the word
// is whole. Control characters become U+FFFD there: a model of bytes may write any, and they would move the cursor, or
// worse.
type screen struct {
	out    io.Writer
	width  int // columns of the terminal; 0: out is none, and text goes there as it is
	column int // of the cursor

	word        strings.Builder // held back
	wordColumns int
}

func newScreen(out io.Writer) *screen { return &screen{out: out, width: terminal.Width(out)} }

func (s *screen) write(text string) error {
	if s.width > 0 {
		text = s.wrap(text)
	}
	_, err := io.WriteString(s.out, text)
	return err
}

// wrap returns what can be shown of the word that is held back and text, which follows it.
func (s *screen) wrap(text string) string {
	var shown strings.Builder
	for _, r := range text {
		switch r {
		case '\n':
			s.endWord(&shown)
			shown.WriteByte('\n')
			s.column = 0
		case ' ', '\t':
			s.endWord(&shown)
			if s.column < s.width { // behind the last column, the space would begin the next line
				shown.WriteRune(r)
				s.column++
			}
		default:
			s.add(&shown, r)
		}
	}
	return shown.String()
}

// add appends a character to the word. East Asian characters are words by themselves, and a word that fills a line goes
// on as another one.
func (s *screen) add(shown *strings.Builder, r rune) {
	if unicode.IsControl(r) {
		r = unicode.ReplacementChar
	}
	columns := columnsOf(r)
	if columns == 2 || s.wordColumns == s.width {
		s.endWord(shown)
	}
	s.word.WriteRune(r)
	s.wordColumns += columns
	if columns == 2 {
		s.endWord(shown)
	}
}

// endWord shows the word, on the next line where this one has no room for it.
func (s *screen) endWord(shown *strings.Builder) {
	if s.column > 0 && s.column+s.wordColumns > s.width {
		shown.WriteByte('\n')
		s.column = 0
	}
	shown.WriteString(s.word.String())
	s.column += s.wordColumns
	s.word.Reset()
	s.wordColumns = 0
}

// columnsOf is how many columns of a terminal a character takes.
func columnsOf(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}
