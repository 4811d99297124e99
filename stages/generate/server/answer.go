package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"bitnet1/shared/lm/inference"
	"bitnet1/shared/lm/sampling"
	"bitnet1/stages/generate/generation"
)

// task is what a request asks for, in whatever words.
type task struct {
	prompts  [][]int32
	options  generation.Options
	write    bool   // false where the texts have 0 tokens
	choices  int    // of each prompt
	echo     bool   // the answer begins with the prompt
	implied  []bool // of prompts: it is empty, and its one token is not the client's
	logprobs int    // the most probable tokens that are listed beside each token; -1: no probabilities
	trim     bool   // the text has no white space at its beginning
	stream   bool
	usage    bool // at the end of a stream
	began    time.Time
	begun    bool // it has a token
}

// chosen is a token of an answer.
type chosen struct {
	scored
	start int      // characters of the answer before it
	top   []scored // the most probable tokens in its place
	first bool     // nothing comes before it, so it has no probability
}

// usage counts tokens.
type usage struct {
	PromptTokens     int            `json:"prompt_tokens"`
	CompletionTokens int            `json:"completion_tokens"`
	TotalTokens      int            `json:"total_tokens"`
	Details          *promptDetails `json:"prompt_tokens_details"`
}

type promptDetails struct {
	CachedTokens int `json:"cached_tokens"` // that were computed for an earlier request
}

// receiver takes an answer as it is written: parts of the texts, with their tokens, and at last why each ended.
type receiver interface {
	part(choice int, text string, tokens []chosen) error
	end(choice int, finish string) error
}

// newTask makes the task of parameters that were checked. most is the parameter of the name that says how many tokens a
// text may have; nil: the default.
func (s *Server) newTask(p *parameters, prompts [][]int32, name string, most *int, fallback int) (*task, *apiError) {
	t := &task{prompts: prompts, choices: 1, logprobs: -1, write: true, stream: is(p.Stream), began: time.Now()}
	t.usage = t.stream && p.StreamOptions != nil && is(p.StreamOptions.IncludeUsage)
	if p.N != nil {
		t.choices = *p.N
	}
	t.options.Options = p.sampling()
	if p.Stop != nil {
		t.options.Stop = *p.Stop
	}
	longest := 0
	for _, prompt := range prompts {
		longest = max(longest, len(prompt))
	}
	context := s.model.Config.Seq
	room := context - longest
	switch {
	case room < 0 || room == 0 && (most == nil || *most > 0):
		return nil, invalid("", "the prompt has %d tokens, and the model's context is %d, for prompt and answer: shorten "+
			"the prompt", longest, context).coded(http.StatusBadRequest, "context_length_exceeded")
	case most == nil:
		if fallback == 0 {
			fallback = room
		}
		t.options.Tokens = min(fallback, room, s.mostTokens(room))
	case *most > s.mostTokens(*most):
		return nil, invalid(name, "%d, and this server writes %d at most", *most, s.MaxTokens)
	case *most > room:
		return nil, invalid(name, "%d after a prompt of %d tokens, and the model's context is %d: ask for %d at most, or "+
			"shorten the prompt", *most, longest, context, room).coded(http.StatusBadRequest, "context_length_exceeded")
	default:
		t.options.Tokens, t.write = *most, *most > 0
	}
	return t, nil
}

// probabilities is how many an answer lists: those of its tokens, and beside each those of the most probable ones.
func (t *task) probabilities() (n int) {
	if t.logprobs < 0 {
		return 0
	}
	for _, prompt := range t.prompts {
		tokens := t.options.Tokens
		if t.echo {
			tokens += len(prompt)
		}
		n += t.choices * tokens * (1 + t.logprobs)
	}
	return n
}

// mostTokens is the most tokens that a text may have where n are wanted.
func (s *Server) mostTokens(n int) int {
	if s.MaxTokens > 0 {
		return min(n, s.MaxTokens)
	}
	return n
}

// sampling is how tokens are chosen: as OpenAI does where the request says nothing, and at random without a seed.
func (p *parameters) sampling() sampling.Options {
	o := sampling.Options{Temperature: 1, Seed: rand.Uint64()}
	if p.Temperature != nil {
		o.Temperature = *p.Temperature
	}
	if p.TopP != nil && *p.TopP < 1 { // 1 leaves all, as no value does, and would change their order
		o.TopP = max(*p.TopP, leastTopP)
	}
	if p.TopK != nil {
		o.TopK = max(*p.TopK, 0)
	}
	if p.MinP != nil {
		o.MinP = *p.MinP
	}
	if p.RepetitionPenalty != nil {
		o.RepetitionPenalty = *p.RepetitionPenalty
	}
	if p.Seed != nil {
		o.Seed = uint64(*p.Seed)
	}
	return o
}

// leastTopP leaves the most probable token alone, as 0 does for OpenAI. For package sampling, 0 leaves all.
const leastTopP = 1e-300

