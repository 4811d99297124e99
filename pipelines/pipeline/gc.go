package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/garbage"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/results"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name: "gc", Usage: "free the artifacts that no run names and no unfinished job needs",
		Description: "Without --yes it only says what would go. A data directory that a program uses is left alone.\n\n" +
			"Example:\n   pipeline gc --keep-checkpoints 2 --yes",
		Flags: []cli.Flag{
			dataFlag(), jsonFlag(), &cli.BoolFlag{Name: "yes", Usage: "do it"},
			&cli.IntFlag{Name: "keep-checkpoints", Usage: "of finished runs keep the last `N` checkpoints and the best, and " +
				"free the others (0: keep all)"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return command.UsageError(fmt.Errorf("%s: gc takes no arguments", c.Args().First()))
			}
			if c.Int("keep-checkpoints") < 0 {
				return command.UsageError(errors.New("--keep-checkpoints: give a number from 1; 0 keeps all"))
			}
			dir := c.String("data")
			release, err := seize(dir)
			if err != nil {
				return err
			}
			defer release()
			unnamed, err := garbage.Unnamed(dir, c.Int("keep-checkpoints"))
			if err != nil {
				return err
			}
			var size int64
			for _, o := range unnamed {
				size += o.Size
				if !c.Bool("yes") {
					continue
				}
				if err := artifact.RemoveObject(dir, o.Digest); err != nil {
					return err
				}
			}
			what := fmt.Sprintf("%s, %s", plural(len(unnamed), "artifact"), results.Size(size))
			switch {
			case c.Bool("json"):
				fmt.Fprintf(c.App.Writer, `{"type":"gc","artifacts":%d,"bytes":%d,"removed":%v}`+"\n", len(unnamed), size,
					c.Bool("yes"))
			case len(unnamed) == 0:
				fmt.Fprintln(c.App.Writer, what+": nothing to remove")
			case c.Bool("yes"):
				fmt.Fprintln(c.App.Writer, what+": removed")
			case c.Int("keep-checkpoints") > 0:
				fmt.Fprintln(c.App.Writer, what+" that no run names, or of old checkpoints; add --yes to remove them")
			default:
				fmt.Fprintln(c.App.Writer, what+" that no run names; add --yes to remove them")
			}
			return nil
		},
	}
}
