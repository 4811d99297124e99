package generation

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// writer makes text of the bytes of tokens. A token may end in the middle of a character or of a stop string: the
// writer holds back what may be either, until it is known.
type writer struct {
	stop    []string
	held    []byte
	stopped bool // a stop string was written
}

// write takes the bytes of the next token, and returns what is certain of the text.
func (w *writer) write(b []byte) string {
	w.held = append(w.held, b...)
	if at := w.firstStop(); at >= 0 {
		w.stopped, w.held = true, w.held[:at]
		return w.end()
	}
	n := Whole(w.held[:len(w.held)-w.mayStop()])
	certain := Valid(w.held[:n])
	w.held = w.held[n:]
	return certain
}

// end returns what is held back.
func (w *writer) end() string {
	rest := Valid(w.held)
	w.held = nil
	return rest
}

// firstStop is where the first stop string begins in what is held; -1 if there is none.
func (w *writer) firstStop() int {
	first := -1
	for _, s := range w.stop {
		if at := bytes.Index(w.held, []byte(s)); s != "" && at >= 0 && (first < 0 || at < first) {
			first = at
		}
	}
	return first
}

// mayStop is the length of the longest end of what is held that a stop string begins with.
func (w *writer) mayStop() int {
	longest := 0
	for _, s := range w.stop {
		for n := min(len(s)-1, len(w.held)); n > longest; n-- {
			if strings.HasPrefix(s, string(w.held[len(w.held)-n:])) {
				longest = n
			}
		}
	}
	return longest
}

// Whole is the length of b without a character at its end of which bytes are missing.
func Whole(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

// Valid is text as UTF-8, with U+FFFD for each byte that is not: however text is divided, the parts are the same.
func Valid[T []byte | string](text T) string {
	if s := string(text); utf8.ValidString(s) {
		return s
	}
	return string([]rune(string(text)))
}
