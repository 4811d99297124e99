package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/plot"
)

// operation is what one step of a stage's jobs took together, in seconds.
type operation struct {
	stage, step string
	cpu, wall   float64 // cpu is NaN where it is not known
	bytes       int64   // of text that went through it
}

// operations adds up the times of all jobs, the longest first.
func operations(run *history.Run) (all []operation) {
	for _, job := range run.Jobs {
		for _, s := range job.Steps {
			i := slices.IndexFunc(all, func(o operation) bool { return o.stage == job.Stage && o.step == s.Step })
			if i < 0 {
				i = len(all)
				all = append(all, operation{stage: job.Stage, step: s.Step})
			}
			all[i].cpu += s.CPU
			all[i].wall += s.Wall
			all[i].bytes += job.Bytes
		}
	}
	if n := len(run.Training.Steps); n > 0 && isFinite(run.Training.Steps[n-1].Elapsed) {
		all = append(all, operation{stage: "train", step: "optimizer steps", cpu: math.NaN(),
			wall: run.Training.Steps[n-1].Elapsed})
	}
	slices.SortStableFunc(all, func(a, b operation) int { return cmp.Compare(b.wall, a.wall) })
	return all
}

// mostOperations are drawn; the table has all.
const mostOperations = 15

func operationsFigure(all []operation) plot.Figure {
	if len(all) == 0 {
		return nil
	}
	clock, processor := plot.Part{}, plot.Part{Color: 1}
	var f plot.Bars
	wall := plot.Panel{X: plot.Axis{Label: "seconds by the clock"}}
	cpu := plot.Panel{X: plot.Axis{Label: "processor seconds"}}
	for _, o := range all[:min(len(all), mostOperations)] {
		f.Labels = append(f.Labels, o.stage+": "+o.step)
		clock.Values, processor.Values = append(clock.Values, o.wall), append(processor.Values, o.cpu)
		wall.Texts, cpu.Texts = append(wall.Texts, seconds(o.wall)), append(cpu.Texts, seconds(o.cpu))
	}
	wall.Parts, cpu.Parts = []plot.Part{clock}, []plot.Part{processor}
	f.Panels = []plot.Panel{wall, cpu}
	return f
}

func seconds(s float64) string {
	if math.IsNaN(s) {
		return "-"
	}
	for _, unit := range []struct {
		scale float64
		name  string
	}{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}} {
		if s >= unit.scale {
			return fmt.Sprintf("%.3g %s", s/unit.scale, unit.name)
		}
	}
	return fmt.Sprintf("%.0f ns", s*1e9)
}

// timeFigures draw the speed of training and what the operations of all stages took.
func timeFigures(runs []*history.Run) (all []*figure) {
	speed := plot.Lines{X: plot.Axis{Label: "optimizer steps"}, Y: plot.Axis{Label: "tokens per second, thousands"}}
	drawn := false
	for i, run := range runs {
		s := plot.Series{Color: i, Line: plot.Averaged(speeds(run))}
		if len(runs) > 1 {
			s.Name = run.ID
		}
		drawn = drawn || len(s.Line) > 1
		speed.Series = append(speed.Series, s)
	}
	if drawn {
		all = append(all, &figure{Name: "speed", Title: "Speed of training", part: partTime, drawn: speed.FromZero(),
			Caption: "Without loading, validations and checkpoints."})
	}
	for i, run := range runs {
		suffix, of := "", ""
		if len(runs) > 1 {
			suffix, of = fmt.Sprintf("-%d", i+1), " of "+run.ID
		}
		if f := operationsFigure(operations(run)); f != nil {
			all = append(all, &figure{Name: "operations" + suffix, Title: "Time of operations" + of, part: partTime, drawn: f,
				Caption: "Over all jobs of a stage, the longest first. Steps overlap and have several threads: what is said is " +
					"a sum."})
		}
	}
	return all
}

// speeds are thousands of tokens a second between logged steps.
func speeds(run *history.Run) (line []plot.Point) {
	var before history.Step
	for _, s := range run.Training.Steps {
		if took := s.Elapsed - before.Elapsed; isFinite(took) && took > 0 {
			line = append(line, plot.Point{X: float64(s.Step.Step), Y: float64(s.Tokens-before.Tokens) / took / 1000})
		}
		before = s
	}
	return line
}
