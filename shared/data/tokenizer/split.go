package tokenizer

import "unicode/utf8"

// The functions here return the end of the piece of text that begins at i < len(text). Pieces are the matches of the
// pattern of a vocabulary, which each function has written out: it tries the alternatives in order, and each matches as
// much as it can. The classes \s, \p{L} and so on are in classes.go.

// splitGPT2 is r50k's pattern:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func (c *classes) splitGPT2(text []byte, i int) int {
	if text[i] == '\'' {
		if n := contraction(text[i:], false); n > 0 {
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

// splitCL100K is cl100k's pattern:
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func (c *classes) splitCL100K(text []byte, i int) int {
	if text[i] == '\'' {
		if n := contraction(text[i:], true); n > 0 {
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
	return c.noWord(text, i, k, n, false)
}

// splitO200K is o200k's pattern:
//
//	[^\r\n\p{L}\p{N}]?U*W+C?|[^\r\n\p{L}\p{N}]?U+W*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
//
// with U for [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], W for [\p{Ll}\p{Lm}\p{Lo}\p{M}], and C for (?i:'s|'t|'re|'ve|'m|'ll|'d).
func (c *classes) splitO200K(text []byte, i int) int {
	k, n := c.next(text, i)
	end := 0
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
		return c.noWord(text, i, k, n, true)
	}
	if end < len(text) && text[end] == '\'' {
		end += contraction(text[end:], true)
	}
	return end
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
		if r < utf8.RuneSelf && c.ascii[r]&lower != 0 || r >= utf8.RuneSelf && c.classOf(r)&lower != 0 {
			return end
		}
		end -= n
	}
	return 0
}

func (c *classes) classOf(r rune) class {
	if r < 1<<16 {
		return c.plane[r]
	}
	return classOf(r)
}

// noWord matches the alternatives behind those for words, which the patterns of cl100k and o200k have in common. The
// character at i has class k and n bytes. In o200k slashes may follow other characters, as line ends may.
func (c *classes) noWord(text []byte, i int, k class, n int, slash bool) int {
	switch {
	case k&number != 0:
		end := i + n
		for range 2 {
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
func contraction(text []byte, fold bool) int {
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
