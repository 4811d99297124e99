// Command experiment answers questions that take more than one run: what a grid of parameters does, whether it is more
// than other seeds do, and what finetuning makes a model forget. It starts the launcher and the stages' programs, reads
// what they report, and writes tables and results files, of which it prints tables again. It measures nothing itself.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/terminal"
)

func main() {
	app := &cli.App{
		Name: "experiment", Usage: "compare many runs", HideVersion: true,
		Description: "Example:\n   experiment grid --grid train.alibi=true,false --grid " +
			"train.stream_bits=1,4 pipelines/v76.yml",
		Commands: []*cli.Command{gridCommand(), curvesCommand(), forgettingCommand(), recordCommand(),
			tableCommand(), plotCommand()},
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usage,
		DisableSliceFlagSeparator: true,
		Action: func(c *cli.Context) error {
			return command.UsageError(fmt.Errorf("unknown command %q: use grid, curves, forgetting, record, table or plot "+
				"(--help explains them)",
				c.Args().First()))
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = usage
	}
	os.Exit(command.Main(app, arranged(app, os.Args)))
}

// arranged are the arguments of the program, flags first.
func arranged(app *cli.App, args []string) []string {
	if len(args) < 2 {
		return args
	}
	switch name := args[1]; name {
	case "grid":
		isPipelineFile := func(arg string) bool { return filepath.Ext(arg) == ".yml" || filepath.Ext(arg) == ".yaml" }
		return append(args[:2:2], command.Arrange(args[2:], app.Command(name).Flags, "source", isPipelineFile)...)
	case "record", "table", "plot":
		return append(args[:2:2], command.Arrange(args[2:], app.Command(name).Flags, "", nil)...)
	}
	return args
}

func usage(c *cli.Context, err error, _ bool) error {
	return command.UsageError(param.FlagError(err, c.Command.Flags))
}

func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"},
			Usage: "data `DIR`ectory: artifacts, runs, events"},
		&cli.StringFlag{Name: "programs", Usage: "`DIR`ectory of the launcher's and the stages' programs " +
			"(default: where this program is)"},
	}
}

func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "replace the files of another experiment of that name"}
}

// programs is the folder of the programs that this one starts.
func programs(c *cli.Context) string {
	if dir := c.String("programs"); dir != "" {
		return dir
	}
	self, err := os.Executable()
	if err != nil {
		return "."
	}
	return filepath.Dir(self)
}

// callTo runs a program to its end, with its standard output to stdout. An interrupt of this program interrupts that
// one.
func callTo(ctx context.Context, stdout io.Writer, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted: the same command continues where it stopped")
		}
		return fmt.Errorf("%s: %w (what it said is above)", filepath.Base(program), err)
	}
	return nil
}

// outDir is where an experiment's files go.
func outDir(c *cli.Context, name string) string {
	if out := c.String("out"); out != "" {
		return out
	}
	return filepath.Join(c.String("data"), "experiments", name)
}

// writeFiles makes dir and in it, for every suffix, the file NAME and suffix.
func writeFiles(dir, name string, files map[string]func(io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for suffix, write := range files {
		var b bytes.Buffer // what cannot be written leaves an older file as it is
		if err := write(&b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+suffix), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// show prints a table.
func show(screen io.Writer, t table) error {
	fmt.Fprintln(screen)
	return t.writeText(screen, terminal.Width(screen))
}
