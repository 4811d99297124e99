package generation

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/inference"
	"bitnet1/shared/lm/sampling"
	"bitnet1/shared/measure/measuretest"
)

func openSmall(t *testing.T) *Model {
	t.Helper()
	m, err := Open(measuretest.Checkpoint(t, measuretest.Config(400).V77(),
		checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1}), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// Generators that take turns write what each would write alone.
func TestTurns(t *testing.T) {
	m := openSmall(t)
	turns := m.NewTurns()
	o := func(i int) Options { return Options{Options: sampling.Options{Temperature: 1}, Tokens: 60 - 20*i} }
	var texts [3][]int32
	done := make(chan error)
	turns.taken <- struct{}{} // nobody begins before all wait
	for i := range texts {
		g, err := turns.NewGenerator()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			r, err := g.Generate(t.Context(), m.Encode(string(rune('A'+i))), o(i), nil)
			texts[i] = r.Tokens
			done <- err
		}()
	}
	<-turns.taken
	for range texts {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for i := range texts {
		g, err := m.NewGenerator()
		if err != nil {
			t.Fatal(err)
		}
		r, err := g.Generate(t.Context(), m.Encode(string(rune('A'+i))), o(i), nil)
		if err != nil || !slices.Equal(r.Tokens, texts[i]) || len(r.Tokens) != 60-20*i {
			t.Errorf("generator %d wrote %v beside others, %v alone (%v)", i, texts[i], r.Tokens, err)
		}
	}
}

// One turn is for all texts that wait for their next token.
func TestTurnsAreForAll(t *testing.T) {
	m := openSmall(t)
	turns := m.NewTurns()
	prompts := [][]int32{m.Encode("One"), m.Encode("Two and more"), m.Encode("Three")}
	texts, done := make([][]int32, len(prompts)), make(chan error)
	write := func(g *Generator, i, tokens int) error {
		r, err := g.Generate(t.Context(), prompts[i], Options{Tokens: tokens}, nil)
		texts[i] = r.Tokens
		return err
	}
	var generators []*Generator
	for i := range prompts {
		g, err := turns.NewGenerator()
		if err == nil {
			err = write(g, i, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		generators = append(generators, g)
	}
	turns.taken <- struct{}{}
	for i, g := range generators {
		go func() { done <- write(g, i, 1) }() // the last token of its prompt is computed anew
	}
	for waiting := 0; waiting < len(prompts); time.Sleep(time.Millisecond) {
		turns.mu.Lock()
		waiting = len(turns.waiting)
		turns.mu.Unlock()
	}
	if err := turns.decodeAll(); err != nil || len(turns.waiting) != 0 {
		t.Errorf("%d tokens still wait, %v", len(turns.waiting), err)
	}
	<-turns.taken
	for range prompts {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for i, want := range texts {
		g, err := m.NewGenerator()
		if err == nil {
			err = write(g, i, 1)
		}
		if err != nil || !slices.Equal(texts[i], want) || len(want) != 1 {
			t.Errorf("text %d is %v, alone %v (%v)", i, want, texts[i], err)
		}
	}
	if turns.texts != 0 {
		t.Errorf("%d texts are still being written", turns.texts)
	}
}

// Who waits for a turn waits no longer than its context lasts.
func TestTurnsEnd(t *testing.T) {
	m := openSmall(t)
	turns := m.NewTurns()
	g, err := turns.NewGenerator()
	if err != nil {
		t.Fatal(err)
	}
	turns.taken <- struct{}{}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := g.Generate(ctx, m.Encode("A"), Options{}, nil); !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
	<-turns.taken
	if r, err := g.Generate(t.Context(), m.Encode("A"), Options{Tokens: 3}, nil); err != nil || len(r.Tokens) != 3 {
		t.Errorf("after that: %v, %v", r, err)
	}
}

// Score gives the logits after every token of a prompt: those from which Generate chooses after its first tokens.
func TestScore(t *testing.T) {
	m := openSmall(t)
	g, err := m.NewTurns().NewGenerator()
	if err != nil {
		t.Fatal(err)
	}
	prompt := m.Encode(string(slices.Repeat([]byte("It was the first day. "), 15)))
	scored := make([][]float32, len(prompt))
	for range 2 { // the second time the generator knows the prompt
		n := 0
		if err := g.Score(t.Context(), prompt, func(i int, logits []float32) error {
			if i != n {
				t.Errorf("token %d comes when it is the turn of %d", i, n)
			}
			n++
			scored[i] = slices.Clone(logits)
			return nil
		}); err != nil || n != len(prompt) {
			t.Fatalf("%d tokens of %d, %v", n, len(prompt), err)
		}
	}
	for _, i := range []int{0, 1, 255, 256, len(prompt) - 1} {
		_, err := g.Generate(t.Context(), prompt[:i+1], Options{Tokens: 1}, func(p Piece) error {
			if !slices.Equal(p.Logits, scored[i]) {
				t.Errorf("after token %d the logits are %v, scored were %v", i, p.Logits[:3], scored[i][:3])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop := errors.New("enough")
	if err := g.Score(t.Context(), prompt, func(i int, _ []float32) error {
		if i == 9 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) {
		t.Errorf("the error of the function is %v", err)
	}
	if r, err := g.Generate(t.Context(), prompt[:20], Options{Tokens: 2}, nil); err != nil || len(r.Tokens) != 2 {
		t.Errorf("after an error: %v, %v", r, err)
	}
	long := slices.Repeat(prompt, 2)
	if err := g.Score(t.Context(), long, nil); !errors.Is(err, inference.ErrContextFull) {
		t.Errorf("a prompt of %d tokens: %v", len(long), err)
	}
}
