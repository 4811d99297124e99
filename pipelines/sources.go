package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/corpus"
	"bitnet1/shared/pipeline"
	"bitnet1/shared/source"
)

// findSources finds the files that the run reads. Remote ones are fetched when they are tokenized.
func (p *plan) findSources(ctx context.Context, c *cli.Context, file *pipeline.File) error {
	locations := file.Sources
	if c.IsSet("source") {
		locations = c.StringSlice("source")
	}
	if len(locations) == 0 {
		return errors.New("no sources: give the key sources in the pipeline file, or --source FILE")
	}
	locations, err := p.writeOwn(locations, c.String("data"), file.Seed)
	if err != nil {
		return err
	}
	client := source.Client{Getenv: os.Getenv}
	if p.sources, err = client.FindAll(ctx, locations); err != nil {
		return err
	}
	p.keys, err = client.Credentials.Environ()
	return err
}

// writeOwn writes the sources that the project makes itself, and puts their files in their places.
func (p *plan) writeOwn(locations []string, data string, seed uint64) (files []string, err error) {
	for _, location := range locations {
		switch {
		case location == "sample":
			report, err := sample(data)
			if err != nil {
				return nil, err
			}
			p.notes = append(p.notes, report...)
			location = filepath.Join(sampleDir(data), "*.parquet")
		case strings.HasPrefix(location, "copy:"):
			task, err := corpus.ParseCopyTask(location, seed)
			if err != nil {
				return nil, err
			}
			if location, err = task.Write(filepath.Join(data, "copy")); err != nil {
				return nil, err
			}
		}
		files = append(files, location)
	}
	return files, nil
}

// definitionOf are the sources as a run's definition has them: without where they are.
func definitionOf(found []source.Found) []pipeline.Source {
	sources := make([]pipeline.Source, len(found))
	for i, f := range found {
		sources[i] = pipeline.Source{Name: f.Name, Digest: f.Digest, Size: f.Size}
	}
	return sources
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
