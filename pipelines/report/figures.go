package main

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/measure/history"
	"bitnet1/shared/plot"
	"bitnet1/shared/run/results"
)

// figure is a picture of the report.
type figure struct {
	Name    string // of its files
	Title   string
	Caption string
	part    string // id of the section that shows it
	drawn   plot.Figure

	svg, png []byte
}

func (f *figure) draw() (err error) {
	if f.svg, err = plot.SVG(f.drawn, f.Title, f.Caption); err != nil {
		return err
	}
	f.png, err = plot.PNG(f.drawn)
	return err
}

// The sections that have figures.
const (
	partLoss     = "loss"
	partMeasures = "measures"
	partSchedule = "schedule"
	partHeads    = "heads"
	partTime     = "time"
)

// figuresOf are the figures for which the runs have numbers.
func figuresOf(runs []*history.Run) []*figure {
	all := slices.Concat(lossFigures(runs), measureFigures(runs), scheduleFigures(runs), headFigures(runs),
		timeFigures(runs))
	return all
}

// axis is a way to count how far a training is.
type axis struct {
	name, label string
	of          func(step int, tokens int64, elapsed float64) float64
}

var axes = []axis{
	{"steps", "optimizer steps", func(step int, _ int64, _ float64) float64 { return float64(step) }},
	{"tokens", "training tokens, millions", func(_ int, tokens int64, _ float64) float64 { return float64(tokens) / 1e6 }},
	{"seconds", "seconds of training", func(_ int, _ int64, elapsed float64) float64 { return elapsed }},
}

// lossFigures draw losses over steps, tokens and seconds.
func lossFigures(runs []*history.Run) (all []*figure) {
	for _, a := range axes {
		f := plot.Lines{X: plot.Axis{Label: a.label}, Y: plot.Axis{Label: "loss, bits per token"}}
		for i, run := range runs {
			f.Series = append(f.Series, lossSeries(run, a, i, len(runs) > 1)...)
		}
		if !slices.ContainsFunc(f.Series, func(s plot.Series) bool { return len(s.Line) > 1 }) {
			continue
		}
		f = f.Falling()
		caption := "Lines are training losses; where steps are many, a point is the mean of some. Dots are checkpoints on " +
			"the trainer's validation sample."
		if len(runs) == 1 {
			if line, of := baseline(runs[0], a, f.X.Max); line != nil {
				f.Series = append(f.Series, *line)
				f.Y.Max = max(f.Y.Max, line.Line[0].Y+0.1)
				caption += " The dashed line is " + of + "."
			}
		}
		all = append(all, &figure{Name: "loss-" + a.name, Title: "Loss over " + a.name, Caption: caption, part: partLoss,
			drawn: f})
	}
	return all
}

func lossSeries(run *history.Run, a axis, color int, several bool) []plot.Series {
	var line, dots []plot.Point
	for _, s := range run.Training.Steps {
		if x := a.of(s.Step.Step, s.Tokens, s.Elapsed); !math.IsNaN(x) && isFinite(s.TrainBPC) {
			line = append(line, plot.Point{X: x, Y: s.TrainBPC})
		}
	}
	for _, c := range run.Training.Checkpoints {
		if x := a.of(c.Step, c.Tokens, c.Elapsed); c.ValBPC != nil && !math.IsNaN(x) && isFinite(*c.ValBPC) {
			dots = append(dots, plot.Point{X: x, Y: *c.ValBPC})
		}
	}
	if several {
		return []plot.Series{{Name: run.ID, Color: color, Line: plot.Averaged(line), Dots: dots}}
	}
	return []plot.Series{{Name: "training", Color: 0, Line: plot.Averaged(line)},
		{Name: "validation sample", Color: 2, Dots: dots}}
}

