package documents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The functions here walk JSON that encoding/json has found valid. They build no values, because a line of some
// megabytes can hold millions of them.

// pair is a member of an object: an unquoted key and a value as it is written.
type pair struct{ key, value []byte }

// members are the members of an object, in order.
func members(object []byte) iter.Seq[pair] {
	return func(yield func(pair) bool) {
		i := next(object, 1)
		for object[i] != '}' {
			end := valueEnd(object, i)
			key := object[i+1 : end-1]
			if bytes.IndexByte(key, '\\') >= 0 {
				key = unquote(nil, object[i:end])
			}
			i = next(object, next(object, end)+1) // past the colon
			end = valueEnd(object, i)
			if !yield(pair{key, object[i:end]}) {
				return
			}
			i = next(object, end)
			if object[i] == ',' {
				i = next(object, i+1)
			}
		}
	}
}

// elements are the elements of a list, in order.
func elements(list []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		i := next(list, 1)
		for list[i] != ']' {
			end := valueEnd(list, i)
			if !yield(list[i:end]) {
				return
			}
			i = next(list, end)
			if list[i] == ',' {
				i = next(list, i+1)
			}
		}
	}
}

// member is the value of a key, or nil. Of several values with one key it is the last.
func member(object []byte, key string) (value []byte) {
	for m := range members(object) {
		if string(m.key) == key {
			value = m.value
		}
	}
	return value
}

// lookup is the value of a name, or nil. A name that is no key may be a path of keys, joined by dots, through objects
// in objects.
func lookup(object []byte, name string) []byte {
	if v := member(object, name); v != nil {
		return v
	}
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		if v := member(object, name[:i]); v != nil && v[0] == '{' {
			if v = lookup(v, name[i+1:]); v != nil {
				return v
			}
		}
	}
	return nil
}

// next is the index of the first character at or behind i that is not white space.
func next(s []byte, i int) int {
	for s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r' {
		i++
	}
	return i
}

// valueEnd is the end of the value that begins at i.
func valueEnd(s []byte, i int) int {
	depth := 0
	for {
		switch s[i] {
		case '"':
			i = stringEnd(s, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
			continue
		default:
			for i < len(s) && bytes.IndexByte(scalarEnd, s[i]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

var scalarEnd = []byte(",:]} \t\n\r")

// stringEnd is the end of the string that begins at i.
func stringEnd(s []byte, i int) int {
	for i++; ; i++ {
		i += bytes.IndexByte(s[i:], '"')
		escapes := 0
		for s[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// parseObject returns the object that a line holds. Numbers may be NaN, Infinity and -Infinity, as Python writes them.
func parseObject(line []byte) ([]byte, error) {
	line = bytes.TrimSpace(line)
	if !json.Valid(line) {
		if plain := relax(line); !json.Valid(plain) {
			return nil, json.Unmarshal(plain, new(json.RawMessage)) // says what is wrong where
		}
	}
	if line[0] != '{' {
		return nil, errors.New("another value stands there")
	}
	return line, nil
}

// relax replaces every NaN and Infinity by a number of the same length.
func relax(line []byte) []byte {
	if !bytes.Contains(line, []byte("NaN")) && !bytes.Contains(line, []byte("Infinity")) {
		return line
	}
	line = bytes.Clone(line)
	replace := func(i int, word, by, before string) bool {
		end := i + len(word)
		if !bytes.HasPrefix(line[i:], []byte(word)) || i > 0 && strings.IndexByte(before, line[i-1]) < 0 ||
			end < len(line) && bytes.IndexByte(scalarEnd, line[end]) < 0 {
			return false
		}
		copy(line[i:], by)
		return true
	}
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '"':
			for i++; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' {
					i++
				}
			}
		case replace(i, "NaN", "0.0", ":[, \t"):
		case replace(i, "Infinity", "10000000", ":[, \t-"):
		}
	}
	return line
}

func isNull(v []byte) bool { return len(v) == 0 || v[0] == 'n' }

// isNaN tells whether a value is NaN. pandas writes NaN for a missing text.
func isNaN(v []byte) bool { return len(v) > 0 && v[0] == 'N' }

func jsonInteger(v []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	return n, err == nil
}

// jsonCell is a value as filters see it. A missing value is a null.
func jsonCell(v []byte) (cell, error) {
	switch {
	case isNull(v):
		return cell{}, nil
	case v[0] == '"':
		return cell{kind: cellText, text: unquote(nil, v)}, nil
	case v[0] == 't' || v[0] == 'f':
		return cell{kind: cellTruth, truth: v[0] == 't'}, nil
	case v[0] == '{' || v[0] == '[':
		return cell{}, fmt.Errorf("%.20s is neither a number nor a text", v)
	case isNaN(v) || v[0] == 'I' || bytes.HasPrefix(v, []byte("-I")):
		f, err := strconv.ParseFloat(string(v), 64)
		return cell{kind: cellFloat, float: f, bits: 64}, err
	}
	return cell{kind: cellNumber, text: v}, nil
}

// unquote appends the value of a JSON string. Bytes that are not valid UTF-8 stay as they are, which encoding/json
// would replace.
func unquote(dst, s []byte) []byte {
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
