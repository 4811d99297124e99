package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/stage"
)

func forgettingCommand() *cli.Command {
	return &cli.Command{
		Name: "forgetting", Usage: "compare a finetuned checkpoint with the one it began from, on the datasets of both",
		Description: "Evaluates and probes both checkpoints on both datasets and writes forgetting.md and forgetting.csv.\n\nExample:\n   experiment forgetting --run v76-glm-ft-nano-1a2b3c4d",
		Flags: append(commonFlags(),
			&cli.StringFlag{Name: "run", Required: true, Usage: "the finetuning `RUN`"},
			&cli.StringFlag{Name: "dataset", Usage: "`MANIFEST` of the dataset before finetuning (default: found among the runs of the data directory)"},
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory (default: the folder forgetting of the run)"},
		),
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

// forgetting is two checkpoints and two datasets, as files.
type forgetting struct {
	programs      string
	out           string
	before, after string // checkpoints
	datasets      []namedDataset
}

type namedDataset struct{ name, manifest string }

// newForgetting finds the four in the data directory.
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
	f.after = filepath.Join(j.RunDir(run), "train", last.Model.Name)
	if f.before, err = initialCheckpoint(j, store, run, f.after); err != nil {
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
	f.datasets = []namedDataset{{"before finetuning", old}, {"finetuning", filepath.Join(j.RunDir(run), "shard", last.Manifest.Name)}}
	return f, nil
}

// lastCheckpoint is the last one that the run trained with its own parameters.
func lastCheckpoint(j journal.Journal, run string) (last event.CheckpointSaved, err error) {
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
			last = saved
		}
	}
	if last.Model.Digest == "" {
		runs, err := j.Runs()
		return last, errors.Join(err, fmt.Errorf("run %s has no checkpoint: %w", run, stage.NoSuchRun(run, runs)))
	}
	return last, nil
}

// initialCheckpoint finds what the finetuned checkpoint began from: in the store, or where its run's definition says.
func initialCheckpoint(j journal.Journal, store *artifact.Store, run, after string) (string, error) {
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
	if err := json.Unmarshal(d.Stages["train"], &train); err != nil {
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
func findDataset(j journal.Journal, of string) (string, error) {
	runs, err := j.Runs()
	if err != nil {
		return "", err
	}
	for _, run := range runs {
		sealed, err := journal.Bodies[event.DatasetSealed](j, run)
		if err != nil {
			continue
		}
		for _, s := range sealed {
			if s.Manifest.Digest == of {
				return filepath.Join(j.RunDir(run), "shard", s.Manifest.Name), nil
			}
		}
	}
	return "", fmt.Errorf("no run in this data directory has the dataset %s that the checkpoint was trained on: give its manifest with --dataset", digest.Short(of))
}

// measure evaluates and probes both checkpoints on both datasets.
func (f *forgetting) measure(ctx context.Context) (table, error) {
	t := table{
		title: fmt.Sprintf("%s against %s", filepath.Base(f.after), filepath.Base(f.before)),
		columns: []column{
			{name: "validation text"}, {name: "bits/token before"}, {name: "bits/token after"}, {name: "forgotten"},
			{name: "top IPMR before", percent: true}, {name: "top IPMR after", percent: true},
		},
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
		t.rows = append(t.rows, []any{
			d.name, before.bits, after.bits, after.bits - before.bits, before.ipmr, after.ipmr,
		})
	}
	return t, nil
}

// measured is one checkpoint on one dataset.
type measured struct{ bits, ipmr float64 }

func (f *forgetting) one(ctx context.Context, checkpoint, manifest, name string) (m measured, err error) {
	out := filepath.Join(f.out, name)
	for _, program := range []string{"evaluate", "probe"} {
		err := call(ctx, filepath.Join(f.programs, program), "run", "--in", checkpoint, "--dataset", manifest, "--out", out, "--log-level", "warn")
		if err != nil {
			return m, err
		}
	}
	var evaluation struct {
		Bits float64 `json:"bits_per_token"`
	}
	var health struct {
		Top struct {
			IPMR float64 `json:"ipmr"`
		} `json:"top"`
	}
	if err := readOne(filepath.Join(out, "*_evaluation.json"), &evaluation); err != nil {
		return m, err
	}
	err = readOne(filepath.Join(out, "*_pointer_health.json"), &health)
	return measured{evaluation.Bits, health.Top.IPMR}, err
}

// readOne reads the one JSON file that matches a pattern.
func readOne(pattern string, into any) error {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%d files match %s, want one: remove the folder and try again", len(found), pattern)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", found[0], err)
	}
	return nil
}
