package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"bitnet1/kernels"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/lm/model"
)

// Params are the stage's parameters: the model, its optimizer, and when to log and save. The sequence length is not
// among them: it is the dataset's.
type Params struct {
	Preset         string `json:"preset" usage:"size of the model: nano, 75M or 300M. After run --in, also the pipeline preset's other parameters"`
	D              int    `json:"d" usage:"width of the residual stream; 0: the preset's"`
	Layers         int    `json:"layers" usage:"number of layers; 0: the preset's"`
	Heads          int    `json:"heads" usage:"attention heads of a layer; 0: the preset's"`
	FF             int    `json:"ff" usage:"width of the feed-forward layer; 0: the preset's"`
	Vocab          int    `json:"vocab" usage:"size of the vocabulary; 0: the tokenizer's, above 4096 rounded up to a multiple of 128"`
	Attention      string `json:"attention"` // see Usage
	RWSPK          int    `json:"rwsp_k" usage:"RWSP: number of keys that a query reads, its survivors"`
	KShiftLayers   []int  `json:"kshift_layers" usage:"K-shift: layers whose keys also read an earlier position"`
	KShiftOffset   int    `json:"kshift_offset" usage:"K-shift: distance to that earlier position"`
	KShiftSelf     bool   `json:"kshift_self" usage:"K-shift: keys read their own position too"`
	Alibi          bool   `json:"alibi" usage:"scores fall with the distance between query and key (ALiBi)"`
	StreamBits     int    `json:"stream_bits" usage:"bits with which linears read the residual stream: 1 (its sign), 2 to 8 (levels) or 16 (floats)"`
	HiddenBits     int    `json:"hidden_bits" digest:"unless=1" usage:"v77: bits with which down reads the output of up: 1 (its sign) or 2 to 8 (levels of the squared ReLU)"`
	QueryBits      int    `json:"query_bits" digest:"unless=1" usage:"v77: bits of the queries of attention, against keys of signs: 1 (signs) or 2 to 8 (levels)"`
	ValueBits      int    `json:"value_bits" digest:"unless=1" usage:"v77: bits of the values that attention reads: 1 (signs) or 2 to 8 (levels)"`
	ReadBits       int    `json:"read_bits" digest:"unless=1" usage:"v77: bits with which o reads what attention read: 1 (its sign) or 2 to 8 (levels), at most value_bits"`
	CodebookBits   int    `json:"codebook_bits" digest:"unless=1" usage:"v77: bits of the weights of the embedding and the language-model head: 1 (signs) or 2 to 8 (levels)"`
	Hadamard       int    `json:"hadamard" digest:"unless=0" usage:"v77: size of the blocks of the normalized residual stream that are rotated before linears read it: a power of two that divides d; 0: no rotation"`
	Documents      string `json:"documents" usage:"packed: a token reads across the ends of documents; separate: it reads its own document alone"`
	GradBits       int    `json:"grad_bits" usage:"bits of the integers to which gradients are rounded for products: 2 to 8, or 16 (floats)"`
	WeightGradBits int    `json:"weight_grad_bits" digest:"unless=0" usage:"bits of the integers to which gradients are rounded in the products that give weights' gradients, and in both products of the language-model head: 2 to 8; 0: grad_bits; without effect where grad_bits is 16"`

	Init            string   `json:"init" digest:"-" usage:"checkpoint to start from, safetensors or .pt; the model takes its sizes and options from there"`
	InitDigest      string   `json:"init_digest" usage:"digest of the file init; computed when absent, and a file of another digest is refused"`
	InitState       bool     `json:"init_state" digest:"unless=false" usage:"go on from init with the optimizer's state beside it, its step and its place in the data"`
	InitStateDigest string   `json:"init_state_digest" digest:"unless=" usage:"digest of that state's file; computed when absent, and a file of another digest is refused"`
	Freeze          []string `json:"freeze" usage:"patterns of parameters that do not train: codebook.*, blocks.*.attn.*; !blocks.-1.* excepts the last layer"`

	AnnealBinarize        bool    `json:"anneal_binarize" usage:"bonsai: begin with float weights that become ±1 gradually"`
	BinarizeAnnealEndFrac float64 `json:"binarize_anneal_end_frac" usage:"bonsai: share of the steps after which every weight is ±1"`

	Truebit       bool `json:"truebit" usage:"train without float latents: a counter of gradient signs flips a weight"`
	FlipThreshold int  `json:"flip_threshold" usage:"truebit: a weight flips when its counter exceeds this value, 1 to 126"`

	Seed          uint64  `json:"seed" usage:"seed of the initial parameters, the data order and the noise"`
	Steps         int     `json:"steps" usage:"number of optimizer steps"`
	BatchTokens   int     `json:"batch_tokens" usage:"tokens of a step, a multiple of the sequence length"`
	MicroTokens   int     `json:"micro_tokens" usage:"most tokens computed at once; a step is divided into micro-batches of whole sequences"`
	BatchStart    int     `json:"batch_start" digest:"unless=0" usage:"tokens of the first steps, which double until they are batch_tokens; 0: batch_tokens from the first step"`
	BatchRamp     float64 `json:"batch_ramp" digest:"unless=0.25" usage:"share of the steps in which the tokens of a step double"`
	SequenceStart int     `json:"sequence_start" digest:"unless=0" usage:"tokens of a sequence in the first steps, which double until sequences are whole; 0: whole from the first step"`
	SequenceRamp  float64 `json:"sequence_ramp" digest:"unless=0.25" usage:"share of the steps in which the tokens of a sequence double"`
	LearningRate  float64 `json:"learning_rate" usage:"peak learning rate"`
	FinalShare    float64 `json:"final_share" usage:"learning rate of the last step as a share of the peak; 0: it falls to 0"`
	Warmup        int     `json:"warmup" usage:"steps in which the learning rate rises to its peak (linearly)"`
	Schedule      string  `json:"schedule" digest:"unless=cosine" usage:"how the learning rate falls after the warm-up: cosine, linear or trapezoid (level, then linear in the last steps)"`
	Cooldown      float64 `json:"cooldown" digest:"unless=0.2" usage:"trapezoid: share of the steps in which the learning rate falls"`
	CooldownSteps int     `json:"cooldown_steps" digest:"unless=0" usage:"trapezoid: number of steps in which the learning rate falls; 0: the share cooldown"`
	Beta1         float64 `json:"beta1" usage:"AdamW: decay of the mean gradient"`
	Beta2         float64 `json:"beta2" usage:"AdamW: decay of the mean squared gradient"`
	Decay         float64 `json:"weight_decay" usage:"AdamW: decoupled weight decay of the weights' latents"`
	DecaySchedule string  `json:"weight_decay_schedule" digest:"unless=constant" usage:"course of weight_decay and muon_weight_decay: constant, rate (in proportion to the learning rate) or linear (to 0 at the last step)"`
	Optimizer     string  `json:"optimizer" digest:"unless=adamw" usage:"of the weights of the blocks: adamw or muon; everything else takes AdamW"`
	MuonRate      float64 `json:"muon_learning_rate" digest:"unless=0.06" usage:"muon: peak learning rate"`
	MuonSchedule  string  `json:"muon_schedule" digest:"unless=same" usage:"muon: how its learning rate falls after the warm-up: same (as schedule says), cosine, linear or trapezoid"`
	MuonFinal     float64 `json:"muon_final_share" digest:"unless=0" usage:"muon: learning rate of the last step as a share of the peak, where muon_schedule is not same"`
	MuonMomentum  float64 `json:"muon_momentum" digest:"unless=0.95" usage:"muon: decay of the momentum"`
	MuonSteps     int     `json:"muon_steps" digest:"unless=5" usage:"muon: steps of the Newton–Schulz iteration"`
	MuonDecay     float64 `json:"muon_weight_decay" digest:"unless=0" usage:"muon: decoupled weight decay"`
	Clip          float64 `json:"clip" usage:"largest norm of the gradient, to which a larger one is scaled down; 0: no limit"`
	GammaStart    float64 `json:"gamma_start" usage:"RWSP: weight of a survivor over the weight of the one before, at the first step"`
	GammaEnd      float64 `json:"gamma_end" usage:"RWSP: weight of a survivor over the weight of the one before, at the last step; it falls by equal factors"`
	GammaSteps    int     `json:"gamma_steps" digest:"unless=0" usage:"RWSP: number of steps after which gamma is gamma_end; 0: all steps"`
	Tau           float64 `json:"tau" usage:"pointer: temperature of the softmax in the backward pass"`

	CheckpointEvery     int    `json:"checkpoint_every" usage:"steps between checkpoints"`
	ValidationSequences int    `json:"validation_sequences" usage:"validation sequences in the trainer's own sample; 0: no validation"`
	GradientSums        string `json:"gradient_sums" digest:"unless=float" usage:"sums of gradients over the micro-batches of a step: float, or fixed (integers: the same on any number of devices)"`
	LogEvery            int    `json:"log_every" usage:"steps between lines of train.jsonl"`
	StopAt              int    `json:"stop_at" digest:"-" usage:"stop after this step; the same command without it goes on from there. 0: do not stop"`
}

