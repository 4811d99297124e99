// Command report writes what a run has left as one page that needs nothing else: figures, and every number in tables,
// beside the same figures as SVG and PNG for a paper. Of several runs it draws each measure into one figure and says in
// which parameters the runs differ. Equal runs make equal bytes. It reads files alone and measures nothing.
package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
)

func main() {
	cli.HelpPrinter = command.PrintHelp
	os.Exit(command.ExitStatus("report", newApp().Run(os.Args), os.Stderr))
}

func newApp() *cli.App {
	return &cli.App{
		Name: "report", Usage: "write a run's figures and numbers as one HTML page, and its figures as SVG and PNG",
		HideVersion: true, HideHelpCommand: true,
		Description: "The launcher writes the report of a run that has finished; this command does it at any time, and for " +
			"several runs\nbeside each other.\n\nExample:\n   report --run v77-nano-a5ed9c9c --compare v76-nano-8799682f",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"},
				Usage: "data `DIR`ectory: artifacts, runs, events"},
			&cli.StringFlag{Name: "run", Usage: "`RUN` to report"},
			&cli.StringSliceFlag{Name: "compare", Usage: "`RUN` to draw beside it; give one flag for each"},
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory (default: report in the run's folder, or " +
				"experiments/report-RUN in the data directory where runs are compared)"},
		},
		Before:                    command.Required("run RUN"),
		ExitErrHandler:            func(*cli.Context, error) {},
		DisableSliceFlagSeparator: true,
		OnUsageError:              command.OnUsageError,
		Action:                    report,
	}
}

func report(c *cli.Context) error {
	if c.NArg() > 0 {
		return command.UsageError(fmt.Errorf("%s: name runs with --run and --compare", c.Args().First()))
	}
	var runs []*history.Run
	seen := map[string]bool{}
	for _, id := range append([]string{c.String("run")}, c.StringSlice("compare")...) {
		if seen[id] {
			return command.UsageError(fmt.Errorf("run %s is given twice", id))
		}
		seen[id] = true
		run, err := history.Read(c.String("data"), id)
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	path := overview.ReportPath(journal.Open(c.String("data")), runs[0].ID)
	if len(runs) > 1 {
		path = filepath.Join(c.String("data"), "experiments", "report-"+runs[0].ID, filepath.Base(path))
	}
	out := cmp.Or(c.String("out"), filepath.Dir(path))
	path = filepath.Join(out, filepath.Base(path))
	if err := write(runs, path); err != nil {
		return fmt.Errorf("writing the report %s: %w", path, err)
	}
	fmt.Fprintln(c.App.Writer, path)
	return nil
}

// write writes the page and, beside it, its figures. What cannot be written leaves an older page as it is.
func write(runs []*history.Run, path string) error {
	figures := figuresOf(runs)
	for _, f := range figures {
		if err := f.draw(); err != nil {
			return fmt.Errorf("drawing %s: %w", f.Name, err)
		}
		base := filepath.Join(filepath.Dir(path), f.Name)
		if err := artifact.WriteFile(base+".svg", f.svg); err != nil {
			return err // the next figure would say the same: the disk is full, or not to be written
		}
		if err := artifact.WriteFile(base+".png", f.png); err != nil {
			return err
		}
	}
	text, err := pageOf(runs, figures).html()
	if err != nil {
		return err
	}
	return artifact.WriteFile(path, text)
}
