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
	"strings"

	"bitnet1/shared/model"
	"bitnet1/shared/pytorch"
)

// description says of parameters that other programs saved what they themselves do not: the number of heads, say, or how
// the model attends. It is a JSON file beside them or, in a .pt file, entries of these names beside the state dict.
type description struct {
	Config    json.RawMessage `json:"config"`    // the reference's Config as a dict
	Tokenizer string          `json:"tokenizer"` // empty: any
	Gamma     *float64        `json:"gamma"`     // RWSP needs it
	Mix       *float64        `json:"mix"`       // 1 if absent
	Step      int64           `json:"step"`
	Tokens    int64           `json:"tokens"`
}

// DescriptionPath is where the description of the parameters in the file at path is looked for: model.pt has model.json.
func DescriptionPath(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + ".json"
}

// describe finds the description of the file at path: beside it, or among what a PyTorch file holds.
func describe(path string, f tensors) (model.Config, Provenance, error) {
	beside := DescriptionPath(path)
	text, err := os.ReadFile(beside)
	if p, ok := f.(*pytorch.File); ok && errors.Is(err, fs.ErrNotExist) {
		text, err = plainDescription(p)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return model.Config{}, Provenance{}, fmt.Errorf(`it does not say what model it is: write {"config": {"vocab": …}, "gamma": …} to %s (docs/recipes/pytorch.md)`, beside)
	}
	if err != nil {
		return model.Config{}, Provenance{}, err
	}
	return parseDescription(text)
}

// plainDescription picks the description's keys out of what lies beside the state dict.
func plainDescription(f *pytorch.File) ([]byte, error) {
	found := map[string]any{}
	for _, key := range []string{"config", "tokenizer", "gamma", "mix", "step", "tokens"} {
		if v, ok := f.Plain(key); ok {
			found[key] = v
		}
	}
	if found["config"] == nil {
		return nil, fs.ErrNotExist
	}
	return json.Marshal(found)
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
	case c.Attention == model.RWSP:
		return c, p, errors.New("description of the model: RWSP needs gamma, the ratio of the weights of successive ranks")
	}
	_, err = ParseProvenance(p.Metadata())
	return c, p, err
}
