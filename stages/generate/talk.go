package main

import (
	"fmt"
	"slices"
	"strings"

	"bitnet1/shared/data/documents"
	"bitnet1/stages/generate/generation"
)

// talk is what was said in a chat. It makes the prompts.
type talk interface {
	// ask returns the prompt for a message and the texts that end the answer, beside those of the user. Most is how many
	// tokens the answer has at most. A note is for the user. After an error the message was not said.
	ask(message string, most int) (prompt []int32, stop []string, note string, err error)
	// begin is what is shown of the beginning of an answer.
	begin(text string) string
	// answered takes the answer to the message that was asked last.
	answered(generation.Result)
	reset()
	help() string
}

// conversed is the talk of a model that answers.
type conversed struct {
	model    *generation.Model
	template documents.Template
	system   string
	said     []documents.Turn
}

// ask leaves out the oldest turns for which the context has no room, as long as an answer of a quarter of the context,
// or of the most tokens there may be, has some.
func (t *conversed) ask(message string, most int) (prompt []int32, stop []string, note string, err error) {
	context := t.model.Config.Seq
	room := max(context/4, 1)
	if most > 0 {
		room = min(room, most)
	}
	said := append(t.said[:len(t.said):len(t.said)], documents.Turn{Role: generation.User, Text: message})
	for {
		all := said
		if t.system != "" {
			all = append([]documents.Turn{{Role: "system", Text: t.system}}, said...)
		}
		prompt, stop = t.model.Conversation(t.template, all)
		if len(prompt)+room <= context || len(said) == 1 {
			break
		}
		said = said[min(2, len(said)-1):] // a message and its answer
	}
	if len(prompt) > context {
		return nil, nil, "", fmt.Errorf("the message makes a prompt of %d tokens, and the model's context is %d: say it in "+
			"fewer words", len(prompt), context)
	}
	if n := len(t.said) + 1 - len(said); n > 0 {
		note = fmt.Sprintf("the oldest turns are forgotten, %d of them: the context has %d tokens", n, context)
	}
	t.said = said
	return prompt, stop, note, nil
}

func (t *conversed) begin(text string) string { return strings.TrimLeft(text, " \n") }

func (t *conversed) answered(r generation.Result) {
	t.said = append(t.said, documents.Turn{Role: generation.Assistant, Text: strings.TrimSpace(r.Text)})
}

func (t *conversed) reset() { t.said = nil }

func (t *conversed) help() string { return "Anything else is a message, which the model answers." }

// continued is the talk of a model that continues what was written.
type continued struct {
	model  *generation.Model
	tokens []int32
}

// ask appends a message to the text, on a line of its own. An empty message lets the model write on.
func (t *continued) ask(message string, _ int) (prompt []int32, stop []string, note string, err error) {
	var added []int32
	switch {
	case len(t.tokens) == 0:
		added = t.model.Encode(message)
	case message != "":
		added = t.model.Encode("\n" + message)
	}
	context := t.model.Config.Seq
	if len(added) > context {
		return nil, nil, "", fmt.Errorf("the text has %d tokens, and the model's context is %d: shorten it", len(added),
			context)
	}
	all := slices.Concat(t.tokens, added)
	// Where less than a quarter of the context is left, the model reads half of it, and all of the message.
	if last := max(context/2, len(added), 1); len(all) > context-context/4 && len(all) > last {
		note = fmt.Sprintf("the model reads the last %d of %d tokens: its context has %d", last, len(all), context)
		all = all[len(all)-last:]
	}
	t.tokens = all
	return all, nil, note, nil
}

func (t *continued) begin(text string) string { return text }

func (t *continued) answered(r generation.Result) {
	t.tokens = append(t.tokens[:len(t.tokens):len(t.tokens)], r.Tokens...)
}

func (t *continued) reset() { t.tokens = nil }

func (t *continued) help() string {
	return "Anything else is text, which the model continues; an empty line lets it write on."
}
