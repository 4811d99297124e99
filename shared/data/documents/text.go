package documents

import (
	"bufio"
	"bytes"
	"io"
	"unicode/utf8"

	"bitnet1/shared/filetype"
)

// How plain text is divided into documents. Any other value is a text that separates documents.
const (
	SplitFile  = "file"  // the file is one document
	SplitBlank = "blank" // at blank lines
	SplitLine  = "line"  // each line is a document
)

// textReader reads plain text. A document longer than half of the limit is split at the end of a line.
type textReader struct {
	in     *bufio.Scanner
	at     func(group int, row int64)
	whole  bool
	number int64 // of the next document
}

func newTextReader(in *bufio.Reader, o Options) *textReader {
	t := &textReader{in: bufio.NewScanner(in), at: o.at, whole: o.Split == "" || o.Split == SplitFile}
	most := max(o.MaxDocument/2, 1)
	find := func([]byte) (end, next int) { return -1, 0 }
	switch {
	case o.Split == SplitBlank:
		find = blankLine
	case o.Split == SplitLine:
		find = separator("\n")
	case !t.whole:
		find = separator(o.Split)
	}
	t.in.Buffer(make([]byte, 0, 1<<16), 2*most+64)
	t.in.Split(func(data []byte, atEOF bool) (int, []byte, error) { return cutText(data, atEOF, most, find) })
	return t
}

// separator returns a function that finds s: where s begins, and what is behind it.
func separator(s string) func(data []byte) (end, next int) {
	return func(data []byte) (int, int) {
		i := bytes.Index(data, []byte(s))
		return i, i + len(s)
	}
}

// blankLine finds the first blank line, together with the line end before it.
func blankLine(data []byte) (end, next int) {
	for at := 0; ; {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return -1, 0
		}
		i += at
		at = i + 1
		n := bytes.IndexByte(data[at:], '\n')
		if n >= 0 && len(bytes.TrimSpace(data[at:at+n])) == 0 {
			return i, at + n + 1
		}
	}
}

// cutText is the bufio.SplitFunc of documents.
func cutText(
	data []byte, atEOF bool, most int, find func([]byte) (end, next int),
) (advance int, token []byte, err error) {
	end, next := find(data)
	switch {
	case end >= 0 && end <= most:
		return next, data[:end], nil
	case len(data) > most:
		end = bytes.LastIndexByte(data[:most], '\n') + 1
		if end == 0 {
			for end = most; end > most-utf8.UTFMax && end > 1 && !utf8.RuneStart(data[end]); {
				end--
			}
		}
		return end, data[:end], nil
	case atEOF && len(data) > 0:
		return len(data), data, nil
	}
	return 0, nil, nil
}

func (t *textReader) total() int64 { return -1 }

// read returns the next document. White space alone is no document.
func (t *textReader) read() ([]byte, error) {
	if t.number%atRows == 0 {
		t.at(-1, t.number)
	}
	for t.in.Scan() {
		text := t.in.Bytes()
		if t.number == 0 {
			text = bytes.TrimPrefix(text, []byte(filetype.ByteOrderMark))
		}
		if !t.whole {
			text = bytes.Trim(text, "\r\n")
		}
		if len(bytes.TrimSpace(text)) > 0 {
			t.number++
			return text, nil
		}
	}
	if err := t.in.Err(); err != nil {
		return nil, err
	}
	return nil, io.EOF
}

func (t *textReader) skip(n int64) error {
	for t.number < n {
		if _, err := t.read(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (t *textReader) next() (row, error) {
	text, err := t.read()
	return row{number: t.number - 1, text: text, tokens: -1}, err
}
