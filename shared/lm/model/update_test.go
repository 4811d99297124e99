package model

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
)

// adamW is an optimizer in float64, written from the paper (Loshchilov and Hutter, 2019) and knowing nothing of the
// model but the names of its parameters: those of matrices decay, gains and scales do not, and what is frozen is not
// there.
type adamW struct {
	Update
	frozen  []string // names
	steps   int
	mean    map[string][]float64
	square  map[string][]float64
	weights map[string][]float64
}

func newAdamW(u Update, start []Parameter, frozen ...string) *adamW {
	a := &adamW{Update: u, frozen: frozen, mean: map[string][]float64{}, square: map[string][]float64{},
		weights: map[string][]float64{}}
	for _, p := range start {
		a.weights[p.Name] = widen(p.Data)
		a.mean[p.Name], a.square[p.Name] = make([]float64, len(p.Data)), make([]float64, len(p.Data))
	}
	return a
}

// norm is that of the gradients of what trains.
func (a *adamW) norm(gradients map[string][]float64) float64 {
	var squares float64
	for name, g := range gradients {
		if !slices.Contains(a.frozen, name) {
			squares += norm(g) * norm(g)
		}
	}
	return math.Sqrt(squares)
}

func (a *adamW) step(gradients map[string][]float64) {
	a.steps++
	clip := 1.0
	if n := a.norm(gradients); a.MaxNorm > 0 && n > a.MaxNorm {
		clip = a.MaxNorm / n
	}
	for name, g := range gradients {
		if slices.Contains(a.frozen, name) {
			continue
		}
		for i, w := range a.weights[name] {
			if strings.HasSuffix(name, ".weight") {
				w -= a.LearningRate * a.Decay * w
			}
			a.mean[name][i] = a.Beta1*a.mean[name][i] + (1-a.Beta1)*clip*g[i]
			a.square[name][i] = a.Beta2*a.square[name][i] + (1-a.Beta2)*clip*g[i]*clip*g[i]
			mean := a.mean[name][i] / (1 - math.Pow(a.Beta1, float64(a.steps)))
			square := a.square[name][i] / (1 - math.Pow(a.Beta2, float64(a.steps)))
			a.weights[name][i] = w - a.LearningRate*mean/(math.Sqrt(square)+1e-8)
		}
	}
}

func named(list []Parameter) map[string][]float64 {
	m := map[string][]float64{}
	for _, p := range list {
		m[p.Name] = widen(p.Data)
	}
	return m
}

// Updates with decay, which changes from step to step, with clipping, with betas of zero and with frozen parameters are
// AdamW's.
func TestUpdatesAreAdamW(t *testing.T) {
	usual := Update{Settings: Settings{Gamma: 0.6, Mix: 1}, LearningRate: 3e-3, Beta1: 0.9, Beta2: 0.95}
	for name, c := range map[string]struct {
		change func(*Update)
		freeze []string
		frozen []string
	}{
		"plain":          {change: func(*Update) {}},
		"decay":          {change: func(u *Update) { u.Decay = 3 }},      // decays as much as gradients do
		"clipped":        {change: func(u *Update) { u.MaxNorm = 1e-5 }}, // where eps counts, so that the limit shows
		"not clipped":    {change: func(u *Update) { u.MaxNorm = 1e3 }},
		"no mean":        {change: func(u *Update) { u.Beta1 = 0 }},
		"no mean square": {change: func(u *Update) { u.Beta2 = 0 }},
		"neither":        {change: func(u *Update) { u.Beta1, u.Beta2 = 0, 0 }},
		"frozen codebook": {change: func(u *Update) { u.MaxNorm, u.Decay = 1e-5, 1 }, freeze: []string{"codebook.*"},
			frozen: []string{"codebook.weight", "codebook.alpha", "codebook.theta"}},
		"frozen gain": {change: func(u *Update) { u.MaxNorm = 1e-5 },
			freeze: []string{"norm_out", "blocks.1.down.alpha"}, frozen: []string{"norm_out", "blocks.1.down.alpha"}},
	} {
		t.Run(name, func(t *testing.T) {
			u := usual
			c.change(&u)
			m := build(t, small(), 2, Options{Batch: 2, ScaleBits: 32, Freeze: c.freeze})
			want := newAdamW(u, parametersOf(t, m), c.frozen...)
			for step := range 4 {
				tokens, targets := sequences(m.Config(), 4, uint64(step))
				u.Decay /= float64(step + 1)
				want.Decay = u.Decay
				if err := m.Step(tokens, targets, u); err != nil {
					t.Fatal(err)
				}
				gradients, err := m.Gradients()
				if err != nil {
					t.Fatal(err)
				}
				r, err := m.Result()
				if n := want.norm(named(gradients)); err != nil || !(math.Abs(r.Norm-n) <= 1e-5*n) {
					t.Fatalf("step %d: norm %g, want %g (%v)", step, r.Norm, n, err)
				}
				want.step(named(gradients))
			}
			// What updates changed is compared, not what there was.
			start := named(parametersOf(t, build(t, small(), 2, Options{Batch: 2, ScaleBits: 32})))
			for _, p := range parametersOf(t, m) {
				if slices.Contains(c.frozen, p.Name) {
					if !slices.Equal(start[p.Name], widen(p.Data)) {
						t.Errorf("%s is frozen and has changed", p.Name)
					}
					continue
				}
				for i := range p.Data {
					p.Data[i] = float32(float64(p.Data[i]) - start[p.Name][i])
					want.weights[p.Name][i] -= start[p.Name][i]
				}
				if d := distance(p.Data, want.weights[p.Name]); d > 2e-3 {
					t.Errorf("the change of %s differs by %.2g of its norm", p.Name, d)
				}
			}
		})
	}
}

