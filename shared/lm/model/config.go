// Package model is the v75/v76 language model with ±1 weights, written once over kernels.Device: its configuration, its
// parameters, the forward pass, training steps and the state that resumes them exactly.
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
}

// MarshalJSON writes an empty list of K-shift layers as [], which the reference expects.
func (c Config) MarshalJSON() ([]byte, error) {
	type plain Config
	if c.KShiftLayers == nil {
		c.KShiftLayers = []int{}
	}
	return json.Marshal(plain(c))
}

// Limits keep the sizes of a model far from overflow: a file may claim any configuration.
const (
	maxVocab  = 1 << 20
	maxWidth  = 1 << 16
	maxLayers = 1 << 10
	maxSeq    = 1 << 20
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
	if err := c.stream().Check(); err != nil {
		return fmt.Errorf("model configuration: stream_bits: %w", err)
	}
	for _, l := range c.KShiftLayers {
		if l < 0 || l >= c.Layers {
			return fmt.Errorf("model configuration: kshift_layers names layer %d of %d", l, c.Layers)
		}
	}
	return nil
}

// stream is how linears read the residual stream.
func (c Config) stream() kernels.Quantization { return kernels.MidRise(c.StreamBits) }

// HeadDim is the width of one head.
func (c Config) HeadDim() int { return c.D / c.Heads }

// Survivors is the number of pointers each query keeps in sequences of seq tokens.
func (c Config) Survivors(seq int) int {
	if c.AttentionRule().MaxSurvivors > 1 {
		return min(c.RWSPK, seq)
	}
	return 1
}

// attentionKind is the kind of the name in c, which must be valid.
func (c Config) attentionKind() kernels.AttentionKind {
	kind, _ := kernels.ParseAttentionKind(c.Attention)
	return kind
}

// AttentionRule returns the rule of the kind of attention. c must be valid.
func (c Config) AttentionRule() kernels.AttentionRule { return c.attentionKind().Rule() }

func (c Config) shiftsKeys(layer int) bool { return slices.Contains(c.KShiftLayers, layer) }

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
