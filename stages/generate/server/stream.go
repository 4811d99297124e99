package server

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
)

// newID is an id for an answer.
func newID(prefix string) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// stream writes server-sent events. The headers go out with the first of them, so that an earlier error still has its
// status.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func newStream(w http.ResponseWriter) *stream {
	return &stream{w: w, control: http.NewResponseController(w)}
}

// send writes an event.
func (s *stream) send(event any) error {
	b, err := json.Marshal(event)
	if err != nil {
		return err
	}
	return s.line(b)
}

func (s *stream) line(data []byte) error {
	if !s.begun {
		s.begun = true
		h := s.w.Header()
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no") // asks proxies to pass each event on at once
		s.w.WriteHeader(http.StatusOK)
	}
	line := append(append([]byte("data: "), data...), "\n\n"...)
	if _, err := s.w.Write(line); err != nil {
		return err
	}
	return s.control.Flush()
}

// done writes the end of a stream.
func (s *stream) done() error { return s.line([]byte("[DONE]")) }
