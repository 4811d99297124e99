package dataset

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxTurns is how many turns a conversation may have: each takes memory beside its text.
const maxTurns = 1 << 18

// jsonlReader reads one JSON object a line. Empty lines are passed over.
type jsonlReader struct {
	in      *bufio.Reader
	at      func(group int, row int64)
	limit   int
	fields  Fields
	filters []Filter
	line    []byte
	number  int64 // of the next line
	found   bool  // any object yet
	row     row
	text    []byte // of row
}

func openJSONL(f *os.File, kind Kind, o DocumentOptions) (*jsonlReader, error) {
	var in io.Reader = f
	switch kind {
	case KindGzip:
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		in = z
	case KindZstd:
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		in = z
	}
	return &jsonlReader{
		in: bufio.NewReaderSize(in, 1<<16), at: o.at, limit: o.MaxDocument, fields: o.Fields, filters: o.Filters,
		row: row{cells: make([]cell, len(o.Filters))},
	}, nil
}

func (j *jsonlReader) total() int64 { return -1 }

// skip passes over lines without looking into them.
func (j *jsonlReader) skip(n int64) error {
	for j.number < n {
		if _, err := j.readLine(); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("line %d: %w", j.number+1, err)
		}
		j.number++
		j.found = true
	}
	return nil
}

func (j *jsonlReader) next() (row, error) {
	for {
		line, err := j.readLine()
		if err == io.EOF && !j.found {
			return row{}, errors.New("the file holds no JSON object: fetch it again")
		}
		if err == io.EOF {
			return row{}, err
		}
		if err != nil {
			return row{}, fmt.Errorf("line %d: %w", j.number+1, err)
		}
		if j.number == 0 {
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		}
		j.number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		j.found = true
		if err := j.parse(line); err != nil {
			return row{}, fmt.Errorf("line %d: %w", j.number, err)
		}
		return j.row, nil
	}
}

// readLine returns the next line, or io.EOF.
func (j *jsonlReader) readLine() ([]byte, error) {
	if j.number%atRows == 0 {
		j.at(-1, j.number)
	}
	j.line = j.line[:0]
	for {
		part, err := j.in.ReadSlice('\n')
		j.line = append(j.line, part...)
		if len(j.line) > j.limit {
			return nil, fmt.Errorf("longer than the limit of %d bytes: is the file JSON Lines, one object a line?", j.limit)
		}
		switch {
		case err == nil || err == io.EOF && len(j.line) > 0:
			return j.line, nil
		case err == bufio.ErrBufferFull:
		case err == io.ErrUnexpectedEOF:
			return nil, errors.New("the compressed data ends early: the file is truncated: fetch it again")
		default:
			return nil, err
		}
	}
}

// parse makes the row of a line.
func (j *jsonlReader) parse(line []byte) error {
	object, err := parseObject(line)
	if err != nil {
		return fmt.Errorf("not a JSON object: %w (documents are read from parquet and JSON Lines, plain, gzip or zstd)", err)
	}
	var names []string
	for m := range members(object) {
		if names = append(names, string(m.key)); len(names) == 100 {
			break // they are for an error message
		}
	}
	has := func(name string) bool { return member(object, name) != nil }
	lists := func(name, role, says string) bool { return isTurns(member(object, name), role, says) }
	s, err := j.fields.choose(names, has, lists)
	if err != nil {
		return err
	}
	j.row.number, j.row.id, j.row.text, j.row.turns = j.number-1, jsonID(member(object, cmp.Or(j.fields.ID, "id"))), nil, j.row.turns[:0]
	j.row.tokens = -1
	if n, err := strconv.ParseInt(string(member(object, countColumn)), 10, 64); err == nil {
		j.row.tokens = n
	}
	for i, f := range j.filters {
		if j.row.cells[i], err = jsonCell(member(object, f.Column)); err != nil {
			return fmt.Errorf("filter %v: %w", f, err)
		}
	}
	j.text = j.text[:0]
	switch {
	case s.text != "":
		j.row.text, err = j.string(s.text, member(object, s.text))
	case s.turns != "":
		err = j.readTurns(s, member(object, s.turns))
	default:
		err = j.readAnswer(s, object)
	}
	return err
}

// isTurns tells whether v may be a list of structures with two keys: it looks at the first alone, since those that follow
// must be like it. Null and an empty list are lists as well; an absent one is not.
func isTurns(v []byte, role, says string) bool {
	if v == nil || v[0] != '[' && !isNull(v) {
		return false
	}
	if isNull(v) {
		return true
	}
	for first := range elements(v) {
		return first[0] == '{' && member(first, role) != nil && member(first, says) != nil
	}
	return true
}

// jsonID is an id: a string or an integer; nil for anything else.
func jsonID(v []byte) []byte {
	if len(v) > 0 && v[0] == '"' {
		return unquote(nil, v)
	}
	if _, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return v
	}
	return nil
}

// jsonCell is a value to filter by; a missing one is null, true and false are 1 and 0.
func jsonCell(v []byte) (cell, error) {
	switch {
	case isNull(v):
		return cell{}, nil
	case v[0] == '"':
		return cell{text: unquote(nil, v)}, nil
	case v[0] == 't':
		return cell{number: 1, isNumber: true}, nil
	case v[0] == 'f':
		return cell{isNumber: true}, nil
	}
	n, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return cell{}, fmt.Errorf("%.20s is neither a number nor a text", v)
	}
	return cell{number: n, isNumber: true}, nil
}

// string returns the text of a string, nil for null. It lies in j.text, after those taken before from the same line.
func (j *jsonlReader) string(name string, v []byte) ([]byte, error) {
	if isNull(v) {
		return nil, nil
	}
	if v[0] != '"' {
		return nil, fmt.Errorf("field %s is %.20s and not a string", name, v)
	}
	if cap(j.text)-len(j.text) < len(v) {
		j.text = make([]byte, 0, max(len(v), 2*cap(j.text), 4096)) // texts taken before keep the old array
	}
	start := len(j.text)
	j.text = unquote(j.text, v)
	return j.text[start:len(j.text):len(j.text)], nil
}

// readAnswer takes a prompt and its response; either may be null.
func (j *jsonlReader) readAnswer(s shape, object []byte) error {
	prompt, err := j.string(s.prompt, member(object, s.prompt))
	if err != nil {
		return err
	}
	response, err := j.string(s.response, member(object, s.response))
	if err != nil || prompt == nil || response == nil {
		return err
	}
	j.row.turns = append(j.row.turns, turn{[]byte("user"), prompt}, turn{[]byte("assistant"), response})
	return nil
}

// readTurns takes a list of turns; those without a text are passed over.
func (j *jsonlReader) readTurns(s shape, list []byte) error {
	if isNull(list) {
		return nil
	}
	i := 0
	for item := range elements(list) {
		if item[0] != '{' || member(item, s.role) == nil || member(item, s.says) == nil {
			return fmt.Errorf("field %s: turn %d is %.40s and has not %s and %s", s.turns, i, item, s.role, s.says)
		}
		role, err1 := j.string(s.role, member(item, s.role))
		says, err2 := j.string(s.says, member(item, s.says))
		if err := cmp.Or(err1, err2); err != nil {
			return fmt.Errorf("field %s: turn %d: %w", s.turns, i, err)
		}
		if says != nil {
			j.row.turns = append(j.row.turns, turn{role, says})
		}
		if i++; i > maxTurns {
			return fmt.Errorf("field %s has more than %d turns, the limit", s.turns, maxTurns)
		}
	}
	return nil
}
