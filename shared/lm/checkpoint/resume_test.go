package checkpoint

import (
	"bytes"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
)

// TestResumeIsExact saves a model and its state in the middle of training: what is read back must go on to the same
// bytes as what never stopped.
func TestResumeIsExact(t *testing.T) {
	v76, v77 := small().Config, small().Config.V77()
	t.Run("v76", func(t *testing.T) { resumesExactly(t, v76, model.Options{}) })
	t.Run("v77", func(t *testing.T) { resumesExactly(t, v77, model.Options{GradBits: 4}) })
	t.Run("v77 with Muon", func(t *testing.T) { resumesExactly(t, v77, model.Options{Muon: true}) })
}

func resumesExactly(t *testing.T, c model.Config, options model.Options) {
	tokens, targets := make([]int32, c.Seq), make([]int32, c.Seq)
	for i := range tokens {
		tokens[i], targets[i] = int32(i*7%c.Vocab), int32((i+1)*7%c.Vocab)
	}
	step := func(m *model.Model) {
		t.Helper()
		if err := m.Step(tokens, targets, model.Update{LearningRate: 3e-3, Beta1: 0.9, Beta2: 0.95,
			Muon:     model.Muon{LearningRate: 0.06, Beta: 0.95, Steps: 3},
			Settings: model.Settings{Gamma: 0.5, Mix: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	straight := newModel(t, c, options)
	if err := straight.Load(model.Each(small().Parameters)); err != nil {
		t.Fatal(err)
	}
	step(straight)
	step(straight)

	resumed := newModel(t, c, options)
	restore(t, resumed, straight)
	step(straight)
	step(resumed)
	want, got := bytesOf(t, straight), bytesOf(t, resumed)
	if !bytes.Equal(got, want) {
		t.Error("the resumed run ended with other parameters")
	}
}

func newModel(t *testing.T, c model.Config, options model.Options) *model.Model {
	t.Helper()
	m, err := model.New(c, cpu.New(cpu.Options{}), options)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// restore brings to into the condition of from, by way of files.
func restore(t *testing.T, to, from *model.Model) {
	t.Helper()
	state, err := from.State()
	if err != nil {
		t.Fatal(err)
	}
	digest := strings.Repeat("00", 32)
	saved := save(t, func(b *bytes.Buffer) error { b.Write(bytesOf(t, from)); return nil })
	beside := save(t, func(b *bytes.Buffer) error {
		return WriteState(b, State{Checkpoint: digest, Step: 2, Tensors: OptimizerTensors(state)})
	})
	f, err := Open(saved)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := to.Load(f.Parameters()); err != nil {
		t.Fatal(err)
	}
	s, err := ReadState(beside, digest)
	if err != nil {
		t.Fatal(err)
	}
	optimizer, err := s.Optimizer()
	if err != nil {
		t.Fatal(err)
	}
	if err := to.SetState(optimizer); err != nil {
		t.Fatal(err)
	}
}

func bytesOf(t *testing.T, m *model.Model) []byte {
	t.Helper()
	parameters, err := m.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, Model{Config: m.Config(), Parameters: parameters, Provenance: Provenance{Mix: 1}}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What trained a state is told by the names of all of its tensors, in whatever order, also of a state without updates.
func TestTrainedBy(t *testing.T) {
	for _, c := range []struct {
		names       []string
		muon, flips bool
	}{
		{[]string{"exp_avg.a", "master.a"}, false, false}, {[]string{"momentum.a", "exp_avg.b"}, true, false},
		{[]string{"exp_avg.b", "momentum.a"}, true, false}, {[]string{"counter.a", "exp_avg.b"}, false, true},
		{[]string{"exp_avg.b", "counter.a"}, false, true},
	} {
		s := State{Tensors: []safetensors.Tensor{{Name: updatesName, Data: []int64{0}}}}
		for _, name := range c.names {
			s.Tensors = append(s.Tensors, safetensors.Tensor{Name: name, Data: []float32{1}})
		}
		if muon, flips := s.TrainedBy(); muon != c.muon || flips != c.flips {
			t.Errorf("%v: Muon %t, flips %t", c.names, muon, flips)
		}
		if o, err := s.Optimizer(); err != nil || o.Updates != 0 || len(o.Momentum) > 0 != c.muon {
			t.Errorf("%v: %+v, %v", c.names, o, err)
		}
	}
}