// Usage lists the values of attention, which are rows of a table.
func (Params) Usage(key string) string {
	if key != "attention" {
		return ""
	}
	var kinds []string
	for _, kind := range kernels.AttentionKinds() {
		kinds = append(kinds, fmt.Sprintf("%s (%s)", kind, kind.Rule().About))
	}
	return "what a query reads: " + strings.Join(kinds, ", ")
}

// The optimizers of the blocks' weights.
const (
	adamW = "adamw"
	muon  = "muon"
)

// The sums of gradients.
const (
	floatSums = "float"
	fixedSums = "fixed"
)

func defaults() Params {
	return Params{
		Preset: "nano", Attention: kernels.RWSP.String(), RWSPK: 4,
		KShiftLayers: []int{0}, KShiftOffset: 1, KShiftSelf: true, Alibi: true,
		StreamBits: 1, HiddenBits: 1, QueryBits: 1, ValueBits: 1, ReadBits: 1, CodebookBits: 1,
		Documents: model.Packed, GradBits: kernels.FloatBits,
		BinarizeAnnealEndFrac: 0.6, FlipThreshold: 8,
		Seed: 42, Steps: 600, BatchTokens: 4096, MicroTokens: 4096,
		LearningRate: 3e-3, FinalShare: 0.1, Warmup: 50, Schedule: model.Cosine, Cooldown: 0.2,
		BatchRamp: 0.25, SequenceRamp: 0.25, DecaySchedule: constantDecay,
		Beta1: 0.9, Beta2: 0.95, Clip: 1,
		Optimizer: adamW, MuonRate: 0.06, MuonSchedule: sameSchedule, MuonMomentum: 0.95, MuonSteps: 5,
		GammaStart: 0.9, GammaEnd: 0.1, Tau: 1,
		GradientSums:    floatSums,
		CheckpointEvery: 200, ValidationSequences: 32, LogEvery: 10,
	}
}

