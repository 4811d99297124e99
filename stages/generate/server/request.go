package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The most of each kind that one request may have. OpenAI's bounds where it has some.
const (
	mostPrompts     = 64
	mostChoices     = 64 // prompts × n
	mostStops       = 16
	mostStopBytes   = 1024 // of one stop string
	mostLogprobs    = 5    // of a completion
	mostTopLogprobs = 20   // of a chat completion
	mostMessages    = 4096

	// Of an answer in one piece, which lies in memory as a whole; each takes some 450 bytes there.
	mostProbabilities = 1 << 18
)

// parameters are those that completions and chat completions have in common. A pointer is nil where the request does
// not have the parameter, or has null.
type parameters struct {
	Model         *string        `json:"model"`
	MaxTokens     *int           `json:"max_tokens"`
	N             *int           `json:"n"`
	Seed          *int64         `json:"seed"`
	Stop          *texts         `json:"stop"`
	Temperature   *float64       `json:"temperature"`
	TopP          *float64       `json:"top_p"`
	Stream        *bool          `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options"`

	// Beyond OpenAI's, in the words of vLLM.
	TopK              *int     `json:"top_k"`
	MinP              *float64 `json:"min_p"`
	RepetitionPenalty *float64 `json:"repetition_penalty"`

	// Refused where they would change the text.
	FrequencyPenalty *float64           `json:"frequency_penalty"`
	PresencePenalty  *float64           `json:"presence_penalty"`
	LogitBias        map[string]float64 `json:"logit_bias"`

	// For the bookkeeping of OpenAI's service. They change no text.
	User             any `json:"user"`
	Store            any `json:"store"`
	Metadata         any `json:"metadata"`
	ServiceTier      any `json:"service_tier"`
	SafetyIdentifier any `json:"safety_identifier"`
	PromptCacheKey   any `json:"prompt_cache_key"`
}

type streamOptions struct {
	IncludeUsage       *bool `json:"include_usage"`
	IncludeObfuscation *bool `json:"include_obfuscation"` // of OpenAI's service; it changes no text
}

// completionRequest is the body of a request to /v1/completions.
type completionRequest struct {
	parameters
	Prompt   *prompts `json:"prompt"`
	Echo     *bool    `json:"echo"`
	Logprobs *int     `json:"logprobs"`
	BestOf   *int     `json:"best_of"`
	Suffix   *string  `json:"suffix"`
}

