package generation

import (
	"context"
)

// Turns has the generators of one model compute in turn, a token or a part of a prompt each, in the order in which they
// ask. So texts that are written at once grow at the same rate, and each step has all threads.
type Turns struct {
	model *Model
	taken chan struct{} // has an element while a generator computes; senders wait in order
}

// NewTurns returns turns for generators of the model.
func (m *Model) NewTurns() *Turns { return &Turns{m, make(chan struct{}, 1)} }

// NewGenerator returns a generator that takes turns.
func (t *Turns) NewGenerator() (*Generator, error) {
	g, err := t.model.NewGenerator()
	if err == nil {
		g.turns = t
	}
	return g, err
}

// take calls compute when it is the caller's turn, and returns the cause of ctx if ctx ends before.
func (t *Turns) take(ctx context.Context, compute func() error) error {
	if t != nil {
		select {
		case t.taken <- struct{}{}:
			defer func() { <-t.taken }()
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return compute()
}

// compute appends tokens to the sequence, and returns the logits of the token that follows.
func (g *Generator) compute(ctx context.Context, tokens []int32) (logits []float32, err error) {
	err = g.turns.take(ctx, func() error {
		logits, err = g.session.Prefill(tokens)
		return err
	})
	if err == nil {
		g.tokens = append(g.tokens, tokens...)
	}
	return logits, err
}

// Common is how many tokens prompt and the generator's sequence have in common at their beginnings. Generate computes
// the others.
func (g *Generator) Common(prompt []int32) int {
	n := 0
	for n < min(len(g.tokens), len(prompt)) && g.tokens[n] == prompt[n] {
		n++
	}
	return n
}

// Score computes a prompt, and calls f with the logits that follow each of its tokens: those after token i say how
// probable token i+1 was. They are valid during the call. An error of f is returned.
func (g *Generator) Score(ctx context.Context, prompt []int32, f func(i int, logits []float32) error) error {
	if err := g.fits(prompt); err != nil {
		return err
	}
	if err := g.session.Truncate(0); err != nil {
		return err
	}
	g.tokens = g.tokens[:0]
	for len(prompt) > 0 {
		part, before := prompt[:min(promptAtOnce, len(prompt))], len(g.tokens)
		err := g.turns.take(ctx, func() error {
			return g.session.Each(part, func(i int, logits []float32) error { return f(before+i, logits) })
		})
		if err != nil {
			return err
		}
		g.tokens = append(g.tokens, part...)
		prompt = prompt[len(part):]
	}
	return nil
}
