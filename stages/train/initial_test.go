package main

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/measure/measuretest"
)

func readCheckpoint(t *testing.T, path string) checkpoint.Model {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := checkpoint.Model{Config: f.Config, Provenance: f.Provenance}
	for p, err := range f.Parameters() {
		if err != nil {
			t.Fatal(err)
		}
		p.Data = slices.Clone(p.Data)
		m.Parameters = append(m.Parameters, p)
	}
	return m
}

// Finetuning starts from a checkpoint, is the model that it is, keeps what is frozen bit for bit, and resumes exactly.
func TestFinetuning(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	trainWith(t, small(writeDataset(t, 16, proverbs()...), first, "--stream-bits", "4", "--no-alibi", "--kshift-offset",
		"2")...)
	base := filepath.Join(first, "step-000060.safetensors")
	other := writeDataset(t, 24, slices.Repeat([]string{strings.Repeat("other words. ", 30)}, 6)...)
	flags := strings.Fields("--in " + other + " --init " + base +
		" --freeze codebook.*,blocks.0.* --steps 40 --warmup 0 --batch-tokens 48 --micro-tokens 48 " +
		"--checkpoint-every 20 --log-every 1")
	trainWith(t, append(flags, "--out", second)...)

	from, to := readCheckpoint(t, base), readCheckpoint(t, filepath.Join(second, "step-000040.safetensors"))
	want := from.Config
	want.Seq = 24
	if got := to.Config; got.StreamBits != 4 || got.Alibi || got.KShiftOffset != 2 || got.D != want.D ||
		got.Seq != want.Seq {
		t.Errorf("the finetuned model is %+v, want %+v", got, want)
	}
	for i, p := range to.Parameters {
		frozen := strings.HasPrefix(p.Name, "codebook.") || strings.HasPrefix(p.Name, "blocks.0.")
		if slices.Equal(p.Data, from.Parameters[i].Data) != frozen {
			t.Errorf("%s is frozen: %v, and it is not so", p.Name, frozen)
		}
	}
	if !strings.Contains(string(to.Recipe), `"stream_bits":4`) {
		t.Errorf("the recipe describes another model: %s", to.Recipe)
	}
	stopped := t.TempDir()
	stopAt(t, 13, 0, stopped, append(flags, "--out", stopped))
	trainWith(t, append(flags, "--out", stopped)...)
	sameFiles(t, second, stopped, []string{"a pause after step 13"})
}

// The model is the checkpoint's that training starts from, whatever parameters say, and in what no parameter says.
func TestModelOfTheStart(t *testing.T) {
	v76 := measuretest.Config(16)
	v76.Eps = 1e-3
	v77 := v76.V77()
	v77.ReadBits, v77.CodebookBits, v77.Hadamard = 3, 2, 8
	signs := v77
	signs.CodebookBits = 0
	queries := v77
	queries.QueryBits = 2
	manifest := writeDataset(t, 16, proverbs()...)
	for what, c := range map[string]struct {
		model.Config
		flags string
	}{
		"a v76": {v76, ""}, "a v77": {v77, ""}, "a v77 with Muon": {v77, "--optimizer muon"},
		"a v76 to be a v77": {v76, "--hidden-bits 4 --codebook-bits 4 --hadamard 8"},
		"a v77 with bonsai": {v77, "--anneal-binarize"}, "a v77 without latents": {signs, "--truebit"},
		"queries of levels": {queries, ""}, "queries to be signs": {queries, "--query-bits 1"},
	} {
		base := measuretest.Checkpoint(t, c.Config, checkpoint.Provenance{Step: 1, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
		dir := t.TempDir()
		flags := append(strings.Fields(c.flags), "--steps", "2", "--warmup", "0", "--init", base)
		trainWith(t, small(manifest, dir, flags...)...)
		if got := readCheckpoint(t, filepath.Join(dir, "step-000002.safetensors")).Config; !reflect.DeepEqual(got, c.Config) {
			t.Errorf("%s: the model is %+v, want %+v", what, got, c.Config)
		}
	}
}

// A checkpoint of another tokenizer is refused; one that names none goes with any. The recipe says which one it was.
func TestTokenizerAndDigestOfTheStart(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	for name, want := range map[string]string{"bytes": "", "": "", "gpt2": "gpt2"} {
		base := measuretest.Checkpoint(t, measuretest.Config(16),
			checkpoint.Provenance{Step: 1, Tokenizer: name, Gamma: 0.3, Mix: 1})
		dir := t.TempDir()
		cmd, said := program(t, small(manifest, dir, "--steps", "1", "--warmup", "0", "--init", base)...)
		err := cmd.Run()
		if (err == nil) != (want == "") || !strings.Contains(said.String(), want) {
			t.Errorf("tokenizer %q: %v, want %q in\n%s", name, err, want, said)
		}
		if err != nil {
			continue
		}
		sum, _, err := digest.File(base)
		recipe := string(readCheckpoint(t, filepath.Join(dir, "step-000001.safetensors")).Recipe)
		if err != nil || !strings.Contains(recipe, `"init_digest":"`+sum+`"`) {
			t.Errorf("the recipe does not name %s (%v): %s", sum, err, recipe)
		}
	}
}

// A mistake about what to start from is told before anything is trained.
func TestRefusesWrongStart(t *testing.T) {
	base, manifest := t.TempDir(), writeDataset(t, 16, proverbs()...)
	trainWith(t, small(manifest, base, "--steps", "1", "--warmup", "0")...)
	checkpointFile := filepath.Join(base, "step-000001.safetensors")
	levels := measuretest.Checkpoint(t, measuretest.Config(16).V77(),
		checkpoint.Provenance{Step: 1, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
	for flags, want := range map[string]string{
		"--init " + filepath.Join(base, "absent.pt"):       "no such file",
		"--init " + filepath.Join(base, trainlog.FileName): "safetensors",
		"--init " + checkpointFile + " --init-digest 00":   "another checkpoint",
		"--init-digest 00":                                 "without init",
		"--truebit --init " + levels:                       ": truebit and 4 codebook_bits exclude each other",
		"--init " + measuretest.Packed(t, levels):          "is a packed model (.bit2): name the checkpoint",
		"--init " + checkpointFile + " --freeze codbook.*": "matches no parameter",
		"--init " + checkpointFile + " --freeze *":         "nothing to train",
	} {
		cmd, said := program(t, append(small(manifest, t.TempDir()), strings.Fields(flags)...)...)
		if err := cmd.Run(); err == nil || !strings.Contains(said.String(), want) {
			t.Errorf("%s: %v, want %q in\n%s", flags, err, want, said)
		}
	}
}
