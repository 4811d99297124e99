package server

import (
	"context"
	"slices"
	"sync"

	"bitnet1/stages/generate/generation"
)

// pool has the generators of a server. It makes one when all that it has are taken, up to a bound.
type pool struct {
	turns *generation.Turns
	taken chan struct{} // has an element for each generator in use; senders wait in order

	mu   sync.Mutex
	made int
	idle []*generation.Generator // the one that was returned last comes last
}

func newPool(turns *generation.Turns, most int) *pool {
	return &pool{turns: turns, taken: make(chan struct{}, most)}
}

// take waits for a generator. It prefers the one that has computed most of prompt already: a conversation goes on where
// it was. ret gives the generator back.
func (p *pool) take(ctx context.Context, prompt []int32) (g *generation.Generator, ret func(), err error) {
	select {
	case p.taken <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	best, most := -1, 0
	for i, g := range p.idle {
		if n := g.Common(prompt); n > most {
			best, most = i, n
		}
	}
	switch {
	case best >= 0:
	case p.made < cap(p.taken):
		if g, err = p.turns.NewGenerator(); err != nil {
			<-p.taken
			return nil, nil, err
		}
		p.made++
		return g, func() { p.put(g) }, nil
	default:
		best = 0 // the one that was not used for longest
	}
	g = p.idle[best]
	p.idle = slices.Delete(p.idle, best, best+1)
	return g, func() { p.put(g) }, nil
}

func (p *pool) put(g *generation.Generator) {
	p.mu.Lock()
	p.idle = append(p.idle, g)
	p.mu.Unlock()
	<-p.taken
}
