package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/lineage"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/terminal"
)

func lineageCommand() *cli.Command {
	return &cli.Command{
		Name: "lineage", Usage: "show where an artifact came from, and make it again to see whether it is the same",
		ArgsUsage: "ARTIFACT",
		Description: "ARTIFACT is a file, RUN/NAME or the beginning of a digest. Shown are the jobs that made it with " +
			"their parameters, the events that they answered, and what they read, up to the rows of the sources.\n\n" +
			"Example:\n   pipeline lineage v76-nano-8799682f/step-000600.safetensors",
		Flags: []cli.Flag{
			dataFlag(), jsonFlag(),
			&cli.StringSliceFlag{Name: "folder", Usage: "output `DIR`ectory of a one-shot run; may be given several times"},
			&cli.BoolFlag{Name: "repeat", Usage: "do all of these jobs again, in a fresh data directory, and compare what " +
				"they make with what is recorded"},
			&cli.StringFlag{Name: "out", Usage: "fresh data `DIR`ectory of --repeat (default: a temporary one, which is " +
				"removed when all is the same)"},
			&cli.StringFlag{Name: "stages-dir", Usage: "`DIR`ectory of the stages' programs, for --repeat (default: where " +
				"this program is)"},
			&cli.BoolFlag{Name: "dot", Usage: "print the graph in the language of Graphviz"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return command.UsageError(errors.New("give one artifact, after all flags: pipeline lineage ARTIFACT"))
			}
			return showLineage(c)
		},
	}
}

func showLineage(c *cli.Context) error {
	h, err := lineage.Open(c.String("data"), c.StringSlice("folder")...)
	if err != nil {
		return err
	}
	sum, run, err := h.Resolve(c.Args().First())
	if err != nil {
		return err
	}
	g, err := h.Of(sum, run)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("repeat"):
		return repeat(c, h, g)
	case c.Bool("dot"):
		return g.WriteDot(c.App.Writer)
	case c.Bool("json"):
		return json.NewEncoder(c.App.Writer).Encode(struct {
			Type string `json:"type"`
			*lineage.Graph
		}{"lineage", g})
	}
	return g.WriteTree(c.App.Writer, terminal.Width(c.App.Writer))
}

// repeat does the jobs of a graph again, and says of each that it made the same.
func repeat(c *cli.Context, h *lineage.History, g *lineage.Graph) error {
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir := c.String("out")
	temporary := dir == ""
	if temporary {
		var err error
		if dir, err = os.MkdirTemp("", "bitnet1-repeat-"); err != nil {
			return err
		}
	}
	r := &lineage.Repetition{
		History: h, Dir: dir, Program: func(stage string) (string, error) { return ownProgram(c, stage) },
		Tell: func(job *lineage.Job, artifacts int, sameKey bool) {
			if c.Bool("json") {
				fmt.Fprintf(c.App.Writer, `{"type":"repeated","stage":%q,"job":%q,"artifacts":%d,"same_key":%v}`+"\n", job.Stage,
					job.Key, artifacts, sameKey)
				return
			}
			note := ""
			if !sameKey {
				note = " (the job has another key: of another version of the stage, or of a changed record)"
			}
			fmt.Fprintf(c.App.Writer, "%-10s job %s: %s, the same%s\n", job.Stage, digest.Short(job.Key),
				plural(artifacts, "artifact"), note)
		},
	}
	err := r.Repeat(ctx, g)
	switch {
	case err == nil && temporary, temporary && !errors.As(err, new(lineage.DifferenceError)):
		err = errors.Join(err, os.RemoveAll(dir))
	case err != nil:
		err = fmt.Errorf("%w (what was made is in %s)", err, dir)
	}
	return err
}
