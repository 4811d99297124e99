package tokenizer

import (
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// appendNFC appends the normalization form C of a text to dst. Bytes that are not UTF-8 stay. The package norm puts a
// character of its own into long runs of combining marks (Unicode's stream-safe text format); here they get none, as in
// Hugging Face's package tokenizers.
func appendNFC(dst, text []byte) []byte {
	if norm.NFC.IsNormal(text) {
		return append(dst, text...)
	}
	from := 0 // what is before is appended
	for i := 0; i < len(text); {
		end, long := segment(text, i)
		if long {
			dst = append(dst, norm.NFC.Bytes(text[from:i])...)
			dst = appendComposed(dst, text[i:end])
			from = end
		}
		i = end
	}
	return append(dst, norm.NFC.Bytes(text[from:])...)
}

// segment is the end of the character at text[i] with the marks that may combine with it. It reports true if the
// package norm might put in a character.
func segment(text []byte, i int) (end int, long bool) {
	const fewMarks = 8 // each is decomposed to at most 3, and norm takes 30
	_, n := utf8.DecodeRune(text[i:])
	for end, marks := i+n, 0; ; marks++ {
		if end == len(text) || norm.NFC.Properties(text[end:]).BoundaryBefore() {
			return end, marks > fewMarks
		}
		_, n := utf8.DecodeRune(text[end:])
		end += n
	}
}

// appendComposed appends the form C of one segment by the algorithm of Unicode Standard Annex #15: decompose, order the
// marks by their class, compose what is not blocked.
func appendComposed(dst, text []byte) []byte {
	type mark struct {
		r     rune
		class uint8
	}
	var all []mark
	for _, r := range string(text) {
		for _, d := range norm.NFD.String(string(r)) {
			all = append(all, mark{d, norm.NFD.PropertiesString(string(d)).CCC()})
		}
	}
	for i := 0; i < len(all); {
		end := i + 1
		for all[i].class > 0 && end < len(all) && all[end].class > 0 {
			end++
		}
		slices.SortStableFunc(all[i:end], func(a, b mark) int { return int(a.class) - int(b.class) })
		i = end
	}
	var out []mark
	starter := -1
	for _, m := range all {
		if starter >= 0 {
			last := out[len(out)-1]
			adjacent := starter == len(out)-1
			if adjacent || last.class > 0 && last.class < m.class {
				if r, ok := compose(out[starter].r, m.r); ok {
					out[starter].r = r
					continue
				}
			}
		}
		if m.class == 0 {
			starter = len(out)
		}
		out = append(out, m)
	}
	for _, m := range out {
		dst = utf8.AppendRune(dst, m.r)
	}
	return dst
}

// compose is the character that two characters compose to.
func compose(a, b rune) (rune, bool) {
	pair := string(a) + string(b)
	composed := norm.NFC.String(pair)
	r, n := utf8.DecodeRuneInString(composed)
	return r, n == len(composed) && composed != pair
}

// ascii reports whether the text has no other bytes, so that it has every normalization form.
func ascii(text []byte) bool {
	for _, b := range text {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
