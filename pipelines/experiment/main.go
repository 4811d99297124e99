// Command experiment answers questions that take more than one run: what a grid of parameters does, and what finetuning
// makes a model forget. It starts the launcher and the stages' programs, reads what they report, and writes a table. It
// measures nothing itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/stage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := &cli.App{
		Name: "experiment", Usage: "compare many runs", HideVersion: true,
		Description:               "Example:\n   experiment grid --grid train.alibi=true,false --grid train.stream_bits=1,4 pipelines/v76.yml",
		Commands:                  []*cli.Command{gridCommand(), curvesCommand(), forgettingCommand()},
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usage,
		DisableSliceFlagSeparator: true,
		Action: func(c *cli.Context) error {
			return stage.UsageError(fmt.Errorf("unknown command %q: use grid, curves or forgetting (--help explains them)", c.Args().First()))
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = usage
	}
	os.Exit(stage.ExitStatus("experiment", app.RunContext(ctx, os.Args), os.Stderr))
}

func usage(_ *cli.Context, err error, _ bool) error { return stage.UsageError(err) }

func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"}, Usage: "data `DIR`ectory: artifacts, runs, events"},
		&cli.StringFlag{Name: "programs", Usage: "`DIR`ectory of the launcher's and the stages' programs (default: where this program is)"},
	}
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

// call runs a program to its end. Interrupting this one interrupts it.
func call(ctx context.Context, program string, args ...string) error {
	return callTo(ctx, io.Discard, program, args...)
}

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

// writeTable writes t to dir as NAME.md and NAME.csv, and shows it if there is a screen.
func writeTable(screen io.Writer, dir, name string, t table) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for suffix, write := range map[string]func(io.Writer) error{".md": t.writeMarkdown, ".csv": t.writeCSV} {
		f, err := os.Create(filepath.Join(dir, name+suffix))
		if err != nil {
			return err
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return err
		}
	}
	if screen == nil {
		return nil
	}
	fmt.Fprintln(screen)
	return t.writeMarkdown(screen)
}
