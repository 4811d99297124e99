package dataset

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// jsonlReader reads one JSON object a line. Empty lines are passed over.
type jsonlReader struct {
	in     *bufio.Reader
	limit  int
	line   []byte
	number int64 // of the next line
	found  bool  // any object yet
	text   []byte
}

func openJSONL(f *os.File, start []byte, limit int) (*jsonlReader, error) {
	var in io.Reader = f
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		in = z
	case bytes.Equal(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		in = z
	}
	return &jsonlReader{in: bufio.NewReaderSize(in, 1<<16), limit: limit}, nil
}

func (j *jsonlReader) total() int64 { return -1 }

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
		r, err := j.parse(line)
		if err != nil {
			return row{}, fmt.Errorf("line %d: %w", j.number, err)
		}
		r.number = j.number - 1
		return r, nil
	}
}

// readLine returns the next line, or io.EOF.
func (j *jsonlReader) readLine() ([]byte, error) {
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

func (j *jsonlReader) parse(line []byte) (row, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return row{}, fmt.Errorf("not a JSON object: %w (documents are read from parquet and JSON Lines, plain, gzip or zstd)", err)
	}
	if fields == nil {
		return row{}, errors.New("null instead of a JSON object")
	}
	var r row
	var err error
	if id := fields["id"]; len(id) > 0 && id[0] == '"' {
		r.id = unquote(nil, id)
	} else if _, err := strconv.ParseInt(string(id), 10, 64); err == nil {
		r.id = id
	}
	if text, ok := fields["text"]; ok {
		r.text, err = j.plain("text", text)
	} else if list, ok := fields["conversations"]; ok {
		r.text, err = j.conversation("conversations", list, "from", "value")
	} else if list, ok := fields["messages"]; ok {
		r.text, err = j.conversation("messages", list, "role", "content")
	} else if fields["input"] != nil && fields["output"] != nil {
		r.text, err = j.answer(fields["input"], fields["output"])
	} else {
		err = missingText(slices.Sorted(maps.Keys(fields)))
	}
	return r, err
}

func isNull(v json.RawMessage) bool { return string(v) == "null" }

// plain returns the text of a string, nil for null.
func (j *jsonlReader) plain(name string, v json.RawMessage) ([]byte, error) {
	if isNull(v) {
		return nil, nil
	}
	if v[0] != '"' {
		return nil, fmt.Errorf("field %s is %.20s and not a string", name, v)
	}
	if j.text == nil {
		j.text = []byte{}
	}
	j.text = unquote(j.text[:0], v)
	return j.text, nil
}

func (j *jsonlReader) answer(input, output json.RawMessage) ([]byte, error) {
	if isNull(input) || isNull(output) {
		return nil, nil
	}
	if input[0] != '"' || output[0] != '"' {
		return nil, fmt.Errorf("fields input and output are %.20s and %.20s and not strings", input, output)
	}
	j.text = turns(j.text[:0], []turn{{[]byte("user"), unquote(nil, input)}, {[]byte("assistant"), unquote(nil, output)}})
	return j.text, nil
}

// conversation returns the text of a list of turns; nil for null and for a list without any text.
func (j *jsonlReader) conversation(name string, v json.RawMessage, role, text string) ([]byte, error) {
	var items []map[string]json.RawMessage
	if err := json.Unmarshal(v, &items); err != nil {
		return nil, fmt.Errorf("field %s is not a list of {%s, %s}: %w", name, role, text, err)
	}
	var list []turn
	for i, item := range items {
		r, t := item[role], item[text]
		if t == nil || r == nil {
			return nil, fmt.Errorf("field %s: turn %d has %v instead of %s and %s", name, i, slices.Sorted(maps.Keys(item)), role, text)
		}
		if isNull(t) {
			continue
		}
		if r[0] != '"' || t[0] != '"' {
			return nil, fmt.Errorf("field %s: %s and %s of turn %d are not strings", name, role, text, i)
		}
		list = append(list, turn{unquote(nil, r), unquote(nil, t)})
	}
	if len(list) == 0 {
		return nil, nil
	}
	j.text = turns(j.text[:0], list)
	return j.text, nil
}

// unquote appends the value of a JSON string that encoding/json found well formed. Unlike encoding/json it keeps bytes
// that are not valid UTF-8 as they are.
func unquote(dst []byte, s json.RawMessage) []byte {
	if dst == nil {
		dst = []byte{}
	}
	s = s[1 : len(s)-1]
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		c := s[i+1]
		s = s[i+2:]
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(s)
			s = s[4:]
			if utf16.IsSurrogate(r) && len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
				if pair := utf16.DecodeRune(r, hex4(s[2:])); pair != utf8.RuneError {
					r, s = pair, s[6:]
				}
			}
			dst = utf8.AppendRune(dst, r) // a lone surrogate becomes U+FFFD
		default:
			dst = append(dst, c)
		}
	}
}

// hex4 is the number that four hexadecimal digits spell.
func hex4(s []byte) rune {
	n, _ := strconv.ParseUint(string(s[:4]), 16, 32)
	return rune(n)
}
