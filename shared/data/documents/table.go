package documents

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bitnet1/shared/filetype"
)

// tableScanner finds the rows of a table with a header.
type tableScanner struct {
	record func() (values []string, place string, err error) // the next row, unquoted
	keys   [][]byte                                          // names of the columns as JSON keys
	plain  []bool                                            // for each column: numbers, true and false are not texts
	object []byte
}

// openTable opens a table. record returns the rows of in, the header first.
func openTable(in *bufio.Reader, record func() ([]string, string, error), o Options) (rowReader, error) {
	if mark, _ := in.Peek(len(filetype.ByteOrderMark)); string(mark) == filetype.ByteOrderMark {
		_, _ = in.Discard(len(mark))
	}
	t := &tableScanner{record: record}
	names, place, err := t.record()
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("the header of the table: %s: %w", place, err)
	}
	texts := []string{textName(o), o.Fields.Prompt, o.Fields.Response}
	for _, name := range names {
		name = strings.TrimSpace(name)
		filtered := slices.ContainsFunc(o.Filters, func(f Filter) bool { return f.Column == name })
		t.plain = append(t.plain, (filtered || name == countColumn) && !slices.Contains(texts, name))
		t.keys = append(t.keys, append(appendQuoted(nil, name), ':'))
	}
	return newObjectReader(t, o), nil
}

func (t *tableScanner) next() (object []byte, place string, err error) {
	values, place, err := t.record()
	if err != nil {
		return nil, place, err
	}
	if len(values) != len(t.keys) {
		return nil, place, oddRow{fmt.Errorf("%d columns where the header has %d", len(values), len(t.keys))}
	}
	t.object = append(t.object[:0], '{')
	for i, value := range values {
		if i > 0 {
			t.object = append(t.object, ',')
		}
		t.object = append(t.object, t.keys[i]...)
		switch {
		case value == "":
			t.object = append(t.object, "null"...)
		case t.plain[i] && strings.IndexByte(`"{[`, value[0]) < 0 && json.Valid([]byte(value)):
			t.object = append(t.object, value...)
		default:
			t.object = appendQuoted(t.object, value)
		}
	}
	t.object = append(t.object, '}')
	return t.object, place, nil
}

// quotedRows are the rows of RFC 4180: a value in quotes can contain commas, line ends and doubled quotes.
type quotedRows struct {
	rows *csv.Reader
	in   *rowLimit
}

// newQuotedRows chooses the comma: a semicolon or a tab, if the header has more of them than of commas.
func newQuotedRows(in *bufio.Reader, limit int) *quotedRows {
	start, _ := in.Peek(1 << 12)
	header, _, _ := bytes.Cut(start, []byte("\n"))
	q := &quotedRows{in: &rowLimit{in: in, limit: int64(limit)}}
	q.rows = csv.NewReader(q.in)
	q.rows.FieldsPerRecord, q.rows.ReuseRecord = -1, true
	for _, comma := range ";\t" {
		if strings.Count(string(header), string(comma)) > strings.Count(string(header), string(q.rows.Comma)) {
			q.rows.Comma = comma
		}
	}
	return q
}

func (q *quotedRows) next() (values []string, place string, err error) {
	q.in.start = q.rows.InputOffset()
	values, err = q.rows.Read()
	if bad := new(csv.ParseError); errors.As(err, &bad) {
		place = fmt.Sprintf("line %d", bad.StartLine)
		if errors.Is(err, csv.ErrQuote) && q.in.ended && q.rows.InputOffset() == q.in.total {
			return nil, place,
				errors.New("a quote in this row is not closed: the file is truncated or damaged: fetch it again")
		}
		return nil, place, oddRow{bad.Err}
	}
	if err != nil {
		return nil, fmt.Sprintf("after byte %d", q.in.start), err
	}
	line, _ := q.rows.FieldPos(0)
	return values, fmt.Sprintf("line %d", line), nil
}

// rowLimit limits the bytes of a row: a quote that is never closed would make the rest of the file one value.
type rowLimit struct {
	in           io.Reader
	limit        int64
	start, total int64 // bytes before the row, and read
	ended        bool
}

func (r *rowLimit) Read(p []byte) (int, error) {
	if r.total-r.start > r.limit+int64(len(p)) {
		return 0, fmt.Errorf("a row of more than %d bytes, the limit: is a quote not closed?", r.limit)
	}
	n, err := r.in.Read(p)
	r.total += int64(n)
	r.ended = r.ended || err == io.EOF
	return n, err
}

// tabbedRows are lines with tabs between the values. A quote has no meaning unless it stands at both ends of a value;
// most programs write tables so.
type tabbedRows struct {
	lines   *jsonlReader
	line    int
	columns int // of the header; 0: this is the header
}

// maxColumns is how many columns a table can have.
const maxColumns = 1 << 16

func (t *tabbedRows) next() (values []string, place string, err error) {
	for {
		line, err := t.lines.readLine()
		t.line++
		place = fmt.Sprintf("line %d", t.line)
		if errors.As(err, new(malformed)) {
			err = oddRow{err}
		}
		if err != nil {
			return nil, place, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			continue
		}
		most := maxColumns
		if t.columns > 0 {
			most = t.columns + 1 // enough to see that there are too many
		}
		values = strings.SplitN(string(line), "\t", most)
		for i, v := range values {
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				values[i] = strings.ReplaceAll(v[1:len(v)-1], `""`, `"`)
			}
		}
		if t.columns == 0 {
			t.columns = len(values)
		}
		return values, place, nil
	}
}

// appendQuoted appends a JSON string. Bytes that are not valid UTF-8 stay as they are.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = fmt.Appendf(dst, `\u%04x`, c)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
