package server

import (
	"net/http"
	"strings"
	"time"
)

// header is what every answer begins with.
type header struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"` // Unix time
	Model   string `json:"model"`
}

// choice is a text of an answer, or a part of one.
type choice struct {
	index  int
	text   strings.Builder
	tokens []chosen
	finish string // empty: it goes on
}

func (c *choice) finishReason() *string {
	if c.finish == "" {
		return nil
	}
	return &c.finish
}

// format makes JSON of an answer.
type format interface {
	whole(choices []*choice, u *usage) any // in one piece; without choices the usage at the end of a stream
	begin(index int) any                   // the event before a text's parts; nil: there is none
	part(c *choice) any
	end(c *choice) any
}

// respond does a task and answers in one piece or as a stream.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, t *task, f format) *apiError {
	if t.stream {
		return s.respondStream(w, r, t, f)
	}
	if n := t.probabilities(); n > mostProbabilities {
		return invalid("logprobs", "%d probabilities, and an answer may have %d: ask for fewer tokens or texts, or for a "+
			"stream", n, mostProbabilities)
	}
	var all collected
	u, err := s.answer(r.Context(), t, &all)
	if err != nil {
		return s.failure(r.Context(), err)
	}
	writeJSON(w, http.StatusOK, f.whole(all, &u))
	return nil
}

func (s *Server) respondStream(w http.ResponseWriter, r *http.Request, t *task, f format) *apiError {
	events := newStream(w)
	u, err := s.answer(r.Context(), t, &streamed{events, f, make(map[int]bool)})
	if err == nil && t.usage {
		err = events.send(f.whole(nil, &u))
	}
	if err == nil {
		err = events.done()
	}
	if err == nil {
		return nil
	}
	failure := s.failure(r.Context(), err)
	if events.begun {
		_ = events.send(failure.body())
		return nil
	}
	return failure
}

// collected is an answer in one piece.
type collected []*choice

func (all *collected) part(index int, text string, tokens []chosen) error {
	for len(*all) <= index {
		*all = append(*all, &choice{index: len(*all)})
	}
	c := (*all)[index]
	c.text.WriteString(text)
	c.tokens = append(c.tokens, tokens...)
	return nil
}

func (all *collected) end(index int, finish string) error {
	err := all.part(index, "", nil) // of an empty text
	(*all)[index].finish = finish
	return err
}

// streamed is an answer as events.
type streamed struct {
	events *stream
	format format
	begun  map[int]bool
}

func (s *streamed) begin(index int) error {
	if s.begun[index] {
		return nil
	}
	s.begun[index] = true
	if event := s.format.begin(index); event != nil {
		return s.events.send(event)
	}
	return nil
}

func (s *streamed) part(index int, text string, tokens []chosen) error {
	if err := s.begin(index); err != nil {
		return err
	}
	c := &choice{index: index, tokens: tokens}
	c.text.WriteString(text)
	return s.events.send(s.format.part(c))
}

func (s *streamed) end(index int, finish string) error {
	if err := s.begin(index); err != nil {
		return err
	}
	return s.events.send(s.format.end(&choice{index: index, finish: finish}))
}

func (s *Server) newHeader(id, object string) header {
	return header{id, object, time.Now().Unix(), s.Name}
}
