package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/event"
)

// announced runs the program and returns the bodies of the events that it announced, by kind.
func announced(t *testing.T, flags ...string) (saved []event.CheckpointSaved, finished event.TrainingFinished) {
	t.Helper()
	cmd, _ := program(t, append(flags, "--json")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("train %v: %v", flags, err)
	}
	for line := range strings.Lines(out.String()) {
		var e struct {
			Kind string
			Body json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case finished.Kind():
			if err := json.Unmarshal(e.Body, &finished); err != nil {
				t.Fatal(err)
			}
		case event.CheckpointSaved{}.Kind():
			var s event.CheckpointSaved
			if err := json.Unmarshal(e.Body, &s); err != nil {
				t.Fatal(err)
			}
			saved = append(saved, s)
		}
	}
	return saved, finished
}

// checkpointLines are the lines of a training log that are about checkpoints.
func checkpointLines(t *testing.T, dir string) (lines []trainlog.Checkpoint) {
	t.Helper()
	for _, line := range readLog(t, dir) {
		if c, ok := line.(trainlog.Checkpoint); ok {
			lines = append(lines, c)
		}
	}
	return lines
}

// measured is the loss of a checkpoint on n validation sequences, in bits per token that is to be predicted, a sequence
// at a time.
func measured(t *testing.T, path string, data *dataset.Dataset, n int) float64 {
	t.Helper()
	m, settings := measuretest.Load(t, path, 1)
	var nats, count float64
	for i := range n {
		tokens, targets, err := data.Validation.AppendTargets(i, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		losses, err := m.Losses(tokens, targets, settings)
		if err != nil {
			t.Fatal(err)
		}
		for k, target := range targets {
			if target >= 0 {
				nats += float64(losses[k])
				count++
			}
		}
	}
	return nats / count / math.Ln2
}

// What the log, the events and the checkpoints say of a run with all schedules agrees with what the checkpoints are, on
// a dataset of which not every target counts.
func TestLogIsTrue(t *testing.T) {
	manifest := measuretest.Sealed(t,
		seal.Options{SequenceLength: 16, ValidationShare: 0.2, Seed: 3, Counted: []int{3, 14}}, proverbs()...)
	dir := t.TempDir()
	// What attention reads are signs of sums, which change where gamma crosses certain values. One is (sqrt(5)-1)/2: gamma
	// is more in step 11 and less in step 12.
	const total, every, batch, annealed = 60, 11, 64, 36
	saved, finished := announced(t, small(manifest, dir, "--anneal-binarize", "--learning-rate", "2e-3", "--final-share",
		"0.25", "--validation-sequences", "5", "--checkpoint-every", "11")...)
	data := measuretest.Open(t, manifest)
	gamma := func(step int) float64 { return 0.9 * math.Pow(0.1/0.9, float64(step-1)/(total-1)) }

	lines := steps(t, dir)
	if len(lines) != total {
		t.Fatalf("%d steps in the log", len(lines))
	}
	for i, line := range lines {
		step := i + 1
		rate := 2e-3 * float64(step) / 5
		if step > 5 {
			rate = 5e-4 + (2e-3-5e-4)*(1+math.Cos(math.Pi*float64(step-1-5)/(total-5-1)))/2
		}
		if line.Step != step || line.Tokens != int64(step*batch) || !(math.Abs(line.Gamma-gamma(step)) <= 1e-12) ||
			!(math.Abs(line.LearningRate-rate) <= 1e-12) {
			t.Errorf("step %d: %+v, want gamma %g, rate %g", step, line, gamma(step), rate)
		}
	}
	best, bestStep := math.Inf(1), 0
	marks := checkpointLines(t, dir)
	if len(marks) != 6 || len(saved) != 6 || finished.Checkpoints != 6 || finished.Steps != total ||
		finished.Tokens != total*batch {
		t.Fatalf("%d checkpoints in the log, %d announced, at the end %+v", len(marks), len(saved), finished)
	}
	for i, mark := range marks {
		step := min((i+1)*every, total)
		path := filepath.Join(dir, fmt.Sprintf("step-%06d.safetensors", step))
		mix := min(1, float64(step-1)/annealed)
		if of := readCheckpoint(t, path); !(math.Abs(of.Gamma-gamma(step)) <= 1e-12) || !(math.Abs(of.Mix-mix) <= 1e-12) ||
			of.Step != int64(step) || of.Tokens != int64(step*batch) {
			t.Errorf("checkpoint %d is %+v, want gamma %g, mix %g", step, of.Provenance, gamma(step), mix)
		}
		want := measured(t, path, data, 5)
		if mark.Step != step || mark.ValBPC == nil || !(math.Abs(*mark.ValBPC-want) <= 1e-6) {
			t.Errorf("checkpoint %d: the log says %+v, it has %g bits per token", step, mark, want)
		}
		isBest := mix == 1 && want < best
		if isBest {
			best, bestStep = want, step
		}
		var training float64
		for _, line := range lines[i*every : step] {
			training += line.TrainBPC / float64(step-i*every)
		}
		s := saved[i]
		if mark.Best != isBest || s.Best != isBest || s.Last != (step == total) || !(math.Abs(s.Blend-(1-mix)) <= 1e-12) {
			t.Errorf("checkpoint %d: %+v, announced as %+v: best is %v", step, mark, s, isBest)
		}
		if !(math.Abs(mark.TrainBPC-training) <= 1e-9) || s.TrainBits != mark.TrainBPC || s.ValidationBits != *mark.ValBPC ||
			s.Step != step || s.Tokens != mark.Tokens || s.Model.Digest != mark.Model {
			t.Errorf("checkpoint %d: %+v, announced as %+v: training loss %g", step, mark, s, training)
		}
		if (s.Previous == nil) != (i == 0) || i > 0 && *s.Previous != saved[i-1].Model {
			t.Errorf("checkpoint %d names %v as the one before", step, s.Previous)
		}
	}
	if finished.BestStep != bestStep || bestStep <= annealed {
		t.Errorf("the best step is %d, want %d", finished.BestStep, bestStep)
	}
}

// Without a validation sample there is no validation loss, and no best checkpoint.
func TestNoValidationSample(t *testing.T) {
	dir := t.TempDir()
	cmd, said := program(t, small(writeDataset(t, 16, proverbs()...), dir, "--steps", "20", "--validation-sequences",
		"0")...)
	if err := cmd.Run(); err != nil || !strings.Contains(said.String(), "level=NOTE") ||
		!strings.Contains(said.String(), "none is the best") {
		t.Fatalf("%v:\n%s", err, said)
	}
	for _, mark := range checkpointLines(t, dir) {
		if mark.ValBPC != nil || mark.Best {
			t.Errorf("%+v", mark)
		}
	}
}

// What a step does to the parameters is what its schedules say, with the noise of that step alone.
func TestUpdateOfAStep(t *testing.T) {
	p := defaults()
	p.Attention, p.Steps, p.Warmup, p.Seed, p.Beta1, p.Beta2, p.Decay, p.Clip, p.Tau = "pointer", 101, 10, 7, 0, 0.5, 0.25,
		2, 0.75
	p.LearningRate, p.FinalShare = 1, 0.5
	u := p.update(50)
	if !u.Gumbel || u.Seed != 7 || u.Step != 50 || u.Tau != 0.75 || u.Mix != 1 || !(math.Abs(u.Gamma-0.3) <= 1e-12) {
		t.Errorf("settings of step 50: %+v", u.Settings)
	}
	if u.Beta1 != 0 || u.Beta2 != 0.5 || u.Decay != 0.25 || u.MaxNorm != 2 {
		t.Errorf("update of step 50: %+v", u)
	}
	if last := p.update(100); !(math.Abs(last.LearningRate-0.5) <= 1e-12) || !(math.Abs(last.Gamma-0.1) <= 1e-12) {
		t.Errorf("update of the last step: %+v", last)
	}
	p.AnnealBinarize, p.Attention = true, "rwsp"
	if u := p.update(30); u.Gumbel || !(math.Abs(u.Mix-30/(0.6*101)) <= 1e-12) {
		t.Errorf("bonsai's settings of step 30: %+v", u.Settings)
	}
}

func TestLogIsDocumented(t *testing.T) {
	measuretest.Documented(t, "Training log", trainlog.Step{}, trainlog.Checkpoint{})
}
