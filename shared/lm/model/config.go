// Package model is the v75, v76 and v77 language model with ±1 weights, written once over kernels.Device: its
// configuration, its parameters, the forward pass, training steps and the state that resumes them exactly.
//
// It reads no files and knows no datasets: parameters and tokens come in as Go slices.
package model

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"bitnet1/kernels"
)

// Config describes one model. Its JSON keys are those of the PyTorch reference's Config.
type Config struct {
	Vocab        int     `json:"vocab"`         // tokens, padding included
	D            int     `json:"d"`             // width of the residual stream
	Layers       int     `json:"layers"`        // blocks of attention and feed-forward
	Heads        int     `json:"heads"`         // attention heads; D must be a multiple
	FF           int     `json:"ff"`            // feed-forward width
	Seq          int     `json:"seq"`           // longest sequence in tokens
	Attention    string  `json:"attention"`     // name of a kernels.AttentionKind
	RWSPK        int     `json:"rwsp_k"`        // survivors per query, for kinds that read several
	KShiftLayers []int   `json:"kshift_layers"` // layers whose keys read an earlier token as well
	KShiftOffset int     `json:"kshift_offset"` // how many tokens earlier
	KShiftSelf   bool    `json:"kshift_self"`   // false: keys of those layers read the earlier token alone
	Alibi        bool    `json:"alibi"`         // scores fall linearly with distance
	Eps          float64 `json:"eps"`           // added to the mean square in RMSNorm
	StreamBits   int     `json:"stream_bits"`   // how linears read the residual stream: bits of kernels.MidRise

	// The options of v77. v75 and v76 have ±1 in these places, and no rotation. 0 bits mean 1.
	HiddenBits   int `json:"hidden_bits,omitempty"`   // how down reads the output of up: bits of kernels.Unsigned
	QueryBits    int `json:"query_bits,omitempty"`    // how attention reads queries: bits of kernels.MidRise
	ValueBits    int `json:"value_bits,omitempty"`    // how attention reads values: bits of kernels.MidRise
	ReadBits     int `json:"read_bits,omitempty"`     // how o reads what attention read: bits of kernels.MidRise
	CodebookBits int `json:"codebook_bits,omitempty"` // weights of embedding and lmHead: bits of kernels.Normal
	Hadamard     int `json:"hadamard,omitempty"`      // kernels.RMSNorm's Rotation; 0: none
}

// MarshalJSON writes an empty list of K-shift layers as [], which the reference expects. It leaves out options of v77
// that are off: a v75 or v76 has the JSON that it had before there was a v77.
func (c Config) MarshalJSON() ([]byte, error) {
	type plain Config
	if c.KShiftLayers == nil {
		c.KShiftLayers = []int{}
	}
	for _, bits := range []*int{&c.HiddenBits, &c.QueryBits, &c.ValueBits, &c.ReadBits, &c.CodebookBits} {
		if *bits == 1 {
			*bits = 0
		}
	}
	return json.Marshal(plain(c))
}

// Limits keep the sizes of a model far from overflow: a file may claim any configuration.
const (
	maxVocab  = 1 << 20
	maxWidth  = 1 << 16
	maxLayers = 1 << 10
	maxSeq    = 1 << 20
	maxBits   = 8 // of planes
)

