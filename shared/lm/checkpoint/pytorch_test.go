package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/safetensors"
)

// PyTorch's own loader takes our checkpoints and the reference computes the same logits; what PyTorch saves, in either
// format and any float type, comes back as the same parameters. BITNET1_PYTHON names an interpreter with torch and
// safetensors.
func TestPyTorchAgrees(t *testing.T) {
	python := cmp.Or(os.Getenv("BITNET1_PYTHON"), "python3")
	reference := filepath.Join("..", "..", "..", "..", "shared", "reference")
	if _, err := os.Stat(filepath.Join(reference, "v76.py")); err != nil {
		t.Skip("the PyTorch reference is not beside the project")
	}
	if err := exec.Command(python, "-c", "import torch, safetensors.torch").Run(); err != nil {
		t.Skipf("%s has no torch and safetensors (BITNET1_PYTHON names another interpreter)", python)
	}
	m := small()
	m.Gamma, m.Mix = 0.625, 1
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
	if said, err := exec.Command(python, filepath.Join("testdata", "agree.py"), reference, path, string(rows),
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
		t.Errorf("logits differ from PyTorch's by %.2g of their norm", d)
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
