package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/param"
)

// Every parameter is taken at the ends of its range, and refused beyond by its name.
func TestRangesOfParameters(t *testing.T) {
	if err := defaults().check(); err != nil {
		t.Fatalf("the defaults: %v", err)
	}
	for _, c := range []struct {
		name  string
		good  []float64
		bad   []float64
		field func(*Params, float64)
	}{
		{"steps", []float64{1}, []float64{0, -1}, func(p *Params, v float64) { p.Steps = int(v) }},
		{"batch_tokens", []float64{1}, []float64{0}, func(p *Params, v float64) { p.BatchTokens = int(v) }},
		{"micro_tokens", []float64{1}, []float64{0}, func(p *Params, v float64) { p.MicroTokens = int(v) }},
		{"micro_tokens", []float64{66311}, []float64{66312}, func(p *Params, v float64) { // what sums of 8 by 8 bits hold
			p.MicroTokens, p.BatchTokens, p.GradBits, p.StreamBits = int(v), 1<<20, 8, 8
		}},
		{"micro_tokens", []float64{1 << 20}, []float64{0}, func(p *Params, v float64) { // floats overflow no sums
			p.MicroTokens, p.BatchTokens, p.StreamBits = int(v), 1<<20, 8
		}},
		{"micro_tokens", []float64{1 << 20}, []float64{0}, func(p *Params, v float64) {
			p.MicroTokens, p.BatchTokens, p.GradBits, p.StreamBits = int(v), 1<<20, 8, 16
		}},
		{"learning_rate", []float64{1e-30}, []float64{0, -1}, func(p *Params, v float64) { p.LearningRate = v }},
		{"final_share", []float64{0, 1}, []float64{-0.01, 1.01}, func(p *Params, v float64) { p.FinalShare = v }},
		{"warmup", []float64{0}, []float64{-1}, func(p *Params, v float64) { p.Warmup = int(v) }},
		{"beta1", []float64{0, 0.99}, []float64{-0.1, 1}, func(p *Params, v float64) { p.Beta1 = v }},
		{"beta2", []float64{0, 0.99}, []float64{-0.1, 1}, func(p *Params, v float64) { p.Beta2 = v }},
		{"weight_decay", []float64{0}, []float64{-0.1}, func(p *Params, v float64) { p.Decay = v }},
		{"vocab", []float64{0, 2, 65, 257, 50304}, []float64{-1, 1, 1 << 21},
			func(p *Params, v float64) { p.Vocab = int(v) }},
		{"clip", []float64{0}, []float64{-0.1}, func(p *Params, v float64) { p.Clip = v }},
		{"muon_learning_rate", []float64{1e-30}, []float64{0, -1}, func(p *Params, v float64) { p.MuonRate = v }},
		{"muon_momentum", []float64{0, 0.99}, []float64{-0.1, 1}, func(p *Params, v float64) { p.MuonMomentum = v }},
		{"muon_steps", []float64{1, 100}, []float64{0, 101}, func(p *Params, v float64) { p.MuonSteps = int(v) }},
		{"muon_weight_decay", []float64{0}, []float64{-0.1}, func(p *Params, v float64) { p.MuonDecay = v }},
		{"cooldown", []float64{0.01, 1}, []float64{0, 1.01}, func(p *Params, v float64) { p.Cooldown = v }},
		{"cooldown_steps", []float64{0, 600}, []float64{-1, 601}, func(p *Params, v float64) {
			p.Schedule, p.CooldownSteps = "trapezoid", int(v)
		}},
		{"cooldown_steps", []float64{0}, []float64{1}, func(p *Params, v float64) { p.CooldownSteps = int(v) }}, // cosine
		{"batch_start", []float64{0, 16, 2048, 4096}, []float64{-1, -2048, 15, 3000, 8192},
			func(p *Params, v float64) { p.BatchStart = int(v) }},
		{"batch_ramp", []float64{0.01, 1}, []float64{0, 1.01}, func(p *Params, v float64) { p.BatchRamp = v }},
		{"sequence_start", []float64{0, 3}, []float64{-1}, func(p *Params, v float64) { p.SequenceStart = int(v) }},
		{"sequence_ramp", []float64{0.01, 1}, []float64{0, 1.01}, func(p *Params, v float64) { p.SequenceRamp = v }},
		{"gamma_steps", []float64{0, 5000}, []float64{-1}, func(p *Params, v float64) { p.GammaSteps = int(v) }},
		{"gamma_start", []float64{0.01, 1}, []float64{0, 1.01}, func(p *Params, v float64) { p.GammaStart = v }},
		{"gamma_end", []float64{0.01, 1}, []float64{0, 1.01}, func(p *Params, v float64) { p.GammaEnd = v }},
		{"tau", []float64{1e-3}, []float64{0, -1}, func(p *Params, v float64) { p.Tau = v }},
		{"checkpoint_every", []float64{1}, []float64{0}, func(p *Params, v float64) { p.CheckpointEvery = int(v) }},
		{"validation_sequences", []float64{0}, []float64{-1}, func(p *Params, v float64) { p.ValidationSequences = int(v) }},
		{"grad_bits", []float64{2, 8, 16}, []float64{1, 9, 15, 17}, func(p *Params, v float64) { p.GradBits = int(v) }},
		{"weight_grad_bits", []float64{0, 2, 8}, []float64{-1, 1, 9, 16}, func(p *Params, v float64) {
			p.GradBits, p.WeightGradBits = 4, int(v)
		}},
		{"weight_grad_bits", []float64{0, 8}, []float64{1, 16}, func(p *Params, v float64) { p.WeightGradBits = int(v) }},
		{"micro_tokens", []float64{66311}, []float64{66312}, func(p *Params, v float64) {
			p.MicroTokens, p.BatchTokens, p.GradBits, p.WeightGradBits, p.StreamBits = int(v), 1<<20, 4, 8, 8
		}},
		{"binarize_anneal_end_frac", []float64{0.01, 1}, []float64{0, 1.01},
			func(p *Params, v float64) { p.BinarizeAnnealEndFrac = v }},
		{"flip_threshold", []float64{1, 126}, []float64{0, 127}, func(p *Params, v float64) { p.FlipThreshold = int(v) }},
		{"stop_at", []float64{0}, []float64{-1}, func(p *Params, v float64) { p.StopAt = int(v) }},
		{"log_every", []float64{1}, []float64{0}, func(p *Params, v float64) { p.LogEvery = int(v) }},
		{"stream_bits", []float64{1, 8, 16}, []float64{0, 9}, func(p *Params, v float64) { p.StreamBits = int(v) }},
		{"hidden_bits", []float64{1, 8}, []float64{-1, 0, 9}, func(p *Params, v float64) { p.HiddenBits = int(v) }},
		{"query_bits", []float64{1, 8}, []float64{-1, 0, 9}, func(p *Params, v float64) { p.QueryBits = int(v) }},
		{"value_bits", []float64{1, 8}, []float64{-1, 0, 9}, func(p *Params, v float64) { p.ValueBits = int(v) }},
		{"read_bits", []float64{1, 6}, []float64{-1, 0, 7}, func(p *Params, v float64) {
			p.ReadBits, p.ValueBits = int(v), 6
		}},
		{"codebook_bits", []float64{1, 8}, []float64{-1, 0, 9}, func(p *Params, v float64) { p.CodebookBits = int(v) }},
		{"hadamard", []float64{0, 128}, []float64{-1, 48, 256}, func(p *Params, v float64) { p.Hadamard = int(v) }},
		{"vocab", []float64{66311}, []float64{66312}, func(p *Params, v float64) { // what sums of 8 by 8 bits hold
			p.Vocab, p.GradBits, p.CodebookBits = int(v), 8, 8
		}},
		{"micro_tokens", []float64{66311}, []float64{66312}, func(p *Params, v float64) {
			p.MicroTokens, p.BatchTokens, p.GradBits, p.HiddenBits = int(v), 1<<20, 8, 8
		}},
		{"micro_tokens", []float64{66311}, []float64{66312}, func(p *Params, v float64) {
			p.MicroTokens, p.BatchTokens, p.GradBits, p.ValueBits, p.ReadBits = int(v), 1<<20, 8, 8, 8
		}},
		{"rwsp_k", []float64{1, 16}, []float64{0, 17}, func(p *Params, v float64) { p.RWSPK = int(v) }},
		{"kshift_layers", []float64{0, 3}, []float64{-1, 4}, func(p *Params, v float64) { p.KShiftLayers = []int{int(v)} }},
		{"kshift_offset", []float64{0, 7}, []float64{-1}, func(p *Params, v float64) { p.KShiftOffset = int(v) }},
	} {
		for _, v := range c.good {
			p := defaults()
			c.field(&p, v)
			if err := p.check(); err != nil {
				t.Errorf("%s %g: %v", c.name, v, err)
			}
		}
		for _, v := range c.bad {
			p := defaults()
			c.field(&p, v)
			if err := p.check(); err == nil || !strings.Contains(err.Error(), c.name) {
				t.Errorf("%s %g: %v", c.name, v, err)
			}
		}
	}
	for name, change := range map[string]func(*Params){
		"preset":                         func(p *Params) { p.Preset = "31M" },
		"attention":                      func(p *Params) { p.Attention = "rswp" },
		"exclude":                        func(p *Params) { p.Truebit, p.AnnealBinarize = true, true },
		"without init":                   func(p *Params) { p.InitDigest = "00" },
		"init_state is set without init": func(p *Params) { p.InitState = true },
		"without init_state":             func(p *Params) { p.Init, p.InitStateDigest = "a.pt", "00" },
		"weight_decay_schedule":          func(p *Params) { p.DecaySchedule = "cosine" },
		"heads":                          func(p *Params) { p.Heads = 5 },
		"±1":                             func(p *Params) { p.Truebit, p.CodebookBits = true, 2 },
	} {
		p := defaults()
		change(&p)
		if err := p.check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The model is the preset's with what is given in its place, for the dataset's tokens and sequences.
func TestConfigOfParameters(t *testing.T) {
	p := defaults()
	p.D, p.Heads, p.FF, p.Layers, p.Alibi, p.StreamBits, p.RWSPK, p.KShiftOffset, p.KShiftSelf = 64, 2, 96, 3, false, 4, 2,
		3, false
	p.KShiftLayers = []int{1, 2}
	p.HiddenBits, p.QueryBits, p.ValueBits, p.ReadBits, p.CodebookBits, p.Hadamard = 2, 6, 4, 3, 5, 32
	c, err := p.config(dataset.TokenizerInfo{Vocab: 257}, 48)
	if err != nil || c.D != 64 || c.Heads != 2 || c.FF != 96 || c.Layers != 3 || c.Vocab != 257 || c.Seq != 48 ||
		c.Alibi || c.StreamBits != 4 || c.RWSPK != 2 || c.KShiftOffset != 3 || c.KShiftSelf || len(c.KShiftLayers) != 2 ||
		c.HiddenBits != 2 || c.QueryBits != 6 || c.ValueBits != 4 || c.ReadBits != 3 ||
		c.CodebookBits != 5 || c.Hadamard != 32 {
		t.Errorf("%+v, %v", c, err)
	}
	for ids, want := range map[int]int{257: 257, 4096: 4096, 4097: 4224, 50257: 50304, 50304: 50304} {
		if got, err := defaults().config(dataset.TokenizerInfo{Vocab: ids}, 128); err != nil || got.Vocab != want {
			t.Errorf("%d ids: a vocabulary of %d (%v), want %d", ids, got.Vocab, err, want)
		}
	}
	p = defaults()
	p.Vocab = 256
	if _, err := p.config(dataset.TokenizerInfo{Name: "bytes", Vocab: 257}, 128); err == nil ||
		!strings.Contains(err.Error(), "vocab is 256, but the tokenizer bytes has 257 ids") {
		t.Errorf("fewer tokens than the dataset has: %v", err)
	}
	p = defaults()
	if p.flipThreshold() != 0 {
		t.Error("without truebit nothing flips")
	}
	if p.Truebit = true; p.flipThreshold() != 8 {
		t.Errorf("truebit flips at %d", p.flipThreshold())
	}
}

func TestDefaults(t *testing.T) {
	measuretest.Defaults(t, `{
		"alibi": true, "anneal_binarize": false, "attention": "rwsp", "batch_ramp": 0.25, "batch_start": 0,
		"batch_tokens": 4096, "beta1": 0.9, "beta2": 0.95, "binarize_anneal_end_frac": 0.6, "checkpoint_every": 200,
		"clip": 1, "codebook_bits": 1, "cooldown": 0.2, "cooldown_steps": 0, "d": 0, "documents": "packed", "ff": 0,
		"final_share": 0.1, "flip_threshold": 8, "freeze": null, "gamma_end": 0.1, "gamma_start": 0.9, "gamma_steps": 0,
		"grad_bits": 16, "gradient_sums": "float", "hadamard": 0, "heads": 0, "hidden_bits": 1,
		"init": "", "init_digest": "", "init_state": false,
		"init_state_digest": "", "kshift_layers": [0], "kshift_offset": 1, "kshift_self": true, "layers": 0,
		"learning_rate": 0.003, "log_every": 10, "micro_tokens": 4096, "muon_learning_rate": 0.06, "muon_momentum": 0.95,
		"muon_final_share": 0, "muon_schedule": "same", "muon_steps": 5, "muon_weight_decay": 0, "optimizer": "adamw",
		"preset": "nano", "query_bits": 1, "read_bits": 1, "rwsp_k": 4, "schedule": "cosine", "seed": 42,
		"sequence_ramp": 0.25, "sequence_start": 0, "steps": 600, "stop_at": 0,
		"stream_bits": 1, "tau": 1, "truebit": false, "validation_sequences": 32, "value_bits": 1, "vocab": 0,
		"warmup": 50, "weight_decay": 0, "weight_decay_schedule": "constant", "weight_grad_bits": 0
	}`)
}

// The model is trained with the bits of gradients that are asked for.
func TestBitsOfGradients(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	trained := func(flags string) checkpoint.Model {
		dir := t.TempDir()
		trainWith(t, small(manifest, dir, strings.Fields("--steps 1 --warmup 0 "+flags)...)...)
		return readCheckpoint(t, filepath.Join(dir, "step-000001.safetensors"))
	}
	four := trained("--grad-bits 4")
	for flags, same := range map[string]bool{"--grad-bits 4 --weight-grad-bits 4": true, "--grad-bits 5": false,
		"--grad-bits 4 --weight-grad-bits 8": false} {
		if equalParameters(trained(flags), four) != same {
			t.Errorf("%s trains the model of --grad-bits 4: %t, want %t", flags, !same, same)
		}
	}
}

// Parameters that came later are no part of a job's key where they change nothing, so that what is recorded stays.
func TestKeysOfEarlierJobsStay(t *testing.T) {
	const want = `{"preset":"nano","d":0,"layers":0,"heads":0,"ff":0,"vocab":0,"attention":"rwsp","rwsp_k":4,` +
		`"kshift_layers":[0],"kshift_offset":1,"kshift_self":true,"alibi":true,"stream_bits":1,"documents":"packed",` +
		`"grad_bits":16,"init_digest":"","freeze":[],"anneal_binarize":false,"binarize_anneal_end_frac":0.6,` +
		`"truebit":false,"flip_threshold":8,"seed":42,"steps":600,"batch_tokens":4096,"micro_tokens":4096,` +
		`"learning_rate":0.003,"final_share":0.1,"warmup":50,"beta1":0.9,"beta2":0.95,"weight_decay":0,"clip":1,` +
		`"gamma_start":0.9,"gamma_end":0.1,"tau":1,"checkpoint_every":200,"validation_sequences":32,"log_every":10}`
	if got, err := param.Canonical(defaults()); err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

// The pipeline files train the models of their names, and v77 and strict v77 by Muon with a cool-down to 0.
func TestPipelineFilesAreTheModels(t *testing.T) {
	c, err := model.Preset("nano")
	if err != nil {
		t.Fatal(err)
	}
	strict := c.V76()
	strict.CodebookBits, strict.Hadamard = 4, 128
	for file, want := range map[string]model.Config{
		"v75": c.V75(), "v76": c.V76(), "v77": c.V77(), "v77-strict": strict,
	} {
		p := paramsOf(t, file)
		got, err := p.config(dataset.TokenizerInfo{Vocab: want.Vocab}, want.Seq)
		if err != nil {
			t.Fatal(err)
		}
		a, errA := json.Marshal(got)
		b, errB := json.Marshal(want)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("pipelines/%s.yml trains %s, want %s", file, a, b)
		}
		if !want.HasV77() {
			continue
		}
		recipe := []any{p.Optimizer, p.MuonSteps, p.MuonMomentum, p.MuonRate, p.LearningRate, p.Schedule, p.Cooldown,
			p.FinalShare}
		if want := []any{muon, 3, 0.9, 0.09, 3e-3, model.Trapezoid, 0.5, 0.0}; !reflect.DeepEqual(recipe, want) {
			t.Errorf("pipelines/%s.yml trains by %v, want %v", file, recipe, want)
		}
	}
}

// paramsOf are those of a pipeline file.
func paramsOf(t *testing.T, file string) Params {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "pipelines", file+".yml"))
	if err != nil {
		t.Fatal(err)
	}
	var definition struct {
		Stages struct{ Train map[string]any }
	}
	if err := yaml.Unmarshal(b, &definition); err != nil {
		t.Fatal(err)
	}
	section, err := json.Marshal(definition.Stages.Train)
	if err != nil {
		t.Fatal(err)
	}
	p := defaults()
	if err := param.Decode(section, &p); err != nil {
		t.Fatal(err)
	}
	return p
}
