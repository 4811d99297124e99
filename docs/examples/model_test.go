package examples

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/pythontest"
)

// lossesIn prints, as JSON, the losses in nats that model.py gives for tokens and targets, by each checkpoint.
const lossesIn = `
import json, sys, torch
from model import load
rows, targets = (torch.tensor(json.loads(a)) for a in sys.argv[1:3])
losses = lambda path: -load(path).logits(rows).double().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).flatten()
print(json.dumps([losses(path).tolist() for path in sys.argv[3:]]))
`

// The module in PyTorch gives every kind of model the losses that the project's own devices give it.
func TestModelInPyTorch(t *testing.T) {
	python := pythontest.Interpreter(t, "torch", "safetensors")
	for _, module := range []string{"model.py", "bit2.py"} { // so that a test result is not kept for another module
		if _, err := os.Stat(module); err != nil {
			t.Fatal(err)
		}
	}
	const seq, batch = 24, 2
	tokens, targets := make([]int32, batch*seq), make([]int32, batch*seq)
	for i := range tokens {
		tokens[i], targets[i] = int32(i*i%11), int32((7*i+2)%measuretest.Config(seq).Vocab)
	}
	command := []string{"-c", lossesIn, rows(tokens, seq), rows(targets, seq)}
	var names []string
	var want [][]float32
	for what, c := range map[string]struct {
		change    func(*model.Config)
		mix       float64
		documents model.Documents
	}{
		"v76":         {func(*model.Config) {}, 1, model.Documents{}},
		"strict":      {func(c *model.Config) { c.StreamBits = 1 }, 1, model.Documents{}},
		"unquantized": {func(c *model.Config) { c.StreamBits = kernels.FloatBits }, 1, model.Documents{}},
		"v75": {func(c *model.Config) { c.Attention, c.KShiftLayers = kernels.Pointer.String(), nil }, 1,
			model.Documents{}},
		"softmax": {func(c *model.Config) { c.Attention, c.Alibi = kernels.Softmax.String(), false }, 1,
			model.Documents{}},
		"shift alone":  {func(c *model.Config) { c.KShiftSelf, c.KShiftOffset = false, 2 }, 1, model.Documents{}},
		"equal scores": {func(c *model.Config) { c.Alibi = false }, 1, model.Documents{}},
		"bonsai":       {func(*model.Config) {}, 0.25, model.Documents{}},
		"documents":    {func(c *model.Config) { c.KShiftSelf = false }, 1, model.Documents{Separate: true, EndOfText: 3}},
		"v77":          {func(c *model.Config) { *c = c.V77() }, 1, model.Documents{}},
		"queries":      {func(c *model.Config) { *c = c.V77(); c.QueryBits = 4 }, 1, model.Documents{}},
		"queries, softmax": {func(c *model.Config) {
			*c = c.V77()
			c.QueryBits, c.Attention, c.Alibi = 8, kernels.Softmax.String(), false
		}, 1, model.Documents{}},
		"queries, documents": {func(c *model.Config) {
			c.StreamBits, c.QueryBits, c.Alibi = 4, 2, false
		}, 1, model.Documents{Separate: true, EndOfText: 3}},
		"v77 of few bits": {func(c *model.Config) {
			c.StreamBits, c.HiddenBits, c.ValueBits, c.ReadBits, c.CodebookBits, c.Hadamard = 3, 2, 4, 3, 2, 4
		}, 1, model.Documents{}},
		"v77 of signs": {func(c *model.Config) { c.StreamBits, c.CodebookBits, c.Hadamard = 1, 8, 8 }, 1,
			model.Documents{}},
		"v77, bonsai": {func(c *model.Config) { *c = c.V77() }, 0.25, model.Documents{}},
		"v77, softmax": {func(c *model.Config) { *c = c.V77(); c.Attention = kernels.Softmax.String() }, 1,
			model.Documents{}},
		"soft documents": {func(c *model.Config) { c.Attention = kernels.Softmax.String() }, 1,
			model.Documents{Separate: true, EndOfText: 3}},
	} {
		config := measuretest.Config(seq)
		c.change(&config)
		path := measuretest.Checkpoint(t, config,
			checkpoint.Provenance{Step: 1, Gamma: 0.8, Mix: c.mix, Documents: c.documents})
		path = measuretest.Shaken(t, path)
		m, settings := measuretest.Load(t, path, batch)
		losses, err := m.Losses(tokens, targets, settings)
		if err != nil {
			t.Fatal(err)
		}
		names, want, command = append(names, what), append(want, losses), append(command, path)
		if c.mix == 1 {
			names, want = append(names, what+", packed"), append(want, losses)
			command = append(command, measuretest.Packed(t, path))
		}
	}
	out, err := exec.Command(python, command...).Output()
	if err != nil {
		t.Fatal(withOutput(err))
	}
	var got [][]float64
	if err := json.Unmarshal(out, &got); err != nil || len(got) != len(want) {
		t.Fatalf("%v in %.200s", err, out)
	}
	for i, losses := range want {
		if strings.HasSuffix(names[i], ", packed") && !slices.Equal(got[i], got[i-1]) {
			t.Errorf("%s: the module's losses are not those of the checkpoint, to the bit", names[i])
		}
		for k := range losses {
			if !(math.Abs(got[i][k]-float64(losses[k])) <= 1e-4) {
				t.Errorf("%s: token %d has a loss of %g nats, the module says %g", names[i], k, losses[k], got[i][k])
				break
			}
		}
	}
}

// testedIn prints, as JSON, by how much the module's logits differ from those of a packed model's self-test, and how
// many of its best tokens are others.
const testedIn = `
import json, sys, torch
from bit2 import read
from model import load
test = read(sys.argv[1])[3]
best = load(sys.argv[1]).logits(torch.tensor([test["tokens"]]))[0].max(-1)
print(json.dumps([(best.values - torch.tensor(test["logits"])).abs().max().item(),
                  (best.indices != torch.tensor(test["best"])).sum().item()]))
`

// A program in another language passes the self-test of a packed model.
func TestSelfTestInPyTorch(t *testing.T) {
	python := pythontest.Interpreter(t, "torch", "safetensors")
	path := measuretest.Shaken(t, measuretest.Checkpoint(t, measuretest.Config(48).V77(),
		checkpoint.Provenance{Step: 1, Gamma: 0.8, Mix: 1}))
	m, settings := measuretest.Load(t, path, 1)
	test, err := bit2.NewSelfTest(m, settings)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	packed, err := os.Create(filepath.Join(t.TempDir(), "model.bit2"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	if err := bit2.Write(packed, saved.Config, saved.Provenance, saved.Parameters(), test); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(python, "-c", testedIn, packed.Name()).Output()
	if err != nil {
		t.Fatal(withOutput(err))
	}
	var got [2]float64
	if err := json.Unmarshal(out, &got); err != nil || !(got[0] <= 1e-4) || got[1] != 0 {
		t.Errorf("logits differ by up to %g, and %g of the best tokens: %v", got[0], got[1], err)
	}
}

// rows is values as a JSON list of rows of so many.
func rows(values []int32, width int) string {
	var all [][]int32
	for at := 0; at < len(values); at += width {
		all = append(all, values[at:at+width])
	}
	b, err := json.Marshal(all)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(b)
}

// withOutput adds what a program that failed wrote.
func withOutput(err error) error {
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		return fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	return err
}
