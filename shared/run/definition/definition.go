// Package definition says what a run does: its Definition, which is kept with the run, and the presets and sections
// that definitions are made of. A stage reads its parameters from there, whether a launcher has started it or a person.
package definition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// Definition is a resolved pipeline: what a run does, with nothing left to choose. It is kept as an artifact. Two runs
// with equal definitions and equal sources are the same work.
type Definition struct {
	Name    string                     `json:"name"`
	Preset  string                     `json:"preset"`
	Seed    uint64                     `json:"seed"`
	Sources []Source                   `json:"sources"`
	Stages  map[string]json.RawMessage `json:"stages"` // parameters given, by stage; a stage's defaults fill the rest
}

// Source is one file of documents.
type Source struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`

	Parameters json.RawMessage `json:"parameters,omitempty"` // of the stage tokenize, where they differ for this source
}

// Encode returns the canonical JSON of d.
func (d Definition) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(d, "", "  ")
	return append(b, '\n'), err
}

// ID is the default id of d's run: name, preset and a digest of the definition.
func (d Definition) ID() (string, error) {
	b, err := d.Encode()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s-%s-%s", d.Name, d.Preset, digest.Bytes(b)[:8]), nil
}

// OfRun reads the definition that a run was started with. A run that has none (its events were announced by hand) gives
// nil.
func OfRun(j journal.Journal, space artifact.Space, run string) (*Definition, error) {
	path, err := pathOfRun(j, space, run)
	if err != nil || path == "" {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("definition of run %s: %w", run, err)
	}
	var d Definition
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("definition of run %s: %w", run, err)
	}
	return &d, nil
}

// lostError says that a run has a definition which cannot be read.
type lostError struct {
	run    string
	digest string // of the definition, where that is known
}

func (e lostError) Error() string {
	return fmt.Sprintf("the definition of run %s is lost or damaged: give the command `pipeline run` of that run "+
		"again, which writes it anew", e.run)
}

// pathOfRun is the file of a run's definition, "" if the run has none.
func pathOfRun(j journal.Journal, space artifact.Space, run string) (string, error) {
	started, err := journal.Bodies[event.RunStarted](j, run)
	if err != nil {
		return "", err
	}
	if len(started) > 0 {
		path, err := space.Path(started[0].Definition)
		if err != nil {
			return "", lostError{run, started[0].Definition.Digest}
		}
		return path, nil
	}
	if !j.Has(run, event.RunStarted{}.Kind()) {
		return "", nil
	}
	// The event is damaged. People's link leads to the definition, too.
	path, err := filepath.EvalSymlinks(filepath.Join(j.RunDir(run), linkFolder, fileName))
	if err != nil {
		return "", lostError{run: run}
	}
	if sum, _, err := digest.File(path); err != nil || sum != filepath.Base(path) {
		return "", lostError{run: run}
	}
	return path, nil
}

const (
	linkFolder = "launcher"
	fileName   = "definition.json"
)

// Store keeps d as an artifact and links it for people in the run's folder. What is there and damaged is mended.
func (d Definition) Store(j journal.Journal, store *artifact.Store, run string) (artifact.Ref, error) {
	b, err := d.Encode()
	if err != nil {
		return artifact.Ref{}, err
	}
	ref, err := artifact.Put(store, "definition", "application/json", fileName, b)
	if err != nil {
		return artifact.Ref{}, err
	}
	return ref, j.Link(run, linkFolder, ref)
}

// CheckRun makes sure that run, if it was begun before, was begun with d: a run is one execution of one definition.
func (d Definition) CheckRun(j journal.Journal, space artifact.Space, run string) error {
	want, err := d.Encode()
	if err != nil {
		return err
	}
	var same bool
	var lost lostError
	switch begun, err := OfRun(j, space, run); {
	case errors.As(err, &lost):
		same = lost.digest == "" || lost.digest == digest.Bytes(want)
	case err != nil:
		return err
	case begun == nil:
		return nil
	default:
		have, err := begun.Encode()
		if err != nil {
			return err
		}
		same = bytes.Equal(want, have)
	}
	if !same {
		return fmt.Errorf("run %s was begun with other parameters, sources or seed: choose another --run, or leave it out",
			run)
	}
	return nil
}