// rule is a text about parameters and whether it is true.
type rule struct {
	wrong bool
	text  string
}

func (p Params) check() error {
	for _, c := range slices.Concat([]rule{
		{p.Steps < 1, fmt.Sprintf("steps is %d: it must be positive", p.Steps)},
		{p.BatchTokens < 1, fmt.Sprintf("batch_tokens is %d: it must be positive", p.BatchTokens)},
		{p.MicroTokens < 1, fmt.Sprintf("micro_tokens is %d: it must be positive", p.MicroTokens)},
		{!(p.GammaStart > 0 && p.GammaStart <= 1 && p.GammaEnd > 0 && p.GammaEnd <= 1),
			"gamma_start and gamma_end must lie between 0 (excluded) and 1"},
		{!(p.Tau > 0), "tau must be positive"},
		{p.CheckpointEvery < 1, fmt.Sprintf("checkpoint_every is %d: it must be positive", p.CheckpointEvery)},
		{p.ValidationSequences < 0, "validation_sequences must not be negative"},
		{p.Documents != model.Packed && p.Documents != model.Separate,
			fmt.Sprintf("documents is %q: it must be %s or %s", p.Documents, model.Packed, model.Separate)},
		{!(p.BinarizeAnnealEndFrac > 0 && p.BinarizeAnnealEndFrac <= 1),
			fmt.Sprintf("binarize_anneal_end_frac is %g: it must lie between 0 (excluded) and 1", p.BinarizeAnnealEndFrac)},
		{p.Init == "" && p.InitDigest != "", "init_digest is given without init, the checkpoint's file"},
		{p.FlipThreshold < 1 || p.FlipThreshold > 126,
			fmt.Sprintf("flip_threshold is %d: it must lie between 1 and 126", p.FlipThreshold)},
		{p.InitState && p.Init == "", "init_state is set without init, the checkpoint to go on from"},
		{!p.InitState && p.InitStateDigest != "", "init_state_digest is given without init_state"},
		{p.Truebit && p.AnnealBinarize, "truebit and anneal_binarize exclude each other: without latents " +
			"there is nothing to blend"},
		{p.GradientSums != floatSums && p.GradientSums != fixedSums,
			fmt.Sprintf("gradient_sums is %q: it must be %s or %s", p.GradientSums, floatSums, fixedSums)},
		{p.StopAt < 0, "stop_at must not be negative"},
		{p.WeightGradBits != 0 && (p.WeightGradBits < 2 || p.WeightGradBits > 8),
			fmt.Sprintf("weight_grad_bits is %d: it must be 0 or lie between 2 and 8", p.WeightGradBits)},
		{p.LogEvery < 1, fmt.Sprintf("log_every is %d: it must be positive", p.LogEvery)},
	}, p.optimizerRules(), p.rampRules(), p.planesRules()) {
		if c.wrong {
			return fmt.Errorf("%s", c.text)
		}
	}
	if err := kernels.CheckGradBits(kernels.GradBits{Input: p.GradBits, Weight: p.GradBits}); err != nil {
		return fmt.Errorf("grad_bits: %w", err)
	}
	// Any tokenizer and sequence length will do: newTrainer checks the configuration again with the dataset's.
	_, err := p.config(dataset.TokenizerInfo{Vocab: cmp.Or(p.Vocab, 257)}, 128)
	return err
}

