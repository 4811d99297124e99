package documents

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// WhichColumn is in the error about a file whose column of text is not found by itself.
const WhichColumn = "say which holds it"

// Fields names the columns of a file, or keys of its JSON objects, that make a document. Empty names are found by
// themselves: the first of these that a file has gives the text,
//
//	text                             FineWeb-Edu and most others
//	conversations, messages          lists of turns: {from, value} or {role, content}
//	input and output                 a prompt and its response
//
// and id, where there is one, the document's name. Naming any of Text, Turns or Prompt and Response turns the search
// off. What is named may lie in a structure: meta.title is title in meta. A Text that is found by itself must be of
// strings; one that is named, and prompts, responses and roles, can be of any type that has a text.
type Fields struct {
	ID   string // a string or an integer
	Text string
	// a list of structures {from, value} or {role, content}; a content may also be a list of parts with a text each
	Turns    string
	Prompt   string
	Response string
}

// shape is how a file's rows make documents: by a text, by a list of turns, or by a prompt and its response.
type shape struct {
	text             string
	turns            string
	role, says       string // within a turn
	prompt, response string
}

var errNoColumn = errors.New("no column")

// countColumn is where FineWeb says how many tokens of GPT-2 a document has.
const countColumn = "token_count"

// turnKeys are the conventions for a turn.
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

// choose finds the shape of rows with the given names. has tells whether there is a name, and turns whether it is a
// list of structures with those two keys.
//
// The error of a file or row that has none of them is errNoColumn.
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
	case has("text"):
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
