package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
	"bitnet1/stages/pack/huggingface"
)

// huggingFaceCommand writes folders for transformers. It is no output of the stage's jobs: a job's outputs follow from
// its input alone, and the results that a model card shows are found later, beside the job.
func huggingFaceCommand() *cli.Command {
	return &cli.Command{
		Name: "huggingface", Usage: "write a folder that Hugging Face's transformers loads, with a model card",
		Description: "Either of a file, or of a checkpoint of a run: then the card has the run's sources, commands and " +
			"results.\n\nExample:\n   pack huggingface --in packed/step-000600.bit2 --out my-model",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "in", Usage: "`FILE` of the model: a .bit2, or a checkpoint"},
			&cli.StringFlag{Name: "run", Usage: "`RUN` that trained the model, in place of --in"},
			&cli.StringFlag{Name: "checkpoint", Value: "last", Usage: "which checkpoint of the run: last, best or a step"},
			&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"},
				Usage: "data `DIR`ectory: artifacts, runs, events"},
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory"},
			&cli.StringFlag{Name: "name", Usage: "of the model, in its card", DefaultText: "the name of the directory"},
			&cli.StringFlag{Name: "language", Usage: "of the training text, for the card: en, say"},
			&cli.StringFlag{Name: "license", Usage: "of the model, for the card: cc-by-4.0, say"},
			&cli.BoolFlag{Name: "force", Usage: "write into a directory that has files"},
		},
		Action: writeHuggingFace,
	}
}

func writeHuggingFace(c *cli.Context) error {
	if err := checkHuggingFace(c); err != nil {
		return err
	}
	out, path := c.String("out"), c.String("in")
	about := huggingface.About{Language: c.String("language"), License: c.String("license")}
	from := "--in " + command.Quoted(path)
	if c.IsSet("run") {
		var err error
		if about.Run, err = history.Read(c.String("data"), c.String("run")); err != nil {
			return err
		}
		if about.Row, err = rowOf(about.Run, c.String("checkpoint")); err != nil {
			return err
		}
		if path, err = modelOf(c.String("data"), about.Run.ID, about.Row); err != nil {
			return err
		}
		from = fmt.Sprintf("--run %s --checkpoint %s", command.Quoted(c.String("run")), about.Row.Name)
	}
	about.Command = "pack huggingface " + from + " --out " + command.Quoted(out)
	whole, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	about.Name = cmp.Or(c.String("name"), filepath.Base(whole))
	m, err := huggingface.Open(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if err := m.Write(out, about); err != nil {
		return fmt.Errorf("writing %s: %w", out, err)
	}
	fmt.Fprintln(c.App.Writer, out)
	return nil
}

// checkHuggingFace refuses flags that do not go together, and a directory that has files.
func checkHuggingFace(c *cli.Context) error {
	switch {
	case c.NArg() > 0:
		return command.Usagef("unexpected argument %q: the model is given by --in or --run", c.Args().First())
	case c.IsSet("in") == c.IsSet("run"):
		return command.Usagef("say which model, in one way: --in FILE or --run RUN")
	case c.IsSet("in") && c.IsSet("checkpoint"):
		return command.Usagef("--checkpoint does nothing with --in: leave it out")
	case c.String("out") == "":
		return command.Usagef("say where to: --out DIR")
	}
	files, err := os.ReadDir(c.String("out"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(files) > 0 && !c.Bool("force") {
		return command.Usagef("--out %s has files: name another directory, or write into it with --force", c.String("out"))
	}
	return nil
}

// rowOf finds a checkpoint in the table of a run.
func rowOf(run *history.Run, checkpoint string) (*results.Row, error) {
	if len(run.Tables) == 0 || len(run.Tables[0].Rows) == 0 {
		return nil, fmt.Errorf("run %s has no checkpoint yet", run.ID)
	}
	table := run.Tables[0]
	var names []string
	for _, r := range table.Rows {
		if names = append(names, r.Name); r.Name == checkpoint {
			return r, nil
		}
	}
	switch checkpoint {
	case "last":
		return table.Last(), nil
	case "best":
		if row, _ := table.Best(); row != nil {
			return row, nil
		}
	}
	return nil, fmt.Errorf("run %s has no checkpoint %s: use last, or one of the steps %s", run.ID, checkpoint,
		strings.Join(names, ", "))
}

// modelOf is the file of a run's checkpoint: the packed model, or where there is none the checkpoint itself.
func modelOf(data, run string, row *results.Row) (string, error) {
	store, j := artifact.ReadOnly(data), journal.Open(data)
	packs, err := journal.Bodies[event.PackWritten](j, run)
	if err != nil {
		return "", err
	}
	saved, err := journal.Bodies[event.CheckpointSaved](j, run)
	if err != nil {
		return "", err
	}
	var files []artifact.Ref
	for _, c := range slices.Backward(saved) { // of equal steps the last one
		if strconv.Itoa(c.Step) != row.Name {
			continue
		}
		for _, p := range packs {
			if p.Model.Digest == c.Model.Digest {
				files = append(files, p.Pack)
			}
		}
		files = append(files, c.Model)
	}
	for _, ref := range files {
		if store.Has(ref) {
			return store.Path(ref)
		}
	}
	return "", fmt.Errorf("run %s: the checkpoint of step %s is no longer in the data directory (freed by pipeline gc?): "+
		"choose another with --checkpoint", run, row.Name)
}
