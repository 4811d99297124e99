// Package generation writes text with a model: it joins packed models (shared/lm/inference), the choice of tokens
// (shared/lm/sampling) and tokenizers.
//
//	m, err := generation.Open("packed/step-000600.bit2", 0)
//	g, err := m.NewGenerator()
//	r, err := g.Generate(ctx, m.Encode("Once upon"), generation.Options{Tokens: 64}, func(p generation.Piece) error {
//		_, err := fmt.Print(p.Text) // as soon as the model has written it
//		return err
//	})
//
// The package knows no events, command lines or connections.
package generation

import (
	"errors"
	"fmt"
	"os"

	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/filetype"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/inference"
)

// Model is an open packed model with its tokenizer. Any number of goroutines may make Generators of it.
type Model struct {
	*inference.Model
	Tokenizer tokenizer.Tokenizer

	threads int
}

// Open opens the packed model at path, whose generators compute with so many threads each (0: one a core). A checkpoint
// is packed first, into a temporary file.
func Open(path string, threads int) (*Model, error) {
	open := openCheckpoint
	if is, err := filetype.OfFile(path); err == nil && is == filetype.PackedModel {
		open = inference.Open
	}
	m, err := open(path)
	if err != nil {
		return nil, err
	}
	t, err := tokenizerOf(m)
	if err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("model %s: %w", path, err)
	}
	return &Model{m, t, threads}, nil
}

func tokenizerOf(m *inference.Model) (tokenizer.Tokenizer, error) {
	if m.Provenance.Tokenizer == "" {
		return nil, errors.New("it does not name its tokenizer, without which there is no text: name it in the description " +
			"of the checkpoint (docs/recipes/pytorch.md)")
	}
	t, err := tokenizer.Open(m.Provenance.Tokenizer, m.TokenizerFile)
	if err == nil && t.Vocab() > m.Config.Vocab {
		err = fmt.Errorf("tokenizer %s has %d tokens, and the model knows %d", t.Name(), t.Vocab(), m.Config.Vocab)
	}
	return t, err
}

// openCheckpoint packs a checkpoint and opens the packed model, whose file has no name any more.
func openCheckpoint(path string) (*inference.Model, error) {
	saved, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer saved.Close()
	f, err := os.CreateTemp("", "*.bit2")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	err = bit2.Write(f, saved.Config, saved.Provenance, saved.Parameters(), nil)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return inference.Open(f.Name())
}

// Encode returns the tokens of a text; of an empty one the end of text, which documents begin after.
func (m *Model) Encode(text string) []int32 {
	if text == "" {
		return []int32{m.EndOfText()}
	}
	encoded := m.Tokenizer.Encode(nil, []byte(text))
	tokens := make([]int32, len(encoded))
	for i, t := range encoded {
		tokens[i] = int32(t)
	}
	return tokens
}

// Fits returns an error unless prompt has tokens and the context has room for them. The error of a prompt that is too
// long wraps inference.ErrContextFull.
func (m *Model) Fits(prompt []int32) error {
	if len(prompt) == 0 {
		return errors.New("the prompt has no tokens, not even an end of text")
	}
	if most := m.Config.Seq; len(prompt) > most {
		return fmt.Errorf("the prompt has %d tokens, and the model's context is %d: shorten the prompt (%w)",
			len(prompt), most, inference.ErrContextFull)
	}
	return nil
}

// Text returns the text of tokens. Bytes that are not UTF-8 become U+FFFD, one for each.
func (m *Model) Text(tokens []int32) string {
	ids := make([]uint32, len(tokens))
	for i, t := range tokens {
		ids[i] = uint32(t)
	}
	return Valid(m.Tokenizer.Decode(nil, ids))
}

// EndOfText is the token that ends documents.
func (m *Model) EndOfText() int32 { return int32(m.Tokenizer.EndOfText()) }