// planesRules are about the options of v77. The model's configuration has further ones.
func (p Params) planesRules() []rule {
	var rules []rule
	for _, b := range []struct {
		name string
		bits int
	}{{"hidden_bits", p.HiddenBits}, {"query_bits", p.QueryBits}, {"value_bits", p.ValueBits},
		{"read_bits", p.ReadBits}, {"codebook_bits", p.CodebookBits}} {
		rules = append(rules, rule{b.bits < 1, fmt.Sprintf("%s is %d: it must lie between 1 and 8", b.name, b.bits)})
	}
	return append(rules, rule{p.Truebit && p.CodebookBits > 1, fmt.Sprintf(
		"truebit and %d codebook_bits exclude each other: weights without latents are ±1", p.CodebookBits)})
}

// optimizerRules are about the optimizer and the course of its learning rates.
func (p Params) optimizerRules() []rule {
	return []rule{
		{!(p.LearningRate > 0), fmt.Sprintf("learning_rate is %g: it must be positive", p.LearningRate)},
		{!(p.FinalShare >= 0 && p.FinalShare <= 1),
			fmt.Sprintf("final_share is %g: it must lie between 0 and 1", p.FinalShare)},
		{p.Warmup < 0, fmt.Sprintf("warmup is %d: it must not be negative", p.Warmup)},
		{!(p.Beta1 >= 0 && p.Beta1 < 1 && p.Beta2 >= 0 && p.Beta2 < 1),
			"beta1 and beta2 must lie between 0 and 1 (excluded)"},
		{!(p.Decay >= 0), "weight_decay must not be negative"},
		{!(p.Clip >= 0), "clip must not be negative"},
		{!slices.Contains(schedules, p.Schedule),
			fmt.Sprintf("schedule is %q: it must be %s, %s or %s", p.Schedule, model.Cosine, model.Linear, model.Trapezoid)},
		{!(p.Cooldown > 0 && p.Cooldown <= 1),
			fmt.Sprintf("cooldown is %g: it must lie between 0 (excluded) and 1", p.Cooldown)},
		{p.CooldownSteps < 0 || p.CooldownSteps > p.Steps,
			fmt.Sprintf("cooldown_steps is %d: it must lie between 0 and the %d steps", p.CooldownSteps, p.Steps)},
		{p.CooldownSteps > 0 && p.Schedule != model.Trapezoid && p.MuonSchedule != model.Trapezoid, fmt.Sprintf(
			"cooldown_steps is given and schedule is %s: a cool-down needs the schedule %s", p.Schedule, model.Trapezoid)},
		{p.GammaSteps < 0, fmt.Sprintf("gamma_steps is %d: it must not be negative", p.GammaSteps)},
		{!slices.Contains([]string{constantDecay, decayAsRate, linearDecay}, p.DecaySchedule), fmt.Sprintf(
			"weight_decay_schedule is %q: it must be %s, %s or %s", p.DecaySchedule, constantDecay, decayAsRate, linearDecay)},
		{p.Optimizer != adamW && p.Optimizer != muon,
			fmt.Sprintf("optimizer is %q: it must be %s or %s", p.Optimizer, adamW, muon)},
		{!(p.MuonRate > 0), fmt.Sprintf("muon_learning_rate is %g: it must be positive", p.MuonRate)},
		{p.MuonSchedule != sameSchedule && !slices.Contains(schedules, p.MuonSchedule), fmt.Sprintf(
			"muon_schedule is %q: it must be %s, %s, %s or %s",
			p.MuonSchedule, sameSchedule, model.Cosine, model.Linear, model.Trapezoid)},
		{!(p.MuonFinal >= 0 && p.MuonFinal <= 1),
			fmt.Sprintf("muon_final_share is %g: it must lie between 0 and 1", p.MuonFinal)},
		{p.MuonFinal > 0 && p.MuonSchedule == sameSchedule,
			"muon_final_share is given and muon_schedule is same: the last step has final_share, or give muon_schedule"},
		{!(p.MuonMomentum >= 0 && p.MuonMomentum < 1),
			fmt.Sprintf("muon_momentum is %g: it must lie between 0 and 1 (excluded)", p.MuonMomentum)},
		{p.MuonSteps < 1 || p.MuonSteps > 100,
			fmt.Sprintf("muon_steps is %d: it must lie between 1 and 100", p.MuonSteps)},
		{!(p.MuonDecay >= 0), "muon_weight_decay must not be negative"},
		{p.Truebit && p.Optimizer == muon,
			"truebit and the optimizer muon exclude each other: without latents there is nothing to update"},
	}
}

