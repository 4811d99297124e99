package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/measure/measuretest"
)

func TestMain(m *testing.M) { measuretest.Main(m, main) }

// after writes a checkpoint that differs from another in the signs of so many weights of each matrix.
func after(t *testing.T, path string, step int64, flipped map[string]int) string {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := checkpoint.Model{Config: f.Config, Provenance: f.Provenance}
	m.Provenance.Step = step
	for p, err := range f.Parameters() {
		if err != nil {
			t.Fatal(err)
		}
		p.Data = slices.Clone(p.Data)
		for i := range p.Data {
			if p.Data[i] *= 0.5; i < flipped[p.Name] { // the size of a latent does not count, its sign does
				p.Data[i] = -p.Data[i]
			}
		}
		m.Parameters = append(m.Parameters, p)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), fmt.Sprintf("step-%06d.safetensors", step)))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := checkpoint.Write(out, m); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// Each checkpoint is compared with the one before it, layer by layer.
func TestFlipsAreCounted(t *testing.T) {
	config := measuretest.Config(16)
	first := measuretest.Checkpoint(t, config, checkpoint.Provenance{Step: 10, Mix: 1})
	second := after(t, first, 20, map[string]int{"blocks.0.attn.q.weight": 7, "blocks.1.up.weight": 90,
		"blocks.1.down.weight": 6, "codebook.weight": 3, "blocks.1.up.alpha": 1})
	third := after(t, second, 30, nil)
	out := t.TempDir()
	said := measuretest.Run(t, "--in", first, "--in", second, "--in", third, "--out", out)
	block := 4*config.D*config.D + 2*config.D*config.FF
	weights := config.D*config.Vocab + 2*block
	for _, want := range []string{
		fmt.Sprintf("checkpoint 20: %.2f %% of the weights flipped since 10", 100*106/float64(weights)),
		"checkpoint 30: 0.00 % of the weights flipped since 20",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	var layers []flips
	measuretest.ReadJSON(t, filepath.Join(out, "step-000020_flips.json"), &layers)
	want := []flips{{"codebook", config.D * config.Vocab, 3}, {"block 0", block, 7}, {"block 1", block, 96}}
	if !slices.Equal(layers, want) {
		t.Errorf("%v, want %v", layers, want)
	}
	svg, err := os.ReadFile(filepath.Join(out, "step-000020_flips.svg"))
	if err != nil || !strings.Contains(string(svg), "block 1") {
		t.Errorf("the picture: %v", err)
	}
	if found, _ := filepath.Glob(filepath.Join(out, "*.json")); len(found) != 2 {
		t.Errorf("%v, want one file for each checkpoint but the first", found)
	}
}

func TestCheckpointsOfDifferentModels(t *testing.T) {
	config := measuretest.Config(16)
	one := measuretest.Checkpoint(t, config, checkpoint.Provenance{Step: 10, Mix: 1})
	config.FF = 48
	other := measuretest.Checkpoint(t, config, checkpoint.Provenance{Step: 20, Mix: 1})
	cmd, said := measuretest.Program(t, "--in", one, "--in", other, "--out", t.TempDir())
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "are checkpoints of different models") {
		t.Errorf("%v: %s", err, said)
	}
}

// The work depends on both checkpoints.
func TestWhatFlipsDependOn(t *testing.T) {
	var s saved
	s.Model.Digest = "now"
	if got := s.Inputs(); !slices.Equal(got, []string{"now"}) {
		t.Errorf("the first checkpoint: %q", got)
	}
	before := s.Model
	before.Digest = "before"
	s.Previous = &before
	if got := s.Inputs(); !slices.Equal(got, []string{"now", "before"}) {
		t.Errorf("%q", got)
	}
}
