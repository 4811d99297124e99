package stage

import (
	"context"
	"fmt"
	"path/filepath"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/results"
)

// params are the stage's defaults, overlaid by its section in the run's definition, overlaid by the command line.
func (s *service[P, E]) params(ctx context.Context, run string) (params P, def *definition.Definition, err error) {
	s.mu.Lock()
	def, known := s.definitions[run]
	s.mu.Unlock()
	if !known {
		if def, err = definition.OfRun(s.journal, s.space, run); err != nil {
			return s.spec.Defaults, nil, err
		}
		if def == nil {
			if err := s.checkDirectory(ctx, run); err != nil {
				return s.spec.Defaults, nil, err
			}
		}
		if err := results.Declare(s.journal, run, s.spec.declaration()); err != nil {
			return s.spec.Defaults, nil, err
		}
		s.mu.Lock()
		s.definitions[run] = def
		s.mu.Unlock()
	}
	params, err = resolve(s.spec, sectionOf(def, s.spec.Name), s.overlay)
	return params, def, err
}

// sectionOf is what a definition, which may be nil, says of a stage.
func sectionOf(def *definition.Definition, stage string) []byte {
	if def == nil {
		return nil
	}
	return def.Stages[stage]
}

// checkDirectory makes sure that a run of which the journal has no beginning was not begun in another data directory:
// its parameters and artifacts are there.
func (s *service[P, E]) checkDirectory(ctx context.Context, run string) error {
	events, _, err := s.bus.Since(ctx, run, event.RunStarted{}.Kind(), 0)
	if err != nil {
		return err
	}
	for _, k := range events {
		if started, err := event.Into[event.RunStarted](k.Envelope); err == nil && started.Data != "" {
			return elsewhere{fmt.Errorf("run %s keeps its data in %s, and this stage serves %s: give the stage that directory "+
				"with --data or BITNET1_DATA",
				run, started.Data, artifact.DirectoryName(filepath.Dir(s.records)))}
		}
	}
	return nil
}

// elsewhere is the error of a process that was given the wrong data directory.
type elsewhere struct{ error }

// Unfit says that no later job of the process can do better.
func (elsewhere) Unfit() bool { return true }

// resolve makes a stage's parameters of its defaults, a section and flags.
func resolve[P any, E event.Body](spec Spec[P, E], section []byte, overlay func(*P) error) (P, error) {
	params := spec.Defaults
	if err := param.Decode(section, &params); err != nil {
		return params, fmt.Errorf("stage %s: %w", spec.Name, err)
	}
	if overlay != nil {
		if err := overlay(&params); err != nil {
			return params, err
		}
	}
	if spec.Check != nil {
		if err := spec.Check(params); err != nil {
			return params, fmt.Errorf("stage %s: %w", spec.Name, err)
		}
	}
	if spec.Complete != nil {
		if err := spec.Complete(&params); err != nil {
			return params, fmt.Errorf("stage %s: %w", spec.Name, err)
		}
	}
	return params, nil
}
