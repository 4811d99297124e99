package documents

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// WhichColumn is a part of the error for a file in which no column of text was found.
const WhichColumn = "say which holds it"

// Fields names the columns of a file, or the keys of its JSON objects, that make a document. Empty names are searched
// for. The text is the first of these that a file has:
//
//	text                             FineWeb-Edu and most others
//	conversations, messages          lists of turns: {from, value} or {role, content}
//	input and output                 a prompt and its response
//
// The id is the column id, if there is one. If Text, Turns, or Prompt and Response are named, no text is searched for.
// A name may be a path: meta.title is the field title of the structure meta. A column of text that was searched for
// must hold strings. A named column of text, prompts, responses and roles may have any type that can be written as
// text.
type Fields struct {
	ID   string // a string or an integer
	Text string
	// Turns is a list of structures {from, value} or {role, content}. A content may be a list of parts with texts.
	Turns    string
	Prompt   string
	Response string
}

// shape is the columns that make the document of a row: a text, a list of turns, or a prompt and its response.
type shape struct {
	text             string
	turns            string
	role, says       string // within a turn
	prompt, response string
}

var errNoColumn = errors.New("no column")

// countColumn is FineWeb's column of the number of GPT-2 tokens of a document.
const countColumn = "token_count"

// turnKeys are the keys of the role and of the text of a turn, in the two conventions.
var turnKeys = [][2]string{{"from", "value"}, {"role", "content"}}

// validate tells whether the names given make sense together.
func (f Fields) validate() error {
	given := 0
	for _, name := range []string{f.Text, f.Turns, f.Prompt} {
		if name != "" {
			given++
		}
	}
	if given > 1 || (f.Prompt == "") != (f.Response == "") {
		return fmt.Errorf("columns text %q, turns %q, prompt %q, response %q: name a text, or turns, or a prompt and "+
			"its response", f.Text, f.Turns, f.Prompt, f.Response)
	}
	return nil
}

// choose finds the shape of rows that have the given names. has reports whether a name exists. turns reports whether a
// name is a list of structures with two given keys.
//
// The error is errNoColumn if the names are missing.
func (f Fields) choose(
	names func() []string, has func(string) bool, turns func(name, role, says string) bool,
) (shape, error) {
	list := func(name string) (shape, bool) {
		for _, k := range turnKeys {
			if turns(name, k[0], k[1]) {
				return shape{turns: name, role: k[0], says: k[1]}, true
			}
		}
		return shape{}, false
	}
	switch {
	case f.Text != "":
		if has(f.Text) {
			return shape{text: f.Text}, nil
		}
		return shape{}, missing(f.Text, names())
	case f.Turns != "":
		if s, ok := list(f.Turns); ok {
			return s, nil
		}
		if !has(f.Turns) {
			return shape{}, missing(f.Turns, names())
		}
		return shape{}, fmt.Errorf("%s is no list of {from, value} or {role, content}", f.Turns)
	case f.Prompt != "":
		for _, name := range []string{f.Prompt, f.Response} {
			if !has(name) {
				return shape{}, missing(name, names())
			}
		}
		return shape{prompt: f.Prompt, response: f.Response}, nil
	}
	return search(names, has, list)
}

// search finds the shape of rows if the user names no columns.
func search(names func() []string, has func(string) bool, list func(string) (shape, bool)) (shape, error) {
	if has("text") {
		return shape{text: "text"}, nil
	}
	for _, name := range []string{"conversations", "messages"} {
		if s, ok := list(name); ok {
			return s, nil
		}
	}
	if has("input") && has("output") {
		return shape{prompt: "input", response: "output"}, nil
	}
	for _, name := range []string{"conversations", "messages"} {
		if has(name) {
			return shape{}, fmt.Errorf("%s is not a list of {from, value} or {role, content}", name)
		}
	}
	return shape{}, fmt.Errorf("%w of text among %s: "+WhichColumn+" (understood by themselves: text, conversations, "+
		"messages, input with output)",
		errNoColumn, strings.Join(names(), ", "))
}

func missing(name string, names []string) error {
	names = slices.Clone(names)
	slices.Sort(names)
	return fmt.Errorf("%w %q among %s", errNoColumn, name, strings.Join(names, ", "))
}