// chatRequest is the body of a request to /v1/chat/completions.
type chatRequest struct {
	parameters
	Messages            []message       `json:"messages"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Logprobs            *bool           `json:"logprobs"`
	TopLogprobs         *int            `json:"top_logprobs"`
	ResponseFormat      *responseFormat `json:"response_format"`
	Tools               []any           `json:"tools"`
	ToolChoice          any             `json:"tool_choice"`
}

type responseFormat struct {
	Type string `json:"type"`
}

// message is one turn of a conversation.
type message struct {
	Role    string   `json:"role"`
	Content *content `json:"content"`
	Name    *string  `json:"name"` // of one among several speakers; templates have no place for it
	Refusal *string  `json:"refusal"`
}

// content is a text, or the texts of a list of parts.
type content string

// UnmarshalJSON takes "text" and [{"type": "text", "text": "…"}].
func (c *content) UnmarshalJSON(b []byte) error {
	if first(b) == '"' {
		return json.Unmarshal(b, (*string)(c))
	}
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if err := json.Unmarshal(b, &parts); err != nil || first(b) != '[' {
		return invalid("messages", "a content is a text, or a list of parts of type text")
	}
	for _, p := range parts {
		if p.Type != "text" || p.Text == nil {
			return invalid("messages", "a part of a content has type %q: this model reads parts of type text alone", p.Type)
		}
		*c += content(*p.Text)
	}
	return nil
}

// texts are one text or several.
type texts []string

// UnmarshalJSON takes "text" and ["text", …].
func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	if err := json.Unmarshal(b, (*[]string)(t)); err != nil {
		return invalid("stop", "it is a text, or a list of texts")
	}
	return nil
}

// prompts are one or several, each of them text or tokens.
type prompts []prompt

// prompt has tokens where text is nil.
type prompt struct {
	text   *string
	tokens tokenIDs
}

// UnmarshalJSON takes "text", ["text", …], [1, 2, …] and [[1, 2, …], …].
func (p *prompts) UnmarshalJSON(b []byte) error {
	if first(b) == '"' {
		b = slicesOf(b)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil || first(b) != '[' {
		return invalid("prompt", "it is a text, a list of texts, a list of token ids, or a list of lists of token ids")
	}
	if len(list) > 0 && first(list[0]) != '"' && first(list[0]) != '[' {
		list = []json.RawMessage{b} // token ids
	}
	if len(list) > mostPrompts {
		return invalid("prompt", "%d prompts, and a request may have %d", len(list), mostPrompts)
	}
	for _, item := range list {
		var one prompt
		to := any(&one.tokens)
		if first(item) == '"' {
			to = &one.text
		}
		if err := json.Unmarshal(item, to); err != nil {
			return invalid("prompt", "it is a text, a list of texts, a list of token ids, or a list of lists of token ids; "+
				"a token id is an integer from 0 to %d", math.MaxInt32)
		}
		*p = append(*p, one)
	}
	return nil
}

// tokenIDs are the tokens of a text.
type tokenIDs []int32

// UnmarshalJSON takes [1, 2, …]. Without it null among the numbers would be token 0.
func (t *tokenIDs) UnmarshalJSON(b []byte) error {
	var list []*int32
	if err := json.Unmarshal(b, &list); err != nil || first(b) != '[' || slices.Contains(list, nil) {
		return invalid("tokens", "it is a list of token ids, which are integers from 0 to %d", math.MaxInt32)
	}
	*t = make(tokenIDs, len(list))
	for i, id := range list {
		(*t)[i] = *id
	}
	return nil
}

// slicesOf is a JSON array of the one value b.
func slicesOf(b []byte) []byte { return append(append([]byte{'['}, b...), ']') }

// first is the first byte of a JSON value.
func first(b []byte) byte {
	if b = bytes.TrimLeft(b, " \t\r\n"); len(b) > 0 {
		return b[0]
	}
	return 0
}

// decode reads a request's body.
func decode(body []byte, to any) *apiError {
	if !utf8.Valid(body) {
		return invalid("", "the request is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, after := d.Token(); !errors.Is(after, io.EOF) {
			err = errors.New("more follows after its end")
		}
	}
	if err == nil {
		return nil
	}
	var own *apiError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &wrong) && wrong.Field == "":
		return invalid("", "the request is a JSON %s, want an object", wrong.Value)
	case errors.As(err, &wrong):
		param := strings.TrimPrefix(wrong.Field, "parameters.")
		return invalid(param, "a JSON %s, want %s", wrong.Value, jsonType(wrong.Type.Kind().String()))
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return invalid(strings.Trim(name, `"`), "this server knows no such parameter")
	}
	return invalid("", "the request is no JSON object: %v", err)
}

// jsonType is the name of the JSON type of a kind of Go type.
func jsonType(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"):
		return "an integer"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	case kind == "string":
		return "a text"
	case kind == "slice":
		return "a list"
	}
	return "an object"
}

