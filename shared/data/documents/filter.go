package documents

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Filter is a condition for rows: it compares a column with a constant. A null meets no condition.
type Filter struct {
	Column string
	op     string
	text   []byte
	quoted bool

	// The constant as values of other types. It can have several types.
	number  *decimal
	floats  map[int]float64 // by the width of a column's numbers in bits; empty: the constant is no number
	truth   *bool
	moment  *time.Time
	clock   *time.Time
	isOrder bool // op is <, <=, > or >=
}

const filterUsage = "write a column, an operator (=, !=, <, <=, >, >=) and a value, e.g. score >= 3"

// ParseFilter reads a condition as people write it: `score >= 3`, `language = en`, `keep = true`, `date >= 2024-01-31`,
// `dump != "CC-MAIN-2013-20"`. The operators are =, !=, <, <=, > and >=.
//
// The type of the column decides how the values are compared:
//
//	integers, decimals    exactly, with any number of digits
//	floating point        with the constant rounded to the column's precision
//	true and false        with true, false, 1 and 0
//	dates, timestamps     with a date or time of ISO 8601, in UTC if no zone is given
//	texts                 byte by byte; <, <=, > and >= only if both are dates or times
func ParseFilter(s string) (Filter, error) {
	i := strings.IndexAny(s, "=!<>")
	if i < 0 {
		return Filter{}, fmt.Errorf("filter %q: %s", s, filterUsage)
	}
	f := Filter{Column: strings.TrimSpace(s[:i])}
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
	f.isOrder = f.op != "=" && f.op != "!="
	f.quoted = len(rest) >= 2 && (rest[0] == '"' || rest[0] == '\'') && rest[len(rest)-1] == rest[0]
	if f.quoted {
		rest = rest[1 : len(rest)-1]
	}
	if f.op == "" || f.Column == "" || rest == "" && !f.quoted {
		return Filter{}, fmt.Errorf("filter %q: %s", s, filterUsage)
	}
	f.interpret(rest)
	if f.isOrder && len(f.floats) == 0 && f.moment == nil && f.clock == nil {
		return Filter{}, fmt.Errorf("filter %q: %s needs a number, a date or a time, and %q is none", s, f.op, rest)
	}
	return f, nil
}

// interpret finds the types that the constant can have.
func (f *Filter) interpret(s string) {
	f.text = []byte(s)
	if t, ok := parseMoment(s); ok {
		f.moment = &t
	}
	if t, ok := parseClock(s); ok {
		f.clock = &t
	}
	if f.quoted {
		return
	}
	switch lower := strings.ToLower(s); lower {
	case "true", "false", "1", "0":
		truth := lower == "true" || lower == "1"
		f.truth = &truth
	case "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity":
		f.floats = map[int]float64{}
		for _, bits := range []int{16, 32, 64} {
			f.floats[bits], _ = strconv.ParseFloat(s, 64)
		}
	}
	if isDecimal(s) {
		d := parseDecimal(f.text)
		f.number = &d
		double, _ := strconv.ParseFloat(s, 64) // infinite where it is too large
		single, _ := strconv.ParseFloat(s, 32)
		f.floats = map[int]float64{64: double, 32: single, 16: roundFloat16(double)}
	}
}

// roundFloat16 rounds f to the nearest float16.
func roundFloat16(f float64) float64 {
	if f == 0 || math.IsInf(f, 0) {
		return f
	}
	_, exponent := math.Frexp(f)
	unit := math.Ldexp(1, max(exponent-11, -24))
	if f = math.RoundToEven(f/unit) * unit; math.Abs(f) > 65504 {
		return math.Inf(int(math.Copysign(1, f)))
	}
	return f
}

func (f Filter) String() string { return fmt.Sprintf("%s %s %s", f.Column, f.op, f.text) }

// check reports an error if the constant cannot be compared with values of a kind.
func (f Filter) check(kind cellKind) error {
	fits := true
	switch kind {
	case cellText:
		fits = !f.isOrder || f.moment != nil || f.clock != nil
	case cellTruth:
		fits = f.truth != nil && !f.isOrder
	case cellNumber, cellFloat:
		fits = len(f.floats) > 0
	case cellMoment:
		fits = f.moment != nil
	case cellClock:
		fits = f.clock != nil
	case cellUUID:
		fits = !f.isOrder
	}
	if !fits {
		return fmt.Errorf("filter %v: column %s holds %s", f, f.Column, cellNames[kind])
	}
	return nil
}

// meets tells whether the value fulfils the condition.
func (f Filter) meets(c cell) (bool, error) {
	if c.kind == cellNull {
		return false, nil
	}
	if err := f.check(c.kind); err != nil {
		return false, err
	}
	switch c.kind {
	case cellText:
		return f.meetsText(c.text)
	case cellTruth:
		return f.holds(cmp.Compare(number(c.truth), number(*f.truth))), nil
	case cellUUID:
		return bytes.EqualFold(c.text, f.text) == (f.op == "="), nil
	case cellNumber:
		if f.number == nil { // infinite
			return f.holds(cmp.Compare(0, f.floats[64])), nil
		}
		return f.holds(parseDecimal(c.text).compare(*f.number)), nil
	case cellFloat:
		if math.IsNaN(c.float) {
			return f.op == "!=", nil
		}
		return f.holds(cmp.Compare(c.float, f.floats[c.bits])), nil
	case cellMoment:
		return f.holds(c.moment.Compare(*f.moment)), nil
	default:
		return f.holds(c.moment.Compare(*f.clock)), nil
	}
}

// meetsText compares a text with the constant: as dates or times if the constant is one, otherwise byte by byte.
func (f Filter) meetsText(text []byte) (bool, error) {
	if f.moment != nil && (f.isOrder || !f.quoted) {
		if t, ok := parseMoment(string(text)); ok {
			return f.holds(t.Compare(*f.moment)), nil
		}
	}
	if f.clock != nil && (f.isOrder || !f.quoted) {
		if t, ok := parseClock(string(text)); ok {
			return f.holds(t.Compare(*f.clock)), nil
		}
	}
	if f.isOrder {
		return false, fmt.Errorf("filter %v: column %s holds %.40q, which is no date or time", f, f.Column, text)
	}
	if isUUID(f.text) && !f.quoted {
		return bytes.EqualFold(text, f.text) == (f.op == "="), nil
	}
	return bytes.Equal(text, f.text) == (f.op == "="), nil
}

// isUUID tells whether s has the form of a UUID. UUIDs are compared without regard to case.
func isUUID(s []byte) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' &&
		len(bytes.Trim(s, "-0123456789abcdefABCDEF")) == 0
}

// holds tells whether the operator holds for two values whose comparison gave c: -1, 0 or 1.
func (f Filter) holds(c int) bool {
	switch f.op {
	case "=":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	default:
		return c >= 0
	}
}

func number(truth bool) int {
	if truth {
		return 1
	}
	return 0
}
