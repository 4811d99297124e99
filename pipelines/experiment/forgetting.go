package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

func forgettingCommand() *cli.Command {
	return &cli.Command{
		Name: "forgetting", Usage: "compare a finetuned checkpoint with the one it began from, on the datasets of both",
		Description: "Has every stage of the run that measures checkpoints on a dataset measure both checkpoints on both " +
			"datasets, and writes\nforgetting.md and forgetting.csv.\n\nExample:\n   experiment forgetting --run " +
			"v76-glm-ft-nano-1a2b3c4d",
		Flags: append(commonFlags(),
			&cli.StringFlag{Name: "run", Usage: "the finetuning `RUN`"},
			&cli.StringFlag{Name: "dataset", Usage: "`MANIFEST` of the dataset before finetuning (default: found among the " +
				"runs of the data directory)"},
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory (default: the folder forgetting of the run)"},
		),
		Before: command.Required("run RUN"),
		Action: func(c *cli.Context) error {
			f, err := newForgetting(c)
			if err != nil {
				return err
			}
			t, err := f.measure(c.Context)
			if err != nil {
				return err
			}
			err = writeFiles(f.out, "forgetting", map[string]func(io.Writer) error{".md": t.writeMarkdown, ".csv": t.writeCSV})
			if err != nil {
				return err
			}
			return show(c.App.Writer, t)
		},
	}
}

// forgetting is two checkpoints and two datasets, as files, and the stages that measure them.
type forgetting struct {
	programs      string
	out           string
	before, after string // checkpoints
	datasets      []namedDataset
	stages        []results.Declaration
}

type namedDataset struct{ name, manifest string }

// newForgetting finds them in the data directory.
func newForgetting(c *cli.Context) (*forgetting, error) {
	store, err := artifact.Open(c.String("data"))
	if err != nil {
		return nil, err
	}
	j, run := journal.Open(store.Dir()), c.String("run")
	f := &forgetting{programs: programs(c), out: c.String("out")}
	if f.out == "" {
		f.out = filepath.Join(j.RunDir(run), "forgetting")
	}
	last, err := lastCheckpoint(j, run)
	if err != nil {
		return nil, err
	}
	if f.stages, err = measuring(c.Context, j, run, f.programs); err != nil {
		return nil, err
	}
	f.after = filepath.Join(j.RunDir(run), last.stage, last.Model.Name)
	if f.before, err = initialCheckpoint(j, store, run, last.stage, f.after); err != nil {
		return nil, err
	}
	before, err := checkpoint.Open(f.before)
	if err != nil {
		return nil, err
	}
	defer before.Close()
	old := c.String("dataset")
	if old == "" {
		if old, err = findDataset(j, before.Dataset); err != nil {
			return nil, err
		}
	}
	own, err := datasetOf(j, run, last.Manifest.Digest)
	f.datasets = []namedDataset{{"before finetuning", old}, {"finetuning", own}}
	return f, err
}