// answer does a task. Each choice of each prompt is a text of its own.
func (s *Server) answer(ctx context.Context, t *task, to receiver) (u usage, err error) {
	g, giveBack, err := s.pool.take(ctx, t.prompts[0])
	if err != nil {
		return u, err
	}
	s.metrics.running.Inc()
	defer func() {
		s.metrics.running.Dec()
		giveBack()
	}()
	u.Details = new(promptDetails)
	for i, prompt := range t.prompts {
		var known []chosen
		if t.echo && t.logprobs >= 0 && !t.implied[i] {
			if known, err = s.scorePrompt(ctx, g, prompt, t.logprobs); err != nil {
				return u, err
			}
		}
		u.Details.CachedTokens += s.cached(g, prompt, known != nil)
		for c := range t.choices {
			if err = s.text(ctx, g, t, i, c, known, to, &u); err != nil {
				return u, err
			}
		}
		u.PromptTokens += len(prompt)
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	s.metrics.promptTokens.Add(float64(u.PromptTokens - u.Details.CachedTokens))
	s.metrics.cachedTokens.Add(float64(u.Details.CachedTokens))
	return u, nil
}

func (s *Server) cached(g *generation.Generator, prompt []int32, scored bool) int {
	if scored {
		return 0
	}
	return min(g.Common(prompt), len(prompt)-1)
}

// text writes choice c of prompt i.
func (s *Server) text(ctx context.Context, g *generation.Generator, t *task, i, c int, known []chosen, to receiver,
	u *usage) error {
	prompt, index := t.prompts[i], i*t.choices+c
	w := writing{server: s, task: t, trim: t.trim}
	w.emit = func(text string, tokens []chosen) error { return to.part(index, text, tokens) }
	if t.echo && !t.implied[i] {
		text := s.model.Text(prompt)
		w.given = utf8.RuneCountInString(text)
		w.runes = w.given
		if err := w.emit(text, known); err != nil {
			return err
		}
	}
	if !t.write {
		return to.end(index, finishLength)
	}
	options := t.options
	options.Seed += uint64(c)
	r, err := g.Generate(ctx, prompt, options, w.piece)
	u.CompletionTokens += len(r.Tokens)
	if err == nil {
		err = w.flush(r.Finish)
	}
	if err != nil {
		return err
	}
	finish := finishLength
	if r.Finish == generation.EndOfText || r.Finish == generation.Stop {
		finish = finishStop
	}
	return to.end(index, finish)
}

// Why a text ended, in OpenAI's words.
const (
	finishStop   = "stop"
	finishLength = "length"
)

// scorePrompt returns the tokens of a prompt with their probabilities.
func (s *Server) scorePrompt(ctx context.Context, g *generation.Generator, prompt []int32, top int) ([]chosen, error) {
	var w writing
	w.server = s
	known := make([]chosen, len(prompt))
	known[0] = chosen{scored: scored{token: prompt[0]}, first: true}
	w.extend(prompt[0])
	err := g.Score(ctx, prompt, func(i int, logits []float32) error {
		if i+1 < len(prompt) {
			known[i+1] = s.score(logits, prompt[i+1], top)
			known[i+1].start = w.extend(prompt[i+1])
		}
		return nil
	})
	return known, err
}

// writing is a text at work: it joins the tokens of an answer with the parts of its text, which may come later.
type writing struct {
	server *Server
	task   *task
	emit   func(text string, tokens []chosen) error

	runes int    // characters of all tokens that are whole
	tail  []byte // of the character after those
	given int    // characters that were handed over
	held  []chosen
	trim  bool // white space at its beginning is left out
}

// extend adds the bytes of a token, and returns the number of characters before it.
func (w *writing) extend(token int32) (start int) {
	start = w.runes
	w.tail = w.server.model.Tokenizer.Decode(w.tail, []uint32{uint32(token)})
	n := generation.Whole(w.tail)
	w.runes += utf8.RuneCount(w.tail[:n])
	w.tail = slices.Clone(w.tail[n:])
	return start
}

// piece takes what a generator has written.
func (w *writing) piece(p generation.Piece) error {
	if p.Token >= 0 {
		w.server.metrics.newTokens.Inc()
		if !w.task.begun {
			w.server.metrics.first.Observe(time.Since(w.task.began).Seconds())
		}
		w.task.begun = true
		if w.task.logprobs >= 0 {
			c := w.server.score(p.Logits, p.Token, w.task.logprobs)
			c.start = w.extend(p.Token)
			w.held = append(w.held, c)
		}
	}
	text := p.Text
	w.given += utf8.RuneCountInString(text)
	if w.trim {
		text = strings.TrimLeft(text, " \t\r\n")
		w.trim = text == ""
	}
	n := 0
	for n < len(w.held) && w.held[n].start < w.given {
		n++
	}
	tokens := w.held[:n:n]
	w.held = w.held[n:]
	if text == "" && n == 0 {
		return nil
	}
	return w.emit(text, tokens)
}

// flush hands over the tokens that stand for no text, unless they are of a stop string.
func (w *writing) flush(f generation.Finish) error {
	if len(w.held) == 0 || f == generation.Stop {
		return nil
	}
	return w.emit("", w.held)
}

// statusGone is the status that nginx gives requests whose client is gone.
const statusGone = 499

// failure is the error that the client of a request is told.
func (s *Server) failure(ctx context.Context, err error) *apiError {
	var own *apiError
	switch cause := context.Cause(ctx); {
	case errors.As(err, &own):
		return own
	case errors.Is(cause, errEnding):
		return overloaded(s.Grace, errEnding.Error())
	case ctx.Err() != nil: // nobody reads it; the metrics count it
		return &apiError{status: statusGone, Message: "the client has closed the connection", Type: typeServer}
	case errors.Is(err, inference.ErrContextFull):
		return invalid("", "%v", err).coded(http.StatusBadRequest, "context_length_exceeded")
	}
	return &apiError{status: http.StatusInternalServerError, Message: fmt.Sprint(err), Type: typeServer}
}
