package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

// subject is the stage that is tested, and the run that it answers.
type subject struct {
	words       []string // that start its program
	description stage.Description
	data, run   string
	limit       time.Duration

	events []event.Envelope // of the run, without what the stage itself has said
	own    map[string]bool  // digests of artifacts that the stage alone has made
	inputs []event.Envelope // of those, what the stage answers

	expected map[string][]string // ids of what the stage announces undisturbed, by kind
}

func newSubject(ctx context.Context, words []string, data, run string, limit time.Duration) (*subject, error) {
	s := &subject{words: words, data: data, run: run, limit: limit}
	if err := s.describe(ctx); err != nil {
		return nil, err
	}
	j := journal.Open(data)
	all, err := j.All(run)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		runs, err := j.Runs()
		if err != nil {
			return nil, err
		}
		return nil, command.NoSuchRun(run, runs)
	}
	s.own = map[string]bool{}
	for _, e := range all {
		if s.said(e) {
			for _, ref := range record.Mentioned(e.Body) {
				s.own[ref.Digest] = true
			}
		}
	}
	for _, e := range all {
		if s.said(e) {
			continue
		}
		for _, ref := range record.Mentioned(e.Body) {
			delete(s.own, ref.Digest)
		}
		s.events = append(s.events, e)
		if e.Kind == s.description.Kind {
			s.inputs = append(s.inputs, e)
		}
	}
	if len(s.inputs) == 0 {
		return nil, fmt.Errorf("stage %s answers %s, and run %s has no such event: choose a run that has some",
			s.description.Name, s.description.Kind, run)
	}
	return s, nil
}

// said reports whether the stage has announced an event.
func (s *subject) said(e event.Envelope) bool {
	if e.Kind == (event.JobFinished{}).Kind() {
		finished, err := event.Into[event.JobFinished](e)
		return err == nil && finished.Listener == s.description.Name
	}
	return slices.Contains(s.description.Emits, e.Kind)
}

// describe reads the stage's description, from the program or from the file beside it.
func (s *subject) describe(ctx context.Context) error {
	program := filepath.Base(s.words[len(s.words)-1])
	name := strings.TrimSuffix(program, filepath.Ext(program))
	said, err := results.Describe(ctx, name, s.words...)
	if err != nil {
		return fmt.Errorf("the description of stage %s: %w", name, err)
	}
	if err := json.Unmarshal(said, &s.description); err != nil {
		return fmt.Errorf("the description of stage %s is no JSON of a description (docs/pipelines.md): %w", name, err)
	}
	return s.checkDescription()
}

func (s *subject) checkDescription() error {
	d := s.description
	var bad error
	if !event.ValidKind(d.Kind) {
		bad = fmt.Errorf("kind: %q is not noun.verb", d.Kind)
	}
	for _, kind := range d.Emits {
		if !event.ValidKind(kind) {
			bad = errors.Join(bad, fmt.Errorf("emits: %q is not noun.verb", kind))
		}
	}
	if !event.ValidRun(d.Name) {
		bad = errors.Join(bad, fmt.Errorf("name: %q has other characters than letters, digits, - and _", d.Name))
	}
	if bad == nil {
		bad = d.Declaration().Check()
	}
	if bad != nil {
		return fmt.Errorf("the stage's description: %w", bad)
	}
	return nil
}

func (s *subject) command(ctx context.Context, words ...string) *exec.Cmd {
	all := append(slices.Clone(s.words), words...)
	return exec.CommandContext(ctx, all[0], all[1:]...)
}

// copyTo makes a data directory with the run's artifacts and the events that the stage has not said. Artifacts are
// links to the run's own: they never change.
func (s *subject) copyTo(dir string) (journal.Journal, error) {
	if _, err := artifact.Open(dir); err != nil {
		return journal.Journal{}, err
	}
	objects, err := artifact.Objects(s.data)
	if err != nil {
		return journal.Journal{}, err
	}
	for _, o := range objects {
		if s.own[o.Digest] {
			continue
		}
		from, err := filepath.Abs(artifact.ObjectPath(s.data, o.Digest))
		if err != nil {
			return journal.Journal{}, err
		}
		to := artifact.ObjectPath(dir, o.Digest)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return journal.Journal{}, err
		}
		if err := os.Symlink(from, to); err != nil {
			return journal.Journal{}, err
		}
	}
	j := journal.Open(dir)
	for _, e := range s.events {
		if _, err := j.Write(e); err != nil {
			return journal.Journal{}, err
		}
	}
	return j, nil
}
