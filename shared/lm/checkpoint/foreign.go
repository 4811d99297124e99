package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/pytorch"
	"bitnet1/shared/lm/safetensors"
)

// description is what a state dict does not say of its model, such as the number of heads. It is a JSON file beside the
// state dict. The same entries may be in the file itself: beside the state dict in a .pt file, in the metadata of a
// safetensors file.
type description struct {
	Config    json.RawMessage `json:"config"`    // the reference's Config as a dict
	Tokenizer string          `json:"tokenizer"` // empty: any
	Gamma     *float64        `json:"gamma"`     // RWSP needs it
	Mix       *float64        `json:"mix"`       // 1 if absent
	Step      int64           `json:"step"`
	Tokens    int64           `json:"tokens"`
	Documents string          `json:"documents"`   // packed if absent
	EndOfText *int32          `json:"end_of_text"` // separate documents need it
}

// DescriptionPath is the path of the description of the file at path: model.json for model.pt.
func DescriptionPath(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + ".json"
}

// describe finds the description of the file at path, beside the file or in it.
func describe(path string, f tensors) (model.Config, Provenance, error) {
	beside := DescriptionPath(path)
	text, err := os.ReadFile(beside)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = ownDescription(f)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return model.Config{}, Provenance{},
			fmt.Errorf("it does not say what model it is: write this to %s, corrected where the model differs (the config "+
				"of a v77 also has hidden_bits, query_bits, value_bits, read_bits, codebook_bits and hadamard): %s",
				beside, suggest(f))
	}
	if err != nil {
		return model.Config{}, Provenance{}, err
	}
	return parseDescription(text)
}

// ownDescription reads the entries of a description from the file itself. An entry that cannot be understood is an
// error, because a default would be another model.
func ownDescription(t tensors) ([]byte, error) {
	found := map[string]any{}
	for _, key := range []string{"config", "tokenizer", "gamma", "mix", "step", "tokens", "documents", "end_of_text"} {
		value, ok, err := ownValue(t, key)
		if err != nil {
			return nil, err
		}
		if ok {
			found[key] = value
		}
	}
	if _, ok := found["config"]; !ok {
		return nil, fs.ErrNotExist
	}
	return json.Marshal(found)
}

func ownValue(t tensors, key string) (value any, ok bool, err error) {
	switch t := t.(type) {
	case *unwrapped:
		return ownValue(t.tensors, key)
	case *pytorch.File:
		return t.Plain(key)
	case *safetensors.File: // everything is a text there
		text, ok := t.Metadata()[key]
		if !ok || key == "tokenizer" || key == "documents" {
			return text, ok, nil
		}
		if !json.Valid([]byte(text)) {
			return nil, true, fmt.Errorf("metadata %s is %.80q, want JSON", key, text)
		}
		return json.RawMessage(text), true, nil
	}
	return nil, false, nil
}

// suggest writes the description of a v76 that fits the shapes of the tensors.
func suggest(f tensors) string {
	c := model.Config{Seq: 2048, Alibi: true, Eps: 1e-5, StreamBits: 1}.V76()
	if shape, err := f.Shape("codebook.weight"); err == nil && len(shape) == 2 {
		c.Vocab, c.D = shape[0], shape[1]
	}
	if shape, err := f.Shape("blocks.0.up.weight"); err == nil && len(shape) == 2 {
		c.FF = shape[0]
	}
	c.Heads = max(1, c.D/64)
	if shape, err := f.Shape(slopesName(0)); err == nil && len(shape) == 1 {
		c.Heads = shape[0]
	}
	for _, name := range f.Names() {
		if strings.HasSuffix(name, ".up.weight") {
			c.Layers++
		}
	}
	b, err := json.Marshal(map[string]any{"config": c, "gamma": 0.1})
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func parseDescription(text []byte) (model.Config, Provenance, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var given description
	if err := d.Decode(&given); err != nil {
		return model.Config{}, Provenance{}, fmt.Errorf("description of the model: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return model.Config{}, Provenance{}, errors.New("description of the model: something follows the JSON object")
	}
	if err := refuseNull("description of the model", text); err != nil {
		return model.Config{}, Provenance{}, err
	}
	c, err := ParseConfig(given.Config)
	if err != nil {
		return c, Provenance{}, err
	}
	p := Provenance{Step: given.Step, Tokens: given.Tokens, Tokenizer: given.Tokenizer, Mix: 1}
	if given.Mix != nil {
		p.Mix = *given.Mix
	}
	switch {
	case given.Gamma != nil:
		p.Gamma = *given.Gamma
	case c.AttentionRule().Gamma:
		return c, p, errors.New("description of the model: RWSP needs gamma, the ratio of the weights of successive " +
			"ranks")
	}
	metadata := map[string]string{"documents": given.Documents}
	if given.EndOfText != nil {
		metadata["end_of_text"] = strconv.Itoa(int(*given.EndOfText))
	}
	if p.Documents, err = documents(metadata); err != nil {
		return c, p, fmt.Errorf("description of the model: %w", err)
	}
	_, err = ParseProvenance(p.Metadata())
	return c, p, err
}
