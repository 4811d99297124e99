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

	"bitnet1/shared/artifact"
	"bitnet1/shared/compute"
	"bitnet1/shared/corpus"
	"bitnet1/shared/param"
	"bitnet1/shared/pipeline"
	"bitnet1/shared/source"
	"bitnet1/shared/stage"
)

// plan is a run that is ready to start.
type plan struct {
	run        string
	definition pipeline.Definition
	stages     []plannedStage
	paths      map[string]string // source name -> file or URL
	versions   map[string]string // of remote sources
	notes      []string          // what was decided for the user, to be shown
}

// plannedStage is a stage of the run and how to start it.
type plannedStage struct {
	stage.Description
	command []string
	workers int
}

// prepare reads and checks everything that can be checked before anything is
// started.
func prepare(ctx context.Context, c *cli.Context) (*plan, error) {
	file, err := pipeline.Load(c.Args().First())
	if err != nil {
		return nil, err
	}
	p := &plan{}
	preset := p.choosePreset(c)
	if err := addPreset(file, c.Args().First(), preset); err != nil {
		return nil, err
	}
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
	if err := file.Check(fields); err != nil {
		return nil, err
	}
	if c.IsSet("seed") {
		file.Seed = c.Uint64("seed")
	}
	sources, err := p.findSources(ctx, c, file)
	if err != nil {
		return nil, err
	}
	if p.definition, err = file.Resolve(preset, sources, fields); err != nil {
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
func describe(ctx context.Context, c *cli.Context, file *pipeline.File, name string) (plannedStage, error) {
	s := plannedStage{command: file.Commands[name], workers: max(file.Workers[name], 1)}
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
		return s, fmt.Errorf("stage %s: what %q prints is not a description (see docs/stages.md)", name, strings.Join(s.command, " ")+" describe")
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
	}
	return errors.Join(problems...)
}

// findSources resolves the sources to files and digests them.
func (p *plan) findSources(ctx context.Context, c *cli.Context, file *pipeline.File) ([]pipeline.Source, error) {
	patterns := file.Sources
	if c.IsSet("source") {
		patterns = c.StringSlice("source")
	}
	if len(patterns) == 0 {
		return nil, errors.New("no sources: give the key sources in the pipeline file, or --source FILE")
	}
	p.paths, p.versions = map[string]string{}, map[string]string{}
	var files []string
	var sources []pipeline.Source
	for _, pattern := range patterns {
		if source.Remote(pattern) {
			found, err := p.findRemote(ctx, pattern)
			if err != nil {
				return nil, err
			}
			sources = append(sources, found...)
			continue
		}
		if pattern == "sample" {
			report, err := sample(c.String("data"))
			if err != nil {
				return nil, err
			}
			p.notes = append(p.notes, report...)
			pattern = filepath.Join(sampleDir(c.String("data")), "*.parquet")
		}
		if strings.HasPrefix(pattern, "copy:") {
			task, err := corpus.ParseCopyTask(pattern, file.Seed)
			if err != nil {
				return nil, err
			}
			if pattern, err = task.Write(filepath.Join(c.String("data"), "copy")); err != nil {
				return nil, err
			}
		}
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", pattern, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("source %s: no such file (paths are relative to the current directory)", pattern)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	local, err := p.digestSources(files)
	return append(local, sources...), err
}

// findRemote lists the files that a URL, a pattern or the name of a dataset
// stands for. They are fetched when they are tokenized.
func (p *plan) findRemote(ctx context.Context, location string) (sources []pipeline.Source, err error) {
	client := source.Client{Getenv: os.Getenv}
	found, err := client.Find(ctx, location)
	if err != nil {
		return nil, err
	}
	for _, o := range found {
		if p.paths[o.Name] != "" {
			return nil, fmt.Errorf("source %s: %s is named twice", location, o.Name)
		}
		sources = append(sources, pipeline.Source{Name: o.Name, Digest: o.Digest(), Size: o.Size})
		p.paths[o.Name], p.versions[o.Name] = o.URL, o.Version
	}
	return sources, nil
}

func (p *plan) digestSources(files []string) ([]pipeline.Source, error) {
	if len(files) == 0 {
		return nil, nil
	}
	names := sourceNames(files)
	sources := make([]pipeline.Source, len(files))
	for i, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("source %s is not a file: give a pattern, e.g. %s", path, filepath.Join(path, "*.parquet"))
		}
		digest, size, err := artifact.DigestFile(path)
		if err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		sources[i] = pipeline.Source{Name: names[i], Digest: digest, Size: size}
		p.paths[names[i]] = absolute
	}
	return sources, nil
}

// sourceNames gives every file a name that does not depend on where the files
// lie: its path below the deepest folder that holds them all.
func sourceNames(files []string) []string {
	common := filepath.Dir(files[0])
	for _, f := range files {
		for {
			relative, err := filepath.Rel(common, f)
			if err == nil && !strings.HasPrefix(relative, "..") {
				break
			}
			common = filepath.Dir(common)
		}
	}
	names := make([]string, len(files))
	for i, f := range files {
		relative, err := filepath.Rel(common, f)
		if err != nil {
			relative = filepath.Base(f)
		}
		names[i] = filepath.ToSlash(relative)
	}
	return names
}

// sample writes the sample corpus when it is not there yet.
func sample(data string) (notes []string, err error) {
	if found, _ := filepath.Glob(filepath.Join(sampleDir(data), "*.parquet")); len(found) > 0 {
		return nil, nil
	}
	report, err := corpus.Sample(sampleDir(data))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(sampleText(report)), "\n"), nil
}
