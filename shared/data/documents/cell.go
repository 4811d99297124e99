package documents

import (
	"bytes"
	"cmp"
	"math"
	"strings"
	"time"
)

// cell is a value that a filter compares, whatever the format of the file. The zero value is a null.
type cell struct {
	kind   cellKind
	text   []byte    // of cellText and cellUUID; the digits of cellNumber, as JSON writes them
	truth  bool      // of cellTruth
	float  float64   // of cellFloat
	bits   int       // of cellFloat: 16, 32 or 64
	moment time.Time // of cellMoment; for cellClock the time on January 1, 1970
}

type cellKind int8

const (
	cellNull cellKind = iota
	cellText
	cellTruth
	cellNumber // an exact number: an integer or a decimal
	cellFloat
	cellMoment // a date or a timestamp
	cellClock  // a time of day
	cellUUID
)

// cellNames say what a column holds.
var cellNames = [...]string{"nulls", "a text", "true or false", "a number", "a number",
	"a date or time (2024-01-31, 2024-01-31T10:00:00Z)", "a time of day (10:00:00)", "a UUID"}

// parseMoment reads a date or a timestamp of ISO 8601. A timestamp without a zone is in UTC.
func parseMoment(s string) (time.Time, bool) {
	if len(s) < len(time.DateOnly) || s[4] != '-' {
		return time.Time{}, false
	}
	if len(s) == len(time.DateOnly) {
		t, err := time.Parse(time.DateOnly, s)
		return t, err == nil
	}
	day, clock := s[:len(time.DateOnly)], s[len(time.DateOnly)+1:]
	if c := s[len(time.DateOnly)]; c != 'T' && c != 't' && c != ' ' {
		return time.Time{}, false
	}
	for _, zone := range []string{"", "Z07:00", "Z0700", "Z07", " MST"} {
		for _, layout := range []string{time.TimeOnly, "15:04"} {
			if t, err := time.Parse(time.DateOnly+"T"+layout+zone, day+"T"+strings.ToUpper(clock)); err == nil &&
				(zone != " MST" || strings.HasSuffix(s, " UTC")) {
				return t, true
			}
		}
	}
	return time.Time{}, false
}

// parseClock reads a time of day.
func parseClock(s string) (time.Time, bool) {
	if len(s) < len("15:04") || s[2] != ':' {
		return time.Time{}, false
	}
	t, ok := parseMoment("1970-01-01T" + s)
	return t, ok && t.Year() == 1970 && t.YearDay() == 1
}

// isDecimal tells whether s is a number in decimal digits. A sign, a point and an exponent are optional.
func isDecimal(s string) bool {
	s = strings.TrimLeft(s[:min(len(s), 1)], "+-") + s[min(len(s), 1):]
	mantissa, exponent := s, "0"
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa, exponent = s[:i], s[i+1:]
		if exponent != "" && (exponent[0] == '+' || exponent[0] == '-') {
			exponent = exponent[1:]
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	return whole+fraction != "" && digits(whole) && digits(fraction) && exponent != "" && digits(exponent)
}

// decimal is a number in parts: 0.DIGITS times ten to the power of exponent. Zero has no digits.
type decimal struct {
	negative bool
	digits   []byte // without zeros at either end
	exponent int64
}

// maxExponent is the largest exponent. Larger ones are read as maxExponent: no number is written with so many digits.
const maxExponent = math.MaxInt64 / 4

// parseDecimal takes a number into parts. isDecimal(s) must hold.
func parseDecimal(s []byte) (d decimal) {
	if s[0] == '-' || s[0] == '+' {
		d.negative = s[0] == '-'
		s = s[1:]
	}
	if i := bytes.IndexAny(s, "eE"); i >= 0 {
		d.exponent = parseExponent(s[i+1:])
		s = s[:i]
	}
	if i := bytes.IndexByte(s, '.'); i >= 0 {
		d.exponent += int64(i)
		if fraction := s[i+1:]; len(bytes.TrimLeft(s[:i], "0")) == 0 {
			s = fraction
			d.exponent -= int64(i)
		} else {
			s = append(bytes.Clone(s[:i]), fraction...)
		}
	} else {
		d.exponent += int64(len(s))
	}
	whole := len(s)
	s = bytes.TrimLeft(s, "0")
	d.exponent -= int64(whole - len(s))
	d.digits = bytes.TrimRight(s, "0")
	if len(d.digits) == 0 {
		return decimal{}
	}
	return d
}

// parseExponent reads a number with an optional sign, of an absolute value of at most maxExponent.
func parseExponent(s []byte) (n int64) {
	negative := s[0] == '-'
	for _, c := range bytes.TrimLeft(s, "+-") {
		n = min(n*10+int64(c-'0'), maxExponent/10)
	}
	if negative {
		n = -n
	}
	return n
}

// compare is -1, 0 or 1 as d is less than, equal to or greater than e, exactly.
func (d decimal) compare(e decimal) int {
	sign := func(x decimal) int {
		switch {
		case len(x.digits) == 0:
			return 0
		case x.negative:
			return -1
		}
		return 1
	}
	if c := cmp.Compare(sign(d), sign(e)); c != 0 || len(d.digits) == 0 {
		return c
	}
	return sign(d) * cmp.Or(cmp.Compare(d.exponent, e.exponent), bytes.Compare(d.digits, e.digits))
}
