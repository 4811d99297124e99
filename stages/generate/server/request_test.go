package server

import (
	"testing"
	"unicode/utf8"

	"bitnet1/shared/measure/measuretest"
)

// Whatever a request holds, the server refuses it with a message, or has a task within the limits.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `null`, `{"prompt": "a"}`, `{"prompt": ["a", "b"], "n": 2}`, `{"prompt": [1, 2]}`,
		`{"prompt": [[1], [2]]}`,
		`{"prompt": "<|endoftext|>", "echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234}`,
		`{"stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true}, "top_k": -1, "min_p": 0.1}`,
		`{"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 3}`,
		`{"messages": [{"role": "system", "content": [{"type": "text", "text": "a"}]}], "max_completion_tokens": 3}`,
		"{\"prompt\": \"\xff\"}", `{"prompt": "\ud800"}`, `{"prompt": [1e9, 2]}`, `{"temperature": 1e999}`,
	} {
		f.Add([]byte(seed))
	}
	m := open(f, saved(f, measuretest.Config(64).V76()))
	s := New(m, Options{Name: "small"})
	f.Fuzz(func(t *testing.T, b []byte) {
		var completion completionRequest
		task, err := (*task)(nil), decode(b, &completion)
		if err == nil {
			task, err = s.completionTask(&completion)
		}
		s.checkTask(t, task, err)
		var chat chatRequest
		if task, err = nil, decode(b, &chat); err == nil {
			task, err = s.chatTask(&chat)
		}
		s.checkTask(t, task, err)
	})
}

func (s *Server) checkTask(t *testing.T, k *task, err *apiError) {
	t.Helper()
	if err != nil {
		if err.status < 400 || err.status > 499 || err.Message == "" || !utf8.ValidString(err.Message) {
			t.Errorf("the error is %+v", err)
		}
		return
	}
	if len(k.prompts) == 0 || len(k.prompts)*k.choices > mostChoices || len(k.prompts) != len(k.implied) {
		t.Errorf("%d prompts, %d choices of each", len(k.prompts), k.choices)
	}
	for _, p := range k.prompts {
		if len(p) == 0 || len(p)+k.options.Tokens > s.model.Config.Seq {
			t.Errorf("a prompt of %d tokens and a text of %d", len(p), k.options.Tokens)
		}
	}
	if err := k.options.Validate(); err != nil || k.logprobs > mostTopLogprobs {
		t.Errorf("options %+v: %v", k.options, err)
	}
}
