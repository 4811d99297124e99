package measure

import (
	"bitnet1/kernels"
	"bitnet1/shared/filetype"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

// Saved is an open model file: a checkpoint or a packed model, which compute the same.
type Saved struct {
	Config model.Config
	checkpoint.Provenance
	modelFile
}

type modelFile interface {
	Inference(dev kernels.Device, batch, seq int) (*model.Model, model.Settings, error)
	Close() error
}

// openSaved opens the model file at path by its first bytes, whatever its name.
func openSaved(path string) (*Saved, error) {
	if is, err := filetype.OfFile(path); err == nil && is == filetype.PackedModel {
		f, err := bit2.Open(path)
		if err != nil {
			return nil, err
		}
		return &Saved{f.Config, f.Provenance, f}, nil
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	return &Saved{f.Config, f.Provenance, f}, nil
}
