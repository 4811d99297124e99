package model

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// world is models that train together, in goroutines of this process.
type world []*Model

// newWorld builds so many ranks; a rank alone has no communicator. Rank 0 has initial parameters, and the others what
// it shares.
func newWorld(t *testing.T, c Config, ranks int, o Options) world {
	t.Helper()
	to, from := make([]net.Conn, ranks), make([]net.Conn, ranks)
	for r := range ranks {
		to[r], from[(r+1)%ranks] = net.Pipe()
	}
	w := make(world, ranks)
	for r := range w {
		o.FixedSums = true
		communicator := cpu.NewCommunicator(r, ranks, to[r], from[r])
		t.Cleanup(func() { communicator.Abort(errors.New("the test is over")) })
		if o.Communicator = communicator; ranks == 1 {
			o.Communicator = nil
		}
		m, err := New(c, cpu.New(cpu.Options{Workers: 1}), o)
		if err != nil {
			t.Fatal(err)
		}
		w[r] = m
	}
	if err := w[0].Init(5); err != nil {
		t.Fatal(err)
	}
	return w
}

// each calls f for every rank at the same time.
func (w world) each(t *testing.T, f func(m *Model) error) {
	t.Helper()
	var wait sync.WaitGroup
	for r, m := range w {
		wait.Go(func() {
			if err := f(m); err != nil {
				t.Errorf("rank %d: %v", r, err)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// train shares the state of rank 0 and takes steps from..to-1, of eight micro-batches.
func (w world) train(t *testing.T, from, to int) {
	t.Helper()
	updates := w[0].Updates()
	w.each(t, func(m *Model) error {
		if err := m.Share(updates); err != nil {
			return err
		}
		for step := from; step < to; step++ {
			tokens, targets := sequences(m.Config(), 8, uint64(step))
			err := m.Step(tokens, targets, Update{
				Settings:     Settings{Gamma: 0.6, Gumbel: true, Seed: 9, Step: uint64(step), Mix: float64(step) / 4},
				LearningRate: 3e-3, Beta1: 0.9, Beta2: 0.95, Decay: 0.1, MaxNorm: 1,
				Muon: Muon{LearningRate: 0.02, Beta: 0.9, Steps: 3, Decay: 0.1}})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// snapshot is all that training depends on, and the last step's loss and norm, as text.
func trained(t *testing.T, m *Model) string {
	t.Helper()
	state, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	result, err := m.Result()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	fmt.Fprintln(&all, result, state.Updates, state.Counters)
	for _, p := range slices.Concat(parametersOf(t, m), state.ExpAvg, state.ExpAvgSq, state.Momentum, state.Masters) {
		fmt.Fprintln(&all, p.Name, p.Data)
	}
	return all.String()
}

// Worlds of 1, 2, 4 and 8 ranks, and of 3, train the same to the bit, also when a world goes on from the state of
// another one.
func TestNumberOfRanksDoesNotMatter(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		o      Options
	}{
		"float gradients": {small(), Options{}},
		"rounded":         {small().V77(), Options{GradBits: 4}},
		"Muon":            {small(), Options{Muon: true}},
		"Muon, frozen":    {small(), Options{Muon: true, Freeze: []string{"codebook.*", "blocks.0.*"}}},
		"pointer":         {small().V75(), Options{}},
		"bonsai":          {small(), Options{Bonsai: true}},
		"truebit":         {small(), Options{FlipThreshold: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			alone := newWorld(t, c.config, 1, c.o)
			alone.train(t, 0, 4)
			want := trained(t, alone[0])
			before := alone
			for _, ranks := range []int{2, 3, 4, 8} {
				whole := newWorld(t, c.config, ranks, c.o)
				whole.train(t, 0, 2)
				// The first two steps of the next world are those of this one.
				next := newWorld(t, c.config, ranks, c.o)
				hand(t, whole[0], next[0])
				for r, m := range next[1:] {
					if err := m.Init(uint64(r)); err != nil { // what Share replaces
						t.Fatal(err)
					}
				}
				next.train(t, 2, 4)
				for r, m := range next {
					if trained(t, m) != want {
						t.Errorf("rank %d of %d has trained otherwise than a single rank", r, ranks)
					}
				}
				before = whole
			}
			last := newWorld(t, c.config, 1, c.o)
			hand(t, before[0], last[0])
			last.train(t, 2, 4)
			if trained(t, last[0]) != want {
				t.Error("one rank went on otherwise than it would have from the state of 8")
			}
		})
	}
}

// hand gives one model the parameters and the state of another.
func hand(t *testing.T, from, to *Model) {
	t.Helper()
	state, err := from.State()
	if err == nil {
		err = to.Load(Each(parametersOf(t, from)))
	}
	if err == nil {
		err = to.SetState(state)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Sums in fixed point are those of floats, to the rounding of floats, and with one micro-batch they are the same bits:
// small gradients alone lose digits.
func TestFixedSumsAreSums(t *testing.T) {
	for _, bits := range []int{kernels.FloatBits, 4} {
		floats := build(t, small(), 1, Options{GradBits: bits})
		fixed := build(t, small(), 1, Options{GradBits: bits, FixedSums: true})
		tokens, targets := sequences(small(), 8, 1)
		for _, m := range []*Model{floats, fixed} {
			if err := m.Backward(tokens, targets, Settings{Gamma: 0.6, Gumbel: true, Seed: 9}); err != nil {
				t.Fatal(err)
			}
		}
		want, got := gradientsOf(t, floats), gradientsOf(t, fixed)
		for i, p := range want {
			for j, v := range p.Data {
				if e := math.Abs(float64(v - got[i].Data[j])); e > 1e-6*math.Abs(float64(v))+1e-7 {
					t.Fatalf("%d bits: the gradient of %s is %v at %d, of floats %v", bits, p.Name, got[i].Data[j], j, v)
				}
			}
		}
		a, errA := floats.Result()
		b, errB := fixed.Result()
		if errA != nil || errB != nil || math.Abs(a.Loss-b.Loss) > 1e-6*a.Loss {
			t.Errorf("the loss is %v (%v), of floats %v (%v)", b.Loss, errB, a.Loss, errA)
		}
	}
}

func gradientsOf(t *testing.T, m *Model) []Parameter {
	t.Helper()
	list, err := m.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What is not finite, or too large for fixed point, does not become a number, in that step alone.
func TestFixedSumsOfWhatIsNotFinite(t *testing.T) {
	m := build(t, small(), 1, Options{FixedSums: true, ScaleBits: 32})
	finite := parametersOf(t, m)
	spoil(t, m)
	tokens, targets := sequences(small(), 2, 1)
	if err := m.Step(tokens, targets, Update{Settings: Settings{Gamma: 0.6}, LearningRate: 1, MaxNorm: 1}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Result()
	if err != nil || r.Norm == r.Norm {
		t.Errorf("the norm is %v (%v), want NaN", r.Norm, err)
	}
	where, err := m.NotFinite()
	if err != nil || !strings.Contains(where, "the gradient of") {
		t.Errorf("what is not finite is %q (%v), want a gradient", where, err)
	}
	if err := m.Load(Each(finite)); err != nil {
		t.Fatal(err)
	}
	if err := m.Backward(tokens, targets, Settings{Gamma: 0.6}); err != nil {
		t.Fatal(err)
	}
	for _, p := range gradientsOf(t, m) {
		if at := p.NotFinite(); at != "" {
			t.Errorf("the next step's gradient of %s", at)
		}
	}
}

// spoil gives m a parameter with which gradients overflow.
func spoil(t *testing.T, m *Model) {
	t.Helper()
	list := parametersOf(t, m)
	for i, p := range list {
		if p.Name == "codebook.alpha" {
			list[i].Data[3] = 1e20
		}
	}
	if err := m.Load(Each(list)); err != nil {
		t.Fatal(err)
	}
}

// All ranks know of what does not fit into one rank's sums: none goes on with gradients that lack it.
func TestOverflowOfOneRank(t *testing.T) {
	w := newWorld(t, small(), 2, Options{ScaleBits: 32})
	w.each(t, func(m *Model) error { return m.Share(0) })
	spoil(t, w[1])
	tokens, targets := sequences(small(), 2, 1)
	w.each(t, func(m *Model) error { return m.Backward(tokens, targets, Settings{Gamma: 0.6}) })
	for r, m := range w {
		if where, err := m.NotFinite(); err != nil || !strings.Contains(where, "the gradient of") {
			t.Errorf("rank %d: what is not finite is %q (%v), want a gradient", r, where, err)
		}
	}
}

// Where a rank is lost in a step, the others learn of it and have the parameters and the state from before the step.
func TestALostRankAbandonsTheStep(t *testing.T) {
	w := newWorld(t, small(), 3, Options{Muon: true})
	w.train(t, 0, 2)
	before := make([]string, len(w))
	for r, m := range w {
		before[r] = trained(t, m)
	}
	cause := errors.New("killed")
	w[2].Options().Communicator.Abort(cause)
	var wait sync.WaitGroup
	for r, m := range w {
		wait.Go(func() {
			tokens, targets := sequences(m.Config(), 8, 3)
			err := m.Step(tokens, targets, Update{Settings: Settings{Gamma: 0.6}, LearningRate: 1, Beta2: 0.9})
			if !errors.Is(err, ErrAbandoned) {
				t.Errorf("rank %d: %v, want %v", r, err, ErrAbandoned)
			}
			if _, err := m.Result(); err == nil {
				t.Errorf("rank %d has a result", r)
			}
		})
	}
	wait.Wait()
	for r, m := range w[:2] {
		m.options.Communicator = nil // for Result
		if got := trained(t, m); strings.SplitN(got, "\n", 2)[1] != strings.SplitN(before[r], "\n", 2)[1] {
			t.Errorf("rank %d has changed in a step that was abandoned", r)
		}
	}
}

func TestStepsThatRanksCannotDivide(t *testing.T) {
	w := newWorld(t, small(), 3, Options{})
	tokens, targets := sequences(small(), 2, 1)
	w.each(t, func(m *Model) error {
		err := m.Step(tokens, targets, Update{})
		if err == nil || !strings.Contains(err.Error(), "2 micro-batches for 3 ranks") {
			return fmt.Errorf("two micro-batches for three ranks: %w", err)
		}
		return nil
	})
	tokens, targets = sequences(small(), kernels.MaxTerms+1, 1)
	err := build(t, small(), 1, Options{FixedSums: true}).Step(tokens, targets, Update{})
	if err == nil || !strings.Contains(err.Error(), "compute more tokens at once") {
		t.Errorf("%d micro-batches in fixed point: %v", kernels.MaxTerms+1, err)
	}
}
