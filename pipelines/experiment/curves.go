package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

func curvesCommand() *cli.Command {
	return &cli.Command{
		Name: "curves", Usage: "draw the losses of runs beside each other and write their table",
		Description: "Reads the training logs, evaluations and probes of runs and writes NAME.png, NAME.csv " +
			"(every step) and NAME.md.\n" +
			"Lines are training losses, dots are checkpoints on validation text.\n\n" +
			"Example:\n   experiment curves --name streams --run strict=v76-75M-1a2b3c4d --run 'four bits=v76-75M-5e6f7a8b'",
		Flags: append(commonFlags(),
			&cli.StringSliceFlag{Name: "run", Required: true, Usage: "a `RUN`, or LABEL=RUN; give one flag for each"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the comparison (default: made of a digest of the runs)"},
			forceFlag(),
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory (default: experiments/NAME in the data directory)"},
		),
		Action: func(c *cli.Context) error {
			q := question{Of: "curves", Given: c.StringSlice("run")}
			j, name := journal.Open(c.String("data")), cmp.Or(c.String("name"), q.name())
			out := outDir(c, name)
			all, err := readCurves(j, c.StringSlice("run"), programs(c))
			if err != nil {
				return err
			}
			if err := claim(out, name, q, c.Bool("force")); err != nil {
				return err
			}
			last := lastCheckpoints(all)
			err = writeFiles(out, name, map[string]func(io.Writer) error{
				".md": last.writeMarkdown, ".csv": everyStep(all).writeCSV,
				".png": func(w io.Writer) error { return plotCurves(w, all) },
			})
			if err != nil {
				return err
			}
			if err := show(c.App.Writer, last); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "\nwritten to %s: %s.md, .csv and .png\n", out, name)
			return nil
		},
	}
}

// curve is how one run went.
type curve struct {
	label   string
	run     string
	log     []trainlog.Line
	last    trained
	results *results.Table
}

// readCurves reads what is known of runs, each given as RUN or as LABEL=RUN.
func readCurves(j journal.Journal, given []string, programs string) ([]curve, error) {
	var all []curve
	for _, text := range given {
		label, run, labelled := strings.Cut(text, "=")
		if !labelled {
			run = label
		}
		for _, other := range all {
			if other.run == run || other.label == label {
				return nil, command.UsageError(fmt.Errorf("--run %s: the run or its label is given before, as %s=%s", text,
					other.label, other.run))
			}
		}
		c, err := readCurve(j, run, programs)
		if err != nil {
			return nil, err
		}
		c.label = label
		all = append(all, c)
	}
	return all, nil
}

func readCurve(j journal.Journal, run, programs string) (c curve, err error) {
	c.run = run
	if c.last, err = lastCheckpoint(j, run); err != nil {
		return c, err
	}
	if c.results, err = resultsOf(j, run, programs); err != nil {
		return c, err
	}
	c.log, err = trainlog.Read(filepath.Join(j.RunDir(run), c.last.stage, trainlog.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: the training log is written as training goes on; has the run trained yet?", err)
	}
	return c, err
}

// lastCheckpoints is the table: the last checkpoint of each run.
func lastCheckpoints(all []curve) table {
	tables := make([]*results.Table, len(all))
	for i, c := range all {
		tables[i] = c.results
	}
	columns := columnsOf(tables)
	t := table{columns: append([]column{{Name: "run"}, {Name: "steps"}, {Name: "million tokens"}}, columns...),
		legend: columns, fixed: 1}
	for _, c := range all {
		row := []any{c.label, c.results.Last().Name, float64(c.last.Tokens) / 1e6}
		t.rows = append(t.rows, append(row, cellsOf(c.results, columns)...))
	}
	return t
}

// everyStep is the table of all runs' steps. Where a checkpoint was saved, it has the mean loss since the one before
// and the validation loss, too.
func everyStep(all []curve) table {
	t := table{columns: []column{
		{Name: "run"}, {Name: "step"}, {Name: "tokens"}, {Name: "training bits"}, {Name: "mean training bits"},
		{Name: "validation bits"},
	}}
	const training, mean, validation = 3, 4, 5
	row := func(c curve, step int, tokens int64) []any {
		if n := len(t.rows); n == 0 || t.rows[n-1][0] != c.label || t.rows[n-1][1] != float64(step) {
			t.rows = append(t.rows, []any{c.label, float64(step), float64(tokens), math.NaN(), math.NaN(), math.NaN()})
		}
		return t.rows[len(t.rows)-1]
	}
	for _, c := range all {
		for _, line := range c.log {
			switch l := line.(type) {
			case trainlog.Step:
				row(c, l.Step, l.Tokens)[training] = l.TrainBPC
			case trainlog.Checkpoint:
				r := row(c, l.Step, l.Tokens)
				if r[mean] = l.TrainBPC; l.ValBPC != nil {
					r[validation] = *l.ValBPC
				}
			}
		}
	}
	return t
}

// window is how many points of a curve are drawn: a point is the mean of the steps around it.
const window = 200

// points are a run's training losses, averaged, and the validation losses of its checkpoints, over millions of tokens.
func (c curve) points() (training, validation plotter.XYs) {
	var steps []trainlog.Step
	for _, line := range c.log {
		switch l := line.(type) {
		case trainlog.Step:
			steps = append(steps, l)
		case trainlog.Checkpoint:
			if l.ValBPC != nil {
				validation = append(validation, plotter.XY{X: float64(l.Tokens) / 1e6, Y: *l.ValBPC})
			}
		}
	}
	size := max(1, len(steps)/window)
	for ; len(steps) >= size; steps = steps[size:] {
		var mean plotter.XY
		for _, step := range steps[:size] {
			mean.X += float64(step.Tokens) / 1e6 / float64(size)
			mean.Y += step.TrainBPC / float64(size)
		}
		training = append(training, mean)
	}
	return training, validation
}

// plotCurves draws all runs into one picture.
func plotCurves(w io.Writer, all []curve) error {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = "million tokens", "bits per token"
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	lowest, middle := math.Inf(1), 0.0
	for i, c := range all {
		training, validation := c.points()
		if len(training) == 0 {
			return stage.Permanentf("run %s has trained no step yet", c.label)
		}
		line, err := plotter.NewLine(training)
		if err != nil {
			return fmt.Errorf("plotting %s: %w", c.label, err)
		}
		line.Color = plotutil.Color(i)
		dots, err := plotter.NewScatter(validation)
		if err != nil && len(validation) > 0 {
			return fmt.Errorf("plotting %s: %w", c.label, err)
		}
		p.Add(line)
		if len(validation) > 0 {
			dots.Color, dots.Shape, dots.Radius = line.Color, plotutil.Shape(i), vg.Points(3)
			p.Add(dots)
		}
		p.Legend.Add(c.label, line)
		for _, at := range append(training, validation...) {
			lowest = min(lowest, at.Y)
		}
		middle = max(middle, training[len(training)/20].Y)
	}
	// The first steps fall from log2(vocabulary) and would press everything else flat.
	p.X.Min, p.Y.Min, p.Y.Max = 0, lowest-0.1, middle
	canvas, err := p.WriterTo(18*vg.Centimeter, 11*vg.Centimeter, "png")
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(w)
	return err
}
