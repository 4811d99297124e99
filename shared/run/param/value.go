package param

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Value writes text as the JSON value it stands for, given the type that a Field names. It is the one way in which
// values are written outside of YAML: in flags, in --set and --grid, and where a file has a text in place of a list.
//
// Numbers and truth are written as in YAML: 1e3, 0x10, 1_000, true. A list is separated by commas, in brackets or
// without them; "none" is the empty list. Quotes around a text or an item are taken off, and a comma inside of quotes
// separates nothing. Text that cannot stand for the type becomes a JSON string, which does not conform.
func Value(typ, text string) json.RawMessage {
	switch {
	case typ == "text":
		return quote(unquote(text))
	case isList(typ):
		return list(typ, text)
	case json.Valid([]byte(text)) && Conforms(typ, []byte(text)):
		return json.RawMessage(text) // as it is written: a run's id is made of it
	default:
		return scalar(text)
	}
}

// Normalize returns the value of a file as one of the given type: a file may write a list as flags do.
func Normalize(typ string, value json.RawMessage) json.RawMessage {
	if !isList(typ) {
		return value
	}
	var text *string
	if json.Unmarshal(value, &text) == nil && text != nil {
		return list(typ, *text)
	}
	if one := json.RawMessage("[" + string(value) + "]"); value[0] != '[' && Conforms(typ, one) {
		return one
	}
	return value
}

func isList(typ string) bool { return strings.HasPrefix(typ, "list of ") }

// quote writes a JSON string, with <, > and & as they are: people read it in messages.
func quote(s string) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // strings can always be written
	return bytes.TrimSpace(b.Bytes())
}

// scalar reads text as YAML does.
func scalar(text string) json.RawMessage {
	var v any
	if yaml.Unmarshal([]byte(text), &v) == nil {
		if b, err := json.Marshal(v); err == nil {
			return b
		}
	}
	return quote(text)
}

func list(typ, text string) json.RawMessage {
	text = strings.TrimSpace(text)
	if inner, ok := InBrackets(text); ok {
		text = inner
	}
	if text == "" || text == "none" {
		return json.RawMessage("[]")
	}
	items := Split(text)
	for i, item := range items {
		if item == "" {
			return quote(text)
		}
		if typ == "list of texts" {
			items[i] = string(quote(unquote(item)))
		} else {
			items[i] = string(scalar(unquote(item)))
		}
	}
	value := json.RawMessage("[" + strings.Join(items, ",") + "]")
	if !Conforms(typ, value) {
		return quote(text)
	}
	return value
}

// join makes one text of lists that were given one after the other.
func join(lists []string) string {
	var all []string
	for _, text := range lists {
		text = strings.TrimSpace(text)
		if inner, ok := InBrackets(text); ok {
			text = inner
		}
		if text != "" && text != "none" {
			all = append(all, text)
		}
	}
	return "[" + strings.Join(all, ",") + "]"
}

// Split splits text at the commas that are neither inside of quotes nor of brackets, and trims the items.
func Split(text string) []string {
	var items []string
	from := 0
	scan(text, func(i, depth int) {
		if text[i] == ',' && depth == 0 {
			items = append(items, strings.TrimSpace(text[from:i]))
			from = i + 1
		}
	})
	return append(items, strings.TrimSpace(text[from:]))
}

// InBrackets returns what stands between the brackets that hold the whole text.
func InBrackets(text string) (inner string, ok bool) {
	if !strings.HasPrefix(text, "[") {
		return "", false
	}
	end := -1
	scan(text, func(i, depth int) {
		if text[i] == ']' && depth == 0 && end < 0 {
			end = i
		}
	})
	if end != len(text)-1 {
		return "", false
	}
	return strings.TrimSpace(text[1:end]), true
}

// opening is what a quote follows that opens a quoted part: not a letter, for the apostrophe is the same sign.
var opening = regexp.MustCompile(`^$|[\s=<>,\[]$`)

// scan calls at for every byte of text that is not inside of quotes, with the number of brackets that are open after
// it.
func scan(text string, at func(i, depth int)) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"', '\'':
			if n := closing(text[i+1:], c); n >= 0 && opening.MatchString(text[:i]) {
				i += n + 1
				continue
			}
		case '[':
			depth++
		case ']':
			depth = max(depth-1, 0)
		}
		at(i, depth)
	}
}

// closing is where the quoted part of text ends; -1 if it does not. Double quotes know \", single ones ”.
func closing(text string, quote byte) int {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		case text[i] == quote:
			return i
		}
	}
	return -1
}

// unquote takes the quotes off a text that is quoted as a whole.
func unquote(text string) string {
	t := strings.TrimSpace(text)
	if len(t) < 2 || t[0] != '"' && t[0] != '\'' || closing(t[1:], t[0]) != len(t)-2 {
		return text
	}
	var s string
	if yaml.Unmarshal([]byte(t), &s) != nil {
		return text
	}
	return s
}
