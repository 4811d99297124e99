package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/corpus"
	"bitnet1/pipelines/pipeline/pipelinefile"
	"bitnet1/shared/data/source"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
)

// findSources finds the files that the run reads. Remote ones are fetched when they are tokenized.
func (p *plan) findSources(ctx context.Context, c *cli.Context, file *pipelinefile.File) error {
	inputs := inputsOf(c, file)
	if len(inputs) == 0 {
		return errors.New("no sources: give the key sources in the pipeline file, or --source FILE")
	}
	named := make([]source.Named, len(inputs))
	for i, in := range inputs {
		var err error
		if named[i].Location, err = p.writeOwn(in.Location, c.String("data"), file.Seed); err != nil {
			return err
		}
		if len(in.Parameters) > 0 {
			b, err := json.Marshal(in.Parameters) // sorts the keys
			if err != nil {
				return err
			}
			named[i].Parameters = string(b)
		}
	}
	client := source.Client{
		Getenv:   os.Getenv,
		LeaveOut: artifact.IsDirectory, // or a run would read what the run before has written
		Waiting:  func(host string) { fmt.Fprintf(c.App.ErrWriter, "waiting for %s (no answer yet)\n", host) },
		Retrying: func(err error, pause time.Duration) {
			fmt.Fprintf(c.App.ErrWriter, "trying again in %s: %v\n", pause, err)
		},
	}
	var err error
	if p.sources, err = client.FindAll(ctx, named); err != nil {
		return err
	}
	p.keys, err = client.Credentials.Environ()
	return err
}

// inputsOf are the sources as the command line or the pipeline file names them.
func inputsOf(c *cli.Context, file *pipelinefile.File) []pipelinefile.Input {
	if !c.IsSet("source") {
		return file.Sources
	}
	var inputs []pipelinefile.Input
	for _, location := range c.StringSlice("source") {
		inputs = append(inputs, pipelinefile.Input{Location: location})
	}
	return inputs
}

// writeOwn writes a source that the project makes itself, and returns where its files are. It returns any other
// location unchanged.
func (p *plan) writeOwn(location, data string, seed uint64) (string, error) {
	switch {
	case location == "sample":
		report, err := sample(data)
		p.notes = append(p.notes, report...)
		return filepath.Join(sampleDir(data), "*.parquet"), err
	case strings.HasPrefix(location, "copy:"):
		task, err := corpus.ParseCopyTask(location, seed)
		if err != nil {
			return "", err
		}
		return task.Write(filepath.Join(data, "copy"))
	}
	return location, nil
}

// definitionOf are the sources as a run's definition has them, without their locations.
func definitionOf(found []source.Found) []definition.Source {
	sources := make([]definition.Source, len(found))
	for i, f := range found {
		sources[i] = definition.Source{Name: f.Name, Digest: f.Digest, Size: f.Size,
			Parameters: json.RawMessage(f.Parameters)}
	}
	return sources
}

// checkSources calls the stage that reads sources to check the parameters that differ between sources.
func (p *plan) checkSources(ctx context.Context, s plannedStage) error {
	var problems []error
	checked := map[string]bool{"": true}
	for _, f := range p.sources {
		if checked[f.Parameters] {
			continue
		}
		checked[f.Parameters] = true
		section := map[string]json.RawMessage{}
		for _, part := range [][]byte{p.definition.Stages[s.Name], []byte(f.Parameters)} {
			if err := json.Unmarshal(part, &section); err != nil {
				return err
			}
		}
		b, err := json.Marshal(section)
		if err != nil {
			return err
		}
		if err := s.checkParameters(ctx, b); err != nil {
			problems = append(problems, fmt.Errorf("source %s: %w", f.Name, err))
		}
	}
	return errors.Join(problems...)
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
