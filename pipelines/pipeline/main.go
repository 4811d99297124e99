// Command pipeline launches runs: it reads a pipeline file, starts the event server and the stages, announces the
// sources, shows what happens, and starts again what dies. It does none of the stages' work and no stage knows it.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/corpus"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
)

func main() {
	cli.HelpPrinter = command.PrintHelp
	app := &cli.App{
		Name: "pipeline", Usage: "run pipelines of 1-bit language model training", HideVersion: true,
		Description: "Example:\n   pipeline run pipelines/v76.yml",
		Commands: []*cli.Command{runCommand(), runsCommand(), lineageCommand(), gcCommand(), verifyCommand(),
			repairCommand(), dlqCommand(), usersCommand(), sampleCommand(), cleanCommand()},
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usage,
		DisableSliceFlagSeparator: true,
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return cli.ShowAppHelp(c)
			}
			return command.UsageError(fmt.Errorf("unknown command %q: use run, runs, lineage, gc, verify, repair, "+
				"dlq, users, sample or clean (--help explains them)", c.Args().First()))
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = usage
		for _, sub := range c.Subcommands {
			sub.OnUsageError = usage
		}
	}
	args := os.Args
	if len(args) > 1 && args[1] == "run" {
		args = append(args[:2:2], command.Arrange(args[2:], app.Command("run").Flags, "source", isPipelineFile)...)
	}
	os.Exit(command.ExitStatus("pipeline", app.Run(args), os.Stderr))
}

func usage(c *cli.Context, err error, _ bool) error {
	return command.UsageError(suggestSet(c, err, os.Args))
}

func dataFlag() cli.Flag {
	return &cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"},
		Usage: "data `DIR`ectory: artifacts, runs, events"}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", EnvVars: []string{"BITNET1_JSON"}, Usage: "print JSON lines"}
}

func runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "run a pipeline file, or continue or show its run when it was begun before", ArgsUsage: "FILE",
		Description: "Example:\n   pipeline run --preset nano --set train.steps=100 pipelines/v76.yml",
		Flags: []cli.Flag{
			dataFlag(), command.BucketFlag(), jsonFlag(),
			&cli.StringFlag{Name: "preset", Usage: "size of the model and its training: nano, 75M, 300M, or a file in the " +
				"folder presets beside FILE (default: nano without a GPU)"},
			&cli.StringSliceFlag{Name: "source", Usage: "`FILE`s or patterns to train on, or sample; replaces the file's " +
				"sources; takes several at once"},
			&cli.BoolFlag{Name: "check", Usage: "only check the pipeline file and the flags; start nothing"},
			&cli.StringSliceFlag{Name: "set", Usage: "override a parameter: `STAGE.KEY=VALUE`"},
			&cli.Uint64Flag{Name: "seed", Usage: "seed of the run; replaces the file's"},
			&cli.StringFlag{Name: "run", Usage: "id of the `RUN` (default: made of name, preset and a digest " +
				"of all that defines it)"},
			&cli.StringSliceFlag{Name: "deadline", Usage: "longest time for one job, `[STAGE=]DURATION`, such as " +
				"train=2h; also a key of FILE"},
			&cli.StringSliceFlag{Name: "attempts", Usage: "how often a job is begun without getting anywhere before it is " +
				"given up, `[STAGE=]N`; also a key of FILE"},
			&cli.StringSliceFlag{Name: "metrics", Usage: "serve Prometheus metrics of a stage, `STAGE=ADDRESS`; further " +
				"workers take the ports above; also a key of FILE"},
			&cli.IntFlag{Name: "nats-port", Usage: "port of the event server on 127.0.0.1 (0: any free one)"},
			command.OutageFlag(), viewFlag(),
			&cli.DurationFlag{Name: "stall", Value: 5 * time.Minute, Usage: "say so when a stage that has events to answer " +
				"shows no progress for this long (0: never)"},
			&cli.StringFlag{Name: "stages-dir", Usage: "`DIR`ectory of the stages' programs (default: where this program is)"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return command.UsageError(errors.New("give one pipeline file: pipeline run [flags] FILE"))
			}
			return launch(c)
		},
	}
}

func sampleCommand() *cli.Command {
	return &cli.Command{
		Name: "sample", Usage: "write the sample corpus: FineWeb-Edu-schema parquet from prose that the machine has",
		Description: "Example:\n   pipeline sample --data ./data",
		Flags:       []cli.Flag{dataFlag()},
		Action: func(c *cli.Context) error {
			store, err := artifact.Open(c.String("data"))
			if err != nil {
				return err
			}
			report, err := corpus.Sample(sampleDir(store.Dir()))
			if err != nil {
				return err
			}
			fmt.Fprint(c.App.Writer, sampleText(report))
			return nil
		},
	}
}

func sampleDir(data string) string { return filepath.Join(data, "sample") }

func sampleText(r corpus.Report) string {
	documents, size, tokens := r.Totals()
	text := fmt.Sprintf("sample corpus: %d documents, %.2f MB of text, %d GPT-2 tokens\n", documents, float64(size)/1e6,
		tokens)
	for _, b := range r.Books {
		text += fmt.Sprintf("  %-23s  %2d documents  %s\n", b.File, b.Documents, b.Title)
	}
	for _, m := range r.Missing {
		text += "  left out: " + m + "\n"
	}
	return text
}