// Validate returns an error for the first value that makes it impossible to build c.
func (c Config) Validate() error {
	for _, f := range []struct {
		key       string
		value     int
		low, high int
	}{
		{"vocab", c.Vocab, 2, maxVocab},
		{"d", c.D, 1, maxWidth},
		{"layers", c.Layers, 1, maxLayers},
		{"heads", c.Heads, 1, maxWidth},
		{"ff", c.FF, 1, maxWidth},
		{"seq", c.Seq, 1, maxSeq},
		{"kshift_offset", c.KShiftOffset, 0, maxSeq},
		{"hidden_bits", orOne(c.HiddenBits), 1, maxBits},
		{"query_bits", orOne(c.QueryBits), 1, maxBits},
		{"value_bits", orOne(c.ValueBits), 1, maxBits},
		{"read_bits", orOne(c.ReadBits), 1, maxBits},
		{"codebook_bits", orOne(c.CodebookBits), 1, maxBits},
		{"hadamard", c.Hadamard, 0, maxWidth},
	} {
		if f.value < f.low || f.value > f.high {
			return fmt.Errorf("model configuration: %s is %d, want %d to %d", f.key, f.value, f.low, f.high)
		}
	}
	kind, err := kernels.ParseAttentionKind(c.Attention)
	if err != nil {
		return fmt.Errorf("model configuration: %w", err)
	}
	most := kind.Rule().MaxSurvivors
	switch {
	case most > 1 && (c.RWSPK < 1 || c.RWSPK > most):
		return fmt.Errorf("model configuration: rwsp_k is %d, want 1 to %d", c.RWSPK, most)
	case c.D%c.Heads != 0:
		return fmt.Errorf("model configuration: d = %d is no multiple of heads = %d", c.D, c.Heads)
	case !(c.Eps > 0) || math.IsInf(c.Eps, 0):
		return fmt.Errorf("model configuration: eps is %v, want a small positive number such as 1e-5", c.Eps)
	}
	if err := c.Stream().Check(); err != nil {
		return fmt.Errorf("model configuration: stream_bits: %w", err)
	}
	if err := c.validateV77(); err != nil {
		return fmt.Errorf("model configuration: %w", err)
	}
	for _, l := range c.KShiftLayers {
		if l < 0 || l >= c.Layers {
			return fmt.Errorf("model configuration: kshift_layers names layer %d of %d", l, c.Layers)
		}
	}
	return nil
}

// validateV77 returns an error where options of v77 do not go together. Each must be within its range.
func (c Config) validateV77() error {
	reads, values := c.Reads().Bits(), c.Values().Bits()
	if reads > values {
		return fmt.Errorf("read_bits is %d and value_bits %d: want no more read_bits than value_bits, "+
			"or a read of equal values lies half way between two levels", reads, values)
	}
	if h := c.Hadamard; h > 0 && (h&(h-1) != 0 || c.D%h != 0) {
		return fmt.Errorf("hadamard is %d, want 0 or a power of two that divides d = %d", h, c.D)
	}
	if c.Stream() == kernels.Unquantized() {
		return nil
	}
	// Of all products of planes, only the lmHead's has several on both sides.
	if most := math.MaxInt32 / (c.Stream().Largest() * c.Codebook().Largest()); c.D > most {
		return fmt.Errorf("d is %d: logits of %d stream_bits and %d codebook_bits are sums that may pass 32 bits, "+
			"want a d of at most %d, or fewer bits", c.D, c.StreamBits, c.CodebookBits, most)
	}
	return nil
}

// CheckSums refuses to train c with these Options.GradBits and Options.WeightGradBits, rows tokens at a time, if sums
// of integers may pass 32 bits.
func (c Config) CheckSums(rows, gradBits, weightGradBits int) error {
	blocks, lmHead := GradBits(gradBits, weightGradBits)
	if !blocks.Rounded() {
		return nil
	}
	if err := kernels.CheckSums(c.Vocab, "channels", lmHead.Input, c.Codebook()); err != nil {
		return fmt.Errorf("vocab is %d and codebook_bits %d: %w", c.Vocab, c.Codebook().Bits(), err)
	}
	for _, input := range []kernels.Quantization{c.Stream(), c.Hidden(), c.Reads()} {
		if input == kernels.Unquantized() {
			continue
		}
		if err := kernels.CheckSums(rows, "rows", blocks.Weight, input); err != nil {
			return fmt.Errorf("%w: use a smaller micro-batch", err)
		}
	}
	return nil
}

// Stream is how linears read the residual stream.
func (c Config) Stream() kernels.Quantization { return kernels.MidRise(c.StreamBits) }

// Hidden is how down reads the output of up.
func (c Config) Hidden() kernels.Quantization { return kernels.Unsigned(orOne(c.HiddenBits)) }

