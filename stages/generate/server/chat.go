package server

import (
	"net/http"

	"bitnet1/shared/data/documents"
)

// chat answers /v1/chat/completions.
func (s *Server) chat(w http.ResponseWriter, r *http.Request, body []byte) *apiError {
	var request chatRequest
	if err := decode(body, &request); err != nil {
		return err
	}
	t, err := s.chatTask(&request)
	if err != nil {
		return err
	}
	return s.respond(w, r, t, &chatFormat{server: s, id: newID("chatcmpl-"), logprobs: t.logprobs >= 0})
}

// chatTask makes a task of a request.
func (s *Server) chatTask(r *chatRequest) (*task, *apiError) {
	if err := s.named(r.Model); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	var turns []documents.Turn
	for _, m := range r.Messages {
		turns = append(turns, documents.Turn{Role: m.Role, Text: string(*m.Content)})
	}
	prompt, stop := s.model.Conversation(s.Template, turns)
	name, most := "max_completion_tokens", r.MaxCompletionTokens
	if most == nil {
		name, most = "max_tokens", r.MaxTokens
	}
	t, err := s.newTask(&r.parameters, [][]int32{prompt}, name, most, 0)
	if err != nil {
		return nil, err
	}
	t.options.Stop = append(stop, t.options.Stop...)
	t.implied, t.trim = []bool{false}, true
	if is(r.Logprobs) {
		t.logprobs = 0
		if r.TopLogprobs != nil {
			t.logprobs = *r.TopLogprobs
		}
	}
	return t, nil
}

// chatCompletion is an answer of /v1/chat/completions.
type chatCompletion struct {
	header
	Choices []chatChoice `json:"choices"`
	Usage   *usage       `json:"usage,omitempty"`
}

type chatChoice struct {
	Index        int           `json:"index"`
	Message      *chatText     `json:"message,omitempty"` // of a whole answer
	Delta        *chatText     `json:"delta,omitempty"`   // of a part
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type chatText struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
	Refusal *string `json:"refusal,omitempty"`
}

type chatLogprobs struct {
	Content []chatToken `json:"content"`
}

type chatToken struct {
	topToken
	TopLogprobs []topToken `json:"top_logprobs"`
}

type topToken struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

// chatFormat writes answers of /v1/chat/completions.
type chatFormat struct {
	server   *Server
	id       string
	logprobs bool
}

func (f *chatFormat) answer(object string, choices []chatChoice, u *usage) any {
	return chatCompletion{f.server.newHeader(f.id, object), choices, u}
}

func (f *chatFormat) whole(choices []*choice, u *usage) any {
	all := []chatChoice{}
	for _, c := range choices {
		text := c.text.String()
		all = append(all, chatChoice{Index: c.index, Message: &chatText{Role: "assistant", Content: &text},
			Logprobs: f.tokens(c), FinishReason: c.finishReason()})
	}
	if len(choices) == 0 { // the usage at the end of a stream
		return f.answer("chat.completion.chunk", all, u)
	}
	return f.answer("chat.completion", all, u)
}

func (f *chatFormat) begin(index int) any {
	empty := ""
	return f.chunk(chatChoice{Index: index, Delta: &chatText{Role: "assistant", Content: &empty}})
}

func (f *chatFormat) part(c *choice) any {
	text := c.text.String()
	return f.chunk(chatChoice{Index: c.index, Delta: &chatText{Content: &text}, Logprobs: f.tokens(c)})
}

func (f *chatFormat) end(c *choice) any {
	return f.chunk(chatChoice{Index: c.index, Delta: &chatText{}, FinishReason: c.finishReason()})
}

func (f *chatFormat) chunk(c chatChoice) any {
	return f.answer("chat.completion.chunk", []chatChoice{c}, nil)
}

func (f *chatFormat) tokens(c *choice) *chatLogprobs {
	if !f.logprobs {
		return nil
	}
	l := &chatLogprobs{Content: []chatToken{}}
	for _, t := range c.tokens {
		token := chatToken{f.token(t.scored), []topToken{}}
		for _, top := range t.top {
			token.TopLogprobs = append(token.TopLogprobs, f.token(top))
		}
		l.Content = append(l.Content, token)
	}
	return l
}

func (f *chatFormat) token(t scored) topToken {
	token := topToken{Token: f.server.name(t.token), Logprob: t.logprob}
	for _, b := range f.server.bytesOf(t.token) {
		token.Bytes = append(token.Bytes, int(b))
	}
	return token
}
