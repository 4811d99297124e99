package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/data/source"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/resultsfile"
)

func gridCommand() *cli.Command {
	return &cli.Command{
		Name: "grid", Usage: "run a pipeline file with every combination of parameters", ArgsUsage: "FILE",
		Description: "Runs one cell of the grid after the other and writes NAME.md, NAME.csv, NAME.png and a line of a " +
			"results file after each.\n" +
			"A cell whose run has finished is not run again, and cells share the jobs that are the same in both, so the same " +
			"command\ncontinues where it stopped.\n\n" +
			"Example:\n   experiment grid --name streams --grid train.stream_bits=16,4,1 --grid train.alibi=true,false --set " +
			"train.steps=300 pipelines/v76.yml",
		Flags: append(commonFlags(),
			&cli.StringSliceFlag{Name: "grid", Usage: "an axis: `STAGE.KEY=VALUE,VALUE`; lists in brackets; " +
				"give one flag for each axis"},
			&cli.StringFlag{Name: "seeds", Usage: "run every cell with each of these `SEEDS`, such as 1,2,3, and show means"},
			&cli.StringFlag{Name: "baseline", Usage: "with --seeds: compare the rows with this `ROW`, such as " +
				"stream_bits=1, instead of the best"},
			&cli.StringFlag{Name: "results", Usage: "results `FILE` that gets a line for each run (default: NAME.jsonl in the " +
				"output directory)"},
			hardwareFlag(),
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the experiment (default: made of a digest of what it asks)"},
			forceFlag(),
			&cli.StringFlag{Name: "preset", Usage: "as pipeline run takes it"},
			&cli.StringSliceFlag{Name: "source", Usage: "as pipeline run takes it"},
			&cli.StringSliceFlag{Name: "set", Usage: "as pipeline run takes it: for all cells"},
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory (default: experiments/NAME in the data directory)"},
			&cli.StringSliceFlag{Name: "plot", Usage: "`COLUMN`s to plot (default: of each stage the first that says " +
				"which values are better)"},
		),
		Action: func(c *cli.Context) error {
			switch {
			case c.NArg() != 1:
				return command.UsageError(errors.New("give one pipeline file: experiment grid [flags] FILE"))
			case !c.IsSet("grid") && !c.IsSet("seeds"):
				return command.UsageError(errors.New("give an axis: --grid STAGE.KEY=VALUE,VALUE, or --seeds 1,2,3"))
			case c.IsSet("baseline") && !c.IsSet("seeds"):
				return command.UsageError(errors.New("--baseline compares means over seeds: give --seeds, too"))
			}
			e, err := newExperiment(c)
			if err != nil {
				return command.UsageError(err)
			}
			return e.run(c.Context, c)
		},
	}
}

// experiment is a grid over a pipeline file.
type experiment struct {
	name     string
	axes     []axis // that of the seeds is the last
	baseline string
	programs string
	common   []string // flags of every cell
	file     string
	out      string
	record   string // the results file
	hardware string
	data     string
	plotted  []string // names of columns
	cells    []cell   // so far
}

// cell is a run of the grid.
type cell struct {
	values  []string       // of the axes
	run     string         // its id; empty where it failed before it had one
	results *results.Table // nil where it failed
}

