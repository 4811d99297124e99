package documents

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// objectScanner finds the rows of a format whose rows are equivalent to JSON objects.
type objectScanner interface {
	// next returns the next row as a JSON object, and its place in the file in words. With an oddRow only the place is
	// valid. The object is valid until the next call.
	next() (object []byte, place string, err error)
}

// objectReader reads the rows of an objectScanner.
type objectReader struct {
	*jsonlReader
	scanner objectScanner
}

func newObjectReader(s objectScanner, o Options) *objectReader {
	return &objectReader{openJSONL(nil, o), s}
}

// read returns the next object.
func (r *objectReader) read() (object []byte, place string, err error) {
	if r.number%atRows == 0 {
		r.at(-1, r.number)
	}
	object, place, err = r.scanner.next()
	if err == nil || errors.As(err, new(oddRow)) {
		r.number++
		r.found = true
	}
	return object, place, err
}

func (r *objectReader) skip(n int64) error {
	for r.number < n {
		if _, place, err := r.read(); err == io.EOF {
			return nil
		} else if err != nil && !errors.As(err, new(oddRow)) {
			return fmt.Errorf("%s: %w", place, err)
		}
	}
	return nil
}

func (r *objectReader) next() (row, error) {
	object, place, err := r.read()
	if err == io.EOF {
		return row{}, r.end()
	}
	r.row.number = r.number - 1
	if err == nil {
		if err = r.parse(object); err != nil {
			err = oddRow{err}
		}
	}
	if err != nil {
		return r.row, fmt.Errorf("%s: %w", place, err)
	}
	return r.row, nil
}

// listScanner finds the elements of JSON lists. An element that is not an object becomes an object with that text.
type listScanner struct {
	in     *bufio.Reader
	limit  int
	name   string // the key of a text
	inside bool   // a list
	first  bool   // no element of the list has come yet
	number int    // of the last element
	object []byte
}

func (l *listScanner) next() (object []byte, place string, err error) {
	if err := l.find(); err != nil {
		return nil, fmt.Sprintf("after element %d", l.number), err
	}
	l.number++
	place = fmt.Sprintf("element %d", l.number)
	head := append(appendQuoted(append(l.object[:0], '{'), l.name), ':')
	if l.object, err = l.element(head); err != nil {
		return nil, place, err
	}
	if l.object[len(head)] == '{' {
		return l.object[len(head):], place, nil
	}
	l.object = append(l.object, '}')
	return l.object, place, nil
}

// find advances to the beginning of the next element, past the ends and beginnings of lists. It returns io.EOF behind
// the last element.
func (l *listScanner) find() error {
	comma := false
	for {
		c, err := l.skipSpace()
		switch {
		case err == io.EOF && l.inside:
			return errors.New("the JSON list has no end: the file is truncated: fetch it again")
		case err != nil:
			return err
		case !l.inside && c == '[':
			l.inside, l.first = true, true
		case l.inside && c == ']' && !comma:
			l.inside = false
		case l.inside && c == ',' && !comma && !l.first:
			comma = true
		case l.inside && (comma || l.first) && bytes.IndexByte([]byte(",]}:"), c) < 0:
			l.first = false
			return l.in.UnreadByte()
		default:
			return fmt.Errorf("the file is no JSON list: %q stands there", c)
		}
	}
}

// skipSpace returns the next byte that is not white space and not part of a mark of byte order.
func (l *listScanner) skipSpace() (byte, error) {
	for {
		c, err := l.in.ReadByte()
		if err != nil || bytes.IndexByte([]byte(" \t\r\n\xef\xbb\xbf"), c) < 0 {
			return c, err
		}
	}
}

// element appends the next element. It skips the rest of an element that is too long.
func (l *listScanner) element(dst []byte) ([]byte, error) {
	depth, quoted, escaped, size := 0, false, false, 0
	for {
		c, err := l.in.ReadByte()
		if err == io.EOF {
			return dst, errors.New("the JSON list has no end: the file is truncated: fetch it again")
		}
		if err != nil {
			return dst, err
		}
		end := false
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
			end = !quoted && depth == 0
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ']' || c == '}'): // behind a number or a word
			return l.ended(dst, size, l.in.UnreadByte())
		case c == '}' || c == ']':
			depth--
			end = depth == 0
		}
		if size++; size <= l.limit {
			dst = append(dst, c)
		}
		if end {
			return l.ended(dst, size, nil)
		}
	}
}

func (l *listScanner) ended(dst []byte, size int, err error) ([]byte, error) {
	if err == nil && size > l.limit {
		err = oddRow{fmt.Errorf("longer than the limit of %d bytes", l.limit)}
	}
	return dst, err
}