// check returns an error for the first parameter that has an impossible value.
func (p *parameters) check() *apiError {
	for _, c := range []struct {
		name      string
		value     *float64
		low, high float64
	}{
		{"max_tokens", number(p.MaxTokens), 0, math.MaxInt32},
		{"n", number(p.N), 1, mostChoices},
		{"temperature", p.Temperature, 0, 2},
		{"top_p", p.TopP, 0, 1},
		{"top_k", number(p.TopK), -1, math.MaxInt32},
		{"min_p", p.MinP, 0, 1},
		{"frequency_penalty", p.FrequencyPenalty, -2, 2},
		{"presence_penalty", p.PresencePenalty, -2, 2},
	} {
		if err := within(c.name, c.value, c.low, c.high); err != nil {
			return err
		}
	}
	if r := p.RepetitionPenalty; r != nil && !(*r > 0 && *r <= 100) {
		return invalid("repetition_penalty", "%v, want more than 0 and at most 100; 1 changes nothing", *r)
	}
	if p.Stop != nil {
		if len(*p.Stop) > mostStops {
			return invalid("stop", "%d texts, and a request may have %d", len(*p.Stop), mostStops)
		}
		for _, s := range *p.Stop {
			if len(s) == 0 || len(s) > mostStopBytes {
				return invalid("stop", "a text of %d bytes, want 1 to %d", len(s), mostStopBytes)
			}
		}
	}
	if p.StreamOptions != nil && !is(p.Stream) {
		return invalid("stream_options", "only with stream: true")
	}
	return p.checkUnsupported()
}

// checkUnsupported refuses what would change the text if this server could do it.
func (p *parameters) checkUnsupported() *apiError {
	for name, value := range map[string]*float64{
		"frequency_penalty": p.FrequencyPenalty, "presence_penalty": p.PresencePenalty,
	} {
		if value != nil && *value != 0 {
			return invalid(name, "this server has none; repetition_penalty above 1 makes repetitions less probable")
		}
	}
	if len(p.LogitBias) > 0 {
		return invalid("logit_bias", "this server has none")
	}
	return nil
}

func (r *completionRequest) check() *apiError {
	if err := r.parameters.check(); err != nil {
		return err
	}
	if err := within("logprobs", number(r.Logprobs), 0, mostLogprobs); err != nil {
		return err
	}
	n := 1
	if r.N != nil {
		n = *r.N
	}
	if r.BestOf != nil && *r.BestOf != n {
		return invalid("best_of", "this server returns every text that it writes: ask for them by n")
	}
	if r.Suffix != nil && *r.Suffix != "" {
		return invalid("suffix", "this model writes what follows a text, and nothing between two texts")
	}
	if r.Prompt != nil && len(*r.Prompt)*n > mostChoices {
		return invalid("n", "%d texts for each of %d prompts, and a request may ask for %d texts", n, len(*r.Prompt),
			mostChoices)
	}
	return nil
}

func (r *chatRequest) check() *apiError {
	if err := r.parameters.check(); err != nil {
		return err
	}
	if err := within("max_completion_tokens", number(r.MaxCompletionTokens), 0, math.MaxInt32); err != nil {
		return err
	}
	if err := within("top_logprobs", number(r.TopLogprobs), 0, mostTopLogprobs); err != nil {
		return err
	}
	switch {
	case r.TopLogprobs != nil && !is(r.Logprobs):
		return invalid("top_logprobs", "only with logprobs: true")
	case r.ResponseFormat != nil && r.ResponseFormat.Type != "text":
		return invalid("response_format", "type is %q, and this server writes type text alone", r.ResponseFormat.Type)
	case len(r.Tools) > 0:
		return invalid("tools", "this model calls none")
	case len(r.Messages) == 0:
		return invalid("messages", "there is none: a conversation has one message at least")
	case len(r.Messages) > mostMessages:
		return invalid("messages", "%d messages, and a conversation may have %d", len(r.Messages), mostMessages)
	}
	for i, m := range r.Messages {
		if m.Content == nil {
			return invalid("messages", "message %d has no content: give a text, which may be empty", i)
		}
		switch m.Role {
		case "developer": // OpenAI's newer word
			r.Messages[i].Role = "system"
		case "system", "user", "assistant":
		default:
			return invalid("messages", "message %d has the role %q, want system, user or assistant", i, m.Role)
		}
	}
	return nil
}

func within(name string, value *float64, low, high float64) *apiError {
	if value == nil || *value >= low && *value <= high {
		return nil
	}
	return invalid(name, "%v, want %v to %s", *value, low, strconv.FormatFloat(high, 'f', -1, 64))
}

func number(n *int) *float64 {
	if n == nil {
		return nil
	}
	f := float64(*n)
	return &f
}

func is(b *bool) bool { return b != nil && *b }
