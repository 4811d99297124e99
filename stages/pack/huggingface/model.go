// Package huggingface writes a packed model as a folder that AutoModelForCausalLM and AutoTokenizer of Hugging Face's
// transformers load: the weights as bits, the model in PyTorch (docs/examples/model.py) with what transformers asks of
// one, the tokenizer, and a model card.
//
// The package knows no command lines.
package huggingface

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"bitnet1/docs/examples"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
	"bitnet1/shared/filetype"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/safetensors"
	"bitnet1/shared/run/artifact"

	_ "embed" // of the modules of Python
)

//go:embed configuration_bitnet1.py
var configurationModule []byte

//go:embed modeling_bitnet1.py
var modelingModule []byte

// Model is a packed model in memory.
type Model struct {
	*bit2.File
	Tokenizer tokenizer.Tokenizer // nil where the file names none, or transformers can have none like it

	tokenizer []byte // tokenizer.json
	packed    []byte
}

// Open reads the packed model at path, or packs the checkpoint there.
func Open(path string) (*Model, error) {
	m := new(Model)
	var err error
	if is, failed := filetype.OfFile(path); failed == nil && is == filetype.PackedModel {
		m.packed, err = os.ReadFile(path)
	} else {
		m.packed, err = pack(path)
	}
	if err != nil {
		return nil, err
	}
	if m.File, err = bit2.New(path, bytes.NewReader(m.packed), int64(len(m.packed))); err != nil {
		return nil, err
	}
	if err := m.openTokenizer(); err != nil {
		return nil, fmt.Errorf("model %s: %w", path, err)
	}
	return m, nil
}

func (m *Model) openTokenizer() error {
	name := m.Provenance.Tokenizer
	if name == "" {
		return nil
	}
	t, err := tokenizer.Open(name, m.TokenizerFile)
	if err != nil {
		return err
	}
	if t.Vocab() > m.Config.Vocab {
		return fmt.Errorf("tokenizer %s has %d tokens, and the model knows %d", name, t.Vocab(), m.Config.Vocab)
	}
	if m.tokenizer, err = tokenizer.HuggingFace(t); errors.Is(err, tokenizer.ErrNoHuggingFace) {
		return nil
	}
	m.Tokenizer = t
	return err
}

func pack(path string) ([]byte, error) {
	saved, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer saved.Close()
	var packed bytes.Buffer
	if err := bit2.Write(&packed, saved.Config, saved.Provenance, saved.Parameters(), nil); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return packed.Bytes(), nil
}

// Write writes the files of the folder dir, each atomically, and replaces those that are there.
func (m *Model) Write(dir string, about About) error {
	weights, err := m.weights()
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"model.safetensors": weights, "model.py": examples.Model, "bit2.py": examples.Bit2,
		"configuration_bitnet1.py": configurationModule, "modeling_bitnet1.py": modelingModule,
	}
	if files["config.json"], err = m.config(); err != nil {
		return err
	}
	if files["generation_config.json"], err = m.generationConfig(); err != nil {
		return err
	}
	if m.Tokenizer != nil {
		files["tokenizer.json"] = m.tokenizer
		if files["tokenizer_config.json"], err = m.tokenizerConfig(); err != nil {
			return err
		}
	}
	if files["README.md"], err = m.card(about, len(weights)); err != nil {
		return err
	}
	for name, b := range files {
		if err := artifact.WriteFile(filepath.Join(dir, name), b); err != nil {
			return err
		}
	}
	return nil
}

// weights is model.safetensors: rows of matrices as the packed model has them, and all other parameters in float32.
func (m *Model) weights() ([]byte, error) {
	var tensors []safetensors.Tensor
	for p, err := range m.Stored() {
		if err != nil {
			return nil, err
		}
		t := safetensors.Tensor{Name: p.Name, Shape: p.Shape, Data: p.Data}
		if p.Data == nil {
			t.Shape, t.Data = []int{p.Shape[0], int(p.Size) / p.Shape[0]}, m.packed[p.At:][:p.Size]
		}
		tensors = append(tensors, t)
	}
	var b bytes.Buffer
	err := safetensors.Write(&b, map[string]string{"format": "pt", "bitnet1_packed": m.Digest()}, tensors)
	return b.Bytes(), err
}

// Digest is that of the packed model.
func (m *Model) Digest() string { return digest.Bytes(m.packed) }