// rampRules are about what doubles in the first steps. The number of tokens of a sequence is the dataset's, so lengths
// checks sequence_start.
func (p Params) rampRules() []rule {
	batch := newRamp(p.BatchStart, p.BatchTokens, 0)
	return []rule{
		{!(p.BatchRamp > 0 && p.BatchRamp <= 1),
			fmt.Sprintf("batch_ramp is %g: it must lie between 0 (excluded) and 1", p.BatchRamp)},
		{!(p.SequenceRamp > 0 && p.SequenceRamp <= 1),
			fmt.Sprintf("sequence_ramp is %g: it must lie between 0 (excluded) and 1", p.SequenceRamp)},
		{p.BatchTokens > 0 && !batch.doubles(), fmt.Sprintf("batch_start is %d: batch_tokens, %d, must be 2, 4, 8 … times it",
			p.BatchStart, p.BatchTokens)},
		{p.SequenceStart < 0, fmt.Sprintf("sequence_start is %d: it must not be negative", p.SequenceStart)},
	}
}

// config is the configuration of the model for a dataset's tokenizer and sequence length.
func (p Params) config(t dataset.TokenizerInfo, seq int) (model.Config, error) {
	c, err := model.Preset(p.Preset)
	if err != nil {
		return c, err
	}
	for _, f := range []struct {
		given  int
		target *int
	}{{p.D, &c.D}, {p.Layers, &c.Layers}, {p.Heads, &c.Heads}, {p.FF, &c.FF}} {
		if f.given != 0 {
			*f.target = f.given
		}
	}
	c.Vocab, c.Seq = p.Vocab, seq
	if c.Vocab == 0 {
		c.Vocab = paddedVocab(t.Vocab)
	}
	if c.Vocab < t.Vocab {
		return c, fmt.Errorf("vocab is %d, but the tokenizer %s has %d ids", c.Vocab, t.Name, t.Vocab)
	}
	c.Attention, c.RWSPK, c.Alibi, c.StreamBits = p.Attention, p.RWSPK, p.Alibi, p.StreamBits
	c.KShiftLayers, c.KShiftOffset, c.KShiftSelf = p.KShiftLayers, p.KShiftOffset, p.KShiftSelf
	c.HiddenBits, c.QueryBits, c.ValueBits = p.HiddenBits, p.QueryBits, p.ValueBits
	c.ReadBits, c.CodebookBits, c.Hadamard = p.ReadBits, p.CodebookBits, p.Hadamard
	if err := c.Validate(); err != nil {
		return c, err
	}
	if err := c.CheckSums(min(p.MicroTokens, p.BatchTokens), p.GradBits, p.WeightGradBits); err != nil {
		return c, fmt.Errorf("micro_tokens is %d, grad_bits %d and weight_grad_bits %d: %w", p.MicroTokens, p.GradBits,
			p.WeightGradBits, err)
	}
	return c, nil
}

// documents says whether the model reads across the documents of a sequence, and how their ends are marked.
func (p Params) documents(t dataset.TokenizerInfo) model.Documents {
	if p.Documents != model.Separate {
		return model.Documents{}
	}
	return model.Documents{Separate: true, EndOfText: int32(t.EndOfText)}
}

// paddedVocab rounds a vocabulary of more than 4096 ids up to a multiple of 128: GPT-2's 50257 ids become 50304.
func paddedVocab(ids int) int {
	if ids <= 4096 {
		return ids
	}
	return (ids + 127) / 128 * 128
}

// flipThreshold is model.Options.FlipThreshold: 0 where weights have latents.
func (p Params) flipThreshold() int {
	if p.Truebit {
		return p.FlipThreshold
	}
	return 0
}
