package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/pipelinefile"
	"bitnet1/shared/data/source"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/stage"
)

// plan is a run that is ready to start.
type plan struct {
	run        string
	definition definition.Definition
	stages     []plannedStage
	sources    []source.Found
	keys       []string // environment of the stages, with what opens the sources
	notes      []string // what was decided for the user, to be shown
}

// plannedStage is a stage of the run and how to start it.
type plannedStage struct {
	stage.Description
	command []string
	workers int
	serving func(worker int) []string // flags
}

// prepare reads and checks everything that can be checked before anything is
// started.
func prepare(ctx context.Context, c *cli.Context) (*plan, error) {
	file, err := pipelinefile.Load(c.Args().First())
	if err != nil {
		return nil, err
	}
	p := &plan{}
	name := p.choosePreset(c)
	preset, err := openPreset(c.Args().First(), name)
	if err != nil {
		return nil, err
	}
	file.AddPreset(preset)
	fields := map[string][]param.Field{}
	for _, name := range file.Stages() {
		s, err := describe(ctx, c, file, name)
		if err != nil {
			return nil, err
		}
		p.stages = append(p.stages, s)
		fields[name] = s.Parameters
	}
	for _, text := range c.StringSlice("set") {
		if err := file.Set(text, fields); err != nil {
			return nil, stage.UsageError(err)
		}
	}
	for _, key := range pipelinefile.ServingKeys {
		for _, text := range c.StringSlice(key) {
			if err := file.SetServing(key, text); err != nil {
				return nil, stage.UsageError(err)
			}
		}
	}
	if err := file.Check(fields); err != nil {
		return nil, err
	}
	if c.IsSet("seed") {
		file.Seed = c.Uint64("seed")
	}
	if err := errors.Join(checkReach(p.stages), checkCopyTasks(inputsOf(c, file), file, fields)); err != nil {
		return nil, err
	}
	if !c.Bool("check") {
		if err := p.findSources(ctx, c, file); err != nil {
			return nil, err
		}
	}
	if p.definition, err = file.Resolve(name, definitionOf(p.sources), fields); err != nil {
		return nil, err
	}
	if err := p.checkValues(ctx); err != nil {
		return nil, err
	}
	p.run = c.String("run")
	if p.run == "" {
		p.run, err = p.definition.ID()
	}
	return p, err
}

// choosePreset picks the preset that was asked for or one that this machine
// can train.
func (p *plan) choosePreset(c *cli.Context) string {
	if preset := c.String("preset"); preset != "" {
		return preset
	}
	n, err := compute.GPUs()
	if err != nil || n == 0 {
		p.notes = append(p.notes, fmt.Sprintf("preset nano, %v; --preset chooses another", err))
		return "nano"
	}
	p.notes = append(p.notes, fmt.Sprintf("preset 300M, on one of %s; --preset chooses another", plural(n, "GPU")))
	return "300M"
}

// describe asks a stage's program what it takes and gives.
func describe(ctx context.Context, c *cli.Context, file *pipelinefile.File, name string) (plannedStage, error) {
	s := plannedStage{
		command: file.Commands[name], workers: max(file.Workers[name], 1),
		serving: func(worker int) []string { return file.ServingFlags(name, worker) },
	}
	if len(s.command) == 0 {
		dir := c.String("stages-dir")
		if dir == "" {
			self, err := os.Executable()
			if err != nil {
				return s, err
			}
			dir = filepath.Dir(self)
		}
		s.command = []string{filepath.Join(dir, name)}
		if _, err := os.Stat(s.command[0]); err != nil {
			return s, fmt.Errorf("stage %s has no program %s: build it (task build), or say under commands how to start it", name, s.command[0])
		}
	}
	out, err := s.call(ctx, nil, "describe")
	if err != nil {
		return s, fmt.Errorf("stage %s: %w", name, err)
	}
	if err := json.Unmarshal(out, &s.Description); err != nil || s.Kind == "" {
		return s, fmt.Errorf("stage %s: what %q prints is not a description (docs/pipelines.md says what one holds)", name, strings.Join(s.command, " ")+" describe")
	}
	if err := s.Declaration().Check(); err != nil {
		return s, err
	}
	if s.Name != name {
		return s, fmt.Errorf("stage %s: its program calls itself %s", name, s.Name)
	}
	return s, nil
}

// call runs the stage's program with further arguments to its end.
func (s plannedStage) call(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.command[0], append(slices.Clone(s.command[1:]), args...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New(cmp.Or(strings.TrimSpace(stderr.String()), err.Error()))
	}
	return out, nil
}

// checkValues has every stage check its parameters beyond their types.
func (p *plan) checkValues(ctx context.Context) error {
	var problems []error
	for _, s := range p.stages {
		if _, err := s.call(ctx, p.definition.Stages[s.Name], "describe", "--check"); err != nil {
			problems = append(problems, err)
		}
		if s.Name == "tokenize" {
			problems = append(problems, p.checkSources(ctx, s))
		}
	}
	return errors.Join(problems...)
}
