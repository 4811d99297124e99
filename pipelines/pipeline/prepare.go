package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/pipelinefile"
	"bitnet1/shared/data/source"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
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

// prepare reads and checks everything that can be checked before anything is started.
func prepare(ctx context.Context, c *cli.Context) (*plan, error) {
	if err := checkFlags(c); err != nil {
		return nil, err
	}
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
			return nil, command.UsageError(err)
		}
	}
	for _, key := range pipelinefile.ServingKeys {
		for _, text := range c.StringSlice(key) {
			if err := file.SetServing(key, text); err != nil {
				return nil, command.UsageError(err)
			}
		}
	}
	if err := file.Check(fields, p.readers()...); err != nil {
		return nil, err
	}
	if c.IsSet("seed") {
		file.Seed = c.Uint64("seed")
	}
	if err := errors.Join(checkReach(p.stages), checkLengths(inputsOf(c, file), file, fields)); err != nil {
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
	if err := p.checkValues(ctx, file); err != nil {
		return nil, err
	}
	p.run = c.String("run")
	if p.run == "" {
		p.run, err = p.definition.ID()
	}
	return p, err
}

// choosePreset picks the preset that was asked for or one that this machine can train.
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

// checkValues has every stage check its parameters beyond their types.
func (p *plan) checkValues(ctx context.Context, file *pipelinefile.File) error {
	var problems []error
	for _, s := range p.stages {
		err := s.checkParameters(ctx, p.definition.Stages[s.Name])
		if err != nil {
			if places := file.Given(s.Name, err.Error()); len(places) > 0 {
				err = fmt.Errorf("%w (given by %s)", err, strings.Join(places, " and "))
			}
		}
		problems = append(problems, err)
		if slices.Contains(p.readers(), s.Name) {
			problems = append(problems, p.checkSources(ctx, s))
		}
	}
	return errors.Join(problems...)
}

// readers are the stages that read sources.
func (p *plan) readers() []string {
	var names []string
	for _, s := range p.stages {
		if s.Kind == (event.SourceAdded{}).Kind() {
			names = append(names, s.Name)
		}
	}
	return names
}
