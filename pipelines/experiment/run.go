package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/stage"
)

func gridCommand() *cli.Command {
	return &cli.Command{
		Name: "grid", Usage: "run a pipeline file with every combination of parameters", ArgsUsage: "FILE",
		Description: "Runs one cell of the grid after the other and writes NAME.md, NAME.csv and NAME.png after each.\n" +
			"A cell whose run has finished is not run again, and cells share the jobs that are the same in both, so the same command\ncontinues where it stopped.\n\n" +
			"Example:\n   experiment grid --name streams --grid train.stream_bits=16,4,1 --grid train.alibi=true,false --set train.steps=300 pipelines/v76.yml",
		Flags: append(commonFlags(),
			&cli.StringSliceFlag{Name: "grid", Required: true, Usage: "an axis: `STAGE.KEY=VALUE,VALUE`; lists in brackets; give one flag for each axis"},
			&cli.StringFlag{Name: "name", Value: "grid", Usage: "`NAME` of the experiment"},
			&cli.StringFlag{Name: "preset", Usage: "as pipeline run takes it"},
			&cli.StringSliceFlag{Name: "source", Usage: "as pipeline run takes it"},
			&cli.StringSliceFlag{Name: "set", Usage: "as pipeline run takes it: for all cells"},
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory (default: experiments/NAME in the data directory)"},
			&cli.StringSliceFlag{Name: "plot", Value: cli.NewStringSlice(bitsColumn, ipmrColumn), Usage: "`COLUMN`s to plot"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return stage.UsageError(errors.New("give one pipeline file, after all flags: experiment grid [flags] FILE"))
			}
			e, err := newExperiment(c)
			if err != nil {
				return stage.UsageError(err)
			}
			return e.run(c.Context, c)
		},
	}
}

// experiment is a grid over a pipeline file.
type experiment struct {
	name     string
	axes     []axis
	launcher string
	common   []string // flags of every cell
	file     string
	out      string
	data     string
	plotted  []string
}

func newExperiment(c *cli.Context) (*experiment, error) {
	e := &experiment{
		name: c.String("name"), file: c.Args().First(), launcher: filepath.Join(programs(c), "pipeline"),
		data: c.String("data"), out: outDir(c), plotted: c.StringSlice("plot"),
	}
	for _, text := range c.StringSlice("grid") {
		a, err := parseAxis(text)
		if err != nil {
			return nil, err
		}
		e.axes = append(e.axes, a)
	}
	for _, name := range e.plotted {
		if _, ok := findColumn(resultColumns, name); !ok {
			return nil, fmt.Errorf("--plot %s: the columns are %s", name, strings.Join(columnNames(resultColumns), ", "))
		}
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
	return e, nil
}

// run runs all cells and writes the results after each.
func (e *experiment) run(ctx context.Context, c *cli.Context) error {
	t := table{title: fmt.Sprintf("%s: %s", e.name, filepath.Base(e.file))}
	for _, a := range e.axes {
		t.columns = append(t.columns, column{name: a.name()})
	}
	t.columns = append(t.columns, resultColumns...)
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
		row := make([]any, 0, len(t.columns))
		for _, v := range values {
			row = append(row, v)
		}
		t.rows = append(t.rows, append(row, found.cells()...))
		if err := e.write(t); err != nil {
			return err
		}
	}
	if err := show(c.App.Writer, t); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "\nwritten to %s: %s.md, .csv and .png\n", e.out, e.name)
	return errors.Join(failed...)
}

func (e *experiment) write(t table) error {
	return writeFiles(e.out, e.name, map[string]func(io.Writer) error{
		".md": t.writeMarkdown, ".csv": t.writeCSV,
		".png": func(w io.Writer) error { return plotTable(w, t, len(e.axes), e.plotted) },
	})
}

func (e *experiment) label(values []string) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = e.axes[i].name() + "=" + v
	}
	return strings.Join(parts, " ")
}

// cell has the launcher run one cell, or answer from what has been run, and reads the summary that it ends with.
func (e *experiment) cell(ctx context.Context, values []string) (result, error) {
	args := append([]string(nil), e.common...)
	for i, v := range values {
		args = append(args, "--set", e.axes[i].key+"="+v)
	}
	var said bytes.Buffer
	if err := callTo(ctx, &said, e.launcher, append(args, e.file)...); err != nil {
		return missing(), err
	}
	return readSummary(said.Bytes(), e.data)
}

// The columns of results.
const (
	bitsColumn   = "bits/token"
	copiedColumn = "copied"
	ipmrColumn   = "top IPMR"
)

var resultColumns = []column{
	{name: "step"}, {name: bitsColumn}, {name: "accuracy", percent: true}, {name: copiedColumn, percent: true},
	{name: ipmrColumn, percent: true}, {name: "top head"},
}

// result is what is known of a run's last checkpoint.
type result struct {
	Step         int     `json:"step"`
	BitsPerToken float64 `json:"bits_per_token"`
	BestHead     string  `json:"best_head"`
	IPMR         float64 `json:"ipmr"`
	CopyAccuracy float64 `json:"copy_accuracy"`
	accuracy     float64 // greedy, on the validation split; NaN unless evaluate was asked for it
}

// missing is the result of a cell that failed.
func missing() result {
	return result{BitsPerToken: math.NaN(), IPMR: math.NaN(), CopyAccuracy: math.NaN(), accuracy: math.NaN()}
}

// cells are r's values in the order of resultColumns.
func (r result) cells() []any {
	return []any{fmt.Sprint(r.Step), r.BitsPerToken, r.accuracy, r.CopyAccuracy, r.IPMR, r.BestHead}
}

// readSummary finds the launcher's summary in what it printed, and what the summary leaves out in the run's folder.
func readSummary(said []byte, data string) (result, error) {
	lines := bufio.NewScanner(bytes.NewReader(said))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var s struct {
			Type        string   `json:"type"`
			Run         string   `json:"run"`
			Checkpoints []result `json:"checkpoints"`
		}
		if json.Unmarshal(lines.Bytes(), &s) != nil || s.Type != "summary" || len(s.Checkpoints) == 0 {
			continue
		}
		r := s.Checkpoints[len(s.Checkpoints)-1]
		var evaluation struct {
			Accuracy *float64 `json:"accuracy"`
		}
		r.accuracy = math.NaN()
		report := filepath.Join(data, "runs", s.Run, "evaluate", fmt.Sprintf("step-%06d_evaluation.json", r.Step))
		if err := readOne(report, &evaluation); err == nil && evaluation.Accuracy != nil {
			r.accuracy = *evaluation.Accuracy
		}
		return r, nil
	}
	return missing(), errors.Join(lines.Err(), errors.New("the launcher printed no summary with a checkpoint"))
}

func columnNames(columns []column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return names
}

func findColumn(columns []column, name string) (int, bool) {
	for i, c := range columns {
		if c.name == name {
			return i, true
		}
	}
	return 0, false
}
