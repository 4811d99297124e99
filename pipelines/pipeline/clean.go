package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/overview"
)

// dataEntries are the files and folders that the project's programs make in a data directory.
var dataEntries = []string{"objects", "tmp", "runs", "jobs", "nats", "sample", "copy", "experiments", overview.LockName}

func cleanCommand() *cli.Command {
	return &cli.Command{
		Name: "clean", Usage: "remove the data directory: all runs, artifacts and events",
		Description: "Files that were in the directory before its first use, or that somebody else has put there, stay.",
		Flags: []cli.Flag{dataFlag(),
			&cli.BoolFlag{Name: "yes", Usage: "do it; without this flag it only says what would go"}},
		Action: func(c *cli.Context) error {
			dir := c.String("data")
			ours, others, err := sortEntries(dir)
			if err != nil {
				return fmt.Errorf("%w: nothing is removed", err)
			}
			stay := ""
			if len(others) > 0 {
				stay = "; these are not the project's and stay: " + strings.Join(others, ", ")
			}
			if !c.Bool("yes") {
				fmt.Fprintf(c.App.Writer, "%s would be removed with all its runs%s; add --yes to do it\n", dir, stay)
				return nil
			}
			if err := clean(dir, ours); err != nil {
				return err
			}
			if len(others) == 0 {
				return os.Remove(dir)
			}
			fmt.Fprintf(c.App.Writer, "%s: all runs are removed%s\n", dir, stay)
			return nil
		},
	}
}

// sortEntries lists the entries of a data directory that are the project's, and all others.
func sortEntries(dir string) (ours, others []string, err error) {
	before, err := artifact.Recognize(dir)
	if err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case artifact.IsMark(name):
		case slices.Contains(dataEntries, name) && !slices.Contains(before, name):
			ours = append(ours, name)
		default:
			others = append(others, name)
		}
	}
	return ours, others, nil
}

// clean removes entries of a data directory that no program uses, and its mark.
func clean(dir string, entries []string) error {
	release, err := seize(dir)
	if err != nil {
		return err
	}
	defer release()
	var problems []error
	for _, name := range append(entries, overview.LockName) {
		problems = append(problems, os.RemoveAll(filepath.Join(dir, name)))
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return artifact.RemoveMark(dir)
}
