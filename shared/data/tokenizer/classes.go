package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// class is what the patterns distinguish in a character: exactly one of the first four classes, and any of the others.
type class uint8

const (
	letter  class = 1 << iota // \p{L}
	number                    // \p{N}
	space                     // \s
	other                     // none of these
	newline                   // \r and \n
	upper                     // \p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}
	lower                     // \p{Ll}\p{Lm}\p{Lo}\p{M}
)

// classes looks up the class of a character.
type classes struct {
	ascii [256]class     // of bytes below 0x80; 0 for others
	plane [1 << 16]class // of characters in the basic plane
}

func newClasses() *classes {
	c := new(classes)
	for r := range rune(len(c.plane)) {
		c.plane[r] = classOf(r)
	}
	copy(c.ascii[:utf8.RuneSelf], c.plane[:])
	return c
}

func classOf(r rune) class {
	var c class
	switch {
	case unicode.IsLetter(r):
		c = letter
	case unicode.In(r, unicode.N):
		c = number
	case unicode.IsSpace(r):
		c = space
	default:
		c = other
	}
	if r == '\r' || r == '\n' {
		c |= newline
	}
	if unicode.In(r, unicode.Lu, unicode.Lt, unicode.Lm, unicode.Lo, unicode.M) {
		c |= upper
	}
	if unicode.In(r, unicode.Ll, unicode.Lm, unicode.Lo, unicode.M) {
		c |= lower
	}
	return c
}

// next returns the class and the length of the character at text[i]. A byte that is not valid UTF-8 is a character of
// the class other.
func (c *classes) next(text []byte, i int) (class, int) {
	if k := c.ascii[text[i]]; k != 0 {
		return k, 1
	}
	r, n := utf8.DecodeRune(text[i:])
	switch {
	case r == utf8.RuneError && n == 1:
		return other, 1
	case r < 1<<16:
		return c.plane[r], n
	}
	return classOf(r), n
}

// run returns the end of the longest run of characters from i on that have one of the classes in mask.
func (c *classes) run(text []byte, i int, mask class) int {
	for i < len(text) {
		k := c.ascii[text[i]]
		if k&mask != 0 {
			i++
			continue
		}
		if k != 0 {
			return i
		}
		k, n := c.next(text, i)
		if k&mask == 0 {
			return i
		}
		i += n
	}
	return i
}
