package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/stage"
)

// What is allowed but hardly meant is said; what is usual is not.
func TestNotes(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Params)
		want   string
	}{
		"defaults": {func(*Params) {}, ""},
		"warm-up too long": {func(p *Params) { p.Steps, p.CheckpointEvery = 20, 20 }, "warmup of 50 steps is longer than " +
			"the 20 steps of the run: the learning rate ends at 0.0012, below its peak of 0.003"},
		"warm-up in the cool-down": {
			func(p *Params) { p.Schedule, p.Cooldown, p.FinalShare, p.Warmup = "trapezoid", 0.5, 0, 400 },
			"warmup of 400 steps goes on in the cool-down, which begins after step 300: the learning rate is never level, " +
				"and falls from 0.003 to 0.00199 after the warm-up",
		},
		"warm-up to the end":          {func(p *Params) { p.Schedule, p.Cooldown, p.Warmup = "trapezoid", 0.5, 600 }, ""},
		"warm-up up to the cool-down": {func(p *Params) { p.Schedule, p.Cooldown, p.Warmup = "trapezoid", 0.5, 300 }, ""},
		"few steps": {func(p *Params) { p.Steps = 100 }, "checkpoint_every is 200: the only checkpoint of the run's " +
			"100 steps is the one at its end"},
		"stop behind":      {func(p *Params) { p.StopAt = 700 }, "stop_at is 700: the run ends before, with step 600"},
		"no validation":    {func(p *Params) { p.ValidationSequences = 0 }, "no checkpoint has a validation loss"},
		"just long enough": {func(p *Params) { p.Steps, p.CheckpointEvery, p.StopAt, p.Warmup = 50, 50, 50, 50 }, ""},
		"never binary": {func(p *Params) { p.AnnealBinarize, p.BinarizeAnnealEndFrac, p.Steps = true, 1, 200 },
			"the last step still has 0.5 % of the float weights (binarize_anneal_end_frac is 1)"},
		"bonsai": {func(p *Params) { p.AnnealBinarize = true }, ""},
		"truebit decays": {func(p *Params) { p.Truebit, p.Decay = true, 0.1 },
			"weight_decay is 0.1: under truebit there are no latents"},
		"truebit": {func(p *Params) { p.Truebit = true }, ""},
		"nothing decays": {func(p *Params) { p.DecaySchedule = "linear" },
			"weight_decay_schedule is linear, and no weight decays"},
		"AdamW's steps": {func(p *Params) { p.MuonSteps, p.MuonRate = 3, 0.09 },
			"the optimizer is adamw, which has no muon_learning_rate, muon_steps: --optimizer muon takes them"},
		"one step of AdamW's": {func(p *Params) { p.MuonSteps = 3 },
			"the optimizer is adamw, which has no muon_steps: --optimizer muon takes them"},
		"Muon's steps": {func(p *Params) { p.MuonSteps, p.Optimizer = 3, "muon" }, ""},
		"cool-down of a cosine": {func(p *Params) { p.Cooldown = 0.5 },
			"cooldown is 0.5, and the schedule cosine has no cool-down: --schedule trapezoid has one"},
		"cool-down of Muon alone": {
			func(p *Params) { p.Cooldown, p.Optimizer, p.MuonSchedule = 0.5, "muon", "trapezoid" }, ""},
		"Muon decays": {func(p *Params) { p.DecaySchedule, p.MuonDecay, p.Optimizer = "linear", 1, "muon" }, ""},
		"bits of float gradients": {func(p *Params) { p.WeightGradBits = 8 },
			"weight_grad_bits is 8, and gradients stay floats: grad_bits is 16"},
		"bits of gradients": {func(p *Params) { p.WeightGradBits, p.GradBits = 8, 4 }, ""},
		"blend of nothing": {func(p *Params) { p.BinarizeAnnealEndFrac = 0.5 },
			"binarize_anneal_end_frac is 0.5, and no float weights are blended: --anneal-binarize true begins with them"},
		"shorter blend": {func(p *Params) { p.BinarizeAnnealEndFrac, p.AnnealBinarize = 0.5, true }, ""},
		"counters of latents": {func(p *Params) { p.FlipThreshold = 4 },
			"flip_threshold is 4, and weights have latents in place of counters: --truebit true trains without latents"},
		"counters": {func(p *Params) { p.FlipThreshold, p.Truebit = 4, true }, ""},
		"no start of batches": {func(p *Params) { p.BatchRamp = 0.5 },
			"batch_ramp is 0.5, and every step has batch_tokens"},
		"no start of sequences": {func(p *Params) { p.SequenceRamp = 0.5 },
			"sequence_ramp is 0.5, and all sequences are whole"},
		"few tokens first": {func(p *Params) { p.BatchStart = 2048 }, "2048 tokens are computed at once where " +
			"micro_tokens allows 4096: the first steps have no more"},
		"few tokens fit": {func(p *Params) { p.BatchStart, p.MicroTokens = 2048, 4095 }, ""},
		"prime":          {func(p *Params) { p.BatchTokens = 31 * 128 }, ""}, // 31 sequences at once
		"large prime": {func(p *Params) { p.BatchTokens = 131 * 128 }, "128 tokens are computed at once where micro_tokens " +
			"allows 4096: of the 131 sequences of a step only 1 divide it"},
		"half": {func(p *Params) { p.BatchTokens = 37 * 16 * 128 }, "2048 tokens are computed at once where " +
			"micro_tokens allows 4096"},
		"hardly less": {func(p *Params) { p.MicroTokens = 3000 }, ""},
	} {
		p := defaults()
		c.change(&p)
		notes := strings.Join(p.notes(128), "\n")
		if (notes == "") != (c.want == "") || !strings.Contains(notes, c.want) || strings.Count(notes, "\n") > 0 {
			t.Errorf("%s: %q, want %q", what, notes, c.want)
		}
	}
}

