package checkpoint

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"bitnet1/shared/lm/safetensors"
)

// StateFormat is the value of the metadata key "format" in a state file.
const StateFormat = "bitnet1.state.v1"

// State is what training needs beside the model to continue as if it had not stopped.
type State struct {
	Checkpoint string // digest of the model file of the same step; read as "" from a file that names none
	Step       int64  // optimizer steps taken
	Position   int64  // sequences of the data order consumed
	LogOffset  int64  // bytes of the training log at this step; resuming truncates the log to them
	Extra      map[string]string
	// Tensors are the optimizer's moments, float32 masters of scales, and counters, named by the optimizer.
	Tensors []safetensors.Tensor
}

const (
	checkpointKey = "checkpoint"
	stepKey       = "step"
	positionKey   = "position"
	logOffsetKey  = "log_offset"
	extraPrefix   = "extra."
)

// WriteState writes s as a state file.
func WriteState(w io.Writer, s State) error {
	metadata := map[string]string{
		"format":      StateFormat,
		checkpointKey: s.Checkpoint,
		stepKey:       strconv.FormatInt(s.Step, 10),
		positionKey:   strconv.FormatInt(s.Position, 10),
		logOffsetKey:  strconv.FormatInt(s.LogOffset, 10),
	}
	for k, v := range s.Extra {
		metadata[extraPrefix+k] = v
	}
	if err := safetensors.Write(w, metadata, s.Tensors); err != nil {
		return fmt.Errorf("writing training state: %w", err)
	}
	return nil
}

// ReadState reads the state file at path. Where the file names a model file, that must be the one with the digest
// checkpoint. The tensors are in the order of the file, which is not the order of writing.
func ReadState(path, checkpoint string) (State, error) {
	return openState(path, func(f *safetensors.File) (State, error) {
		s, err := readStateHeader(f, checkpoint)
		for _, name := range f.Names() {
			if err != nil {
				break
			}
			var t safetensors.Tensor
			t, err = f.Read(name)
			s.Tensors = append(s.Tensors, t)
		}
		return s, err
	})
}

// ReadStateHeader is ReadState, but of the tensors it returns the names alone.
func ReadStateHeader(path, checkpoint string) (State, error) {
	return openState(path, func(f *safetensors.File) (State, error) {
		s, err := readStateHeader(f, checkpoint)
		for _, name := range f.Names() {
			s.Tensors = append(s.Tensors, safetensors.Tensor{Name: name})
		}
		return s, err
	})
}

func openState(path string, read func(*safetensors.File) (State, error)) (State, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return State{}, fmt.Errorf("reading training state: %w", err)
	}
	defer f.Close()
	s, err := read(f)
	if err != nil {
		return State{}, fmt.Errorf("reading training state %s: %w", path, err)
	}
	return s, nil
}

func readStateHeader(f *safetensors.File, checkpoint string) (s State, err error) {
	metadata := f.Metadata()
	if got := metadata["format"]; got != StateFormat {
		return s, fmt.Errorf("metadata format is %q, want %q (is this a state file of bitnet1?)", got, StateFormat)
	}
	var named bool // another program may not know the digest
	if s.Checkpoint, named = metadata[checkpointKey]; named && s.Checkpoint != checkpoint {
		return s, fmt.Errorf("belongs to checkpoint %s, not to %s: resume from the state saved with it", s.Checkpoint,
			checkpoint)
	}
	for key, field := range map[string]*int64{stepKey: &s.Step, positionKey: &s.Position, logOffsetKey: &s.LogOffset} {
		if *field, err = count(metadata, key); err != nil {
			return s, err
		}
	}
	s.Extra = extra(metadata)
	return s, nil
}

// extra returns the caller's own entries of the metadata.
func extra(metadata map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range metadata {
		if name, ok := strings.CutPrefix(k, extraPrefix); ok {
			out[name] = v
		}
	}
	return out
}
