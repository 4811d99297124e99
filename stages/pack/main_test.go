package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/event"
)

func TestMain(m *testing.M) { measuretest.Main(m, main) }

// A packed model has the signs of the checkpoint's weights, its scales as float16 values, its gains and what it is.
func TestPack(t *testing.T) {
	path := measuretest.Checkpoint(t, measuretest.Config(16),
		checkpoint.Provenance{Step: 7, Tokens: 99, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
	out := t.TempDir()
	said := measuretest.Run(t, "--in", path, "--out", out, "--json")
	var announced struct {
		Kind string
		Body event.PackWritten
	}
	if err := json.Unmarshal([]byte(said), &announced); err != nil || announced.Kind != "pack.written" ||
		announced.Body.Step != 7 || announced.Body.Pack.Name != "step-000007.bit2" {
		t.Errorf("announced %s (%v)", said, err)
	}
	packed, err := bit2.Open(filepath.Join(out, "step-000007.bit2"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	if packed.Step != 7 || packed.Tokens != 99 || packed.Tokenizer != "bytes" || packed.Gamma != 0.3 ||
		packed.Config.D != 24 {
		t.Errorf("the packed model is %+v, %+v", packed.Config, packed.Provenance)
	}
	saved, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	want := map[string][]float32{}
	for p, err := range saved.Parameters() {
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range p.Data {
			switch {
			case strings.HasSuffix(p.Name, ".weight") && v < 0:
				v = -1
			case strings.HasSuffix(p.Name, ".weight"):
				v = 1
			case strings.HasSuffix(p.Name, ".alpha") || strings.HasSuffix(p.Name, ".theta"):
				v = float16.Round(v)
			}
			want[p.Name] = append(want[p.Name], v)
		}
	}
	found := 0
	for p, err := range packed.Parameters() {
		if err != nil {
			t.Fatal(err)
		}
		found++
		for i, v := range p.Data {
			if v != want[p.Name][i] {
				t.Fatalf("%s: value %d is %g, want %g", p.Name, i, v, want[p.Name][i])
			}
		}
	}
	if found != len(want) {
		t.Errorf("%d parameters, want %d", found, len(want))
	}
}

// A v77 is packed with a self-test that the packed model passes, and another model does not.
func TestPackV77(t *testing.T) {
	about := checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1}
	for what, documents := range map[string]model.Documents{"packed": {}, "separate": {Separate: true, EndOfText: 256}} {
		about.Documents = documents
		config := measuretest.Config(90).V77()
		path, out := measuretest.Checkpoint(t, config, about), t.TempDir()
		said := measuretest.Run(t, "--in", path, "--out", out)
		file := filepath.Join(out, "step-000007.bit2")
		packed, err := bit2.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer packed.Close()
		test, err := packed.SelfTest()
		if err != nil || test == nil || len(test.Tokens) != 64 {
			t.Fatalf("%s: self-test %+v, %v", what, test, err)
		}
		if documents.Separate && test.Tokens[32] != 256 {
			t.Errorf("%s: tokens %v", what, test.Tokens)
		}
		// Its size is what a person is told.
		info, err := os.Stat(file)
		if err != nil || !strings.Contains(said, fmt.Sprintf("%.1f kB", float64(info.Size())/1e3)) {
			t.Errorf("%d bytes (%v), said\n%s", info.Size(), err, said)
		}
		if err := onCPU(packed, 64, 1, test.Check); err != nil {
			t.Error(err)
		}
		test.Logits[63] += 1e-3
		if err := onCPU(packed, 64, 1, test.Check); err == nil || !strings.Contains(err.Error(), "after 64 tokens") {
			t.Errorf("%s: another logit: %v", what, err)
		}
	}
}

// In the middle of bonsai's annealing there is nothing to pack, which is said and no failure.
func TestNothingToPackYet(t *testing.T) {
	path := measuretest.Checkpoint(t, measuretest.Config(16),
		checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 0.99})
	out := t.TempDir()
	if said := measuretest.Run(t, "--in", path, "--out", out); !strings.Contains(said, "the weights are not ±1 yet") ||
		!strings.Contains(said, "mix=0.99") {
		t.Errorf("said %s", said)
	}
	if packed, err := filepath.Glob(filepath.Join(out, "*.bit2")); err != nil || len(packed) != 0 {
		t.Errorf("the folder holds %v, %v", packed, err)
	}
}

// What is no checkpoint is refused, and so is a packed model that does not read back.
func TestDamaged(t *testing.T) {
	path := measuretest.Checkpoint(t, measuretest.Config(16),
		checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-8], 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, said := measuretest.Program(t, "--in", path, "--out", t.TempDir())
	if err := cmd.Run(); err == nil {
		t.Errorf("half a checkpoint was packed:\n%s", said)
	}

	good := measuretest.Checkpoint(t, measuretest.Config(16),
		checkpoint.Provenance{Step: 8, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
	out := t.TempDir()
	measuretest.Run(t, "--in", good, "--out", out)
	file := filepath.Join(out, "step-000008.bit2")
	if err := readBack(file, 1); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{len(b) / 2, len(b) - 1} {
		b[at] ^= 1
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := readBack(file, 1); err == nil {
			t.Errorf("a flipped bit in byte %d of %d was not noticed", at, len(b))
		}
		b[at] ^= 1
	}
}