// measuring lists the stages of a run that measure checkpoints on a dataset, of those whose programs are there.
func measuring(ctx context.Context, j journal.Journal, run, programs string) ([]results.Declaration, error) {
	declared, err := results.Declared(j, run, results.Ask(programs))
	if err != nil {
		return nil, err
	}
	var found []results.Declaration
	for _, d := range declared {
		var says struct {
			OnDataset bool `json:"on_dataset"`
		}
		answer, err := results.Describe(ctx, d.Stage, filepath.Join(programs, d.Stage))
		if err == nil && json.Unmarshal(answer, &says) == nil && says.OnDataset &&
			d.Answers == (event.CheckpointSaved{}).Kind() {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("run %s has no stage that measures checkpoints on a dataset, and whose program is in %s", run,
			programs)
	}
	return found, nil
}

// trained is a checkpoint and the stage that has saved it.
type trained struct {
	event.CheckpointSaved
	stage string
	job   string // its key
}

// lastCheckpoint is the last one that the run trained with its own parameters.
func lastCheckpoint(j journal.Journal, run string) (last trained, err error) {
	all, err := j.Read(run, event.CheckpointSaved{}.Kind())
	if err != nil {
		return last, err
	}
	for _, e := range all {
		saved, err := event.Into[event.CheckpointSaved](e)
		if err != nil {
			return last, err
		}
		if len(e.Overrides) == 0 && saved.Step >= last.Step { // of one step, the last counts
			last = trained{saved, e.Stage, e.Job}
		}
	}
	if last.Model.Digest == "" {
		runs, err := j.Runs()
		return last, errors.Join(err, fmt.Errorf("run %s has no checkpoint: %w", run, command.NoSuchRun(run, runs)))
	}
	return last, nil
}

// initialCheckpoint finds what the finetuned checkpoint began from: in the store, or where its run's definition says.
func initialCheckpoint(j journal.Journal, store *artifact.Store, run, by, after string) (string, error) {
	m, err := checkpoint.Open(after)
	if err != nil {
		return "", err
	}
	defer m.Close()
	var recipe struct {
		InitDigest string `json:"init_digest"`
	}
	if err := json.Unmarshal(m.Recipe, &recipe); err != nil || recipe.InitDigest == "" {
		return "", fmt.Errorf("run %s began from random parameters: give a run that was started with train.init", run)
	}
	if path, err := store.Path(artifact.Ref{Digest: recipe.InitDigest, Kind: "checkpoint", Name: "init"}); err == nil {
		return path, nil
	}
	d, err := definition.OfRun(j, store, run)
	if err != nil || d == nil {
		return "", fmt.Errorf("run %s: its definition is missing: %w", run, err)
	}
	var train struct {
		Init string `json:"init"`
	}
	if err := json.Unmarshal(d.Stages[by], &train); err != nil {
		return "", fmt.Errorf("run %s: %w", run, err)
	}
	sum, _, err := digest.File(train.Init)
	if err != nil {
		return "", fmt.Errorf("the checkpoint that run %s began from: %w", run, err)
	}
	if sum != recipe.InitDigest {
		return "", fmt.Errorf("%s is no longer the checkpoint that run %s began from", train.Init, run)
	}
	return train.Init, nil
}

// findDataset finds the manifest with a digest, its shards beside it, among the runs.
func findDataset(j journal.Journal, sum string) (string, error) {
	runs, err := j.Runs()
	if err != nil {
		return "", err
	}
	for _, run := range runs {
		if path, err := datasetOf(j, run, sum); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no run in this data directory has the dataset %s that the checkpoint was trained on: give "+
		"its manifest with --dataset", digest.Short(sum))
}

// datasetOf finds the manifest with a digest in a run.
func datasetOf(j journal.Journal, run, sum string) (string, error) {
	all, err := j.Read(run, event.DatasetSealed{}.Kind())
	if err != nil {
		return "", err
	}
	for _, e := range all {
		sealed, err := event.Into[event.DatasetSealed](e)
		if err == nil && sealed.Manifest.Digest == sum {
			return filepath.Join(j.RunDir(run), e.Stage, sealed.Manifest.Name), nil
		}
	}
	return "", fmt.Errorf("run %s has not sealed the dataset %s", run, digest.Short(sum))
}

// measure has the stages measure both checkpoints on both datasets. The table has a row for each dataset and each
// column that says which values are better.
func (f *forgetting) measure(ctx context.Context) (table, error) {
	t := table{
		title:   filepath.Base(f.after) + " against the checkpoint that its training began from",
		columns: []column{{Name: "validation text"}, {Name: "measure"}, {Name: "before"}, {Name: "after"}, {Name: "change"}},
		fixed:   2,
	}
	for i, d := range f.datasets {
		before, err := f.one(ctx, f.before, d.manifest, fmt.Sprintf("before-%d", i))
		if err != nil {
			return t, err
		}
		after, err := f.one(ctx, f.after, d.manifest, fmt.Sprintf("after-%d", i))
		if err != nil {
			return t, err
		}
		for _, m := range before {
			k := slices.IndexFunc(after, func(a measured) bool { return a.key() == m.key() })
			if k < 0 {
				continue
			}
			t.rows = append(t.rows, []any{d.name, m.Name, m.cell, after[k].cell, m.change(after[k].cell)})
			if i == 0 {
				t.legend = append(t.legend, m.Column)
			}
		}
	}
	return t, nil
}

// measured is a column of a stage and its value for one checkpoint on one dataset.
type measured struct {
	results.Column
	stage string
	cell  results.Cell
}

func (m measured) key() string { return m.stage + "." + m.Key }

// change is how much more the value of the other checkpoint is.
func (m measured) change(after results.Cell) results.Cell {
	more := after.Number() - m.cell.Number()
	if isPercent(m.Column) {
		return results.Cell{Text: fmt.Sprintf("%+.1f %%", 100*more), Value: more}
	}
	return results.Cell{Text: fmt.Sprintf("%+.3f", more), Value: more}
}

// one is what the stages measure of a checkpoint on a dataset.
func (f *forgetting) one(ctx context.Context, checkpoint, manifest, name string) (all []measured, err error) {
	for _, d := range f.stages {
		var said bytes.Buffer
		err := callTo(ctx, &said, filepath.Join(f.programs, d.Stage), "run", "--json",
			"--in", checkpoint, "--dataset", manifest, "--out", filepath.Join(f.out, name), "--log-level", "warn")
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(said.Bytes()) {
			var out struct {
				Kind string         `json:"kind"`
				Body map[string]any `json:"body"`
			}
			if err := json.Unmarshal(line, &out); err != nil {
				return nil, fmt.Errorf("%s printed what is no output of a stage: %w", d.Stage, err)
			}
			for _, r := range d.Results {
				if r.Kind == out.Kind {
					all = append(all, measuredBy(d.Stage, r, out.Body)...)
				}
			}
		}
	}
	return all, nil
}

// measuredBy are the values of a result that can be compared.
func measuredBy(stage string, r results.Result, body map[string]any) (all []measured) {
	for _, c := range r.Columns {
		if cell, ok := c.Cell(body); ok && c.Better != "" {
			all = append(all, measured{c, stage, cell})
		}
	}
	return all
}
