package dataset

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Filter is a condition that a document's row must meet: a column compared with a constant. A row whose column is null
// does not meet it.
type Filter struct {
	Column string
	op     string
	text   []byte
	number float64 // NaN: the constant is no number
}

// ParseFilter reads a condition as people write it: `score >= 3`, `language = en`, `dump != "CC-MAIN-2013-20"`. The
// operators are =, !=, <, <=, > and >=. Numbers compare as numbers, texts byte by byte; a text has no order.
func ParseFilter(s string) (Filter, error) {
	i := strings.IndexAny(s, "=!<>")
	if i < 0 {
		return Filter{}, fmt.Errorf("filter %q: write a column, an operator (=, !=, <, <=, >, >=) and a value, e.g. score >= 3", s)
	}
	f := Filter{Column: strings.TrimSpace(s[:i]), number: math.NaN()}
	rest := s[i:]
	for _, op := range []string{"==", "!=", "<=", ">=", "=", "<", ">"} {
		if strings.HasPrefix(rest, op) {
			f.op, rest = op, strings.TrimSpace(rest[len(op):])
			break
		}
	}
	if f.op == "==" {
		f.op = "="
	}
	quoted := len(rest) >= 2 && (rest[0] == '"' || rest[0] == '\'') && rest[len(rest)-1] == rest[0]
	if quoted {
		rest = rest[1 : len(rest)-1]
	}
	f.text = []byte(rest)
	if n, err := strconv.ParseFloat(rest, 64); err == nil && !quoted {
		f.number = n
	}
	switch {
	case f.op == "" || f.Column == "" || rest == "" && !quoted:
		return Filter{}, fmt.Errorf("filter %q: write a column, an operator (=, !=, <, <=, >, >=) and a value, e.g. score >= 3", s)
	case f.ordered() && math.IsNaN(f.number):
		return Filter{}, fmt.Errorf("filter %q: %s needs a number, and %q is none", s, f.op, rest)
	}
	return f, nil
}

func (f Filter) ordered() bool { return f.op != "=" && f.op != "!=" }

func (f Filter) String() string { return fmt.Sprintf("%s %s %s", f.Column, f.op, f.text) }

// cell is the value of a column that a filter looks at. The zero value is a null.
type cell struct {
	text     []byte
	number   float64
	isNumber bool
}

// meets tells whether the value fulfils the condition. A text where a number is wanted is an error: the file is not what
// the filter's author thought.
func (f Filter) meets(c cell) (bool, error) {
	switch {
	case !c.isNumber && c.text == nil:
		return false, nil
	case c.isNumber && math.IsNaN(f.number), !c.isNumber && f.ordered():
		what := "a text"
		if c.isNumber {
			what = "a number"
		}
		return false, fmt.Errorf("filter %v: column %s holds %s", f, f.Column, what)
	case !c.isNumber:
		return bytes.Equal(c.text, f.text) == (f.op == "="), nil
	}
	switch f.op {
	case "=":
		return c.number == f.number, nil
	case "!=":
		return c.number != f.number, nil
	case "<":
		return c.number < f.number, nil
	case "<=":
		return c.number <= f.number, nil
	case ">":
		return c.number > f.number, nil
	default:
		return c.number >= f.number, nil
	}
}
