package generation

import (
	"context"

	"bitnet1/shared/lm/inference"
	"bitnet1/shared/lm/sampling"
)

// Options say how a text is written. The zero value writes the most probable tokens until the document ends or the
// context is full.
type Options struct {
	sampling.Options
	Tokens int      // most tokens to write; 0: as many as the context has room for
	Stop   []string // the text ends before the first of these
}

// Finish is why a text ended.
type Finish string

// The reasons for which a text ends.
const (
	EndOfText   Finish = "end of text"  // the model ended the document
	Stop        Finish = "stop"         // the model wrote one of Options.Stop
	Length      Finish = "length"       // it has Options.Tokens tokens
	ContextFull Finish = "context full" // the sequence is as long as the model's context
)

// Piece is a token of a text at work.
type Piece struct {
	// Token was chosen from Logits, which are valid during the call. Token is -1, and Logits are nil, in the last piece
	// of a text, which has what was held back until then.
	Token  int32
	Logits []float32
	// Text is what is certain of the text since the piece before: whole characters, none of which can be part of a stop
	// string. It may be empty.
	Text string
}

// Result is a text that is written.
type Result struct {
	Text   string  // without the stop string that ended it
	Tokens []int32 // all that were chosen, without the end of text
	Finish Finish
}

// Generator writes texts, one after the other. It keeps what it has computed: a prompt that begins as the text before
// costs only what differs.
type Generator struct {
	model   *Model
	session *inference.Session
	tokens  []int32 // of the session
	turns   *Turns  // nil: the generator need not wait for others
}

// NewGenerator returns a generator. It serves one goroutine at a time; several may compute at once.
func (m *Model) NewGenerator() (*Generator, error) {
	s, err := m.NewSession(inference.Options{Workers: m.threads})
	if err != nil {
		return nil, err
	}
	return &Generator{model: m, session: s}, nil
}

// promptAtOnce is how many tokens of a prompt are computed before ctx is looked at again.
const promptAtOnce = 256

// Generate continues prompt, of one token at least, and calls emit with every token as soon as it is chosen. emit may
// be nil; its error ends the text and is returned. The error of a prompt that is too long wraps
// inference.ErrContextFull. When ctx ends, the error is its cause, and the result is what was written until then.
func (g *Generator) Generate(ctx context.Context, prompt []int32, o Options, emit func(Piece) error) (Result, error) {
	if emit == nil {
		emit = func(Piece) error { return nil }
	}
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	logits, err := g.prefill(ctx, prompt)
	if err != nil {
		return Result{}, err
	}
	defer g.turns.begin()()
	r := Result{Finish: Length}
	text := writer{stop: o.Stop}
	for err = context.Cause(ctx); err == nil; err = context.Cause(ctx) {
		var next int32
		// Rows of the codebook that no token of the tokenizer has were never trained.
		if next, err = o.Next(logits[:g.model.Tokenizer.Vocab()], g.tokens); err != nil {
			break
		}
		if next == g.model.EndOfText() {
			r.Finish = EndOfText
			break
		}
		r.Tokens = append(r.Tokens, next)
		certain := text.write(g.model.Tokenizer.Decode(nil, []uint32{uint32(next)}))
		r.Text += certain
		if err = emit(Piece{next, logits, certain}); err != nil {
			break
		}
		if text.stopped {
			r.Finish = Stop
			break
		}
		if len(r.Tokens) == o.Tokens {
			break
		}
		if g.session.Len() == g.model.Config.Seq {
			r.Finish = ContextFull
			break
		}
		if logits, err = g.compute(ctx, []int32{next}); err != nil {
			break
		}
	}
	rest := text.end()
	r.Text += rest
	if err == nil && rest != "" {
		err = emit(Piece{Token: -1, Text: rest})
	}
	return r, err
}

// prefill makes prompt the session's sequence, and returns the logits of the token that follows.
func (g *Generator) prefill(ctx context.Context, prompt []int32) (logits []float32, err error) {
	if err := g.model.Fits(prompt); err != nil {
		return nil, err
	}
	known := min(g.Common(prompt), len(prompt)-1)
	if err := g.session.Truncate(known); err != nil {
		return nil, err
	}
	g.tokens = g.tokens[:known]
	for rest := prompt[known:]; ; rest = rest[min(promptAtOnce, len(rest)):] {
		if len(rest) == 0 && logits != nil {
			return logits, nil
		}
		part := rest[:min(promptAtOnce, len(rest))]
		if logits, err = g.compute(ctx, part); err != nil {
			return nil, err
		}
	}
}
