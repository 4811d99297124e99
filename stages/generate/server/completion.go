package server

import (
	"net/http"
	"strings"
)

// defaultTokens is how many tokens a completion has where the request does not say, as with OpenAI.
const defaultTokens = 16

// completions answers /v1/completions.
func (s *Server) completions(w http.ResponseWriter, r *http.Request, body []byte) *apiError {
	var request completionRequest
	if err := decode(body, &request); err != nil {
		return err
	}
	t, err := s.completionTask(&request)
	if err != nil {
		return err
	}
	return s.respond(w, r, t, &completionFormat{server: s, id: newID("cmpl-"), logprobs: t.logprobs >= 0})
}

// completionTask makes a task of a request.
func (s *Server) completionTask(r *completionRequest) (*task, *apiError) {
	if err := s.named(r.Model); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	empty := ""
	if r.Prompt == nil {
		r.Prompt = &prompts{{text: &empty}} // as with OpenAI: a new document
	}
	if len(*r.Prompt) == 0 {
		return nil, invalid("prompt", "an empty list: give a text or tokens; the text %q begins a document", "")
	}
	var all [][]int32
	for i, p := range *r.Prompt {
		tokens, err := s.tokens("prompt", p)
		if err != nil {
			return nil, err
		}
		if len(tokens) == 0 {
			return nil, invalid("prompt", "prompt %d has no tokens; the text %q begins a document", i, "")
		}
		all = append(all, tokens)
	}
	t, err := s.newTask(&r.parameters, all, "max_tokens", r.MaxTokens, defaultTokens)
	if err != nil {
		return nil, err
	}
	t.echo = is(r.Echo)
	for _, p := range *r.Prompt {
		t.implied = append(t.implied, p.text != nil && *p.text == "")
	}
	if r.Logprobs != nil {
		t.logprobs = *r.Logprobs
	}
	return t, nil
}

// tokens returns the tokens of a prompt, the parameter of that name.
func (s *Server) tokens(param string, p prompt) ([]int32, *apiError) {
	if p.text != nil {
		return s.encode(*p.text), nil
	}
	for i, t := range p.tokens {
		if t < 0 || int(t) >= s.model.Tokenizer.Vocab() {
			return nil, invalid(param, "token %d at position %d is none of the %d tokens of %s", t, i,
				s.model.Tokenizer.Vocab(), s.model.Tokenizer.Name())
		}
	}
	return p.tokens, nil
}

// encode returns the tokens of a text, in which "<|endoftext|>" ends a document, as with OpenAI. An empty text is the
// beginning of a document.
func (s *Server) encode(text string) (tokens []int32) {
	end := s.model.EndOfText()
	for i, part := range strings.Split(text, s.name(end)) {
		if i > 0 {
			tokens = append(tokens, end)
		}
		if part != "" {
			tokens = append(tokens, s.model.Encode(part)...)
		}
	}
	if len(tokens) == 0 {
		tokens = []int32{end}
	}
	return tokens
}

// completion is an answer of /v1/completions, or a part of it.
type completion struct {
	header
	Choices []completionChoice `json:"choices"`
	Usage   *usage             `json:"usage,omitempty"`
}

type completionChoice struct {
	Text         string              `json:"text"`
	Index        int                 `json:"index"`
	Logprobs     *completionLogprobs `json:"logprobs"`
	FinishReason *string             `json:"finish_reason"`
}

// completionLogprobs has an element for each token. The first token of a text has no probability: null.
type completionLogprobs struct {
	TextOffset    []int                `json:"text_offset"` // characters of the answer before the token
	TokenLogprobs []*float64           `json:"token_logprobs"`
	Tokens        []string             `json:"tokens"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
}

// completionFormat writes answers of /v1/completions.
type completionFormat struct {
	server   *Server
	id       string
	logprobs bool
}

func (f *completionFormat) header() header { return f.server.newHeader(f.id, "text_completion") }

func (f *completionFormat) choice(c *choice) completionChoice {
	choice := completionChoice{Text: c.text.String(), Index: c.index, FinishReason: c.finishReason()}
	if f.logprobs {
		choice.Logprobs = f.server.completionLogprobs(c.tokens)
	}
	return choice
}

func (f *completionFormat) whole(choices []*choice, u *usage) any {
	answer := completion{header: f.header(), Choices: []completionChoice{}, Usage: u}
	for _, c := range choices {
		answer.Choices = append(answer.Choices, f.choice(c))
	}
	return answer
}

func (f *completionFormat) begin(int) any { return nil }

func (f *completionFormat) part(c *choice) any { return f.whole([]*choice{c}, nil) }

func (f *completionFormat) end(c *choice) any {
	last := f.choice(c)
	last.Logprobs = nil
	return completion{header: f.header(), Choices: []completionChoice{last}}
}

func (s *Server) completionLogprobs(tokens []chosen) *completionLogprobs {
	n := len(tokens)
	l := &completionLogprobs{make([]int, n), make([]*float64, n), make([]string, n), make([]map[string]float64, n)}
	for i, t := range tokens {
		l.TextOffset[i], l.Tokens[i] = t.start, s.name(t.token)
		if t.first {
			continue
		}
		l.TokenLogprobs[i] = &tokens[i].logprob
		l.TopLogprobs[i] = map[string]float64{l.Tokens[i]: t.logprob}
		for _, top := range t.top {
			l.TopLogprobs[i][s.name(top.token)] = top.logprob
		}
	}
	return l
}
