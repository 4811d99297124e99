package documents

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bitnet1/shared/filetype"
)

// maxTurns limits the turns of a conversation and the parts of a turn, because each takes memory beside its text.
const maxTurns = 1 << 18

// jsonlReader reads JSON Lines: one JSON object a line. It skips empty lines and the marks of byte order before an
// object. Files that were joined without a line end between them have lines with several objects; such a line counts as
// several lines.
type jsonlReader struct {
	in      *bufio.Reader
	at      func(group int, row int64)
	limit   int
	fields  Fields
	filters []Filter
	whole   bool // reading began at the first line
	line    []byte
	joined  [][]byte // further objects of the last line
	cut     bool     // the last line has no line end
	number  int64    // of the next line
	row     row
	text    []byte // of row

	found   bool   // there was an object
	shaped  bool   // there was an object that may have a text
	missing error  // why the first object had no text
	names   string // the keys of the first object
	seen    []bool // for each filter: there was an object with its column
}

func openJSONL(in *bufio.Reader, o Options) *jsonlReader {
	return &jsonlReader{
		in: in, at: o.at, limit: o.MaxDocument, fields: o.Fields, filters: o.Filters, whole: o.From == 0,
		row: row{cells: make([]cell, len(o.Filters))}, seen: make([]bool, len(o.Filters)),
	}
}

func (j *jsonlReader) total() int64 { return -1 }

// skip passes over lines without looking into them.
func (j *jsonlReader) skip(n int64) error {
	for j.number < n {
		if _, err := j.nextLine(); err == io.EOF {
			return nil
		} else if err != nil && !errors.As(err, new(oddRow)) {
			return fmt.Errorf("line %d: %w", j.number+1, err)
		}
		j.number++
		j.found = true
	}
	return nil
}

func (j *jsonlReader) next() (row, error) {
	for {
		line, err := j.nextLine()
		if err == io.EOF {
			return row{}, j.end()
		}
		j.number++
		j.row.number = j.number - 1
		if err == nil {
			if line = filetype.TrimMarks(line); len(line) == 0 {
				continue
			}
			err = j.parse(line)
		}
		if err != nil {
			err = fmt.Errorf("line %d: %w", j.number, err)
			if bad := new(malformed); errors.As(err, bad) {
				switch {
				case !j.found:
					return row{}, fmt.Errorf("%w (documents are read from parquet and JSON Lines, plain, gzip or "+
						"zstd; one object over several lines becomes a line with jq -c . FILE)", err)
				case j.cut && len(j.joined) == 0 && !bad.long:
					return row{}, fmt.Errorf("%w: the last line has no end: the file is truncated: fetch it again", err)
				}
				err = oddRow{err}
			}
		}
		j.found = true
		return j.row, err
	}
}

// end is io.EOF at the end of the file. If the whole file was read and no object had a text, or none had the column of
// a filter, it is an error that says so.
func (j *jsonlReader) end() error {
	if !j.whole || !j.found {
		return io.EOF
	}
	if !j.shaped && j.missing != nil {
		return j.missing
	}
	for i, seen := range j.seen {
		if !seen && j.names != "" {
			return fmt.Errorf("filter %v: %w %q in any line: those of the first are %s", j.filters[i], errNoColumn,
				j.filters[i].Column, j.names)
		}
	}
	return io.EOF
}

// malformed is the error of a line that is not a JSON object.
type malformed struct {
	error
	long bool // the line was too long to be read
}

func (m malformed) Unwrap() error { return m.error }

// nextLine returns the next line, or the next object of a line with several. The line is valid until the next call.
func (j *jsonlReader) nextLine() ([]byte, error) {
	if j.number%atRows == 0 {
		j.at(-1, j.number)
	}
	if len(j.joined) == 0 {
		line, err := j.readLine()
		if err != nil || !mayBeJoined(line) {
			return line, err
		}
		j.joined = splitObjects(line)
	}
	line := j.joined[0]
	j.joined = j.joined[1:]
	return line, nil
}

