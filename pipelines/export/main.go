// Command export writes the numbers of runs for other people's tools: TensorBoard event files, and Parquet with a row
// for each number. Equal runs make equal bytes. It reads files alone and measures nothing.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
)

func main() {
	cli.HelpPrinter = command.PrintHelp
	os.Exit(command.ExitStatus("export", newApp().Run(os.Args), os.Stderr))
}

// format is a form in which metrics are written.
type format struct {
	name  string
	file  func(run *history.Run) string // seen from the output directory
	write func(w io.Writer, run *history.Run, all []metric) error
}

var formats = []format{
	{"parquet", func(r *history.Run) string { return r.ID + ".parquet" }, writeParquet},
	{"tensorboard", eventsFile, writeEvents},
}

func formatNames() (names []string) {
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

func newApp() *cli.App {
	return &cli.App{
		Name: "export", Usage: "write the numbers of runs as TensorBoard event files or as Parquet",
		HideVersion: true, HideHelpCommand: true,
		Description: "Every logged step, every result of a checkpoint and every measure of a head is a metric.\n\n" +
			"Example:\n   export --run v77-nano-a5ed9c9c --format tensorboard",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"},
				Usage: "data `DIR`ectory: artifacts, runs, events"},
			&cli.StringSliceFlag{Name: "run", Usage: "`RUN` to export; give one flag for each (default: all runs)"},
			&cli.StringFlag{Name: "format", Usage: strings.Join(formatNames(), " or ")},
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory (default: experiments/export/FORMAT in the data directory)"},
		},
		Before:                    command.Required("format " + strings.Join(formatNames(), "|")),
		ExitErrHandler:            func(*cli.Context, error) {},
		DisableSliceFlagSeparator: true,
		OnUsageError:              command.OnUsageError,
		Action:                    export,
	}
}

func export(c *cli.Context) error {
	if c.NArg() > 0 {
		return command.UsageError(fmt.Errorf("%s: name runs with --run", c.Args().First()))
	}
	f, err := formatOf(c.String("format"))
	if err != nil {
		return command.UsageError(err)
	}
	ids := c.StringSlice("run")
	if len(ids) == 0 {
		if ids, err = journal.Open(c.String("data")).Runs(); err != nil {
			return err
		}
	}
	if len(ids) == 0 {
		return fmt.Errorf("there are no runs in %s: --data names another directory", c.String("data"))
	}
	out := cmp.Or(c.String("out"), filepath.Join(c.String("data"), "experiments", "export", f.name))
	for _, id := range ids {
		if err := exportRun(c, f, id, out); err != nil {
			return err
		}
	}
	return nil
}

func formatOf(name string) (format, error) {
	if i := slices.IndexFunc(formats, func(f format) bool { return f.name == name }); i >= 0 {
		return formats[i], nil
	}
	if name == "wandb" {
		return format{}, errors.New("--format wandb: the files of an offline run of W&B have no documented form; W&B's own " +
			"program takes event files: use --format tensorboard, and then wandb sync on its folder")
	}
	return format{}, fmt.Errorf("--format %s: use %s", name, strings.Join(formatNames(), " or "))
}

func exportRun(c *cli.Context, f format, id, out string) error {
	run, err := history.Read(c.String("data"), id)
	if err != nil {
		return err
	}
	all := metricsOf(run)
	if len(all) == 0 {
		fmt.Fprintf(c.App.ErrWriter, "run %s has no numbers yet: nothing is written\n", id)
		return nil
	}
	var b bytes.Buffer
	if err := f.write(&b, run, all); err != nil {
		return fmt.Errorf("run %s as %s: %w", id, f.name, err)
	}
	path := filepath.Join(out, f.file(run))
	if err := artifact.WriteFile(path, b.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s: %d numbers\n", path, len(all))
	return nil
}
