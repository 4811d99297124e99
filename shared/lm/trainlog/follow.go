package trainlog

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
)

// Follower reads a file of lines that another program is writing, such as the log: each call of Next gives the lines
// that are new. The zero value begins at the start of the file.
type Follower struct {
	offset int64
	before []byte // the end of what was read, by which a file is recognized
}

const (
	recognized  = 64      // bytes of before
	longestLine = 1 << 16 // bytes; a longer line is left out
)

// Next calls line with each whole line that was appended since the call before, without its end; a last line that is
// half written is left to the next call. If the file is no longer the one that was read, because training went on from
// an earlier checkpoint, Next calls restart and begins anew.
func (f *Follower) Next(file *os.File, restart func(), line func([]byte)) error {
	if same, err := f.same(file); err != nil {
		return err
	} else if !same {
		*f = Follower{}
		restart()
	}
	buffer := make([]byte, 4*longestLine)
	for {
		n, err := file.ReadAt(buffer, f.offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		whole := bytes.LastIndexByte(buffer[:n], '\n') + 1
		if whole == 0 && n == len(buffer) { // a part of a line that is too long
			whole = n
		}
		for text := range bytes.Lines(buffer[:whole]) {
			if len(text) <= longestLine {
				line(bytes.TrimSuffix(text, []byte("\n")))
			}
		}
		if whole > 0 {
			f.offset += int64(whole)
			f.before = append(f.before, buffer[max(0, whole-recognized):whole]...)
			f.before = f.before[max(0, len(f.before)-recognized):]
		}
		if n < len(buffer) {
			return nil
		}
	}
}

// same reports whether the file still has what was read, where that was read.
func (f *Follower) same(file *os.File) (bool, error) {
	have := make([]byte, len(f.before))
	n, err := file.ReadAt(have, f.offset-int64(len(have)))
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return bytes.Equal(have[:n], f.before), nil
}

// Values calls value for each number of a flat JSON object, which a line of the log or of the times is, and returns the
// value of the key event. A null is left out. It takes a tenth of the time of package encoding/json; ok is false for
// what is no flat object.
func Values(line []byte, value func(key []byte, v float64)) (event []byte, ok bool) {
	rest := bytes.TrimSpace(line)
	if len(rest) < 2 || rest[0] != '{' || rest[len(rest)-1] != '}' {
		return nil, false
	}
	rest = rest[1 : len(rest)-1]
	for len(rest) > 0 {
		key, after, ok := quoted(rest)
		if !ok || len(after) == 0 || after[0] != ':' {
			return nil, false
		}
		if rest = after[1:]; len(rest) > 0 && rest[0] == '"' {
			text, after, ok := quoted(rest)
			if !ok {
				return nil, false
			}
			if string(key) == "event" {
				event = text
			}
			rest = after
		} else {
			word, _, _ := bytes.Cut(rest, []byte{','})
			rest = rest[len(word):]
			if v, err := strconv.ParseFloat(string(word), 64); err == nil {
				value(key, v)
			} else if w := string(word); w != "null" && w != "true" && w != "false" {
				return nil, false
			}
		}
		if len(rest) > 0 {
			if rest[0] != ',' || len(rest) == 1 {
				return nil, false
			}
			rest = rest[1:]
		}
	}
	return event, true
}

// quoted splits a string without escapes off the beginning of b.
func quoted(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	text, rest, ok = bytes.Cut(b[1:], []byte{'"'})
	return text, rest, ok && bytes.IndexByte(text, '\\') < 0
}
