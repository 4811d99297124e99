package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
	"bitnet1/shared/lm/trainlog"
)

// A cool-down from a checkpoint of the level part ends with the parameters, the optimizer's state and the log of a run
// that was planned so from its first step. It does so when it is stopped on its way, too.
func TestCooldownFromACheckpoint(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	for name, c := range map[string]struct{ both, level, planned string }{
		"AdamW":   {both: "--grad-bits 4 --gamma-steps 30"},
		"pointer": {both: "--attention pointer --kshift-layers none"},
		"Muon, ramps": {
			both:  "--optimizer muon --muon-weight-decay 0.1 --batch-start 16 --sequence-start 4 --gamma-steps 60",
			level: "--batch-ramp 0.2 --sequence-ramp 0.2", planned: "--batch-ramp 0.25 --sequence-ramp 0.25", // 12 steps
		},
		"bonsai": {both: "--anneal-binarize --gamma-steps 60", level: "--binarize-anneal-end-frac 0.4",
			planned: "--binarize-anneal-end-frac 0.5"}, // 24 steps
		"truebit": {both: "--truebit --flip-threshold 4 --gamma-steps 1"},
	} {
		t.Run(name, func(t *testing.T) {
			flags := func(out, more string) []string {
				return small(manifest, out, strings.Fields("--schedule trapezoid --final-share 0 "+c.both+" "+more)...)
			}
			level, planned, cooled := t.TempDir(), t.TempDir(), t.TempDir()
			trainWith(t, flags(level, "--cooldown-steps 10 "+c.level)...)
			ends := "--steps 48 --cooldown-steps 16 " + c.planned
			trainWith(t, flags(planned, ends)...)
			from := flags(cooled, ends+" --init-state --init "+filepath.Join(level, "step-000032.safetensors"))
			stopAt(t, 37, 0, cooled, from)
			trainWith(t, from...)

			if got := checkpoints(t, cooled); len(got) != 1 {
				t.Errorf("checkpoints of the cool-down: %v", got)
			}
			want, got := readCheckpoint(t, filepath.Join(planned, "step-000048.safetensors")),
				readCheckpoint(t, filepath.Join(cooled, "step-000048.safetensors"))
			if !equalParameters(got, want) || got.Step != 48 || got.Tokens != want.Tokens || got.Gamma != want.Gamma {
				t.Errorf("the cool-down ends with other parameters: step %d, %d tokens, want %d", got.Step, got.Tokens, want.Tokens)
			}
			if a, b := stateBytes(t, planned, 48), stateBytes(t, cooled, 48); !slices.Equal(a, b) {
				t.Error("the cool-down ends with another state of the optimizer")
			}
			if a, b := steps(t, planned)[32:], steps(t, cooled); !slices.Equal(a, b) {
				t.Errorf("the cool-down logs\n%+v\nwant\n%+v", b, a)
			}
		})
	}
}

// stateBytes are the bytes of the tensors of a checkpoint's state file.
func stateBytes(t *testing.T, dir string, step int) []byte {
	t.Helper()
	b, err := os.ReadFile(statePath(dir, step))
	if err != nil {
		t.Fatal(err)
	}
	header := int(b[0]) | int(b[1])<<8 | int(b[2])<<16 // its metadata names the checkpoint, whose recipe names init
	return b[8+header:]
}

func statePath(dir string, step int) string {
	return filepath.Join(dir, fmt.Sprintf("step-%06d.state.safetensors", step))
}