// Queries is how attention reads queries. Keys are signs.
func (c Config) Queries() kernels.Quantization { return kernels.MidRise(orOne(c.QueryBits)) }

// Values is how attention reads values.
func (c Config) Values() kernels.Quantization { return kernels.MidRise(orOne(c.ValueBits)) }

// Reads is how o reads what attention read.
func (c Config) Reads() kernels.Quantization { return kernels.MidRise(orOne(c.ReadBits)) }

// Codebook is the quantization of the codebook's weights.
func (c Config) Codebook() kernels.Quantization { return kernels.Normal(orOne(c.CodebookBits)) }

// HasV77 says whether any option of v77 is on.
func (c Config) HasV77() bool {
	return max(c.HiddenBits, c.QueryBits, c.ValueBits, c.ReadBits, c.CodebookBits) > 1 || c.Hadamard > 0
}

// orOne is the number of bits that an option of v77 means.
func orOne(bits int) int {
	if bits == 0 {
		return 1
	}
	return bits
}

// HeadDim is the width of one head.
func (c Config) HeadDim() int { return c.D / c.Heads }

// Survivors is the number of pointers each query keeps in sequences of seq tokens.
func (c Config) Survivors(seq int) int {
	if c.AttentionRule().MaxSurvivors > 1 {
		return min(c.RWSPK, seq)
	}
	return 1
}

// AttentionKind is the kind of the name in c, which must be valid.
func (c Config) AttentionKind() kernels.AttentionKind {
	kind, _ := kernels.ParseAttentionKind(c.Attention)
	return kind
}

// AttentionRule returns the rule of the kind of attention. c must be valid.
func (c Config) AttentionRule() kernels.AttentionRule { return c.AttentionKind().Rule() }

// ShiftsKeys says whether keys of a layer read an earlier token: see KShiftLayers.
func (c Config) ShiftsKeys(layer int) bool { return slices.Contains(c.KShiftLayers, layer) }

// V75 is c with v75's attention: one pointer per query and no K-shift.
func (c Config) V75() Config {
	c.Attention, c.KShiftLayers = kernels.Pointer.String(), []int{}
	return c
}

// V76 is c with v76's attention: RWSP-G with four survivors and K-shift at layer 0.
func (c Config) V76() Config {
	c.Attention, c.RWSPK, c.KShiftLayers, c.KShiftOffset, c.KShiftSelf = kernels.RWSP.String(), 4, []int{0}, 1, true
	return c
}

// V77 is c with v76's attention and v77's options: 4 bits wherever a v76 has ±1, except for the weights of blocks and
// for queries and keys, and a rotation of blocks of 128, or of the largest power of two below it that divides d.
func (c Config) V77() Config {
	c = c.V76()
	c.StreamBits, c.HiddenBits, c.ValueBits, c.ReadBits, c.CodebookBits = 4, 4, 4, 4, 4
	c.Hadamard = min(128, c.D&-c.D)
	return c
}

var presets = map[string]Config{
	"300M": {Vocab: 50304, D: 1024, Layers: 21, Heads: 16, FF: 4096, Seq: 2048},
	"75M":  {Vocab: 50304, D: 512, Layers: 16, Heads: 8, FF: 2048, Seq: 2048},
	"nano": {Vocab: 257, D: 128, Layers: 4, Heads: 4, FF: 512, Seq: 128},
}

// Preset returns a strict v76 of a named size: 300M, 75M (GPT-2 tokens) or nano (bytes and an end of text).
func Preset(name string) (Config, error) {
	c, ok := presets[name]
	if !ok {
		names := make([]string, 0, len(presets))
		for n := range presets {
			names = append(names, n)
		}
		sort.Strings(names)
		return Config{}, fmt.Errorf("model preset %q does not exist; there are %s", name, strings.Join(names, ", "))
	}
	c.Alibi, c.Eps, c.StreamBits = true, 1e-5, 1
	return c.V76(), nil
}