func newExperiment(c *cli.Context) (*experiment, error) {
	e := &experiment{
		name: c.String("name"), file: c.Args().First(), programs: programs(c), data: c.String("data"),
		plotted: c.StringSlice("plot"), baseline: c.String("baseline"), hardware: c.String("hardware"),
	}
	for _, text := range c.StringSlice("grid") {
		a, err := parseAxis(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(e.axes, func(other axis) bool { return other.key == a.key }) {
			return nil, fmt.Errorf("--grid %s: %s is an axis already: give all its values to one --grid", text, a.key)
		}
		e.axes = append(e.axes, a)
	}
	if c.IsSet("seeds") {
		a, err := parseSeeds(c.String("seeds"))
		if err != nil {
			return nil, err
		}
		e.axes = append(e.axes, a)
	}
	if err := e.checkBaseline(); err != nil {
		return nil, err
	}
	e.common = []string{"run", "--json", "--data", e.data}
	if c.IsSet("preset") {
		e.common = append(e.common, "--preset", c.String("preset"))
	}
	for _, flag := range []string{"source", "set"} {
		for _, v := range c.StringSlice(flag) {
			e.common = append(e.common, "--"+flag, v)
		}
	}
	q := question{Of: "grid", Given: []string{e.file}, Axes: map[string][]string{}}
	for _, arg := range e.common[4:] {
		q.Given = append(q.Given, source.Shown(arg)) // it is kept in a file
	}
	for _, a := range e.axes {
		q.Axes[a.key] = a.values
	}
	if err := e.check(c.Context); err != nil {
		return nil, err
	}
	e.name = cmp.Or(e.name, q.name())
	e.out = outDir(c, e.name)
	e.record = cmp.Or(c.String("results"), filepath.Join(e.out, e.name+".jsonl"))
	return e, claim(e.out, e.name, q, c.Bool("force"))
}

// check has the launcher check every cell, with one seed, so that a wrong value and values that exclude each other are
// found before the first cell is run. What the launcher says of the stages' columns is compared with those to plot.
func (e *experiment) check(ctx context.Context) error {
	axes := slices.Clone(e.axes)
	if last := &axes[len(axes)-1]; last.key == seedKey {
		last.values = last.values[:1] // parseSeeds has checked them all
	}
	for i, values := range cells(axes) {
		var said bytes.Buffer
		err := callTo(ctx, &said, filepath.Join(e.programs, "pipeline"), append(e.flags(values), "--check", e.file)...)
		if err == nil && i == 0 {
			err = e.choosePlots(said.Bytes())
		}
		if err != nil {
			return fmt.Errorf("%s: %w; nothing is run", e.label(values), err)
		}
	}
	return nil
}

// choosePlots compares the columns to plot with those that the stages declare. Where the user names none, they are the
// first column of each stage that says which values are better.
func (e *experiment) choosePlots(said []byte) error {
	var checked struct {
		Stages []results.Declaration `json:"stages"`
	}
	if err := json.Unmarshal(said, &checked); err != nil {
		return fmt.Errorf("what the launcher said of the stages: %w", err)
	}
	var names, best []string
	for _, d := range checked.Stages {
		first := ""
		for _, r := range d.Results {
			for _, c := range r.Columns {
				names = append(names, c.Name)
				if c.Better != "" && r.Row == nil && first == "" {
					first = c.Name
				}
			}
		}
		if first != "" {
			best = append(best, first)
		}
	}
	for _, name := range e.plotted {
		if !slices.Contains(names, name) {
			return fmt.Errorf("--plot %s: the columns are %s", name, strings.Join(names, ", "))
		}
	}
	if len(e.plotted) == 0 {
		e.plotted = best
	}
	return nil
}

// flags are what the launcher is given for a cell.
func (e *experiment) flags(values []string) []string {
	flags := slices.Clone(e.common)
	for i, v := range values {
		flags = append(flags, e.axes[i].flag(v)...)
	}
	return flags
}

// run runs all cells and writes the results after each.
func (e *experiment) run(ctx context.Context, c *cli.Context) error {
	all := cells(e.axes)
	var failed []error
	for i, values := range all {
		label := e.label(values)
		fmt.Fprintf(c.App.Writer, "cell %d of %d: %s\n", i+1, len(all), label)
		found, err := e.cell(ctx, values)
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", label, err))
		}
		e.cells = append(e.cells, found)
		if err := e.write(); err != nil {
			return err
		}
	}
	summary, err := e.summary()
	if err != nil {
		return err
	}
	if err := show(c.App.Writer, summary); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "\nwritten to %s: %s.md, .csv and .png\n", e.out, e.name)
	return errors.Join(failed...)
}

// table is what the cells so far have found: the last checkpoint of each.
func (e *experiment) table() table {
	t := table{title: e.title(), fixed: len(e.axes)}
	for _, a := range e.axes {
		t.columns = append(t.columns, column{Name: a.name()})
	}
	columns := e.columns()
	t.columns = append(append(t.columns, column{Name: "run"}, column{Name: "step"}), columns...)
	t.legend = columns
	for _, c := range e.cells {
		row := make([]any, 0, len(t.columns))
		for _, v := range c.values {
			row = append(row, v)
		}
		step := ""
		if c.results != nil {
			step = c.results.Last().Name
		}
		t.rows = append(t.rows, append(append(row, c.run, step), cellsOf(c.results, columns)...))
	}
	return t
}

func (e *experiment) title() string { return fmt.Sprintf("%s: %s", e.name, filepath.Base(e.file)) }

// columns are those of the cells so far.
func (e *experiment) columns() []column {
	var tables []*results.Table
	for _, c := range e.cells {
		tables = append(tables, c.results)
	}
	return columnsOf(tables)
}

// write writes what the cells so far have found: every cell for programs, and the summary for people.
func (e *experiment) write() error {
	summary, err := e.summary()
	if err != nil {
		return err
	}
	return writeFiles(e.out, e.name, map[string]func(io.Writer) error{
		".md": summary.writeMarkdown, ".csv": e.table().writeCSV,
		".png": pngOf(bars(summary, summary.fixed, e.plots(summary))),
	})
}

// plots are the columns to plot that the table has. Without any, the picture shows the steps.
func (e *experiment) plots(t table) []string {
	var there []string
	for _, name := range e.plotted {
		if slices.ContainsFunc(t.columns, func(c column) bool { return c.Name == name }) {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		there = []string{"step"}
	}
	return there
}

func (e *experiment) label(values []string) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = e.axes[i].name() + "=" + v
	}
	return strings.Join(parts, " ")
}

// cell has the launcher run one cell, or answer from what has been run, and reads its results.
func (e *experiment) cell(ctx context.Context, values []string) (cell, error) {
	found := cell{values: values}
	var said bytes.Buffer
	err := callTo(ctx, &said, filepath.Join(e.programs, "pipeline"), append(e.flags(values), e.file)...)
	found.run = runOf(said.Bytes())
	if err != nil {
		return found, err
	}
	if found.results, err = resultsOf(journal.Open(e.data), found.run, e.programs); err != nil {
		return found, err
	}
	line, err := e.line(found)
	if err == nil {
		_, _, err = resultsfile.Add(e.record, line)
	}
	return found, err
}

// runOf finds the id of the run in what the launcher printed.
func runOf(said []byte) (run string) {
	lines := bufio.NewScanner(bytes.NewReader(said))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var m struct {
			Type string `json:"type"`
			Run  string `json:"run"`
		}
		if json.Unmarshal(lines.Bytes(), &m) == nil && (m.Type == "run" || m.Type == "summary") {
			run = m.Run
		}
	}
	return run
}

func findColumn(columns []column, name string) (int, bool) {
	for i, c := range columns {
		if c.Name == name {
			return i, true
		}
	}
	return 0, false
}