// baseline is the loss of a model that knows nothing, as a line; nil where the results have none in bits per token.
func baseline(run *history.Run, a axis, end float64) (line *plot.Series, of string) {
	if len(run.Tables) == 0 {
		return nil, ""
	}
	for _, m := range measures(run.Tables[0]) {
		if m.baseline.Key == "" || m.unit() != "bits/token" {
			continue
		}
		if last := run.Tables[0].Last(); last != nil && isFinite(last.Cells[m.baseline.Key].Number()) {
			y := last.Cells[m.baseline.Key].Number()
			return &plot.Series{Name: m.baseline.Name, Color: plot.Gray, Dashed: true,
				Line: []plot.Point{{X: 0, Y: y}, {X: end, Y: y}}}, m.baseline.Meaning()
		}
	}
	return nil, ""
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// measure is a column of a table that says which values are better, and what a model that knows nothing has.
type measure struct {
	results.Column
	baseline results.Column // its key is empty where there is none
}

func measures(t *results.Table) (all []measure) {
	for i, c := range t.Columns {
		if c.Better == "" {
			continue
		}
		m := measure{Column: c}
		if c.Baseline != nil && i+1 < len(t.Columns) && strings.HasSuffix(t.Columns[i+1].Key, c.Baseline.Key) {
			m.baseline = t.Columns[i+1]
		}
		all = append(all, m)
	}
	return all
}

// unit is that of a measure, percent for shares; empty where the measure names none.
func (m measure) unit() string {
	switch {
	case strings.HasSuffix(string(m.Value), "%}"):
		return "%"
	case strings.HasSuffix(string(m.Value), ":bytes}"):
		return "MB"
	case m.Unit == "" && strings.Contains(m.Name, "/"):
		return m.Name
	}
	return m.Unit
}

// value is a cell in the measure's unit.
func (m measure) value(c results.Cell) float64 {
	switch m.unit() {
	case "%":
		return 100 * c.Number()
	case "MB":
		return c.Number() / 1e6
	}
	return c.Number()
}

func (m measure) label() string {
	if u := m.unit(); u != "" && u != m.Name {
		return m.Name + ", " + u
	}
	return m.Name
}

// measureFigures draw each measure over the checkpoints, with what a model that knows nothing has.
func measureFigures(runs []*history.Run) (all []*figure) {
	seen := map[string]bool{}
	for _, run := range runs {
		if len(run.Tables) == 0 {
			continue
		}
		for _, m := range measures(run.Tables[0]) {
			if seen[m.Key] || m.unit() == "MB" { // a size that hardly changes is in the table
				continue
			}
			seen[m.Key] = true
			if f := measureFigure(runs, m); f != nil {
				all = append(all, f)
			}
		}
	}
	return all
}

func measureFigure(runs []*history.Run, m measure) *figure {
	f := plot.Lines{X: plot.Axis{Label: "optimizer steps"}, Y: plot.Axis{Label: m.label()}}
	several, lowest, highest := false, math.Inf(1), math.Inf(-1)
	for i, run := range runs {
		if len(run.Tables) == 0 {
			continue
		}
		own, chance := plot.Series{Name: run.ID, Color: i}, plot.Series{Color: plot.Gray, Dashed: true}
		if len(runs) == 1 {
			own.Name = m.Name
		}
		if m.baseline.Key != "" && i == 0 {
			chance.Name = m.baseline.Name
		}
		for _, row := range run.Tables[0].Rows {
			x, ok := row.Place()
			for _, s := range []struct {
				to  *plot.Series
				key string
			}{{&own, m.Key}, {&chance, m.baseline.Key}} {
				if y := m.value(row.Cells[s.key]); ok && isFinite(y) {
					s.to.Line = append(s.to.Line, plot.Point{X: x, Y: y})
					lowest, highest = min(lowest, y), max(highest, y)
				}
			}
		}
		several = several || len(own.Line) > 1
		own.Dots = own.Line
		f.Series = append(f.Series, own)
		if !slices.ContainsFunc(f.Series, func(s plot.Series) bool { return covers(s, chance) }) {
			f.Series = append(f.Series, chance)
		}
	}
	if !several || lowest == highest {
		return nil
	}
	if m.unit() == "%" {
		f = f.FromZero()
	}
	caption := sentence(m.Meaning())
	if m.baseline.Key != "" {
		caption += " Dashed: " + sentence(cmp.Or(m.baseline.Meaning(), m.baseline.Name))
	}
	return &figure{Name: "measure-" + fileName(m.Key), Title: m.Name + " over steps", Caption: caption, part: partMeasures,
		drawn: f}
}

// covers reports whether a dashed line is as high as another everywhere, which then need not be drawn.
func covers(s, other plot.Series) bool {
	return s.Dashed && len(s.Line) > 0 && !slices.ContainsFunc(other.Line, func(p plot.Point) bool {
		return p.Y != s.Line[0].Y
	})
}

// sentence begins a text with a capital and ends it with a full stop.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(text[size:], ".") + "."
}

