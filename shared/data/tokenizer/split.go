package tokenizer

import (
	"bytes"
	"unicode/utf8"
)

// The functions here return the end of the piece of text that begins at i < len(text). Pieces are the matches of the
// pattern of a vocabulary, which each function has written out: it tries the alternatives in order, and each matches as
// much as it can. The classes \s, \p{L} and so on are in classes.go.

// splitGPT2 is r50k's pattern:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func (c *classes) splitGPT2(text []byte, i int) int {
	if text[i] == '\'' {
		if n := c.contraction(text[i:], false); n > 0 {
			return i + n
		}
	}
	k, n := c.next(text, i)
	if k&space == 0 {
		return c.run(text, i+n, k&(letter|number|other))
	}
	if text[i] == ' ' && i+1 < len(text) {
		if k, n := c.next(text, i+1); k&space == 0 {
			return c.run(text, i+1+n, k&(letter|number|other))
		}
	}
	return c.gap(text, i, c.run(text, i+n, space))
}

// splitDigits has every digit as a piece of its own, and splits what is between digits by r50k's pattern.
func (c *classes) splitDigits(text []byte, i int) int {
	k, n := c.next(text, i)
	if k&number != 0 {
		return i + n
	}
	if k&space != 0 {
		if end := c.run(text, i+n, space); end < len(text) {
			if k, _ := c.next(text, end); k&number != 0 {
				return end // for the pattern, the text ends before the digit
			}
		}
	}
	return c.splitGPT2(text, i)
}

// splitNothing has the whole text as one piece.
func (c *classes) splitNothing(text []byte, _ int) int { return len(text) }

// splitCL100K is cl100k's pattern:
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func (c *classes) splitCL100K(text []byte, i int) int { return c.cl100k(text, i, 3) }

// splitQwen is cl100k's pattern with \p{N} in place of \p{N}{1,3}.
func (c *classes) splitQwen(text []byte, i int) int { return c.cl100k(text, i, 1) }

// cl100k has at most so many digits in a piece.
func (c *classes) cl100k(text []byte, i, digits int) int {
	if text[i] == '\'' {
		if n := c.contraction(text[i:], true); n > 0 {
			return i + n
		}
	}
	k, n := c.next(text, i)
	if k&letter != 0 {
		return c.run(text, i+n, letter)
	}
	if k&(number|newline) == 0 && i+n < len(text) {
		if k, m := c.next(text, i+n); k&letter != 0 {
			return c.run(text, i+n+m, letter)
		}
	}
	return c.noWord(text, i, k, n, digits, false)
}

// splitO200K is o200k's pattern:
//
//	[^\r\n\p{L}\p{N}]?U*W+C?|[^\r\n\p{L}\p{N}]?U+W*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
//
// with U for [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], W for [\p{Ll}\p{Lm}\p{Lo}\p{M}], and C for (?i:'s|'t|'re|'ve|'m|'ll|'d).
func (c *classes) splitO200K(text []byte, i int) int {
	end, word := c.o200k(text, i, 3)
	if word && end < len(text) && text[end] == '\'' {
		end += c.contraction(text[end:], true)
	}
	return end
}

// splitTekken is o200k's pattern without C, and with \p{N} in place of \p{N}{1,3}.
func (c *classes) splitTekken(text []byte, i int) int {
	end, _ := c.o200k(text, i, 1)
	return end
}

// o200k matches o200k's pattern without C, with at most so many digits in a piece. It also reports whether the piece is
// a word.
func (c *classes) o200k(text []byte, i, digits int) (end int, word bool) {
	k, n := c.next(text, i)
	if k&(letter|number|newline) == 0 { // it may stand before a word
		if end = c.mixed(text, i+n); end == 0 && k&(upper|lower) != 0 {
			end = c.mixed(text, i)
		}
		if upperEnd := c.run(text, i+n, upper); end == 0 && upperEnd > i+n {
			end = upperEnd
		}
	} else if k&letter != 0 {
		if end = c.mixed(text, i); end == 0 {
			end = c.run(text, i, upper)
		}
	}
	if end == 0 {
		return c.noWord(text, i, k, n, digits, true), false
	}
	return end, true
}

// mixed is the end of a match of U*W+ at i, or 0. If no character that is only in W follows the characters of U, the
// last of these that is in W as well is the match of W.
func (c *classes) mixed(text []byte, i int) int {
	end := c.run(text, i, upper)
	if end < len(text) {
		if k, n := c.next(text, end); k&lower != 0 {
			return c.run(text, end+n, lower)
		}
	}
	for end > i {
		r, n := utf8.DecodeLastRune(text[i:end])
		if r < utf8.RuneSelf && c.ascii[r]&lower != 0 || r >= utf8.RuneSelf && c.of(r)&lower != 0 {
			return end
		}
		end -= n
	}
	return 0
}

// noWord matches the alternatives behind those for words, which the patterns of cl100k and o200k have in common. The
// character at i has class k and n bytes. A piece has at most so many digits. In o200k slashes may follow other
// characters, as line ends may.
func (c *classes) noWord(text []byte, i int, k class, n, digits int, slash bool) int {
	switch {
	case k&number != 0:
		end := i + n
		for range digits - 1 {
			if end < len(text) {
				if k, n := c.next(text, end); k&number != 0 {
					end += n
				}
			}
		}
		return end
	case k&other != 0:
		return lineEnds(text, c.run(text, i+n, other), slash)
	case text[i] == ' ' && i+1 < len(text):
		if k, n := c.next(text, i+1); k&other != 0 {
			return lineEnds(text, c.run(text, i+1+n, other), slash)
		}
	}
	end := c.run(text, i+n, space)
	for last := end; last > i; last-- {
		if text[last-1] == '\n' || text[last-1] == '\r' {
			return last
		}
	}
	return c.gap(text, i, end)
}

// lineEnds passes over line ends, and slashes if those count.
func lineEnds(text []byte, i int, slash bool) int {
	for i < len(text) && (text[i] == '\n' || text[i] == '\r' || slash && text[i] == '/') {
		i++
	}
	return i
}

// gap returns the end of a piece of white space, which lasts from i to end. The last character belongs to the next
// piece, unless it is the only one.
func (c *classes) gap(text []byte, i, end int) int {
	if end == len(text) {
		return end
	}
	_, n := utf8.DecodeLastRune(text[i:end])
	if end-n > i {
		return end - n
	}
	return end
}

// contraction returns the length of the English contraction that text, beginning with an apostrophe, starts with, or 0.
// With fold, letters may be of either case.
func (c *classes) contraction(text []byte, fold bool) int {
	var a, b byte
	if len(text) > 1 {
		a = text[1]
	}
	if len(text) > 2 {
		b = text[2]
	}
	if fold {
		a, b = lowerCase(a), lowerCase(b)
	}
	switch {
	case fold && c.longS && bytes.HasPrefix(text[1:], []byte("ſ")):
		return 1 + len("ſ")
	case a == 's' || a == 't' || a == 'm' || a == 'd':
		return 2
	case a == 'r' && b == 'e', a == 'v' && b == 'e', a == 'l' && b == 'l':
		return 3
	}
	return 0
}

func lowerCase(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		b += 'a' - 'A'
	}
	return b
}
