// Package pipeline describes a run: the resolved definition that is kept with
// it, and how one is made from a pipeline file, a preset and overrides. It does
// not start anything.
package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"bitnet1/shared/artifact"
	"bitnet1/shared/event"
	"bitnet1/shared/journal"
)

// Definition is a resolved pipeline: what a run does, with nothing left to
// choose. It is kept as an artifact; two runs with equal definitions and equal
// sources are the same work.
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
	return fmt.Sprintf("%s-%s-%s", d.Name, d.Preset, artifact.DigestBytes(b)[:8]), nil
}

// OfRun reads the definition that a run was started with. A run that has none
// (its events were announced by hand) gives nil.
func OfRun(j journal.Journal, space artifact.Space, run string) (*Definition, error) {
	started, err := journal.Bodies[event.RunStarted](j, run)
	if err != nil || len(started) == 0 {
		return nil, err
	}
	path, err := space.Path(started[0].Definition)
	if err != nil {
		return nil, fmt.Errorf("definition of run %s: %w", run, err)
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

// CheckRun makes sure that run, if it was begun before, was begun with d: a run
// is one execution of one definition.
func (d Definition) CheckRun(j journal.Journal, space artifact.Space, run string) error {
	begun, err := OfRun(j, space, run)
	if err != nil || begun == nil {
		return err
	}
	want, err := d.Encode()
	if err != nil {
		return err
	}
	have, err := begun.Encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(want, have) {
		return fmt.Errorf("run %s was begun with other parameters, sources or seed: choose another --run, or leave it out", run)
	}
	return nil
}
