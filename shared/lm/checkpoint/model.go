// Package checkpoint writes and reads the files of a training step: the model, a safetensors file that PyTorch's
// load_state_dict takes as it is, and the state that resumes training exactly.
//
// The package does not decide where files lie, computes no digests and announces nothing. It does not know the meaning
// of the tensors of a state.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"bitnet1/kernels"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
)

// Format is the value of the metadata key "format" in a model file.
const Format = "bitnet1.checkpoint.v1"

// tokenizerKey is the key of the metadata that holds the tokenizer.json of the model's tokenizer.
const tokenizerKey = "tokenizer.json"

// Model is the content of a model file, which is all that evaluation needs.
type Model struct {
	Config model.Config
	// Parameters are in the order of Config.Parameters, each with data or a source. Weights are latents; their signs are
	// the weights of the model.
	Parameters []model.Parameter
	Provenance
}

// Provenance says where a model comes from and how it is meant to be run.
type Provenance struct {
	Step      int64  // optimizer steps taken
	Tokens    int64  // training tokens seen
	Tokenizer string // the tokenizer whose tokens it knows, e.g. gpt2
	// TokenizerFile is the tokenizer.json of the tokenizer; nil: it is built in, or lies elsewhere.
	TokenizerFile []byte
	Dataset       string          // digest of the manifest it was trained on; empty for an untrained model
	Recipe        json.RawMessage // training parameters as JSON; empty for an untrained model
	Gamma         float64         // RWSP: rank r weighs gamma^r, at this step
	Mix           float64         // bonsai: share of sign(W) in the weights at this step; 1 when every weight is ±1
	Documents     model.Documents // how attention treats sequences of several documents
}

// Metadata is p as the strings of a file. Packed documents have no entry, because early versions knew nothing else.
func (p Provenance) Metadata() map[string]string {
	m := map[string]string{
		"step":      strconv.FormatInt(p.Step, 10),
		"tokens":    strconv.FormatInt(p.Tokens, 10),
		"tokenizer": p.Tokenizer,
		"dataset":   p.Dataset,
		"recipe":    string(p.Recipe),
		"gamma":     strconv.FormatFloat(p.Gamma, 'g', -1, 64),
		"mix":       strconv.FormatFloat(p.Mix, 'g', -1, 64),
	}
	if p.Documents.Separate {
		m["documents"], m["end_of_text"] = model.Separate, strconv.Itoa(int(p.Documents.EndOfText))
	}
	return m
}

// ParseProvenance is the inverse of Metadata. It ignores other keys.
func ParseProvenance(metadata map[string]string) (Provenance, error) {
	p := Provenance{Tokenizer: metadata["tokenizer"], Dataset: metadata["dataset"]}
	var err error
	if p.Step, err = count(metadata, "step"); err != nil {
		return p, err
	}
	if p.Tokens, err = count(metadata, "tokens"); err != nil {
		return p, err
	}
	if p.Gamma, err = share(metadata, "gamma"); err != nil {
		return p, err
	}
	if p.Mix, err = share(metadata, "mix"); err != nil {
		return p, err
	}
	if p.Documents, err = documents(metadata); err != nil {
		return p, err
	}
	if recipe := metadata["recipe"]; recipe != "" {
		if !json.Valid([]byte(recipe)) {
			return p, fmt.Errorf("metadata recipe is %.40q, want JSON", recipe)
		}
		p.Recipe = json.RawMessage(recipe)
	}
	return p, nil
}

// documents are packed in files that do not say.
func documents(metadata map[string]string) (d model.Documents, err error) {
	switch kind := metadata["documents"]; kind {
	case "", model.Packed:
		return d, nil
	case model.Separate:
		id, err := strconv.ParseInt(metadata["end_of_text"], 10, 32)
		if err != nil || id < 0 {
			return d, fmt.Errorf("metadata end_of_text is %q, want the token that separate documents begin with",
				metadata["end_of_text"])
		}
		return model.Documents{Separate: true, EndOfText: int32(id)}, nil
	default:
		return d, fmt.Errorf("metadata documents is %q, want %s or %s", kind, model.Packed, model.Separate)
	}
}

func count(metadata map[string]string, key string) (int64, error) {
	n, err := strconv.ParseInt(metadata[key], 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("metadata %s is %q, want a count", key, metadata[key])
	}
	return n, nil
}

func share(metadata map[string]string, key string) (float64, error) {
	x, err := strconv.ParseFloat(metadata[key], 64)
	if err != nil || !(x >= 0 && x <= 1) {
		return 0, fmt.Errorf("metadata %s is %q, want a number from 0 to 1", key, metadata[key])
	}
	return x, nil
}

// Write writes m as a model file: float32 tensors with the names of the reference, and the ALiBi slopes, which PyTorch
// expects as buffers.
func Write(w io.Writer, m Model) error {
	tensors, err := stateDict(m)
	if err != nil {
		return fmt.Errorf("writing checkpoint: %w", err)
	}
	config, err := json.Marshal(m.Config)
	if err != nil {
		return fmt.Errorf("writing checkpoint: %w", err)
	}
	metadata := m.Metadata()
	metadata["format"], metadata["config"] = Format, string(config)
	if m.TokenizerFile != nil {
		metadata[tokenizerKey] = string(m.TokenizerFile)
	}
	if _, err := ParseProvenance(metadata); err != nil {
		return fmt.Errorf("writing checkpoint: %w", err)
	}
	return safetensors.Write(w, metadata, tensors)
}

// Check reports the first parameter of m that does not fit the configuration.
func (m Model) Check() error {
	if err := m.Config.Validate(); err != nil {
		return err
	}
	want := m.Config.Parameters()
	if len(m.Parameters) != len(want) {
		return fmt.Errorf("%d parameters where the configuration has %d", len(m.Parameters), len(want))
	}
	for i, p := range m.Parameters {
		if err := p.Check(want[i]); err != nil {
			return err
		}
	}
	return nil
}

// stateDict lists the tensors of m in the order of PyTorch's state_dict.
func stateDict(m Model) ([]safetensors.Tensor, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	var tensors []safetensors.Tensor
	for _, p := range m.Parameters {
		tensors = append(tensors, finite(p.Name, p))
	}
	slopes := make([]float32, m.Config.Heads)
	for h := range slopes {
		slopes[h] = float32(kernels.AlibiSlope(h, m.Config.Heads))
	}
	for l := range m.Config.Layers {
		tensors = append(tensors, safetensors.Tensor{Name: slopesName(l), Shape: []int{len(slopes)}, Data: slopes})
	}
	return tensors, nil
}

// ErrNotFinite is wrapped by the errors of Write, WriteState and reading if a value is NaN or infinite.
var ErrNotFinite = errors.New("not a finite number")

// finite is the parameter p as a tensor with a name. A value that is not finite is an error.
func finite(name string, p model.Parameter) safetensors.Tensor {
	read := func(dst []float32, from int) error {
		if err := p.Read(dst, from); err != nil {
			return err
		}
		if i := model.FirstNotFinite(dst); i >= 0 {
			return fmt.Errorf("value %d is %v: %w", from+i, dst[i], ErrNotFinite)
		}
		return nil
	}
	return safetensors.Tensor{Name: name, Shape: p.Shape, Data: safetensors.Float32Source{Len: p.Size(), Read: read}}
}

func slopesName(layer int) string { return fmt.Sprintf("blocks.%d.attn.slopes", layer) }
