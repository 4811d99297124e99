package main

import (
	"fmt"

	"bitnet1/kernels"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/lm/model"
)

// Params are the stage's parameters: the model, its optimizer, and when to log and save. The sequence length is not among
// them: it is the dataset's.
type Params struct {
	Preset       string `json:"preset" usage:"size of the model: nano, 75M or 300M; after run --in also the other parameters of the pipeline's preset"`
	D            int    `json:"d" usage:"model width; 0: the preset's"`
	Layers       int    `json:"layers" usage:"layers; 0: the preset's"`
	Heads        int    `json:"heads" usage:"attention heads; 0: the preset's"`
	FF           int    `json:"ff" usage:"feed-forward width; 0: the preset's"`
	Vocab        int    `json:"vocab" usage:"vocabulary; 0: the tokenizer's, rounded up to a multiple of 128 when over 4096"`
	Attention    string `json:"attention" usage:"rwsp (v76), pointer (v75) or softmax (control)"`
	RWSPK        int    `json:"rwsp_k" usage:"survivors of RWSP attention"`
	KShiftLayers []int  `json:"kshift_layers" usage:"layers whose keys also read the position before"`
	KShiftOffset int    `json:"kshift_offset" usage:"how far before"`
	KShiftSelf   bool   `json:"kshift_self" usage:"whether those keys read their own position too"`
	Alibi        bool   `json:"alibi" usage:"whether scores fall with distance"`
	StreamBits   int    `json:"stream_bits" usage:"bits that products read of the residual stream: 1 (strict), 2 to 8, or 16 (unquantized)"`
	Documents    string `json:"documents" usage:"of a sequence: packed (positions read across their ends) or separate (each is read by itself)"`
	GradBits     int    `json:"grad_bits" usage:"bits that gradients are rounded to where they are multiplied: 2 to 8, or 16 (floats)"`

	Init       string   `json:"init" digest:"-" usage:"checkpoint to start from, safetensors or .pt: its parameters, and the model that it is"`
	InitDigest string   `json:"init_digest" usage:"digest of that file; found when it is not given, refused when it differs"`
	Freeze     []string `json:"freeze" usage:"patterns of parameters that stay as they are: codebook.*, blocks.*.attn.*; !blocks.-1.* excepts the last layer"`

	AnnealBinarize        bool    `json:"anneal_binarize" usage:"bonsai: begin with the latent weights and blend their signs in"`
	BinarizeAnnealEndFrac float64 `json:"binarize_anneal_end_frac" usage:"bonsai: share of the steps after which every weight is a sign"`

	Truebit       bool `json:"truebit" usage:"train without float latents: a weight flips when its counter of gradient signs asks for it"`
	FlipThreshold int  `json:"flip_threshold" usage:"truebit: by how much a counter must exceed what speaks for the weight, 1 to 126"`

	Seed         uint64  `json:"seed" usage:"initial parameters, data order and noise"`
	Steps        int     `json:"steps" usage:"optimizer steps"`
	BatchTokens  int     `json:"batch_tokens" usage:"tokens in a step: whole sequences"`
	MicroTokens  int     `json:"micro_tokens" usage:"most tokens computed at once: whole sequences that divide a step, which adds its parts up"`
	LearningRate float64 `json:"learning_rate" usage:"peak learning rate"`
	FinalShare   float64 `json:"final_share" usage:"learning rate at the end, as a share of the peak (cosine)"`
	Warmup       int     `json:"warmup" usage:"steps of linear warm-up"`
	Beta1        float64 `json:"beta1" usage:"AdamW's decay of the mean gradient"`
	Beta2        float64 `json:"beta2" usage:"AdamW's decay of the mean square gradient"`
	Decay        float64 `json:"weight_decay" usage:"decoupled weight decay of the weights"`
	Clip         float64 `json:"clip" usage:"largest norm of the gradient; 0: any"`
	GammaStart   float64 `json:"gamma_start" usage:"RWSP: ratio of the weights of successive ranks at the start"`
	GammaEnd     float64 `json:"gamma_end" usage:"and at the end (geometric anneal)"`
	Tau          float64 `json:"tau" usage:"pointer attention: temperature of the backward softmax"`

	CheckpointEvery     int `json:"checkpoint_every" usage:"steps between checkpoints"`
	ValidationSequences int `json:"validation_sequences" usage:"validation sequences in the trainer's own sample"`
	LogEvery            int `json:"log_every" usage:"steps between lines of the training log"`
	StopAt              int `json:"stop_at" digest:"-" usage:"stop after this step, to go on another time; 0: at the end"`
}

func defaults() Params {
	return Params{
		Preset: "nano", Attention: model.RWSP, RWSPK: 4, KShiftLayers: []int{0}, KShiftOffset: 1, KShiftSelf: true,
		Alibi: true, StreamBits: 1, Documents: model.Packed, GradBits: kernels.GradFloat, BinarizeAnnealEndFrac: 0.6, FlipThreshold: 8,
		Seed: 42, Steps: 600, BatchTokens: 4096, MicroTokens: 4096, LearningRate: 3e-3, FinalShare: 0.1, Warmup: 50,
		Beta1: 0.9, Beta2: 0.95, Clip: 1, GammaStart: 0.9, GammaEnd: 0.1, Tau: 1,
		CheckpointEvery: 200, ValidationSequences: 32, LogEvery: 10,
	}
}

