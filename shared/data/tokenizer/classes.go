package tokenizer

import (
	"slices"
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
	longS bool           // in contractions, ſ is an s of another case
	later []classRange   // classes of characters that Go's tables do not know
	ascii [256]class     // of bytes below 0x80; 0 for others
	plane [1 << 16]class // of characters in the basic plane
}

// classRange is the class of the characters from first to last.
type classRange struct {
	first, last rune
	class       class
}

// compare says on which side of r the range lies; 0: r is in it.
func (c classRange) compare(r rune) int {
	switch {
	case c.last < r:
		return -1
	case c.first > r:
		return 1
	}
	return 0
}

// newClasses are the classes of Go's tables, with those of later, in ascending order, in their place.
func newClasses(later []classRange) *classes {
	c := &classes{later: later}
	for r := range rune(len(c.plane)) {
		c.plane[r] = c.classOf(r)
	}
	copy(c.ascii[:utf8.RuneSelf], c.plane[:])
	return c
}

func (c *classes) classOf(r rune) class {
	if i, found := slices.BinarySearchFunc(c.later, r, classRange.compare); found {
		return c.later[i].class
	}
	var k class
	switch {
	case unicode.IsLetter(r):
		k = letter
	case unicode.In(r, unicode.N):
		k = number
	case unicode.IsSpace(r):
		k = space
	default:
		k = other
	}
	if r == '\r' || r == '\n' {
		k |= newline
	}
	if unicode.In(r, unicode.Lu, unicode.Lt, unicode.Lm, unicode.Lo, unicode.M) {
		k |= upper
	}
	if unicode.In(r, unicode.Ll, unicode.Lm, unicode.Lo, unicode.M) {
		k |= lower
	}
	return k
}

// of returns the class of r.
func (c *classes) of(r rune) class {
	if r < 1<<16 {
		return c.plane[r]
	}
	return c.classOf(r)
}

// next returns the class and the length of the character at text[i]. A byte that is not valid UTF-8 is a character of
// the class other.
func (c *classes) next(text []byte, i int) (class, int) {
	if k := c.ascii[text[i]]; k != 0 {
		return k, 1
	}
	r, n := utf8.DecodeRune(text[i:])
	if r == utf8.RuneError && n == 1 {
		return other, 1
	}
	return c.of(r), n
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
