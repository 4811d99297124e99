package results

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// Template is text with fields of an event's body in it:
//
//	checkpoint {step} saved: training {train_bits:.3} bits/token[, packed {pack.size:bytes}][ (best){best}]
//
// A field is written as its format says: .3 with three decimals, .1% as a percentage with one, bytes as a size, si
// shortened (12.3 k), and without a format as it is. A dot goes into a map. What stands in brackets is left out when a
// field in it is absent, empty, false or not a number; true itself is written as nothing.
type Template string

// piece is a part of a template: text, and then a field if it has a name.
type piece struct {
	text          string
	field, format string
}

// check finds what is wrong with a template.
func (t Template) check(what string) error {
	_, err := t.parse()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// parse splits a template into its parts, those in brackets and those between.
func (t Template) parse() (parts []templatePart, err error) {
	rest := string(t)
	for rest != "" {
		text, optional := rest, rest[0] == '['
		end := strings.IndexByte(rest, '[')
		if optional {
			if end = strings.IndexByte(rest, ']'); end < 0 {
				return nil, fmt.Errorf("%q: a bracket is not closed", string(t))
			}
			text, rest = rest[1:end], rest[end+1:]
		} else if end >= 0 {
			text, rest = rest[:end], rest[end:]
		} else {
			rest = ""
		}
		pieces, err := pieces(text)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", string(t), err)
		}
		parts = append(parts, templatePart{pieces, optional})
	}
	return parts, nil
}

type templatePart struct {
	pieces   []piece
	optional bool
}

func pieces(text string) (all []piece, err error) {
	for text != "" {
		before, rest, found := strings.Cut(text, "{")
		if !found {
			if strings.ContainsAny(text, "}]") {
				return nil, fmt.Errorf("%q: a brace or bracket is not opened", text)
			}
			return append(all, piece{text: text}), nil
		}
		field, after, closed := strings.Cut(rest, "}")
		name, format, _ := strings.Cut(field, ":")
		if !closed || name == "" || strings.ContainsAny(field, "{[]") {
			return nil, fmt.Errorf("{%s: want {field} or {field:format}", field)
		}
		if !validFormat(format) {
			return nil, fmt.Errorf("{%s}: the formats are .3, .1%%, bytes and si", field)
		}
		all = append(all, piece{before, name, format})
		text = after
	}
	return all, nil
}

func validFormat(format string) bool {
	switch format {
	case "", "bytes", "si":
		return true
	}
	digits, decimal := strings.CutPrefix(strings.TrimSuffix(format, "%"), ".")
	n, err := strconv.Atoi(digits)
	return decimal && err == nil && n >= 0 && n <= 9
}

// Text fills in the fields of a body. A field outside of brackets that is absent is written as "-".
func (t Template) Text(body map[string]any) string {
	parts, err := t.parse()
	if err != nil {
		return string(t)
	}
	var out strings.Builder
	for _, part := range parts {
		if text, whole := part.fill(body); whole || !part.optional {
			out.WriteString(text)
		}
	}
	return out.String()
}

// fill also reports whether all fields of the part are there.
func (p templatePart) fill(body map[string]any) (text string, whole bool) {
	whole = true
	var out strings.Builder
	for _, piece := range p.pieces {
		out.WriteString(piece.text)
		if piece.field == "" {
			continue
		}
		v := lookUp(body, piece.field)
		if there(v) {
			out.WriteString(format(v, piece.format))
			continue
		}
		whole = false
		if v != false { //nolint:gosimple // v is any
			out.WriteString("-")
		}
	}
	return out.String(), whole
}

// Value is the value that a template stands for: a number or a text of the body where the template is one field, and
// otherwise its text. It is nil where a field is absent.
func (t Template) Value(body map[string]any) any {
	parts, err := t.parse()
	if err != nil || len(parts) == 0 {
		return nil
	}
	for _, part := range parts {
		for _, piece := range part.pieces {
			if piece.field != "" && !part.optional && !there(lookUp(body, piece.field)) {
				return nil
			}
		}
	}
	if first := parts[0]; len(parts) == 1 && len(first.pieces) == 1 && first.pieces[0].text == "" {
		v := lookUp(body, first.pieces[0].field)
		if n, ok := number(v); ok {
			return n
		}
		return v
	}
	return t.Text(body)
}

// Number writes n as the template writes the field that it is; a template of more than one field says nothing of
// numbers, and n has three decimals.
func (t Template) Number(n float64) string {
	parts, err := t.parse()
	if err != nil || len(parts) != 1 || len(parts[0].pieces) != 1 || parts[0].pieces[0].field == "" {
		return format(n, ".3")
	}
	return format(n, parts[0].pieces[0].format)
}

// lookUp finds a field of a body; its name has dots where it lies in a map of the body.
func lookUp(body map[string]any, name string) any {
	outer, inner, nested := strings.Cut(name, ".")
	v := body[outer]
	if m, ok := v.(map[string]any); nested && ok {
		return lookUp(m, inner)
	}
	if nested {
		return nil
	}
	return v
}

// there reports whether a field has a value: not absent, empty, false or not a number.
func there(v any) bool {
	if n, ok := number(v); ok {
		return !math.IsNaN(n) && !math.IsInf(n, 0)
	}
	return v != nil && v != "" && v != false
}

func number(v any) (float64, bool) {
	switch r := reflect.ValueOf(v); {
	case !r.IsValid():
		return 0, false
	case r.CanInt():
		return float64(r.Int()), true
	case r.CanUint():
		return float64(r.Uint()), true
	case r.CanFloat():
		return r.Float(), true
	}
	return 0, false
}

func format(v any, how string) string {
	n, isNumber := number(v)
	switch {
	case v == true:
		return ""
	case !isNumber:
		return fmt.Sprint(v)
	case how == "bytes":
		return Size(int64(n))
	case how == "si":
		return SI(n)
	case strings.HasSuffix(how, "%"):
		return strconv.FormatFloat(100*n, 'f', decimals(how), 64) + " %"
	case how != "":
		return strconv.FormatFloat(n, 'f', decimals(how), 64)
	case n == math.Trunc(n) && math.Abs(n) < 1e15:
		return strconv.FormatFloat(n, 'f', 0, 64)
	default:
		return strconv.FormatFloat(n, 'g', 6, 64)
	}
}

func decimals(format string) int {
	n, _ := strconv.Atoi(strings.Trim(format, ".%"))
	return n
}

// Size writes a number of bytes for people: 134.0 kB, 41 bytes.
func Size(n int64) string {
	bytes, unit := SizeUnit(float64(n))
	if bytes == 1 {
		return fmt.Sprintf("%d %s", n, unit)
	}
	return fmt.Sprintf("%.1f %s", float64(n)/bytes, unit)
}

// SizeUnit is the unit that people read a number of bytes in: how many bytes it has, and its name.
func SizeUnit(n float64) (bytes float64, name string) {
	switch {
	case n >= 1e9:
		return 1e9, "GB"
	case n >= 1e6:
		return 1e6, "MB"
	case n >= 1e3:
		return 1e3, "kB"
	default:
		return 1, "bytes"
	}
}

// SI shortens a number: 12.3 k, 4.56 M. Beyond a thousand T it writes 2.8e+16.
func SI(v float64) string {
	for _, s := range []struct {
		scale float64
		name  string
	}{{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}} {
		if v >= s.scale && v < 1e15 {
			return fmt.Sprintf("%.3g%s", v/s.scale, s.name)
		}
	}
	return fmt.Sprintf("%.3g", v)
}