// The weight decay of Muon may change from step to step: it takes its share of the weights of the blocks, and of
// nothing else.
func TestWeightDecayOfMuon(t *testing.T) {
	const rate, decay = 0.02, 3
	step := func(m *Model, decay float64) []Parameter {
		tokens, targets := sequences(m.Config(), 2, 1)
		u := Update{LearningRate: 3e-3, Beta1: 0.9, Beta2: 0.95,
			Muon: Muon{LearningRate: rate, Beta: 0.9, Steps: 3, Decay: decay}}
		if err := m.Step(tokens, targets, u); err != nil {
			t.Fatal(err)
		}
		return parametersOf(t, m)
	}
	o := Options{Batch: 2, Muon: true}
	decays, stays := build(t, small(), 1, o), build(t, small(), 1, o)
	before := step(decays, 0)
	sameParameters(t, "without decay", before, step(stays, 0))
	without := step(stays, 0)
	for i, p := range step(decays, decay) {
		want := make([]float64, len(p.Data))
		for j, w := range without[i].Data {
			want[j] = float64(w)
			if strings.HasPrefix(p.Name, "blocks.") && strings.HasSuffix(p.Name, ".weight") {
				want[j] -= rate * decay * float64(before[i].Data[j])
			}
		}
		if e := distance(p.Data, want); e > 1e-6 {
			t.Errorf("%s is %.2g of its norm from what decays", p.Name, e)
		}
	}
}

// Muon's momentum is that of clipped gradients: a quarter of the norm gives a quarter of the first step's momentum.
func TestClippingOfMuon(t *testing.T) {
	c := small()
	tokens, targets := sequences(c, 1, 3)
	momentum := func(most float64) ([]Parameter, float64) {
		m := build(t, c, 1, Options{Muon: true})
		u := Update{Settings: Settings{Gamma: 0.6}, LearningRate: 0.01, MaxNorm: most,
			Muon: Muon{LearningRate: 0.01, Beta: 0.9, Steps: 3}}
		if err := m.Step(tokens, targets, u); err != nil {
			t.Fatal(err)
		}
		r, errResult := m.Result()
		state, errState := m.State()
		if errResult != nil || errState != nil {
			t.Fatal(errResult, errState)
		}
		return state.Momentum, r.Norm
	}
	whole, norm := momentum(0)
	quarter, _ := momentum(norm / 4)
	for i, p := range whole {
		four := make([]float64, len(p.Data))
		for j, v := range quarter[i].Data {
			four[j] = 4 * float64(v)
		}
		if d := distance(p.Data, four); !(d < 1e-4) {
			t.Errorf("%s: the momentum of a quarter of the norm is %.3g of its norm from a quarter", p.Name, d)
		}
	}
}

// The reference's own gradients, decayed and clipped: a first step from every golden case.
func TestGoldenUpdates(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "golden", "*.safetensors"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	if folder := os.Getenv(goldenFolder); folder != "" {
		t.Skip("further golden cases are TestGolden's")
	}
	for _, file := range files {
		g, err := readGolden(file)
		if err != nil {
			t.Fatal(err)
		}
		u := Update{Settings: g.settings(), LearningRate: g.adam.LR, Beta1: g.adam.Betas[0], Beta2: g.adam.Betas[1],
			Decay: 2, MaxNorm: 1e-5}
		m, err := New(g.config, cpu.New(cpu.Options{}), Options{
			Batch: len(g.ints["tokens"]) / g.config.Seq, ScaleBits: 32, Bonsai: g.run.Mix < 1})
		if err != nil {
			t.Fatal(err)
		}
		start := g.parameters("param.")
		if err := m.Load(Each(start)); err != nil {
			t.Fatal(err)
		}
		if err := m.Step(g.ints["tokens"], g.ints["targets"], u); err != nil {
			t.Fatal(err)
		}
		want := newAdamW(u, start)
		gradients := map[string][]float64{}
		for _, p := range start {
			gradients[p.Name] = g.floats["grad."+p.Name]
		}
		if r, err := m.Result(); err != nil || !(math.Abs(r.Norm-want.norm(gradients)) <= 1e-4*r.Norm) {
			t.Errorf("%s: norm %g, want %g (%v)", filepath.Base(file), r.Norm, want.norm(gradients), err)
		}
		want.step(gradients)
		for i, p := range parametersOf(t, m) {
			// What changed, of all together: some gradients vanish, and their signs are those of rounding.
			for j := range p.Data {
				p.Data[j] -= start[i].Data[j]
				want.weights[p.Name][j] -= float64(start[i].Data[j])
			}
			if d := distance(p.Data, want.weights[p.Name]); d > 2e-2 {
				t.Errorf("%s: the change of %s differs by %.2g of its norm", filepath.Base(file), p.Name, d)
			}
		}
	}
}

// No two matrices begin with the same numbers, nor with another's reversed in sign or shifted by some places.
func TestInitialWeightsAreIndependent(t *testing.T) {
	list := parametersOf(t, build(t, small(), 1, Options{}))
	for i, p := range list {
		for _, q := range list[i+1:] {
			if !strings.HasSuffix(p.Name, ".weight") || !strings.HasSuffix(q.Name, ".weight") {
				continue
			}
			n := min(len(p.Data), len(q.Data)) - 4
			for shift := range 4 {
				var product float64
				for j := range n {
					product += float64(p.Data[j+shift]) * float64(q.Data[j])
				}
				c := product / (norm(widen(p.Data[shift:][:n])) * norm(widen(q.Data[:n])))
				if !(math.Abs(c) <= 5/math.Sqrt(float64(n))) {
					t.Errorf("%s and %s, shifted by %d, correlate by %.2f", p.Name, q.Name, shift, c)
				}
			}
		}
	}
}
