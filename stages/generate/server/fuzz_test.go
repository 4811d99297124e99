package server

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"bitnet1/shared/measure/measuretest"
)

// FuzzServe sends any request to a server: it answers, and a request of this kind never fails on the server's side.
func FuzzServe(f *testing.F) {
	m := open(f, saved(f, measuretest.Config(32)))
	s := New(m, Options{Name: "small", MaxTokens: 2})
	f.Add("POST", "/v1/completions", "application/json", []byte(`{"prompt": ["a", "b"], "max_tokens": 2, "logprobs": 1}`))
	f.Add("POST", "/v1/completions", "", []byte(`{"prompt": "a", "stream": true, "max_tokens": 1}`))
	f.Add("POST", "/v1/chat/completions", "text/plain", []byte(`{"messages": [{"role": "user", "content": "a"}]}`))
	f.Add("POST", "/tokenize", "", []byte(`{"prompt": "aé\u0000"}`))
	f.Add("POST", "/detokenize", "", []byte(`{"tokens": [0, 256, -1, 99999]}`))
	f.Add("GET", "/v1/models/small", "", []byte(nil))
	f.Add("PUT", "/v1/models/../..//x?y", "", []byte("{"))
	f.Fuzz(func(t *testing.T, method, target, kind string, body []byte) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+target, bytes.NewReader(body))
		if err != nil || len(body) > 1<<16 {
			return
		}
		r.Header.Set("Content-Type", kind)
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %q %q: status %d, %s", method, target, body, w.Code, w.Body)
		}
	})
}
