package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/stages/generate/generation"
)

const context512 = 512

// saved writes a checkpoint of a small model over bytes.
func saved(t testing.TB, c model.Config) string {
	t.Helper()
	return measuretest.Checkpoint(t, c, checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
}

func open(t testing.TB, path string) *generation.Model {
	t.Helper()
	m, err := generation.Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// client talks to a server.
type client struct {
	testing.TB
	*Server
	url string
}

func start(t testing.TB, o Options) *client {
	t.Helper()
	return startModel(t, open(t, saved(t, measuretest.Config(context512).V77())), o)
}

func startModel(t testing.TB, m *generation.Model, o Options) *client {
	t.Helper()
	o.Name = "small"
	s := New(m, o)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return &client{t, s, h.URL}
}

// body is JSON.
type body = map[string]any

// post returns the status and the body of an answer.
func (c *client) post(path string, request any) (int, []byte) {
	c.Helper()
	b, ok := request.(string)
	if !ok {
		encoded, err := json.Marshal(request)
		if err != nil {
			c.Fatal(err)
		}
		b = string(encoded)
	}
	r, err := http.Post(c.url+path, "application/json", strings.NewReader(b))
	if err != nil {
		c.Fatal(err)
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err != nil {
		c.Fatal(err)
	}
	return r.StatusCode, answer
}

func decodeAs[T any](t testing.TB, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

// complete returns the answer to a request, which must succeed.
func (c *client) complete(request body) completion {
	c.Helper()
	status, b := c.post("/v1/completions", request)
	if status != http.StatusOK {
		c.Fatalf("%v: status %d, %s", request, status, b)
	}
	return decodeAs[completion](c, b)
}

func (c *client) text(request body) string {
	c.Helper()
	return c.complete(request).Choices[0].Text
}

// events returns the events of a stream, without the [DONE] at its end.
func (c *client) events(path string, request body) (events [][]byte) {
	c.Helper()
	request["stream"] = true
	_, b := c.post(path, request)
	delete(request, "stream")
	for event := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok {
			c.Fatalf("event %q in %s", event, b)
		}
		events = append(events, []byte(data))
	}
	last := len(events) - 1
	if string(events[last]) != "[DONE]" {
		c.Fatalf("the last event is %s", events[last])
	}
	return events[:last]
}

// A text depends on its prompt, its options and its seed alone: not on how it is asked for, nor on other texts.
func TestCompletions(t *testing.T) {
	c := start(t, Options{})
	request := func(more body) body {
		b := body{"prompt": "Once upon", "max_tokens": 40, "seed": 5, "temperature": 0.9}
		for k, v := range more {
			b[k] = v
		}
		return b
	}
	whole := c.complete(request(nil))
	want := whole.Choices[0].Text
	if n := len(c.model.Encode(want)); n < 20 || whole.Usage.CompletionTokens != 40 || whole.Usage.PromptTokens != 9 ||
		whole.Usage.TotalTokens != 49 || *whole.Choices[0].FinishReason != "length" || whole.Model != "small" ||
		whole.Object != "text_completion" {
		t.Errorf("answer %+v, usage %+v", whole, whole.Usage)
	}
	if other := c.text(request(body{"seed": 6})); other == want {
		t.Errorf("seeds 5 and 6 both give %q", want)
	}
	for what, more := range map[string]body{
		"again":     nil,
		"by name":   {"model": "small"},
		"by tokens": {"prompt": c.model.Encode("Once upon")},
		"a list":    {"prompt": []string{"Once upon"}},
		"no change": {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "frequency_penalty": 0,
			"presence_penalty": 0, "logit_bias": body{}, "best_of": 1, "suffix": nil, "stop": nil, "user": "me"},
	} {
		if got := c.text(request(more)); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	if got := c.text(request(body{"echo": true})); got != "Once upon"+want {
		t.Errorf("with echo %q, want %q behind its prompt", got, want)
	}
	for what, more := range map[string]body{
		"temperature": {"temperature": 0.2}, "top_k": {"top_k": 1}, "top_p": {"top_p": 0}, "min_p": {"min_p": 1},
		"repetition_penalty": {"repetition_penalty": 5},
	} {
		if got := c.text(request(more)); got == want {
			t.Errorf("%s changes nothing", what)
		}
	}
	greedy := c.text(request(body{"temperature": 0}))
	for _, more := range []body{{"top_k": 1}, {"top_p": 0}, {"min_p": 1}} {
		if got := c.text(request(more)); got != greedy {
			t.Errorf("%v: %q, want the most probable tokens, %q", more, got, greedy)
		}
	}
}

// Choices of a prompt have seeds one after the other, and stand in the order of the prompts.
func TestSeveralTexts(t *testing.T) {
	c := start(t, Options{})
	all := c.complete(body{"prompt": []string{"One", "Two"}, "n": 3, "seed": 8, "max_tokens": 12})
	if len(all.Choices) != 6 || all.Usage.CompletionTokens != 72 || all.Usage.PromptTokens != 6 {
		t.Fatalf("%d choices, usage %+v", len(all.Choices), all.Usage)
	}
	for i, choice := range all.Choices {
		want := c.text(body{"prompt": []string{"One", "Two"}[i/3], "seed": 8 + i%3, "max_tokens": 12})
		if choice.Index != i || choice.Text != want {
			t.Errorf("choice %d has index %d and %q, want %q", i, choice.Index, choice.Text, want)
		}
	}
}

func TestStop(t *testing.T) {
	c := start(t, Options{})
	request := body{"prompt": "Once", "max_tokens": 60, "seed": 3}
	text := c.text(request)
	at := len(text) / 2
	for text[at] >= utf8.RuneSelf || text[at+1] >= utf8.RuneSelf {
		at++
	}
	stop := text[at : at+2]
	want, _, _ := strings.Cut(text, stop)
	request["stop"] = []string{"none of it", stop}
	request["logprobs"] = 0
	for name, choices := range map[string][]completionChoice{
		"whole": c.complete(request).Choices, "stream": joined(c, c.events("/v1/completions", request)),
	} {
		got := choices[0]
		if got.Text != want || *got.FinishReason != "stop" {
			t.Errorf("%s: %q ends by %s, want %q", name, got.Text, *got.FinishReason, want)
		}
		offsets := got.Logprobs.TextOffset
		if len(offsets) == 0 || offsets[len(offsets)-1] >= len([]rune(want)) {
			t.Errorf("%s: tokens at %v of a text of %d characters", name, offsets, len([]rune(want)))
		}
	}
}

// joined makes whole choices of the events of a stream.
func joined(t testing.TB, events [][]byte) (all []completionChoice) {
	t.Helper()
	for _, e := range events {
		for _, part := range decodeAs[completion](t, e).Choices {
			for len(all) <= part.Index {
				all = append(all, completionChoice{Index: len(all)})
			}
			c := &all[part.Index]
			if c.FinishReason != nil {
				t.Errorf("choice %d goes on after its end", part.Index)
			}
			c.Text += part.Text
			c.FinishReason = part.FinishReason
			if l := part.Logprobs; l != nil {
				if c.Logprobs == nil {
					c.Logprobs = new(completionLogprobs)
				}
				c.Logprobs.TextOffset = append(c.Logprobs.TextOffset, l.TextOffset...)
				c.Logprobs.TokenLogprobs = append(c.Logprobs.TokenLogprobs, l.TokenLogprobs...)
				c.Logprobs.Tokens = append(c.Logprobs.Tokens, l.Tokens...)
				c.Logprobs.TopLogprobs = append(c.Logprobs.TopLogprobs, l.TopLogprobs...)
			}
		}
	}
	return all
}

// The parts of a stream are those of the answer in one piece, and each is whole characters.
func TestStream(t *testing.T) {
	c := start(t, Options{})
	for _, request := range []body{
		{"prompt": "Once", "max_tokens": 80, "seed": 3},
		{"prompt": []string{"Naïve", ""}, "n": 2, "max_tokens": 30, "seed": 3, "logprobs": 2, "echo": true},
		{"prompt": "Once", "max_tokens": 0, "echo": true, "logprobs": 1},
	} {
		want := c.complete(request)
		request["stream_options"] = body{"include_usage": true}
		events := c.events("/v1/completions", request)
		got, _ := json.Marshal(joined(t, events[:len(events)-1]))
		if whole, _ := json.Marshal(want.Choices); string(got) != string(whole) {
			t.Errorf("%v: the stream has\n%s, the whole answer\n%s", request, got, whole)
		}
		last := decodeAs[completion](t, events[len(events)-1])
		if last.Usage == nil || last.Usage.TotalTokens != want.Usage.TotalTokens || len(last.Choices) != 0 {
			t.Errorf("%v: the stream ends with usage %+v, want %+v", request, last.Usage, want.Usage)
		}
	}
}

// Of a validation sequence the server gives the probabilities that evaluate measures.
func TestLogprobsAreThoseOfEvaluate(t *testing.T) {
	path := saved(t, measuretest.Config(64).V77())
	c := startModel(t, open(t, path), Options{})
	text := strings.Join(measuretest.Proverbs(), "\n")[:64]
	tokens := c.model.Encode(text)
	m, settings := measuretest.Load(t, path, 1)
	losses, err := m.Losses(tokens, append(slices.Clone(tokens[1:]), -1), settings)
	if err != nil {
		t.Fatal(err)
	}
	got := c.complete(body{"prompt": tokens, "max_tokens": 0, "echo": true, "logprobs": 1}).Choices[0]
	l := got.Logprobs
	if got.Text != text || len(l.Tokens) != len(tokens) || l.TokenLogprobs[0] != nil || l.TopLogprobs[0] != nil {
		t.Fatalf("%q has %d tokens, the first with %v", got.Text, len(l.Tokens), l.TokenLogprobs[0])
	}
	var nats, want float64
	for i := 1; i < len(tokens); i++ {
		nats -= *l.TokenLogprobs[i]
		want += float64(losses[i-1])
		if d := math.Abs(-*l.TokenLogprobs[i] - float64(losses[i-1])); d > 1e-6 {
			t.Errorf("token %d costs %v nats, evaluate has %v", i, -*l.TokenLogprobs[i], losses[i-1])
		}
		if l.TextOffset[i] != i || l.Tokens[i] != text[i:i+1] {
			t.Errorf("token %d is %q at %d", i, l.Tokens[i], l.TextOffset[i])
		}
	}
	if math.Abs(nats-want) > 1e-5 {
		t.Errorf("the sequence costs %v nats, evaluate has %v", nats, want)
	}
	// The harness asks for one token more, which changes nothing of those before.
	more := c.complete(body{"prompt": tokens[:60], "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0})
	n := more.Choices[0].Logprobs
	if len(n.Tokens) != 61 || *n.TokenLogprobs[59] != *l.TokenLogprobs[59] ||
		n.TopLogprobs[60][n.Tokens[60]] != *n.TokenLogprobs[60] {
		t.Errorf("with a token more there are %d, the last with %v of %v", len(n.Tokens), *n.TokenLogprobs[60],
			n.TopLogprobs[60])
	}
}

// The most probable tokens are listed in their order, each under a name of its own.
func TestTopLogprobs(t *testing.T) {
	c := start(t, Options{})
	request := body{"messages": []body{{"role": "user", "content": "Hello"}}, "max_tokens": 8, "logprobs": true,
		"top_logprobs": 20, "seed": 1}
	_, b := c.post("/v1/chat/completions", request)
	for i, token := range decodeAs[chatCompletion](t, b).Choices[0].Logprobs.Content {
		names, total := map[string]bool{}, 0.0
		for j, top := range token.TopLogprobs {
			names[top.Token] = true
			total += math.Exp(top.Logprob)
			if j > 0 && top.Logprob > token.TopLogprobs[j-1].Logprob {
				t.Errorf("token %d: %v comes after %v", i, top, token.TopLogprobs[j-1])
			}
			if part := strings.HasPrefix(top.Token, `bytes:\x`); len(top.Bytes) != 1 || part != (top.Bytes[0] >= utf8.RuneSelf) {
				t.Errorf("token %d: %q is bytes %v", i, top.Token, top.Bytes)
			}
		}
		if len(names) != 20 || total > 1 || token.Logprob > token.TopLogprobs[0].Logprob {
			t.Errorf("token %d: %d names, total probability %v, %v beside %v", i, len(names), total, token.Logprob,
				token.TopLogprobs[0])
		}
	}
}

// A conversation is continued in the words of the template, and the answer ends where the next turn begins.
func TestChat(t *testing.T) {
	c := start(t, Options{})
	messages := []body{{"role": "developer", "content": "Be kind."}, {"role": "user", "content": []body{
		{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}}}}
	request := body{"messages": messages, "max_completion_tokens": 50, "seed": 4, "model": "small"}
	prompt := append([]int32{256}, c.model.Encode("system: Be kind.\n\nuser: Hello\n\nassistant:")...)
	want := c.text(body{"prompt": prompt, "max_tokens": 50, "seed": 4})
	status, b := c.post("/v1/chat/completions", request)
	got := decodeAs[chatCompletion](t, b)
	if status != http.StatusOK || *got.Choices[0].Message.Content != strings.TrimLeft(want, " \t\r\n") ||
		got.Usage.PromptTokens != len(prompt) || got.Object != "chat.completion" ||
		got.Choices[0].Message.Role != "assistant" {
		t.Errorf("status %d, %s, want %q", status, b, want)
	}
	var text string
	for i, e := range c.events("/v1/chat/completions", request) {
		part := decodeAs[chatCompletion](t, e)
		delta := part.Choices[0].Delta
		if i == 0 && delta.Role != "assistant" || part.Object != "chat.completion.chunk" {
			t.Errorf("event %d is %s", i, e)
		}
		if delta.Content != nil {
			text += *delta.Content
		}
	}
	if text != *got.Choices[0].Message.Content {
		t.Errorf("the stream has %q, the whole answer %q", text, *got.Choices[0].Message.Content)
	}
}

// What is impossible is refused, with the parameter that is wrong.
func TestRefusals(t *testing.T) {
	c := start(t, Options{MaxBody: 2000, MaxTokens: 100})
	hello := []body{{"role": "user", "content": "Hello"}}
	for _, r := range []struct {
		path    string
		request any
		param   string
		want    string
		status  int
	}{
		{"completions", "nonsense", "", "no JSON object", 400},
		{"completions", "[]", "", "a JSON array, want an object", 400},
		{"completions", `{"prompt": "a"} {}`, "", "more follows", 400},
		{"completions", "{\"prompt\": \"\xff\"}", "", "not valid UTF-8", 400},
		{"completions", body{"prompts": "a"}, "prompts", "no such parameter", 400},
		{"completions", body{"model": "large"}, "model", `no model "large"; this server has "small"`, 404},
		{"completions", body{"prompt": 5}, "prompt", "a text, a list of texts", 400},
		{"completions", body{"prompt": []any{1, "a"}}, "prompt", "a text, a list of texts", 400},
		{"completions", body{"prompt": []any{"a", nil}}, "prompt", "a text, a list of texts", 400},
		{"completions", body{"prompt": []any{nil}}, "prompt", "a token id is an integer", 400},
		{"completions", body{"prompt": []any{5, nil}}, "prompt", "a token id is an integer", 400},
		{"completions", body{"prompt": []any{[]any{5, nil}}}, "prompt", "a token id is an integer", 400},
		{"completions", body{"prompt": []any{[]any{5}, nil}}, "prompt", "a token id is an integer", 400},
		{"completions", body{"prompt": []any{}}, "prompt", "an empty list", 400},
		{"completions", body{"prompt": []any{[]int{}}}, "prompt", "no tokens", 400},
		{"completions", body{"prompt": []int{1, 257}}, "prompt", "token 257 at position 1 is none of the 257 tokens", 400},
		{"completions", body{"prompt": []int{-1}}, "prompt", "token -1", 400},
		{"completions", body{"prompt": []any{1e300}}, "prompt", "a token id is an integer", 400},
		{"completions", body{"prompt": make([]string, 65)}, "prompt", "65 prompts, and a request may have 64", 400},
		{"completions", body{"prompt": []string{"a", "b"}, "n": 33}, "n", "33 texts for each of 2 prompts", 400},
		{"completions", body{"prompt": strings.Repeat("a", 513)}, "", "513 tokens, and the model's context is 512", 400},
		{"completions", body{"prompt": strings.Repeat("a", 512)}, "", "shorten the prompt", 400},
		{"completions", body{"prompt": strings.Repeat("a", 450), "max_tokens": 63}, "max_tokens", "ask for 62 at most", 400},
		{"completions", body{"max_tokens": 101}, "max_tokens", "this server writes 100 at most", 400},
		{"completions", body{"prompt": strings.Repeat("a", 2000)}, "", "more than 2000 bytes", 413},
		{"completions", body{"max_tokens": -1}, "max_tokens", "-1, want 0 to 2147483647", 400},
		{"completions", body{"max_tokens": 1.5}, "max_tokens", "want an integer", 400},
		{"completions", body{"n": 0}, "n", "0, want 1 to 64", 400},
		{"completions", body{"temperature": 2.1}, "temperature", "2.1, want 0 to 2", 400},
		{"completions", body{"temperature": "hot"}, "temperature", "a JSON string, want a number", 400},
		{"completions", `{"temperature": 1e999}`, "temperature", "want a number", 400},
		{"completions", body{"top_p": -0.1}, "top_p", "-0.1, want 0 to 1", 400},
		{"completions", body{"top_k": -2}, "top_k", "-2, want -1 to", 400},
		{"completions", body{"min_p": 2}, "min_p", "2, want 0 to 1", 400},
		{"completions", body{"repetition_penalty": 0}, "repetition_penalty", "more than 0", 400},
		{"completions", body{"frequency_penalty": 1}, "frequency_penalty", "this server has none", 400},
		{"completions", body{"presence_penalty": -3}, "presence_penalty", "-3, want -2 to 2", 400},
		{"completions", body{"logit_bias": body{"5": 1}}, "logit_bias", "this server has none", 400},
		{"completions", body{"logprobs": 6}, "logprobs", "6, want 0 to 5", 400},
		{"completions", body{"logprobs": true}, "logprobs", "a JSON bool, want an integer", 400},
		{"completions", body{"best_of": 2}, "best_of", "ask for them by n", 400},
		{"completions", body{"suffix": "end"}, "suffix", "nothing between two texts", 400},
		{"completions", body{"seed": "x"}, "seed", "want an integer", 400},
		{"completions", body{"stop": ""}, "stop", "a text of 0 bytes", 400},
		{"completions", body{"stop": []int{1}}, "stop", "a text, or a list of texts", 400},
		{"completions", body{"stop": make([]string, 17)}, "stop", "17 texts", 400},
		{"completions", body{"stream": "yes"}, "stream", "want true or false", 400},
		{"completions", body{"stream_options": body{"include_usage": true}}, "stream_options", "only with stream", 400},
		{"chat/completions", body{}, "messages", "there is none", 400},
		{"chat/completions", body{"messages": "Hello"}, "messages", "want a list", 400},
		{"chat/completions", body{"messages": []body{{"role": "tool", "content": "x"}}}, "messages", `role "tool"`, 400},
		{"chat/completions", body{"messages": []body{{"role": "user"}}}, "messages", "message 0 has no content", 400},
		{"chat/completions", body{"messages": []any{hello[0], body{"role": "assistant", "content": nil}}}, "messages",
			"message 1 has no content", 400},
		{"chat/completions", body{"messages": []any{nil}}, "messages", "message 0 has no content", 400},
		{"chat/completions", body{"messages": []body{{"role": "user", "content": 5}}}, "messages", "a content is a text",
			400},
		{"chat/completions", body{"messages": []body{{"role": "user", "content": []body{{"type": "image_url"}}}}}, "messages",
			"parts of type text alone", 400},
		{"chat/completions", body{"messages": hello, "top_logprobs": 2}, "top_logprobs", "only with logprobs", 400},
		{"chat/completions", body{"messages": hello, "logprobs": true, "top_logprobs": 21}, "top_logprobs", "0 to 20", 400},
		{"chat/completions", body{"messages": hello, "tools": []body{{}}}, "tools", "calls none", 400},
		{"chat/completions", body{"messages": hello, "response_format": body{"type": "json_object"}}, "response_format",
			"type text alone", 400},
		{"chat/completions", body{"messages": hello, "max_completion_tokens": 101}, "max_completion_tokens",
			"100 at most", 400},
		{"nothing", body{}, "", "no such path", 404},
		{"models", body{}, "", "use GET", 405},
	} {
		status, b := c.post("/v1/"+r.path, r.request)
		var answer struct {
			Error struct {
				Message string
				Type    string
				Param   *string
			}
		}
		err := json.Unmarshal(b, &answer)
		param := ""
		if answer.Error.Param != nil {
			param = *answer.Error.Param
		}
		if err != nil || status != r.status || param != r.param || !strings.Contains(answer.Error.Message, r.want) ||
			answer.Error.Type != "invalid_request_error" {
			t.Errorf("%s %.200v: status %d, %s; want %d, %q, %q", r.path, r.request, status, b, r.status, r.param, r.want)
		}
	}
	if n := len(c.inside); n != 0 {
		t.Errorf("%d requests are still inside", n)
	}
}

// An answer in one piece lists so many probabilities at most, because all of it is in memory at once. A stream may have
// more.
func TestProbabilitiesAreBounded(t *testing.T) {
	c := start(t, Options{})
	large := body{"messages": []body{{"role": "user", "content": "Hello"}}, "n": 64, "max_tokens": 196, "logprobs": true,
		"top_logprobs": 20}
	if status, b := c.post("/v1/chat/completions", large); status != 400 ||
		!strings.Contains(string(b), "logprobs: 263424 probabilities, and an answer may have 262144") {
		t.Errorf("status %d, %.300s", status, b)
	}
	echoed := body{"prompt": slices.Repeat([]string{strings.Repeat("a", 500)}, 64), "n": 1, "max_tokens": 1, "echo": true,
		"logprobs": 5}
	if status, b := c.post("/v1/completions", echoed); status != 200 {
		t.Errorf("192384 probabilities: status %d, %.300s", status, b)
	}
	many := task{prompts: [][]int32{make([]int32, 500), make([]int32, 10)}, choices: 3, echo: true, logprobs: 2}
	many.options.Tokens = 7
	if n := many.probabilities(); n != 3*(500+7+10+7)*3 {
		t.Errorf("%d probabilities", n)
	}
	large["stream"] = true
	b, _ := json.Marshal(large)
	r, err := http.Post(c.url+"/v1/chat/completions", "application/json", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close() // the text ends with the token at work
	if r.StatusCode != http.StatusOK {
		t.Errorf("a stream has status %d", r.StatusCode)
	}
}

func TestModels(t *testing.T) {
	c := start(t, Options{Created: time.Unix(1234, 0), Converses: true})
	for path, want := range map[string]string{
		"/v1/models": `{"object":"list","data":[{"id":"small","object":"model","created":1234,"owned_by":"bitnet1",` +
			`"max_model_len":512,"converses":true}]}`,
		"/v1/models/small": `{"id":"small","object":"model","created":1234,"owned_by":"bitnet1","max_model_len":512,` +
			`"converses":true}`,
		"/v1/models/org/other": `no model \"org/other\"`,
		"/health":              `{"status":"ok"}`,
	} {
		if _, b := c.get(path, nil); !strings.Contains(string(b), want) {
			t.Errorf("%s: %s, want %s", path, b, want)
		}
	}
}

func (c *client) get(path string, headers map[string]string) (*http.Response, []byte) {
	c.Helper()
	r, err := http.NewRequest(http.MethodGet, c.url+path, nil)
	if err != nil {
		c.Fatal(err)
	}
	for k, v := range headers {
		r.Header.Set(k, v)
		if k == "Host" {
			r.Host = v
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		c.Fatal(err)
	}
	return answer, b
}

// A server with a token answers those that have it. The page and the health are for everybody.
func TestToken(t *testing.T) {
	c := start(t, Options{Token: "secret"})
	for _, r := range []struct {
		path, given string
		status      int
	}{
		{"/v1/models", "", 401}, {"/v1/models", "Bearer secre", 401}, {"/v1/models", "Bearer secret ", 200},
		{"/v1/models", "bearer secret", 200}, {"/v1/models", "secret", 401}, {"/v1/models", "Basic secret", 401},
		{"/v1/models", "Bearer other", 401}, {"/metrics", "", 401}, {"/tokenizer_info", "", 401}, {"/health", "", 200},
		{"/", "", 200}, {"/metrics", "Bearer secret", 200},
	} {
		if answer, b := c.get(r.path, map[string]string{"Authorization": r.given, "Host": "elsewhere"}); answer.
			StatusCode != r.status {
			t.Errorf("%s with %q: status %d, %s", r.path, r.given, answer.StatusCode, b)
		}
	}
	if status, b := c.post("/v1/completions", body{}); status != 401 {
		t.Errorf("a completion without the token: status %d, %s", status, b)
	}
}

// Without a token, a foreign page cannot use the browser of its visitor to reach the server.
func TestForeignPages(t *testing.T) {
	c := start(t, Options{})
	for host, status := range map[string]int{
		"": 200, "localhost:8000": 200, "127.0.0.1": 200, "[::1]:80": 200, "rebound.example:8000": 403, "10.0.0.1": 200,
		"localhost.example": 403,
	} {
		if answer, b := c.get("/v1/models", map[string]string{"Host": host}); answer.StatusCode != status {
			t.Errorf("host %q: status %d, %s", host, answer.StatusCode, b)
		}
	}
	for origin, status := range map[string]int{c.url: 200, "https://elsewhere.example": 403} {
		r, err := http.NewRequest(http.MethodPost, c.url+"/v1/completions", strings.NewReader(`{"max_tokens": 1}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", origin)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != status || err != nil || !json.Valid(b) ||
			status == 403 && !strings.Contains(string(b), `"code":"forbidden_origin"`) {
			t.Errorf("origin %s: status %d, %s, %v", origin, answer.StatusCode, b, err)
		}
	}
}

// More requests than may wait are turned away, and told when to come back.
func TestQueueIsBounded(t *testing.T) {
	c := start(t, Options{Generators: 1, Queue: 1})
	var unsent []*io.PipeWriter
	answers := make(chan int, 2)
	for range 2 {
		r, w := io.Pipe() // a request that is inside until its body ends
		unsent = append(unsent, w)
		go func() {
			answer, err := http.Post(c.url+"/v1/completions", "application/json", r)
			if err != nil {
				answers <- -1
				return
			}
			answer.Body.Close()
			answers <- answer.StatusCode
		}()
	}
	wait(t, "both requests are inside", func() bool { return len(c.inside) == 2 })
	r, err := http.Post(c.url+"/v1/completions", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") != "2" ||
		!strings.Contains(string(b), "2 requests are being") {
		t.Errorf("status %d, Retry-After %q, %s", r.StatusCode, r.Header.Get("Retry-After"), b)
	}
	for _, w := range unsent {
		io.WriteString(w, `{"max_tokens": 1}`)
		w.Close()
	}
	for range 2 {
		if status := <-answers; status != 200 {
			t.Errorf("a request that waited has status %d", status)
		}
	}
	if status, b := c.post("/v1/completions", body{"max_tokens": 1}); status != 200 {
		t.Errorf("after them: status %d, %s", status, b)
	}
}

// wait returns when a condition holds.
func wait(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never came true: ", what)
		}
	}
}

// When its client goes away, a text is not written further.
func TestDisconnect(t *testing.T) {
	const most = 30_000
	c := startModel(t, open(t, saved(t, measuretest.Config(most+100).V76())), Options{})
	request := body{"prompt": "Once", "max_tokens": 1000, "temperature": 0}
	if answer := c.complete(request); *answer.Choices[0].FinishReason != "length" {
		t.Fatal("the model ends its text, so that this test says nothing")
	}
	before := c.value("bitnet1_api_written_tokens_total")
	for _, stream := range []bool{true, false} {
		request["max_tokens"], request["stream"] = most, stream
		b, _ := json.Marshal(request)
		ctx, leave := context.WithCancel(context.Background())
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/v1/completions", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if answer, err := http.DefaultClient.Do(r); err == nil {
				bufio.NewReader(answer.Body).ReadString('\n')
				leave()
				answer.Body.Close()
			}
		}()
		wait(t, "the text has begun", func() bool { return c.value("bitnet1_api_written_tokens_total") > before })
		leave()
		<-gone
		wait(t, "the request has ended", func() bool { return len(c.inside) == 0 })
		after := c.value("bitnet1_api_written_tokens_total")
		if written := after - before; written >= most {
			t.Errorf("stream %v: the client is gone, and %v tokens were written", stream, written)
		}
		before = after
	}
	if running := c.value("bitnet1_api_running"); running != 0 {
		t.Errorf("%v requests are running", running)
	}
	wait(t, "the request without a stream counts as left", func() bool {
		_, b := c.get("/metrics", nil)
		return strings.Contains(string(b), `bitnet1_api_requests_total{path="/v1/completions",status="499"} 1`)
	})
}

// value is a metric of the server.
func (c *client) value(name string) float64 {
	c.Helper()
	_, b := c.get("/metrics", nil)
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				c.Fatal(err)
			}
			return v
		}
	}
	c.Fatalf("no metric %s in\n%s", name, b)
	return 0
}

func TestMetrics(t *testing.T) {
	c := start(t, Options{})
	for seed := range 2 { // whose texts do not end by themselves
		c.complete(body{"prompt": "Once upon", "max_tokens": 5, "seed": seed})
	}
	c.post("/v1/completions", body{"n": 0})
	r, b := c.get("/metrics", map[string]string{"Accept": "application/openmetrics-text; version=1.0.0"})
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/openmetrics-text") ||
		!strings.HasSuffix(string(b), "# EOF\n") {
		t.Errorf("%s that ends with %q", r.Header.Get("Content-Type"), b[max(0, len(b)-20):])
	}
	for _, want := range []string{
		`bitnet1_api_requests_total{path="/v1/completions",status="200"} 2`,
		`bitnet1_api_requests_total{path="/v1/completions",status="400"} 1`,
		"bitnet1_api_prompt_tokens_total 10", "bitnet1_api_cached_tokens_total 8", "bitnet1_api_written_tokens_total 10",
		"bitnet1_api_first_token_seconds_count 2", "bitnet1_api_running 0", "process_resident_memory_bytes",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
}

// A hundred clients at once all have their texts, with the memory of a few sequences.
func TestManyClients(t *testing.T) {
	c := start(t, Options{Generators: 3})
	request := func(i int) body { return body{"prompt": fmt.Sprint("Client ", i), "max_tokens": 20, "seed": i} }
	var texts [100]string
	var all sync.WaitGroup
	for i := range texts {
		all.Go(func() {
			if i%2 == 0 {
				texts[i] = c.text(request(i))
				return
			}
			for _, e := range c.events("/v1/completions", request(i)) {
				texts[i] += decodeAs[completion](t, e).Choices[0].Text
			}
		})
	}
	all.Wait()
	for i := range texts {
		if want := c.text(request(i)); texts[i] != want {
			t.Errorf("client %d has %q, want %q", i, texts[i], want)
		}
	}
	if c.pool.made > 3 || len(c.pool.idle) != c.pool.made {
		t.Errorf("%d generators were made, and %d are idle", c.pool.made, len(c.pool.idle))
	}
}

// A conversation that goes on costs what is new of it, whichever others there are.
func TestConversationsGoOn(t *testing.T) {
	c := start(t, Options{Generators: 2})
	for turn := 1; turn < 4; turn++ {
		for _, who := range []string{"Anna", "Bert"} {
			u := c.complete(body{"prompt": strings.Repeat(who+" says. ", turn*3), "max_tokens": 2, "temperature": 0}).Usage
			if want := (turn-1)*33 - 1; turn > 1 && u.Details.CachedTokens < want {
				t.Errorf("%s, turn %d: %d tokens of %d were computed before, want %d", who, turn, u.Details.CachedTokens,
					u.PromptTokens, want)
			}
		}
	}
}

// The endpoints of tokens are those that lm-evaluation-harness asks.
func TestTokenize(t *testing.T) {
	c := start(t, Options{})
	_, b := c.get("/tokenizer_info", nil)
	if !strings.Contains(string(b), `"bos_token":null,"eos_token":"\u003c|endoftext|\u003e"`) {
		t.Errorf("tokenizer info %s", b)
	}
	for text, want := range map[string][]int32{
		"": {}, "Hé": {'H', 0xC3, 0xA9}, "<|endoftext|>": {256}, "a<|endoftext|>b": {'a', 256, 'b'},
	} {
		_, b := c.post("/tokenize", body{"prompt": text, "add_special_tokens": false})
		got := decodeAs[struct {
			Tokens []int32
			Count  int
		}](t, b)
		if !slices.Equal(got.Tokens, want) || got.Tokens == nil || got.Count != len(want) {
			t.Errorf("%q has tokens %v", text, got)
		}
		if _, b := c.post("/detokenize", body{"tokens": got.Tokens}); decodeAs[map[string]string](t, b)["prompt"] != text {
			t.Errorf("%v is %s", got.Tokens, b)
		}
	}
	for _, wrong := range []body{{"tokens": []int{999}}, {"tokens": []any{5, nil}}, {"tokens": nil}, {}} {
		if status, b := c.post("/detokenize", wrong); status != 400 || !strings.Contains(string(b), `"param":"tokens"`) {
			t.Errorf("%v: status %d, %s", wrong, status, b)
		}
	}
	if status, b := c.post("/tokenize", body{}); status != 400 || !strings.Contains(string(b), `"param":"prompt"`) {
		t.Errorf("status %d, %s", status, b)
	}
}

// A server that is told to end lets requests finish, or ends them when their time is over. It accepts no others.
func TestEnd(t *testing.T) {
	m := open(t, saved(t, measuretest.Config(30_000).V76()))
	for grace, want := range map[time.Duration]string{
		time.Minute: "[DONE]", time.Millisecond: "the server is shutting down",
	} {
		s := New(m, Options{Name: "small", Grace: grace})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, l) }()
		url, most := "http://"+l.Addr().String(), 29_000
		if grace == time.Minute {
			most = 300
		}
		r, err := http.Post(url+"/v1/completions", "application/json",
			strings.NewReader(fmt.Sprintf(`{"prompt": "Once", "temperature": 0, "stream": true, "max_tokens": %d}`, most)))
		if err != nil {
			t.Fatal(err)
		}
		end()
		wait(t, "the server is closing", s.closing.Load)
		said, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(said), want) {
			t.Errorf("grace %v: the stream ends with %s, error %v, want %s", grace, said[max(0, len(said)-300):], err, want)
		}
		if err := <-ended; err != nil {
			t.Errorf("grace %v: %v", grace, err)
		}
		if _, err := http.Get(url + "/health"); err == nil {
			t.Errorf("grace %v: the server answers after its end", grace)
		}
	}
}
