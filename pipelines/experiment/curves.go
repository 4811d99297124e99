package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/plot"
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
			"Lines are training losses, dots are checkpoints on validation text. --log draws a training log beside them:\n" +
			"train.jsonl of another machine, or what docs/examples/dense.py printed.\n\n" +
			"Example:\n   experiment curves --name streams --run strict=v76-75M-1a2b3c4d --run 'four bits=v76-75M-5e6f7a8b'",
		Flags: append(commonFlags(),
			&cli.StringSliceFlag{Name: "run", Usage: "a `RUN`, or LABEL=RUN; give one flag for each"},
			&cli.StringSliceFlag{Name: "log", Usage: "`LABEL=FILE` of a training log; give one flag for each"},
			&cli.StringFlag{Name: "over", Value: overTokens, Usage: "draw losses over `WHAT`: tokens, or seconds of training"},
			&cli.StringSliceFlag{Name: "speed", Usage: "`LABEL=TOKENS` a second of a log that has no times beside it"},
			&cli.IntFlag{Name: "points", Value: plot.DrawnPoints,
				Usage: "draw about `N` points of a long line, each the mean of the steps around it; fewer are less noise"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the comparison (default: made of a digest of the runs)"},
			forceFlag(),
			&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory (default: experiments/NAME in the data directory)"},
		),
		Action: func(c *cli.Context) error {
			q := question{Of: "curves", Given: slices.Concat(c.StringSlice("run"), c.StringSlice("log"))}
			j, name := journal.Open(c.String("data")), cmp.Or(c.String("name"), q.name())
			out := outDir(c, name)
			all, err := chosenCurves(c, j)
			if err != nil {
				return err
			}
			if err := claim(out, name, q, c.Bool("force")); err != nil {
				return err
			}
			last := lastCheckpoints(all)
			figure, err := picture(all, c.String("over"), c.Int("points"))
			if err != nil {
				return err
			}
			err = writeFiles(out, name, map[string]func(io.Writer) error{
				".md": last.writeMarkdown, ".csv": everyStep(all).writeCSV,
				".png": pngOf(figure),
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

// chosenCurves reads what the flags name.
func chosenCurves(c *cli.Context, j journal.Journal) ([]curve, error) {
	over := c.String("over")
	if over != overTokens && over != overSeconds {
		return nil, command.UsageError(fmt.Errorf("--over %s: use %s or %s", over, overTokens, overSeconds))
	}
	if n := c.Int("points"); n < 1 {
		return nil, command.UsageError(fmt.Errorf("--points %d: use 1 or more", n))
	}
	all, err := readCurves(j, c.StringSlice("run"), programs(c))
	if err == nil {
		all, err = withLogs(all, c.StringSlice("log"))
	}
	if err == nil && len(all) == 0 {
		err = command.UsageError(errors.New("give what to draw: --run RUN or --log LABEL=FILE"))
	}
	if err == nil && over == overSeconds {
		err = setClocks(all, c.StringSlice("speed"))
	}
	return all, err
}

// curve is how one run went.
type curve struct {
	label   string
	run     string
	log     []trainlog.Line
	path    string // of the log
	last    trained
	results *results.Table

	seconds map[int]float64 // of training until a step; nil unless losses are drawn over seconds
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
	c.path = filepath.Join(j.RunDir(run), c.last.stage, trainlog.FileName)
	c.log, err = trainlog.Read(c.path)
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
		row := []any{c.label, fmt.Sprint(c.last.Step), float64(c.last.Tokens) / 1e6}
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

// points are a run's training losses, averaged to about as many points as drawn, and the validation losses of its
// checkpoints. A step whose time is not known has no point over seconds.
func (c curve) points(drawn int) (training, validation []plot.Point) {
	var steps []plot.Point
	for _, line := range c.log {
		switch l := line.(type) {
		case trainlog.Step:
			if x, ok := c.at(l.Step, l.Tokens); ok {
				steps = append(steps, plot.Point{X: x, Y: l.TrainBPC})
			}
		case trainlog.Checkpoint:
			if x, ok := c.at(l.Step, l.Tokens); ok && l.ValBPC != nil {
				validation = append(validation, plot.Point{X: x, Y: *l.ValBPC})
			}
		}
	}
	return plot.AveragedTo(steps, drawn), validation
}

// at is where a step lies: seconds or millions of tokens from the first one.
func (c curve) at(step int, tokens int64) (x float64, known bool) {
	if c.seconds != nil {
		x, known = c.seconds[step]
		return x, known
	}
	return float64(tokens) / 1e6, true
}

// picture is that of all runs.
func picture(all []curve, over string, points int) (plot.Figure, error) {
	f := plot.Lines{
		X: plot.Axis{Label: map[string]string{
			overTokens: "million tokens", overSeconds: "seconds of training",
		}[over]},
		Y: plot.Axis{Label: "loss in bits per token"},
	}
	for i, c := range all {
		training, validation := c.points(points)
		if len(training) == 0 {
			return nil, stage.Permanentf("run %s has trained no step yet", c.label)
		}
		f.Series = append(f.Series, plot.Series{Name: c.label, Color: i, Line: training, Dots: validation})
	}
	return f.Falling(), nil
}
