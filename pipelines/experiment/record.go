package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
	"bitnet1/shared/run/resultsfile"
)

func hardwareFlag() cli.Flag {
	return &cli.StringFlag{Name: "hardware", Usage: "`NAME` of what the runs are trained on, for the results file, such " +
		"as 'one H200'"}
}

func recordCommand() *cli.Command {
	return &cli.Command{
		Name: "record", Usage: "add runs that were made elsewhere to a results file", ArgsUsage: "MODEL=FOLDER | FILE …",
		Description: "A FOLDER is what `train run --out FOLDER` wrote, here or on another machine: train.jsonl, and .jobs " +
			"or the last checkpoint,\nand times, the packed model and the reports of evaluate and probe where they are there. " +
			"MODEL is the name of\nthe row; runs of other seeds have the same.\nA FILE has lines of a results file: of " +
			"another one, or of a program that is not ours, of which a line has at least\n" +
			`   {"model": "dense", "seed": 1, "tokens": 52428800, "seconds": 361, "results": {"validation_bits": 6.25}}` + "\n" +
			"A run that the results file has already takes the place of its line.\n\nExample:\n" +
			"   experiment record --results docs/recipes/v77.jsonl --hardware 'one H200' v77=out-1 v77=out-2 dense.jsonl",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "results", Usage: "results `FILE` to add to"},
			hardwareFlag(),
		},
		Before: command.Required("results FILE"),
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return command.UsageError(errors.New("give what to record: experiment record --results FILE MODEL=FOLDER"))
			}
			var runs []resultsfile.Run
			for _, arg := range c.Args().Slice() {
				found, err := runsOf(arg)
				if err != nil {
					return err
				}
				runs = append(runs, found...)
			}
			for i := range runs {
				if runs[i].Hardware == "" {
					runs[i].Hardware = c.String("hardware")
				}
			}
			if err := eachOnce(runs); err != nil {
				return err
			}
			added, replaced, err := resultsfile.Add(c.String("results"), runs...)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "%s: %d runs added, %d replaced\n", c.String("results"), added, replaced)
			return nil
		},
	}
}

// runsOf reads the runs of an argument: MODEL=FOLDER, or a file of lines.
func runsOf(arg string) ([]resultsfile.Run, error) {
	model, dir, named := strings.Cut(arg, "=")
	info, err := os.Stat(arg)
	switch {
	case err == nil && info.IsDir():
		return nil, command.UsageError(fmt.Errorf("%s is a folder: say which model it has, as MODEL=%s", arg, arg))
	case err == nil || !named:
		return resultsfile.Read(arg)
	}
	if info, err = os.Stat(dir); err == nil && !info.IsDir() {
		return nil, command.UsageError(fmt.Errorf("%s is a file, whose lines name their models: leave out %s=", dir, model))
	}
	run, err := lineOfFolder(model, dir)
	return []resultsfile.Run{run}, err
}

// eachOnce refuses runs of which one would replace the other.
func eachOnce(runs []resultsfile.Run) error {
	given := map[string]bool{}
	for _, r := range runs {
		if given[r.Key()] {
			return fmt.Errorf("model %s, seed %d is given twice with the same parameters: give one of them, or another name",
				r.Model, r.Seed)
		}
		given[r.Key()] = true
	}
	return nil
}