// The rate and the time left are those of this attempt: 20 steps of 4 x 64 tokens in 10 s leave 40 s for the 80 to
// come. The validation loss is said as soon as there is a checkpoint that was validated.
func TestMeasured(t *testing.T) {
	p := defaults()
	p.Steps = 200
	tr := trainer{job: &stage.Job[Params]{Params: p}, startStep: 100, steps: 120,
		batches: prefetcher{batches: &batches{perStep: newRamp(0, 4, 0), seq: 64}}, validationBits: 3}
	want := map[string]float64{"step": 120, "loss": 2.5, "learning_rate": 0.01, "tokens_per_second": 512,
		"seconds_left": 40}
	if got := tr.progressValues(10*time.Second, 2.5, 0.01); !maps.Equal(got, want) {
		t.Errorf("before the first checkpoint: %v, want %v", got, want)
	}
	tr.checkpoints, want["val_bpc"] = 1, 3
	if got := tr.progressValues(10*time.Second, 2.5, 0.01); !maps.Equal(got, want) {
		t.Errorf("after it: %v, want %v", got, want)
	}
}

// A line of times has the mean since the line before, without what was spent between steps, and another one begins with
// it.
func TestTimesOfSteps(t *testing.T) {
	path := filepath.Join(t.TempDir(), trainlog.TimesFileName)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	s := stepTimes{file: f, at: time.Now().Add(-time.Hour)}
	s.took(1, 3600)
	s.at = s.at.Add(-2 * time.Hour)
	s.leaveOut(time.Hour)
	s.took(5, 18000)
	s.at = time.Now().Add(-time.Second / 2)
	s.took(6, 18001)
	s.close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 3 || strings.Contains(lines[2], `"tokens_per_second":0}`) {
		t.Errorf("a step of less than a second has no speed: %q", b)
	}
	for i, want := range []trainlog.StepTime{{Step: 1, Seconds: 3600, TokensPerSecond: 1},
		{Step: 5, Seconds: 900, TokensPerSecond: 4}} {
		var got trainlog.StepTime
		if i >= len(lines) || json.Unmarshal([]byte(lines[i]), &got) != nil {
			t.Fatalf("line %d of %q", i, b)
		}
		if got.Step != want.Step || !(math.Abs(got.Seconds/want.Seconds-1) < 0.1) ||
			!(math.Abs(got.TokensPerSecond/want.TokensPerSecond-1) < 0.1) {
			t.Errorf("%+v, want about %+v", got, want)
		}
	}
}

// The first step is said at once, with what it measured.
func TestProgressOfTheFirstStep(t *testing.T) {
	flags := []string{"--steps", "3", "--warmup", "0", "--checkpoint-every", "3", "--threads", "1"}
	cmd, said := program(t, small(writeDataset(t, 16, proverbs()...), t.TempDir(), flags...)...)
	first := regexp.MustCompile(`train +working +1/3 steps +[1-9][0-9.]*( k)? tokens/s .*loss [0-9.]+ bits/token`)
	if err := cmd.Run(); err != nil || !first.Match(said.Bytes()) || strings.Contains(said.String(), "WARN") {
		t.Errorf("%v:\n%s", err, said)
	}
}

// A long training says once how long it will take, a short one nothing.
func TestEstimate(t *testing.T) {
	var said bytes.Buffer
	p := defaults()
	p.Steps = 20000
	tr := func() *trainer {
		return &trainer{
			job:    &stage.Job[Params]{Params: p, Log: slog.New(slog.NewTextHandler(&said, nil))},
			device: cpu.New(cpu.Options{}), steps: 1,
			batches: prefetcher{batches: &batches{perStep: newRamp(0, 32, 0), seq: 2048}},
		}
	}
	long := tr()
	long.estimate(time.Second, 8900, 41*3600)
	if said.Len() > 0 {
		t.Errorf("said after a second: %s", &said)
	}
	long.estimate(8*time.Second, 8900, 41*3600)
	long.estimate(9*time.Second, 8900, 50*3600)
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "about 41 h to train on ") ||
		!strings.Contains(got, "19999 steps of 65536 tokens at 8900 tokens/s") {
		t.Errorf("said %q", got)
	}
	said.Reset()
	tr().estimate(8*time.Second, 8900, 300)
	if said.Len() > 0 {
		t.Errorf("said of five minutes: %s", &said)
	}
	tr().estimate(estimateAfter, 8900, longTraining.Seconds()) // both limits count
	if got := said.String(); !strings.Contains(got, "about 10 min to train on ") {
		t.Errorf("said of ten minutes: %q", got)
	}
	for d, want := range map[time.Duration]string{14 * time.Minute: "14 min", 119 * time.Minute: "119 min",
		41*time.Hour + 10*time.Minute: "41 h", 240 * time.Hour: "10 days", 2 * time.Hour: "2 h", 72 * time.Hour: "3 days"} {
		if got := roughly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// A limit that lies behind is no request to stop here.
func TestStopAt(t *testing.T) {
	tr := &trainer{job: &stage.Job[Params]{Params: Params{StopAt: 5}}}
	for step, want := range map[int]string{4: "", 5: "stopped after step 5", 9: "nothing is trained, as stop_at asks: " +
		"it is 5, and 9 steps have been taken"} {
		tr.steps = step
		if err := tr.stopReason(t.Context()); (err == nil) != (want == "") || err != nil &&
			!strings.Contains(err.Error(), want) {
			t.Errorf("at step %d: %v, want %q", step, err, want)
		}
	}
}