// fileName is a key as a part of a file's name.
func fileName(key string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, key)
}

// scheduleFigures draw what changed from step to step.
func scheduleFigures(runs []*history.Run) (all []*figure) {
	for _, course := range []struct {
		name, title, label, caption string
		of                          func(*history.Run) []plot.Series
	}{
		{"learning-rate", "Learning rate", "learning rate", "As the training log has it; Muon's is computed from the " +
			"training's parameters.", learningRates},
		{"weight-decay", "Weight decay", "weight decay", "Computed from the training's parameters. A step multiplies it " +
			"with the learning rate.", weightDecays},
		{"batch-tokens", "Tokens of a step", "tokens of a step", "From the tokens that the training log counts.",
			batchTokens},
		{"sequence-tokens", "Tokens of a sequence", "tokens of a sequence", "Parts into which the first steps cut sequences.",
			sequenceTokens},
		{"gamma", "Gamma of RWSP", "gamma", "The weight of a survivor over the weight of the one before.",
			logged(func(s trainlog.Step) float64 { return s.Gamma })},
		{"gradient-norm", "Gradient norm", "norm of the gradient", "Of the whole gradient, before clipping.",
			logged(func(s trainlog.Step) float64 { return s.GradientNorm })},
		{"flipped", "Weights flipped", "weights flipped in a step", "Truebit: weights whose sign a step changed.",
			logged(func(s trainlog.Step) float64 { return float64(s.Flipped) })},
	} {
		f := plot.Lines{X: plot.Axis{Label: "optimizer steps"}, Y: plot.Axis{Label: course.label}}
		drawn := false
		for i, run := range runs {
			for k, s := range course.of(run) {
				if len(runs) > 1 {
					s.Name, s.Color = strings.TrimSuffix(run.ID+", "+s.Name, ", "), i
					s.Dashed = k > 0
				}
				f.Series = append(f.Series, s)
				drawn = drawn || len(s.Line) > 1
			}
		}
		if drawn {
			all = append(all, &figure{Name: course.name, Title: course.title, Caption: course.caption, part: partSchedule,
				drawn: f.FromZero()})
		}
	}
	return all
}

// logged draws a number of each logged step, unless it is always 0.
func logged(of func(trainlog.Step) float64) func(*history.Run) []plot.Series {
	return func(run *history.Run) []plot.Series {
		var line []plot.Point
		some := false
		for _, s := range run.Training.Steps {
			y := of(s.Step)
			some = some || y != 0
			if isFinite(y) {
				line = append(line, plot.Point{X: float64(s.Step.Step), Y: y})
			}
		}
		if !some {
			return nil
		}
		return []plot.Series{{Line: plot.Averaged(line)}}
	}
}

func batchTokens(run *history.Run) []plot.Series {
	var line []plot.Point
	step, tokens := 0, int64(0)
	for _, s := range run.Training.Steps {
		if s.Step.Step > step {
			line = append(line, plot.Point{X: float64(s.Step.Step), Y: float64(s.Tokens-tokens) / float64(s.Step.Step-step)})
		}
		step, tokens = s.Step.Step, s.Tokens
	}
	if slices.ContainsFunc(line, func(p plot.Point) bool { return p.Y != line[0].Y }) {
		return []plot.Series{{Line: line}}
	}
	return nil // the parameters say it
}

// sequenceTokens draws the lengths of sequences where some were cut.
func sequenceTokens(run *history.Run) []plot.Series {
	if !slices.ContainsFunc(run.Training.Steps, func(s history.Step) bool { return s.Sequence > 0 }) {
		return nil
	}
	whole := 0
	if m := run.Data.Manifest; m != nil {
		whole = m.SequenceLength
	}
	var line []plot.Point
	for _, s := range run.Training.Steps {
		if n := cmp.Or(s.Sequence, whole); n > 0 {
			line = append(line, plot.Point{X: float64(s.Step.Step), Y: float64(n)})
		}
	}
	return []plot.Series{{Line: line}}
}
