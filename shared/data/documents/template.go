package documents

import (
	"bytes"
	"fmt"
	"strings"
)

// Template says how turns become a text. The zero value writes "role: text" for every turn and an empty line between
// two turns.
type Template struct {
	// Turn is a turn's text, with {role} and {text} in it. Default: "{role}: {text}".
	Turn string
	// Between separates two turns. If Turn and Between are empty, two newlines do.
	Between string
	// StripThinking removes the text from <think> to </think>, and the white space behind it.
	StripThinking bool
}

func (t *Template) ensureDefaults() {
	if t.Turn != "" {
		return
	}
	t.Turn = "{role}: {text}"
	if t.Between == "" {
		t.Between = "\n\n"
	}
}

func (t Template) validate() error {
	if t.Turn != "" && strings.Count(t.Turn, "{text}") != 1 {
		return fmt.Errorf("template %q: it must have {text} once, and may have {role}", t.Turn)
	}
	return nil
}

// turn is one turn of a conversation.
type turn struct{ role, text []byte }

// roles are the roles of the convention {from, value} in the words of {role, content}.
var roles = map[string]string{"human": "user", "gpt": "assistant"}

// write appends the text of a conversation to dst. A turn without a role is an error if the template contains {role}.
func (t Template) write(dst []byte, list []turn) ([]byte, error) {
	for i, turn := range list {
		if i > 0 {
			dst = append(dst, t.Between...)
		}
		if turn.role == nil && strings.Contains(t.Turn, "{role}") {
			return dst, fmt.Errorf("turn %d says %.40q and has no role", i, turn.text)
		}
		dst = t.writeTurn(dst, turn)
	}
	return dst, nil
}

// Turn is what one participant of a conversation says.
type Turn struct{ Role, Text string }

// Conversation is the text of the turns, as a document has it. If next is a role, the text goes on with the beginning
// of its turn, up to what it says.
func (t Template) Conversation(turns []Turn, next string) string {
	t.ensureDefaults()
	var text []byte
	for i, said := range turns {
		if i > 0 {
			text = append(text, t.Between...)
		}
		text = t.writeTurn(text, turn{[]byte(said.Role), []byte(said.Text)})
	}
	if next != "" {
		if len(turns) > 0 {
			text = append(text, t.Between...)
		}
		text = append(text, t.part(next, 0)...)
	}
	return string(text)
}

// After is what follows the text of a role's turn: the end of the turn and, if next is a role, the beginning of its
// turn.
func (t Template) After(role, next string) string {
	t.ensureDefaults()
	if next == "" {
		return t.part(role, 1)
	}
	return t.part(role, 1) + t.Between + t.part(next, 0)
}

// part is what stands in a turn before its text (0) or behind it (1).
func (t Template) part(role string, which int) string {
	const text = "{text}"
	parts := strings.SplitN(t.Turn, text, 2)
	filled := Template{Turn: parts[which] + text}.writeTurn(nil, turn{role: []byte(role)})
	return string(filled)
}

func (t Template) writeTurn(dst []byte, turn turn) []byte {
	rest := t.Turn
	for rest != "" {
		i := strings.IndexByte(rest, '{')
		if i < 0 {
			break
		}
		dst = append(dst, rest[:i]...)
		rest = rest[i:]
		switch {
		case strings.HasPrefix(rest, "{role}"):
			rest = rest[len("{role}"):]
			if name, ok := roles[string(turn.role)]; ok {
				dst = append(dst, name...)
			} else {
				dst = append(dst, turn.role...)
			}
		case strings.HasPrefix(rest, "{text}"):
			rest = rest[len("{text}"):]
			dst = t.writeText(dst, turn.text)
		default:
			dst = append(dst, '{')
			rest = rest[1:]
		}
	}
	return append(dst, rest...)
}

var thinkStart, thinkEnd = []byte("<think>"), []byte("</think>")

// writeText appends the text of a turn. A thought without an end lasts to the end of the text.
func (t Template) writeText(dst, text []byte) []byte {
	for t.StripThinking {
		i := bytes.Index(text, thinkStart)
		if i < 0 {
			break
		}
		dst = append(dst, text[:i]...)
		n := bytes.Index(text[i:], thinkEnd)
		if n < 0 {
			return dst
		}
		text = bytes.TrimLeft(text[i+n+len(thinkEnd):], " \t\r\n")
	}
	return append(dst, text...)
}
