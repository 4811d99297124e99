package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// class is what GPT-2's pattern distinguishes in a character.
type class uint8

const (
	other class = iota
	letter
	number
	space
)

var asciiClass = func() (t [utf8.RuneSelf]class) {
	for i := range t {
		t[i] = classOf(rune(i))
	}
	return t
}()

func classOf(r rune) class {
	switch {
	case unicode.IsLetter(r):
		return letter
	case unicode.In(r, unicode.N):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}

// next returns the class and length of the character at text[i]. A byte that is not valid UTF-8 is a character of
// its own, of class other.
func next(text []byte, i int) (class, int) {
	if b := text[i]; b < utf8.RuneSelf {
		return asciiClass[b], 1
	}
	r, n := utf8.DecodeRune(text[i:])
	if r == utf8.RuneError && n == 1 {
		return other, 1
	}
	return classOf(r), n
}

// piece returns the end of the piece of text that starts at i, where pieces are the matches of GPT-2's pattern
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// written out by hand: the alternatives in order, each matching as much as it can.
func piece(text []byte, i int) int {
	if n := contraction(text[i:]); n > 0 {
		return i + n
	}
	start := i
	c, n := next(text, i)
	if text[i] == ' ' && i+1 < len(text) {
		if after, m := next(text, i+1); after != space {
			i, c, n = i+1, after, m
		}
	}
	i += n
	last := start // where the last character of the run begins
	for i < len(text) {
		d, n := next(text, i)
		if d != c {
			break
		}
		last = i
		i += n
	}
	// Whitespace before a word leaves its last character to that word, unless it is the only one.
	if c == space && i < len(text) && last > start {
		return last
	}
	return i
}

// contraction returns the length of the English contraction that text starts with, or 0.
func contraction(text []byte) int {
	if len(text) < 2 || text[0] != '\'' {
		return 0
	}
	switch text[1] {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(text) > 2 {
		switch string(text[1:3]) {
		case "re", "ve", "ll":
			return 3
		}
	}
	return 0
}
