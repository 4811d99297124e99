package main

import (
	"fmt"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/stage"
)

// complete sets InitDigest, the digest of the checkpoint to start from: a job is known by the bytes of that checkpoint,
// not by its path. It refuses a file that is no checkpoint.
func (p *Params) complete() error {
	if p.Init == "" {
		return nil
	}
	sum, _, err := digest.File(p.Init)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if p.InitDigest != "" && p.InitDigest != sum {
		return fmt.Errorf("init: %s has digest %s, init_digest says %s: it is another checkpoint", p.Init, digest.Short(sum),
			digest.Short(p.InitDigest))
	}
	p.InitDigest = sum
	m, err := checkpoint.Open(p.Init)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	return m.Close()
}

// initial is the configuration of the checkpoint to start from, nil without one.
func (p Params) initial(t dataset.TokenizerInfo) (*model.Config, error) {
	if p.Init == "" {
		return nil, nil
	}
	m, err := checkpoint.Open(p.Init)
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	defer m.Close()
	if m.Tokenizer != "" && m.Tokenizer != t.Name {
		return nil, fmt.Errorf("init: the checkpoint knows the tokens of %s, the dataset has those of %s: "+
			"tokenize the dataset with %s",
			m.Tokenizer, t.Name, stage.Setting("tokenize", "tokenizer", m.Tokenizer))
	}
	return &m.Config, nil
}

// adopt replaces the parameters of the model by those of the checkpoint to start from.
func (p Params) adopt(c model.Config) Params {
	p.D, p.Layers, p.Heads, p.FF, p.Vocab = c.D, c.Layers, c.Heads, c.FF, c.Vocab
	p.Attention, p.RWSPK, p.Alibi, p.StreamBits = c.Attention, c.RWSPK, c.Alibi, c.StreamBits
	p.KShiftLayers, p.KShiftOffset, p.KShiftSelf = c.KShiftLayers, c.KShiftOffset, c.KShiftSelf
	p.HiddenBits, p.ValueBits = max(c.HiddenBits, 1), max(c.ValueBits, 1)
	p.ReadBits, p.CodebookBits, p.Hadamard = max(c.ReadBits, 1), max(c.CodebookBits, 1), c.Hadamard
	return p
}