// splitObjects splits a line that consists of several objects into the objects.
func splitObjects(line []byte) [][]byte {
	plain := relax(line)
	if json.Valid(plain) {
		return [][]byte{line}
	}
	plain = bytes.ReplaceAll(plain, markBetween, []byte("}   {"))
	d := json.NewDecoder(bytes.NewReader(plain))
	var parts [][]byte
	var object json.RawMessage
	for start := 0; ; start = int(d.InputOffset()) {
		err := d.Decode(&object)
		if err == io.EOF {
			return parts
		}
		if err != nil || object[0] != '{' {
			return [][]byte{line}
		}
		parts = append(parts, line[start:d.InputOffset()])
	}
}

// readLine returns the next line, or io.EOF. It skips the rest of a line that is too long.
func (j *jsonlReader) readLine() ([]byte, error) {
	j.line = j.line[:0]
	long := false
	for {
		part, err := j.in.ReadSlice('\n')
		if !long {
			j.line = append(j.line, part...)
		}
		if len(j.line) > j.limit {
			long, j.line = true, nil
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && (long || len(j.line) > 0):
			j.cut = true
		case err != nil:
			return nil, err
		}
		if long {
			return nil, malformed{fmt.Errorf("longer than the limit of %d bytes: is the file JSON Lines, one object "+
				"a line?", j.limit), true}
		}
		return j.line, nil
	}
}

// parse makes the row of a line.
func (j *jsonlReader) parse(line []byte) error {
	j.row.id, j.row.text, j.row.turns, j.row.tokens = nil, nil, j.row.turns[:0], -1
	object, err := parseObject(line)
	if err != nil {
		return malformed{error: fmt.Errorf("not a JSON object: %w", err)}
	}
	if j.names == "" {
		j.names = strings.Join(keys(object), ", ")
	}
	if err := j.readCells(object); err != nil {
		return oddRow{err}
	}
	has := func(name string) bool { return lookup(object, name) != nil }
	lists := func(name, role, says string) bool { return isTurns(lookup(object, name), role, says) }
	s, err := j.fields.choose(func() []string { return keys(object) }, has, lists)
	switch {
	case errors.Is(err, errNoColumn): // as null
		j.missing = cmp.Or(j.missing, err)
		return nil
	case err != nil:
		j.shaped = true
		return oddRow{err}
	}
	j.shaped = true
	j.row.id = jsonID(object, j.fields.ID)
	if n, ok := jsonInteger(member(object, countColumn)); ok {
		j.row.tokens = n
	}
	j.text = j.text[:0]
	switch {
	case s.text != "":
		j.row.text, err = j.string(s.text, lookup(object, s.text), j.fields.Text != "")
	case s.turns != "":
		err = j.readTurns(s, lookup(object, s.turns))
	default:
		err = j.readAnswer(s, object)
	}
	if err != nil {
		return oddRow{err}
	}
	return nil
}

// readCells reads the values that the filters compare.
func (j *jsonlReader) readCells(object []byte) (err error) {
	for i, f := range j.filters {
		v := lookup(object, f.Column)
		j.seen[i] = j.seen[i] || v != nil
		if j.row.cells[i], err = jsonCell(v); err != nil {
			return fmt.Errorf("filter %v: %w", f, err)
		}
	}
	return nil
}

// keys are the first keys of an object, for an error message.
func keys(object []byte) (names []string) {
	for m := range members(object) {
		if names = append(names, string(m.key)); len(names) == 100 {
			break
		}
	}
	return names
}

// isTurns tells whether v is a list of turns, by its first element: an object with the key role. The text of a turn may
// be missing. Null and an empty list are lists of turns, a missing value is not.
func isTurns(v []byte, role, says string) bool {
	if v == nil || v[0] != '[' && !isNull(v) {
		return false
	}
	if isNull(v) {
		return true
	}
	for first := range elements(v) {
		return first[0] == '{' && member(first, role) != nil
	}
	return true
}

