package generation

import (
	"context"
	"slices"
	"sync"
	"time"

	"bitnet1/shared/lm/inference"
)

// Turns has the generators of one model compute in turn, in the order in which they ask. A turn is a part of a prompt,
// or the next token of all texts that wait for theirs: those are computed together, which costs much less than one by
// one. So texts that are written at once grow at the same rate, and each turn has all threads.
type Turns struct {
	model *Model
	taken chan struct{} // has an element while a turn lasts; senders wait in order

	lender *inference.Session // of the turn

	mu      sync.Mutex
	waiting []*decoding
	texts   int // that are being written
}

// decoding is the next token of a text.
type decoding struct {
	session *inference.Session
	token   int32
	logits  []float32
	err     error
	done    chan struct{}
}

// NewTurns returns turns for generators of the model.
func (m *Model) NewTurns() *Turns { return &Turns{model: m, taken: make(chan struct{}, 1)} }

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

// gathering is how long a token waits at most for the next tokens of other texts, which are being chosen meanwhile. A
// text whose reader does not take it holds the others up no longer.
const gathering = 100 * time.Millisecond

// begin counts a text that is about to be written, until end is called.
func (t *Turns) begin() (end func()) {
	if t == nil {
		return func() {}
	}
	t.count(1)
	return func() {
		if t.count(-1) { // the others wait for nobody else
			go func() {
				_ = t.take(context.Background(), t.decodeAll)
			}()
		}
	}
}

// count adds to the number of texts at work, and reports whether all of them wait for their next token.
func (t *Turns) count(texts int) (all bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.texts += texts
	return len(t.waiting) > 0 && len(t.waiting) >= t.texts
}

// decode returns the logits that follow a token, which it appends to a sequence. Who completes the tokens of all texts,
// or has waited for long, takes the turn for all.
func (t *Turns) decode(ctx context.Context, s *inference.Session, token int32) ([]float32, error) {
	d := &decoding{session: s, token: token, done: make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, d)
	t.mu.Unlock()
	if !t.count(0) {
		timer := time.NewTimer(gathering)
		defer timer.Stop()
		select {
		case <-d.done:
			return d.logits, d.err
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if err := t.take(ctx, t.decodeAll); err != nil && t.withdraw(d) {
		return nil, err
	}
	<-d.done
	return d.logits, d.err
}

// decodeAll computes the tokens of all that wait, and gives each its own error.
func (t *Turns) decodeAll() error {
	t.mu.Lock()
	all := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	if len(all) == 0 { // an earlier turn computed them
		return nil
	}
	// The first session lends memory. Where it is the same one each time, the others need none.
	if i := slices.IndexFunc(all, func(d *decoding) bool { return d.session == t.lender }); i >= 0 {
		all[0], all[i] = all[i], all[0]
	}
	t.lender = all[0].session
	sessions, tokens := make([]*inference.Session, len(all)), make([]int32, len(all))
	for i, d := range all {
		sessions[i], tokens[i] = d.session, d.token
	}
	logits, err := t.model.DecodeTogether(sessions, tokens)
	for i, d := range all {
		if d.err = err; err == nil {
			d.logits = logits[i]
		}
		close(d.done)
	}
	return nil
}

// withdraw reports whether a token still waited, which it does no longer.
func (t *Turns) withdraw(d *decoding) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.waiting, d)
	if i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	}
	return i >= 0
}

// compute appends tokens to the sequence, and returns the logits of the token that follows.
func (g *Generator) compute(ctx context.Context, tokens []int32) (logits []float32, err error) {
	if g.turns != nil && len(tokens) == 1 {
		logits, err = g.turns.decode(ctx, g.session, tokens[0])
	} else {
		err = g.turns.take(ctx, func() error {
			logits, err = g.session.Prefill(tokens)
			return err
		})
	}
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
	if err := g.model.Fits(prompt); err != nil {
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
