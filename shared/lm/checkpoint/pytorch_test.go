package checkpoint

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
	"bitnet1/shared/pythontest"
)

// PyTorch's own loader takes our checkpoints and the reference computes the same logits; what PyTorch saves, in either
// format and any float type, comes back as the same parameters.
func TestPyTorchAgrees(t *testing.T) {
	reference := filepath.Join("..", "..", "..", "..", "shared", "reference")
	if _, err := os.Stat(filepath.Join(reference, "v76.py")); err != nil {
		t.Skip("the PyTorch reference is not beside the project")
	}
	python := pythontest.Interpreter(t, "torch", "safetensors.torch")
	v77 := small().Config.V77()
	v77.ReadBits, v77.CodebookBits, v77.Hadamard = 3, 2, 8
	for what, c := range map[string]model.Config{"v76": small().Config, "v77": v77} {
		t.Run(what, func(t *testing.T) { agrees(t, c, python, reference) })
	}
}

func agrees(t *testing.T, c model.Config, python, reference string) {
	m := small()
	m.Config, m.Gamma, m.Mix = c, 0.625, 1
	path := save(t, func(b *bytes.Buffer) error { return Write(b, m) })
	tokens := make([]int32, m.Config.Seq)
	for i := range tokens {
		tokens[i] = int32(i * i % m.Config.Vocab)
	}
	rows, err := json.Marshal([][]int32{tokens})
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	page := filepath.Join("..", "..", "..", "docs", "recipes", "pytorch.md")
	if said, err := exec.Command(python, filepath.Join("testdata", "agree.py"), reference, page, path, string(rows),
		out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	f, err := safetensors.Open(filepath.Join(out, "logits.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := f.Float32("logits")
	if err != nil {
		t.Fatal(err)
	}
	if d := distance(logitsOf(t, path, tokens), want); d > 1e-5 {
		t.Fatalf("logits differ from PyTorch's by %.2g of their norm", d)
	}
	for _, name := range []string{"float64", "float32", "bfloat16", "float16"} {
		for _, suffix := range []string{".pt", ".safetensors"} {
			got, err := read(filepath.Join(out, name+suffix))
			if err != nil {
				t.Error(err)
				continue
			}
			sameAs(t, name, m, got)
		}
	}
	if err := os.Remove(filepath.Join(out, "float32.json")); err != nil {
		t.Fatal(err)
	}
	got, err := read(filepath.Join(out, "float32.pt"))
	if err != nil {
		t.Fatal(err) // it describes itself
	}
	sameAs(t, "float32", m, got)
	if _, err := read(filepath.Join(out, "float32.safetensors")); err == nil ||
		!strings.Contains(err.Error(), "float32.json") {
		t.Errorf("without a description: error %v", err)
	}
	goesOn(t, out, tokens)
}

// goesOn takes the step after the one that PyTorch saved, with the state of PyTorch's optimizers.
func goesOn(t *testing.T, out string, tokens []int32) {
	t.Helper()
	before, err := read(filepath.Join(out, "model.pt"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadState(filepath.Join(out, "model.state.safetensors"), strings.Repeat("00", 32))
	if err != nil {
		t.Fatal(err)
	}
	state, err := s.Optimizer()
	if err != nil || len(state.Momentum) == 0 {
		t.Fatalf("%d matrices have momentum, %v", len(state.Momentum), err)
	}
	m, err := model.New(before.Config, cpu.New(cpu.Options{}), model.Options{Muon: true, ScaleBits: 32})
	if err == nil {
		err = m.Load(model.Each(before.Parameters))
	}
	if err == nil {
		err = m.SetState(state)
	}
	if err == nil {
		err = m.Step(tokens, append(slices.Clone(tokens[1:]), tokens[0]), model.Update{
			Settings: model.Settings{Gamma: before.Gamma, Mix: 1}, LearningRate: 3e-3, Beta1: 0.9, Beta2: 0.95,
			Muon: model.Muon{LearningRate: 0.02, Beta: 0.95, Steps: 5},
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := m.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(filepath.Join(out, "after.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, p := range after {
		want, err := f.Float32(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		for j, was := range before.Parameters[i].Data {
			want[j] -= was
			p.Data[j] -= was
		}
		// Scores of a query lose what they have in common, so the gradient of k's thresholds is next to 0, and AdamW makes
		// whole steps of its rounding errors.
		if d := distance(p.Data, want); d > 2e-3 && !strings.HasSuffix(p.Name, ".k.theta") {
			t.Fatalf("the step of %s differs from PyTorch's by %.2g of its norm", p.Name, d)
		}
	}
}

// sameAs compares a model with what came back of it through a float type.
func sameAs(t *testing.T, through string, want, got Model) {
	t.Helper()
	if got.Gamma != want.Gamma || got.Mix != want.Mix || got.Tokenizer != want.Tokenizer {
		t.Errorf("%s: provenance %+v", through, got.Provenance)
	}
	for i, p := range want.Parameters {
		for j, x := range p.Data {
			switch through {
			case "bfloat16":
				bits := math.Float32bits(x)
				x = math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
			case "float16":
				x = float16.Round(x)
			}
			if y := got.Parameters[i].Data[j]; y != x {
				t.Fatalf("%s: %s[%d] is %v, want %v", through, p.Name, j, y, x)
			}
		}
	}
}

func logitsOf(t *testing.T, path string, tokens []int32) []float32 {
	t.Helper()
	saved, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	m, settings, err := saved.Inference(cpu.New(cpu.Options{}), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	logits, err := m.Logits(tokens, 0, len(tokens), settings)
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

// distance is ‖got - want‖ / ‖want‖.
func distance(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var difference, norm float64
	for i, w := range want {
		difference += math.Pow(float64(got[i]-w), 2)
		norm += math.Pow(float64(w), 2)
	}
	return math.Sqrt(difference / norm)
}