// jsonID is the id of an object: a string or an integer. If the user names the key, any value but a list or an object
// is an id. Otherwise it is nil.
func jsonID(object []byte, name string) []byte {
	v := lookup(object, cmp.Or(name, "id"))
	switch {
	case isNull(v) || isNaN(v) || v[0] == '{' || v[0] == '[':
		return nil
	case v[0] == '"':
		return unquote(nil, v)
	case name != "" || bytes.IndexFunc(bytes.TrimPrefix(v, []byte("-")),
		func(r rune) bool { return r < '0' || r > '9' }) < 0:
		return v
	}
	return nil
}

// string returns the text of a JSON string, or nil for null. The text is appended to j.text, behind earlier texts of
// the same line. With scalars, numbers, true and false are texts as they are written.
func (j *jsonlReader) string(name string, v []byte, scalars bool) ([]byte, error) {
	switch {
	case isNull(v) || isNaN(v):
		return nil, nil
	case scalars && v[0] != '"' && v[0] != '{' && v[0] != '[':
		return v, nil
	case v[0] != '"':
		return nil, fmt.Errorf("field %s is %.20s and not a string", name, v)
	}
	if cap(j.text)-len(j.text) < len(v) {
		j.text = make([]byte, 0, max(len(v), 2*cap(j.text), 4096)) // earlier texts keep the old array
	}
	start := len(j.text)
	j.text = unquote(j.text, v)
	return j.text[start:len(j.text):len(j.text)], nil
}

// readAnswer reads a prompt and its response. Either may be null.
func (j *jsonlReader) readAnswer(s shape, object []byte) error {
	prompt, err := j.string(s.prompt, lookup(object, s.prompt), true)
	if err != nil {
		return err
	}
	response, err := j.string(s.response, lookup(object, s.response), true)
	if err != nil || prompt == nil || response == nil {
		return err
	}
	j.row.turns = append(j.row.turns, turn{[]byte("user"), prompt}, turn{[]byte("assistant"), response})
	return nil
}

// readTurns reads a list of turns. It skips turns without a text.
func (j *jsonlReader) readTurns(s shape, list []byte) error {
	if isNull(list) {
		return nil
	}
	i := 0
	for item := range elements(list) {
		if item[0] != '{' {
			return fmt.Errorf("field %s: turn %d is %.40s and has not %s and %s", s.turns, i, item, s.role, s.says)
		}
		says, err := j.content(s.says, member(item, s.says))
		if err == nil && says != nil {
			var role []byte
			role, err = j.string(s.role, member(item, s.role), true)
			j.row.turns = append(j.row.turns, turn{role, says})
		}
		if err != nil {
			return fmt.Errorf("field %s: turn %d: %w", s.turns, i, err)
		}
		if i++; i > maxTurns {
			return fmt.Errorf("field %s has more than %d turns, the limit", s.turns, maxTurns)
		}
	}
	return nil
}

// content is the text of a turn, or nil: a string, or the joined texts of a list of parts. A part is a string or an
// object with the key text. Other parts, such as pictures, have no text.
func (j *jsonlReader) content(name string, v []byte) (text []byte, err error) {
	if v == nil || v[0] != '[' {
		return j.part(name, v, true)
	}
	n := 0
	for p := range elements(v) {
		if n++; n > maxTurns {
			return nil, fmt.Errorf("field %s has more than %d parts, the limit", name, maxTurns)
		}
		said, err := j.part(name, p, false)
		if err != nil {
			return nil, err
		}
		if said != nil && text == nil {
			text = slices.Clip(said) // so that append does not write over the text behind it
		} else {
			text = append(text, said...)
		}
	}
	return text, nil
}

func (j *jsonlReader) part(name string, v []byte, scalars bool) ([]byte, error) {
	if v != nil && v[0] == '{' {
		return j.string(name+".text", member(v, "text"), false)
	}
	return j.string(name, v, scalars)
}
