package model

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/kernels/number/float16"
)

// small is a model whose widths are no multiples of a word.
func small() Config {
	c := Config{Vocab: 31, D: 36, Layers: 2, Heads: 3, FF: 70, Seq: 12, Alibi: true, Eps: 1e-5, StreamBits: 1}
	return c.V76()
}

func build(t *testing.T, c Config, workers int, o Options) *Model {
	t.Helper()
	m, err := New(c, cpu.New(cpu.Options{Workers: workers}), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(5); err != nil {
		t.Fatal(err)
	}
	return m
}

// sequences draws tokens and targets, some of which are not to be predicted.
func sequences(c Config, n int, seed uint64) (tokens, targets []int32) {
	r := rand.New(rand.NewPCG(seed, 0))
	for range n * c.Seq {
		tokens = append(tokens, int32(r.IntN(c.Vocab)))
		targets = append(targets, int32(r.IntN(c.Vocab+1)-1))
	}
	return tokens, targets
}

// train does steps from..to-1 of a fixed schedule.
func train(t *testing.T, m *Model, from, to int) {
	t.Helper()
	for step := from; step < to; step++ {
		tokens, targets := sequences(m.Config(), 2*m.Options().Batch, uint64(step))
		err := m.Step(tokens, targets, Update{
			Settings:     Settings{Gamma: 0.6, Gumbel: true, Seed: 9, Step: uint64(step)},
			LearningRate: 3e-3, Beta1: 0.9, Beta2: 0.95, Decay: 0.1, MaxNorm: 1,
			Muon: Muon{LearningRate: 0.02, Beta: 0.9, Steps: 3, Decay: 0.1}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func parametersOf(t *testing.T, m *Model) []Parameter {
	t.Helper()
	list, err := m.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func sameParameters(t *testing.T, what string, a, b []Parameter) {
	t.Helper()
	for i := range a {
		if a[i].Name != b[i].Name || !slices.Equal(a[i].Data, b[i].Data) {
			t.Errorf("%s: %s differs", what, a[i].Name)
		}
	}
}

func variants() map[string]Config {
	strict := small()
	levels, alone, soft, mixed, queries := small(), small(), small(), small().V77().V75(), small().V77()
	levels.StreamBits = 4
	mixed.StreamBits, mixed.HiddenBits, mixed.ValueBits, mixed.ReadBits, mixed.CodebookBits = 2, 8, 3, 1, 2
	mixed.QueryBits, queries.QueryBits = 3, 4
	alone.StreamBits, alone.KShiftSelf = kernels.FloatBits, false
	soft.Attention = kernels.Softmax.String()
	return map[string]Config{"strict": strict, "stream 4": levels, "stream float": alone, "pointer": small().V75(),
		"softmax": soft, "v77": small().V77(), "v77 pointer": mixed, "v77 queries": queries}
}

// Training ends with the same bits on any number of workers.
func TestWorkersDoNotMatter(t *testing.T) {
	for name, c := range variants() {
		for _, bits := range []int{4, kernels.FloatBits} {
			o := Options{Batch: 2, GradBits: bits}
			one := build(t, c, 1, o)
			train(t, one, 0, 3)
			for _, workers := range []int{2, 5} {
				many := build(t, c, workers, o)
				train(t, many, 0, 3)
				sameParameters(t, fmt.Sprintf("%s, gradients of %d bits, %d workers", name, bits, workers),
					parametersOf(t, one), parametersOf(t, many))
			}
		}
	}
}

// Training ends with the same bits without assembly.
func TestAssemblyDoesNotMatter(t *testing.T) {
	for name, c := range variants() {
		o := Options{Batch: 2, GradBits: 5}
		fast := build(t, c, 2, o)
		plain, err := New(c, cpu.New(cpu.Options{PlainGo: true}), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := plain.Init(5); err != nil {
			t.Fatal(err)
		}
		train(t, fast, 0, 3)
		train(t, plain, 0, 3)
		sameParameters(t, name, parametersOf(t, fast), parametersOf(t, plain))
	}
}

// A run that was saved, loaded into another model and continued ends with the bits of one that was not.
func TestResumeIsEqual(t *testing.T) {
	for name, c := range variants() {
		for _, o := range []Options{{Batch: 2}, {Batch: 2, ScaleBits: 32, GradBits: 4}} {
			whole := build(t, c, 2, o)
			train(t, whole, 0, 6)

			first := build(t, c, 2, o)
			train(t, first, 0, 3)
			state, err := first.State()
			if err != nil {
				t.Fatal(err)
			}
			second := build(t, c, 2, o)
			train(t, second, 40, 41) // whatever was in it must not matter
			if err := second.Load(Each(parametersOf(t, first))); err != nil {
				t.Fatal(err)
			}
			if err := second.SetState(state); err != nil {
				t.Fatal(err)
			}
			train(t, second, 3, 6)
			sameParameters(t, fmt.Sprintf("%s, %+v", name, o), parametersOf(t, whole), parametersOf(t, second))
		}
	}
}

// A step that is abandoned, wherever, leaves the model as it was.
func TestAbandonedStep(t *testing.T) {
	for name, o := range map[string]Options{"floats": {Batch: 2}, "flips": {Batch: 2, FlipThreshold: 2},
		"bonsai": {Batch: 2, Bonsai: true}} {
		left := -1 // asks until the next step is abandoned; -1: it is not
		o.Abandon = func() bool {
			if left > 0 {
				left--
			}
			return left == 0
		}
		m := build(t, small(), 2, o)
		train(t, m, 0, 2)
		before, state := parametersOf(t, m), stateOf(t, m)
		tokens, targets := sequences(m.Config(), 2*m.Options().Batch, 2)
		var asks int
		for left = 1; ; left = asks + 1 {
			asks = left
			err := m.Step(tokens, targets, Update{Settings: Settings{Gamma: 0.6, Seed: 9, Step: 2}, LearningRate: 3e-3,
				Beta2: 0.95})
			if err == nil {
				break
			}
			if !errors.Is(err, ErrAbandoned) {
				t.Fatal(err)
			}
			left = -1
			sameParameters(t, fmt.Sprintf("%s, abandoned at ask %d", name, asks), before, parametersOf(t, m))
			if !reflect.DeepEqual(state, stateOf(t, m)) {
				t.Errorf("%s, abandoned at ask %d: the optimizer's state differs", name, asks)
			}
		}
		// In each layer, forward and backward, of two micro-batches.
		if want := 2 * (1 + 2*m.Config().Layers); asks < want {
			t.Errorf("%s: a step asks %d times, want %d or more", name, asks-1, want)
		}
		left = 1
		if _, err := m.Losses(tokens[:m.Config().Seq], targets[:m.Config().Seq], Settings{}); !errors.Is(err,
			ErrAbandoned) {
			t.Errorf("%s: losses: %v", name, err)
		}
		left = -1
		other := build(t, small(), 2, Options{Batch: 2, FlipThreshold: o.FlipThreshold, Bonsai: o.Bonsai})
		if err := other.Load(Each(before)); err != nil {
			t.Fatal(err)
		}
		if err := other.SetState(state); err != nil {
			t.Fatal(err)
		}
		if err := m.Load(Each(before)); err != nil {
			t.Fatal(err)
		}
		if err := m.SetState(state); err != nil {
			t.Fatal(err)
		}
		train(t, m, 2, 4)
		train(t, other, 2, 4)
		sameParameters(t, name+" afterwards", parametersOf(t, other), parametersOf(t, m))
	}
}

func stateOf(t *testing.T, m *Model) State {
	t.Helper()
	s, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Scales are float16 values throughout, but small updates are not lost.
func TestScalesAreHalves(t *testing.T) {
	m := build(t, small(), 2, Options{Batch: 1})
	train(t, m, 0, 3)
	for _, p := range parametersOf(t, m) {
		if !strings.HasSuffix(p.Name, ".alpha") && !strings.HasSuffix(p.Name, ".theta") {
			continue
		}
		for _, v := range p.Data {
			if float16.Round(v) != v {
				t.Fatalf("%s holds %v, which is no float16 value", p.Name, v)
			}
		}
	}
	state, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	finer := false
	for _, p := range state.Masters {
		for _, v := range p.Data {
			finer = finer || float16.Round(v) != v
		}
	}
	if !finer {
		t.Error("the masters hold nothing finer than float16")
	}
	parameters, masters := parametersOf(t, m), state.Masters
	for _, master := range masters {
		parameters[slices.IndexFunc(parameters, func(p Parameter) bool { return p.Name == master.Name })] = master
	}
	other := build(t, small(), 3, Options{Batch: 1})
	state.Masters = nil // another program has none
	if err := errors.Join(other.Load(Each(parameters)), other.SetState(state)); err != nil {
		t.Fatal(err)
	}
	if got := stateOf(t, other).Masters; !reflect.DeepEqual(got, masters) {
		t.Error("without masters in the state, they are not the scales that were loaded")
	}
}

// A model for inference, another batch size and a partly filled batch all give the losses that training sees.
func TestInferenceEqualsTraining(t *testing.T) {
	for name, c := range variants() {
		m := build(t, c, 2, Options{Batch: 3})
		train(t, m, 0, 2)
		tokens, targets := sequences(c, 3, 77)
		s := Settings{Gamma: 0.6}
		want, err := m.Losses(tokens, targets, s)
		if err != nil {
			t.Fatal(err)
		}
		other := build(t, c, 1, Options{Batch: 2, Inference: true})
		if err := other.Load(Each(parametersOf(t, m))); err != nil {
			t.Fatal(err)
		}
		var got []float32
		for _, cut := range [][2]int{{0, 2}, {2, 3}} {
			from, to := cut[0]*c.Seq, cut[1]*c.Seq
			part, err := other.Losses(tokens[from:to], targets[from:to], s)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, part...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: losses differ", name)
		}
		if err := m.Backward(tokens, targets, s); err != nil {
			t.Fatal(err)
		}
		if r, err := m.Result(); err != nil || !(math.Abs(r.Loss-mean(want, targets)) <= 1e-6) {
			t.Errorf("%s: Backward saw loss %v (%v), want %v", name, r.Loss, err, mean(want, targets))
		}
		if err := other.Backward(tokens, targets, s); err == nil {
			t.Errorf("%s: Backward worked without gradients", name)
		}
	}
}

// mean over the targets that are to be predicted.
func mean(losses []float32, targets []int32) float64 {
	var sum, n float64
	for i, v := range losses {
		sum += float64(v)
		if targets[i] >= 0 {
			n++
		}
	}
	return sum / n
}

// No token may depend on a later one.
func TestCausal(t *testing.T) {
	for name, c := range variants() {
		m := build(t, c, 2, Options{})
		tokens, _ := sequences(c, 1, 3)
		before, err := m.Logits(tokens, 0, c.Seq, Settings{Gamma: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		const changed = 7
		tokens[changed] = (tokens[changed] + 1) % int32(c.Vocab)
		after, err := m.Logits(tokens, 0, c.Seq, Settings{Gamma: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(before[:changed*c.Vocab], after[:changed*c.Vocab]) {
			t.Errorf("%s: a later token changed earlier logits", name)
		}
		if slices.Equal(before[changed*c.Vocab:], after[changed*c.Vocab:]) {
			t.Errorf("%s: a token changed nothing", name)
		}
	}
}

// Gradients of one batch are those of its parts, added up.
func TestMicroBatches(t *testing.T) {
	c := small()
	whole, parts := build(t, c, 2, Options{Batch: 4}), build(t, c, 2, Options{Batch: 1})
	tokens, targets := sequences(c, 4, 8)
	for _, m := range []*Model{whole, parts} {
		if err := m.Backward(tokens, targets, Settings{Gamma: 0.5}); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := whole.Gradients()
	b, err := parts.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	for i := range a {
		if d := distance(b[i].Data, widen(a[i].Data)); d > 1e-5 {
			t.Errorf("%s differs by %.2g of its norm", a[i].Name, d)
		}
	}
}

// Where the loss is smooth, gradients are its derivatives: what follows the last sign, on an unquantized stream.
func TestFiniteDifferences(t *testing.T) {
	c := small()
	c.StreamBits = kernels.FloatBits
	m := build(t, c, 2, Options{Batch: 2, ScaleBits: 32})
	tokens, targets := sequences(c, 2, 4)
	if err := m.Backward(tokens, targets, Settings{Gamma: 0.5}); err != nil {
		t.Fatal(err)
	}
	gradients, err := m.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	list := parametersOf(t, m)
	loss := func() float64 {
		if err := m.Load(Each(list)); err != nil {
			t.Fatal(err)
		}
		losses, err := m.Losses(tokens, targets, Settings{Gamma: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		return mean(losses, targets)
	}
	for i, p := range list {
		if !slices.Contains([]string{"norm_out", "codebook.alpha", "codebook.theta", "blocks.1.down.alpha",
			"blocks.1.down.theta"}, p.Name) {
			continue
		}
		// Along the gradient the slope is its norm.
		var norm float64
		for _, g := range gradients[i].Data {
			norm += float64(g) * float64(g)
		}
		norm = math.Sqrt(norm)
		kept := slices.Clone(p.Data)
		const h = 3e-3
		move := func(by float64) float64 {
			for j, g := range gradients[i].Data {
				p.Data[j] = kept[j] + float32(by*float64(g)/norm)
			}
			return loss()
		}
		slope := (move(h) - move(-h)) / (2 * h)
		copy(p.Data, kept)
		if !(math.Abs(slope-norm) <= 5e-3*norm) {
			t.Errorf("%s: the gradient's norm is %.6g, the slope along it %.6g", p.Name, norm, slope)
		}
	}
}

// Once the blend has reached the signs, bonsai is the strict model.
func TestBonsaiEndsStrict(t *testing.T) {
	c := small()
	strict, bonsai := build(t, c, 2, Options{Batch: 1}), build(t, c, 2, Options{Batch: 1, Bonsai: true})
	tokens, targets := sequences(c, 1, 6)
	want, err := strict.Losses(tokens, targets, Settings{Gamma: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	for _, mix := range []float64{0, 0.5, 1} {
		got, err := bonsai.Losses(tokens, targets, Settings{Gamma: 0.5, Mix: mix})
		if err != nil {
			t.Fatal(err)
		}
		if slices.Equal(got, want) != (mix == 1) {
			t.Errorf("mix %v: equal to the strict model is %v", mix, mix != 1)
		}
	}
}

// Gumbel noise is a function of seed and step, and evaluation has none.
func TestGumbelNoise(t *testing.T) {
	c := small().V75()
	m := build(t, c, 2, Options{})
	tokens, targets := sequences(c, 1, 2)
	losses := func(s Settings) []float32 {
		l, err := m.Losses(tokens, targets, s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	drawn := losses(Settings{Gumbel: true, Seed: 1, Step: 4})
	if !slices.Equal(drawn, losses(Settings{Gumbel: true, Seed: 1, Step: 4})) {
		t.Error("the same seed and step drew other noise")
	}
	for _, s := range []Settings{{Gumbel: true, Seed: 2, Step: 4}, {Gumbel: true, Seed: 1, Step: 5}, {}} {
		if slices.Equal(drawn, losses(s)) {
			t.Errorf("%+v gave the losses of another seed or step", s)
		}
	}
}

func TestRefusesWrongInput(t *testing.T) {
	c := small()
	m := build(t, c, 1, Options{Batch: 2})
	tokens, targets := sequences(c, 2, 1)
	longer, _ := sequences(c, 3, 1)
	spoilt := slices.Clone(tokens)
	spoilt[3] = int32(c.Vocab)
	for name, call := range map[string]func() error{
		"short":    func() error { _, err := m.Losses(tokens[:c.Seq-1], targets[:c.Seq-1], Settings{}); return err },
		"empty":    func() error { _, err := m.Losses(nil, nil, Settings{}); return err },
		"untold":   func() error { _, err := m.Losses(tokens, nil, Settings{}); return err },
		"long":     func() error { _, err := m.Losses(longer, longer, Settings{}); return err },
		"token":    func() error { _, err := m.Losses(spoilt, targets, Settings{}); return err },
		"target":   func() error { return m.Backward(tokens, spoilt, Settings{}) },
		"partial":  func() error { return m.Backward(tokens[:c.Seq], targets[:c.Seq], Settings{}) },
		"nothing":  func() error { return m.Backward(tokens, slices.Repeat([]int32{-1}, len(tokens)), Settings{}) },
		"noise":    func() error { _, err := m.Logits(tokens, 0, 1, Settings{Noise: [][]float32{{1}}}); return err },
		"layer":    func() error { _, err := m.Pointers(2); return err },
		"missing":  func() error { return m.Load(Each(parametersOf(t, m)[1:])) },
		"repeated": func() error { return m.Load(Each(append(parametersOf(t, m), parametersOf(t, m)[0]))) },
		"state":    func() error { return m.SetState(State{}) },
	} {
		if call() == nil {
			t.Errorf("%s: wrong input was accepted", name)
		}
	}
	if _, err := m.Losses(tokens, targets, Settings{Gamma: 0.5}); err != nil {
		t.Errorf("after refusals the model must still work: %v", err)
	}
}

// Weights that do not pass through staging at once, and come in another order, are quantized to the same planes.
func TestWeightsComeInPieces(t *testing.T) {
	for name, c := range map[string]Config{"v76": small(), "v77": small().V77()} {
		t.Run(name, func(t *testing.T) { checkWeightsInPieces(t, c) })
	}
}

func checkWeightsInPieces(t *testing.T, c Config) {
	whole, pieces := build(t, c, 1, Options{}), build(t, c, 2, Options{Inference: true})
	pieces.store.staging = pieces.store.staging.Slice(0, max(c.D, c.FF)+1)
	list := parametersOf(t, whole)
	slices.Reverse(list)
	if err := pieces.Load(Each(list)); err != nil {
		t.Fatal(err)
	}
	tokens, targets := sequences(c, 1, 5)
	want, err := whole.Losses(tokens, targets, Settings{Gamma: 0.6})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pieces.Losses(tokens, targets, Settings{Gamma: 0.6}); err != nil || !slices.Equal(got, want) {
		t.Errorf("losses differ: %v", err)
	}
	if _, err := pieces.Parameters(); err == nil {
		t.Error("a model without latents gave its parameters")
	}
}

// What goes wrong where parameters come from is what Load reports.
func TestLoadReportsItsSource(t *testing.T) {
	m := build(t, small(), 1, Options{})
	broken := errors.New("the disk is gone")
	err := m.Load(func(yield func(Parameter, error) bool) {
		if yield(parametersOf(t, m)[0], nil) {
			yield(Parameter{}, broken)
		}
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

// The initial distribution is the reference's.
func TestInitialValues(t *testing.T) {
	c, _ := Preset("nano")
	m := build(t, c, 1, Options{ScaleBits: 32, Seq: 1})
	for _, p := range parametersOf(t, m) {
		var sum, squares float64
		for _, v := range p.Data {
			sum, squares = sum+float64(v), squares+float64(v)*float64(v)
		}
		n := float64(len(p.Data))
		switch {
		case strings.HasSuffix(p.Name, ".weight"):
			want := 1 / float64(p.Shape[1])
			if !(math.Abs(sum/n) <= 5*math.Sqrt(want/n)) || !(math.Abs(squares/n-want) <= 8*want/math.Sqrt(n)) {
				t.Errorf("%s: mean %v, mean square %v, want 0 and %v", p.Name, sum/n, squares/n, want)
			}
		case p.Name == "blocks.0.attn.o.alpha" &&
			p.Data[0] != float32(1/math.Sqrt(2*float64(c.Layers))/math.Sqrt(float64(c.D))),
			p.Name == "codebook.alpha" && p.Data[0] != float32(1/math.Sqrt(float64(c.D))):
			t.Errorf("%s is %v", p.Name, p.Data[0])
		}
	}
}

func TestSchedules(t *testing.T) {
	cosine := Schedule{Decay: Cosine, Total: 100, Warmup: 10, Final: 0.1}
	linear := Schedule{Decay: Linear, Total: 100, Warmup: 10, Final: 0.5}
	trapezoid := Schedule{Decay: Trapezoid, Total: 100, Warmup: 10, Cooldown: 25}
	for _, c := range []struct{ got, want float64 }{
		{cosine.Rate(0, 1), 0.1}, {cosine.Rate(9, 1), 1}, {cosine.Rate(10, 1), 1},
		{cosine.Rate(99, 1), 0.1}, {cosine.Rate(500, 1), 0.1},
		{linear.Rate(4, 2), 1}, {linear.Rate(9, 2), 2}, {linear.Rate(10, 2), 2},
		{linear.Rate(40, 2), 2 - 30.0/89}, {linear.Rate(99, 2), 1},
		{trapezoid.Rate(4, 2), 1}, {trapezoid.Rate(10, 2), 2}, {trapezoid.Rate(74, 2), 2},
		{trapezoid.Rate(79, 2), 1.6}, {trapezoid.Rate(99, 2), 0},
		{Geometric(0, 101, 0.9, 0.1), 0.9},
		{Geometric(50, 101, 0.9, 0.1), 0.3},
		{Geometric(100, 101, 0.9, 0.1), 0.1},
		{MixAt(0, 100, 0.6), 0},
		{MixAt(30, 100, 0.6), 0.5},
		{MixAt(60, 100, 0.6), 1},
		{MixAt(0, 100, 0), 1},
	} {
		if !(math.Abs(c.got-c.want) <= 1e-12) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

// One training step of the nano preset on all cores: with integer gradients, with float ones, with no assembly, and
// with separate documents of 64 tokens on average.
func BenchmarkNanoStep(b *testing.B) {
	for _, v := range []struct {
		name     string
		bits     int
		dev      cpu.Options
		separate bool
		muon     int // steps of its iteration
		v77      bool
	}{
		{name: "gradients=4", bits: 4}, {name: "gradients=float", bits: kernels.FloatBits},
		{name: "plain", bits: kernels.FloatBits, dev: cpu.Options{PlainGo: true}},
		{name: "documents=separate", bits: 4, separate: true},
		{name: "muon=3", bits: 4, muon: 3}, {name: "muon=5", bits: 4, muon: 5},
		{name: "v77", bits: 4, muon: 3, v77: true},
	} {
		b.Run(v.name, func(b *testing.B) {
			c, _ := Preset("nano")
			if v.v77 {
				c = c.V77()
			}
			const batch = 32 // 4,096 tokens, as the train stage has
			m, err := New(c, cpu.New(v.dev), Options{Batch: batch, GradBits: v.bits, Muon: v.muon > 0,
				Documents: Documents{Separate: v.separate, EndOfText: 256}})
			if err != nil {
				b.Fatal(err)
			}
			if err := m.Init(1); err != nil {
				b.Fatal(err)
			}
			tokens, targets := sequences(c, batch, 1)
			for r, i := rand.New(rand.NewPCG(2, 0)), 0; i < len(tokens); i += 1 + int(64*r.ExpFloat64()) {
				tokens[i] = 256
			}
			u := Update{Settings: Settings{Gamma: 0.5}, LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.95, MaxNorm: 1,
				Muon: Muon{LearningRate: 0.09, Beta: 0.9, Steps: v.muon}}
			for b.Loop() {
				if err := m.Step(tokens, targets, u); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(tokens))*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// Evaluating 8,192 tokens with the 300M preset on all cores: wanted under 40 s and 2 GiB on two.
func BenchmarkEvaluate300M(b *testing.B) {
	c, _ := Preset("300M")
	m, err := New(c, cpu.New(cpu.Options{}), Options{Batch: 1, ScaleBits: 32, Inference: true})
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Init(1); err != nil {
		b.Fatal(err)
	}
	const n = 4
	tokens, targets := sequences(c, n, 1)
	for b.Loop() {
		for i := range n {
			from, to := i*c.Seq, (i+1)*c.Seq
			if _, err := m.Losses(tokens[from:to], targets[from:to], Settings{Gamma: 0.1}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(len(tokens))*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

// Greedy is the largest logit of every position, the first of equal ones.
func TestGreedy(t *testing.T) {
	c := small()
	m := build(t, c, 2, Options{Batch: 2, Inference: true})
	tokens, _ := sequences(c, 2, 3)
	s := Settings{Gamma: 0.5}
	best, err := m.Greedy(tokens, s)
	if err != nil {
		t.Fatal(err)
	}
	logits, err := m.Logits(tokens, 0, len(tokens), s)
	if err != nil {
		t.Fatal(err)
	}
	for row, got := range best {
		of := logits[row*c.Vocab:][:c.Vocab]
		if want := slices.Index(of, slices.Max(of)); int(got) != want {
			t.Errorf("row %d: token %d, want %d", row, got, want)
		}
	}
}