func (p Params) check() error {
	for _, c := range []struct {
		wrong bool
		text  string
	}{
		{p.Steps < 1, fmt.Sprintf("steps is %d: it must be positive", p.Steps)},
		{p.BatchTokens < 1, fmt.Sprintf("batch_tokens is %d: it must be positive", p.BatchTokens)},
		{p.MicroTokens < 1, fmt.Sprintf("micro_tokens is %d: it must be positive", p.MicroTokens)},
		{!(p.LearningRate > 0), fmt.Sprintf("learning_rate is %g: it must be positive", p.LearningRate)},
		{!(p.FinalShare >= 0 && p.FinalShare <= 1), fmt.Sprintf("final_share is %g: it must lie between 0 and 1", p.FinalShare)},
		{p.Warmup < 0, fmt.Sprintf("warmup is %d: it must not be negative", p.Warmup)},
		{!(p.Beta1 >= 0 && p.Beta1 < 1 && p.Beta2 >= 0 && p.Beta2 < 1), "beta1 and beta2 must lie between 0 and 1"},
		{!(p.Decay >= 0), "weight_decay must not be negative"},
		{!(p.Clip >= 0), "clip must not be negative"},
		{!(p.GammaStart > 0 && p.GammaStart <= 1 && p.GammaEnd > 0 && p.GammaEnd <= 1), "gamma_start and gamma_end must lie between 0 (excluded) and 1"},
		{!(p.Tau > 0), "tau must be positive"},
		{p.CheckpointEvery < 1, fmt.Sprintf("checkpoint_every is %d: it must be positive", p.CheckpointEvery)},
		{p.ValidationSequences < 0, "validation_sequences must not be negative"},
		{p.GradBits != kernels.GradFloat && (p.GradBits < 2 || p.GradBits > 8),
			fmt.Sprintf("grad_bits is %d: it must be 2 to 8, or %d for floats", p.GradBits, kernels.GradFloat)},
		{p.Documents != model.Packed && p.Documents != model.Separate,
			fmt.Sprintf("documents is %q: it must be %s or %s", p.Documents, model.Packed, model.Separate)},
		{!(p.BinarizeAnnealEndFrac > 0 && p.BinarizeAnnealEndFrac <= 1), fmt.Sprintf("binarize_anneal_end_frac is %g: it must lie between 0 (excluded) and 1", p.BinarizeAnnealEndFrac)},
		{p.Init == "" && p.InitDigest != "", "init_digest is given without init, the checkpoint's file"},
		{p.FlipThreshold < 1 || p.FlipThreshold > 126, fmt.Sprintf("flip_threshold is %d: it must lie between 1 and 126", p.FlipThreshold)},
		{p.Truebit && p.AnnealBinarize, "truebit and anneal_binarize exclude each other: without latents there is nothing to blend"},
		{p.StopAt < 0, "stop_at must not be negative"},
		{p.LogEvery < 1, fmt.Sprintf("log_every is %d: it must be positive", p.LogEvery)},
	} {
		if c.wrong {
			return fmt.Errorf("%s", c.text)
		}
	}
	// Any tokenizer and sequence length will do: newTrainer checks the configuration again with the dataset's.
	if _, err := p.config(dataset.TokenizerInfo{Vocab: 257}, 128); err != nil {
		return err
	}
	if p.GradBits == kernels.GradFloat || p.StreamBits == model.StreamFloat {
		return nil
	}
	if err := kernels.CheckSums(min(p.MicroTokens, p.BatchTokens), p.GradBits, p.StreamBits); err != nil {
		return fmt.Errorf("micro_tokens is %d: %w", p.MicroTokens, err)
	}
	return nil
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
	return c, c.Validate()
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

// update holds the scheduled values of a step, counted from 0.
func (p Params) update(step int) model.Update {
	return model.Update{
		Settings: model.Settings{
			Gamma: p.gamma(step), Tau: p.Tau, Mix: p.mix(step),
			Gumbel: p.Attention == model.Pointer, Seed: p.Seed, Step: uint64(step),
		},
		LearningRate: model.WarmupCosine(step, p.Warmup, p.Steps, p.LearningRate, p.LearningRate*p.FinalShare),
		Beta1:        p.Beta1, Beta2: p.Beta2, Decay: p.Decay, MaxNorm: p.Clip,
	}
}

func (p Params) gamma(step int) float64 {
	return model.Geometric(step, p.Steps, p.GammaStart, p.GammaEnd)
}

// mix is the share of sign(W) in the effective weights at a step: less than 1 with bonsai alone.
func (p Params) mix(step int) float64 {
	if !p.AnnealBinarize {
		return 1
	}
	return model.MixAt(step, p.Steps, p.BinarizeAnnealEndFrac)
}

// flipThreshold is model.Options.FlipThreshold: 0 where weights have latents.
func (p Params) flipThreshold() int {
	if p.Truebit {
		return p.FlipThreshold
	}
	return 0
}
