package main

import (
	"fmt"
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
	tokens, context := t.tokens, t.model.Config.Seq
	switch {
	case len(tokens) == 0:
		tokens = t.model.Encode(message)
	case message != "":
		message = "\n" + message
		tokens = append(tokens[:len(tokens):len(tokens)], t.model.Encode(message)...)
	}
	if own := len(t.model.Encode(message)); own > context {
		return nil, nil, "", fmt.Errorf("the text has %d tokens, and the model's context is %d: shorten it", own, context)
	}
	if half := max(context/2, len(t.model.Encode(message))); len(tokens) > context-context/4 && len(tokens) > half {
		note = fmt.Sprintf("the model reads the last %d of %d tokens: its context has %d", half, len(tokens), context)
		tokens = tokens[len(tokens)-half:]
	}
	t.tokens = tokens
	return tokens, nil, note, nil
}

func (t *continued) begin(text string) string { return text }

func (t *continued) answered(r generation.Result) {
	t.tokens = append(t.tokens[:len(t.tokens):len(t.tokens)], r.Tokens...)
}

func (t *continued) reset() { t.tokens = nil }

func (t *continued) help() string {
	return "Anything else is text, which the model continues; an empty line lets it write on."
}