// What a training goes on with is checked before it starts, and what differs from the training before is said.
func TestGoesOnFromAState(t *testing.T) {
	manifest, level := writeDataset(t, 16, proverbs()...), t.TempDir()
	trainWith(t, small(manifest, level, strings.Fields("--steps 4 --checkpoint-every 2 --warmup 0 --schedule trapezoid "+
		"--cooldown-steps 1")...)...)
	first := filepath.Join(level, "step-000002.safetensors")
	last := filepath.Join(level, "step-000004.safetensors")
	alone := filepath.Join(t.TempDir(), "step-000002.safetensors")
	flips := t.TempDir()
	trainWith(t, small(manifest, flips, strings.Fields("--steps 2 --checkpoint-every 2 --warmup 0 --truebit")...)...)
	b, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(alone, b, 0o644); err != nil {
		t.Fatal(err)
	}
	strange := filepath.Join(t.TempDir(), "step-000002.safetensors")
	if err := os.WriteFile(strange, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(statePath(level, 4)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(strings.TrimSuffix(strange, ".safetensors")+".state.safetensors", b, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		init, flags string
		fails       bool
		notes       int
		want        []string
	}{
		{alone, "", true, 0, []string{"beside " + alone + " has to lie the state", "no such file"}},
		{strange, "", true, 0, []string{"belongs to checkpoint"}},
		{first, "--steps 2", true, 0, []string{"has taken 2 steps, which steps counts too: use more than 2"}},
		{first, "--init-state-digest 00", true, 0, []string{"another state"}},
		{first, "--optimizer muon", true, 0, []string{"were trained by adamw: use --optimizer adamw"}},
		{first, "--truebit", true, 0, []string{"was trained with truebit false, and goes on with no other"}},
		{filepath.Join(flips, "step-000002.safetensors"), "", true, 0, []string{"was trained with truebit true"}},
		{first, "--learning-rate 1e-3 --clip 2", false, 2, []string{"msg=resuming", "step=2",
			"the training goes on otherwise than it began: clip 2 instead of 1, learning_rate 0.001 instead of 0.003",
			"gamma jumps from 0.433 to 0.52 after step 2", "with --gamma-steps 4 it goes on as it was"}},
		{first, "--gamma-steps 4 --steps 3 --checkpoint-every 1 --log-every 2", false, 0, nil},
		{first, "--gamma-steps 4 --cooldown-steps 5", false, 1, []string{"learning_rate jumps from 0.003 to 0.00192 after " +
			"step 2: --schedule trapezoid and --cooldown-steps 3 let it fall from here on"}},
		{first, "--gamma-steps 4 --cooldown-steps 3", false, 0, nil},
		{last, "--gamma-steps 4", false, 1, []string{"learning_rate jumps from 0.0003 to 0.003 after step 4: it had begun " +
			"to fall"}},
		{first, "--gamma-steps 4 --anneal-binarize", false, 2, []string{
			"share of signs in the weights jumps from 1 to 0.333 after step 2"}},
	} {
		dir := t.TempDir()
		cmd, said := program(t, small(manifest, dir, append(strings.Fields("--steps 5 --warmup 0 --checkpoint-every 2 "+
			"--schedule trapezoid --cooldown-steps 1 --init-state --init "+c.init), strings.Fields(c.flags)...)...)...)
		if err := cmd.Run(); (err != nil) != c.fails {
			t.Errorf("%s: %v\n%s", c.flags, err, said)
		}
		for _, want := range c.want {
			if !strings.Contains(said.String(), want) {
				t.Errorf("%s: %q is missing in\n%s", c.flags, want, said)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, trainlog.FileName)); c.fails && err == nil {
			t.Errorf("%s: it began to train", c.flags)
		}
		if n := strings.Count(said.String(), "level=NOTE"); n != c.notes {
			t.Errorf("%s: %d notes, want %d, in\n%s", c.flags, n, c.notes, said)
		}
	}
}

// Rates are compared as shares of their peaks, and Muon's where it has a course of its own.
func TestRatesThatJump(t *testing.T) {
	was := defaults()
	was.Schedule, was.CooldownSteps, was.Optimizer = model.Trapezoid, 100, muon // level from step 50 to step 500
	for what, c := range map[string]struct {
		step   int
		change func(*Params)
		want   string
	}{
		"as it was":            {400, func(*Params) {}, ""},
		"longer":               {400, func(p *Params) { p.Steps = 2000 }, ""},
		"cooled":               {400, func(p *Params) { p.Steps = 500 }, ""},
		"another peak":         {400, func(p *Params) { p.LearningRate, p.MuonRate = 1e-3, 0.01 }, ""},
		"another peak, cooled": {550, func(p *Params) { p.LearningRate = 0.03 }, ""},
		"warm-up goes on":      {40, func(p *Params) { p.Steps, p.CooldownSteps = 60, 60 }, ""},
		"another warm-up":      {60, func(p *Params) { p.Warmup = 70 }, ""},
		"cosine": {400, func(p *Params) { p.Schedule = model.Cosine }, "learning_rate jumps from 0.003 to 0.00109 after " +
			"step 400: --schedule trapezoid and --cooldown-steps 200 let it fall from here on"},
		"behind the cool-down": {600, func(p *Params) { p.Steps, p.LearningRate = 1200, 0.006 },
			"learning_rate jumps from 0.0003 to 0.006 after step 600: it had begun to fall"},
		"Muon's own": {400, func(p *Params) { p.MuonSchedule = model.Linear },
			"muon_learning_rate jumps from 0.06 to 0.0219 after step 400"},
	} {
		p := was
		c.change(&p)
		got := strings.Join(p.rateJumps(was, c.step), "\n")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

// The recipe names both files, by their digests.
func TestRecipeOfAContinuedTraining(t *testing.T) {
	manifest, level, dir := writeDataset(t, 16, proverbs()...), t.TempDir(), t.TempDir()
	trainWith(t, small(manifest, level, "--steps", "1", "--warmup", "0")...)
	init := filepath.Join(level, "step-000001.safetensors")
	trainWith(t, small(manifest, dir, "--steps", "2", "--warmup", "0", "--init-state", "--init", init)...)
	sum, _, err := digest.File(statePath(level, 1))
	recipe := string(readCheckpoint(t, filepath.Join(dir, "step-000002.safetensors")).Recipe)
	if err != nil || !strings.Contains(recipe, `"init_state":true,"init_state_digest":"`+sum+`"`) {
		t.Errorf("the recipe does not name %s (%v): %s", sum, err, recipe)
	}
}

// A state that another program wrote has neither the digest of a checkpoint nor masters of scales, and its checkpoint
// has no recipe: momentum goes on by its names, and nothing is said of parameters that nobody knows.
func TestStateOfAnotherProgram(t *testing.T) {
	manifest, level := writeDataset(t, 16, proverbs()...), t.TempDir()
	trainWith(t, small(manifest, level, "--steps", "2", "--warmup", "0", "--optimizer", "muon")...)
	sum, _, err := digest.File(filepath.Join(level, "step-000002.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	m := readCheckpoint(t, filepath.Join(level, "step-000002.safetensors"))
	state, err := checkpoint.ReadState(statePath(level, 2), sum)
	if err != nil {
		t.Fatal(err)
	}
	m.Recipe = nil
	for what, c := range map[string]struct{ lacks, says string }{
		"complete":         {"master.", ""},
		"without momentum": {"momentum.blocks.1.up.weight", "restore momentum: parameter blocks.1.up.weight is missing"},
	} {
		dir, out := t.TempDir(), t.TempDir()
		tensors := slices.DeleteFunc(slices.Clone(state.Tensors), func(x safetensors.Tensor) bool {
			return strings.HasPrefix(x.Name, c.lacks)
		})
		writeFile(t, filepath.Join(dir, "model.safetensors"), func(w io.Writer) error { return checkpoint.Write(w, m) })
		writeFile(t, filepath.Join(dir, "model.state.safetensors"), func(w io.Writer) error {
			return safetensors.Write(w, map[string]string{"format": checkpoint.StateFormat, "step": "2", "position": "8",
				"log_offset": "0"}, tensors)
		})
		cmd, said := program(t, small(manifest, out, append(strings.Fields("--steps 4 --warmup 0 --optimizer muon --clip 2 "+
			"--gamma-steps 2 --checkpoint-every 4 --init-state --init"), filepath.Join(dir, "model.safetensors"))...)...)
		if err := cmd.Run(); (err != nil) != (c.says != "") || !strings.Contains(said.String(), c.says) {
			t.Errorf("%s: %v, want %q in\n%s", what, err, c.says, said)
		}
		if strings.Contains(said.String(), "goes on otherwise") {
			t.Errorf("%s: compared with a recipe that there is not:\n%s", what, said)
		}
	}
}

func writeFile(t *testing.T, path string, write func(io.Writer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
