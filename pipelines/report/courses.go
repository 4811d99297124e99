package main

import (
	"cmp"
	"math"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/history"
	"bitnet1/shared/plot"
)

// recipe is the training's parameters, by their keys (docs/reference/stages.md).
type recipe map[string]any

func (r recipe) number(key string) float64 { n, _ := r[key].(float64); return n }
func (r recipe) text(key string) string    { s, _ := r[key].(string); return s }

// schedule is the course of the learning rate, as the stage train has it.
func (r recipe) schedule() model.Schedule {
	steps := int(r.number("steps"))
	return model.Schedule{
		Decay: cmp.Or(r.text("schedule"), model.Cosine), Total: steps, Warmup: int(r.number("warmup")),
		Final: r.number("final_share"), Cooldown: cmp.Or(int(r.number("cooldown_steps")),
			model.StepsOf(r.number("cooldown"), steps)),
	}
}

func (r recipe) muonSchedule() model.Schedule {
	s := r.schedule()
	if own := r.text("muon_schedule"); own != "" && own != "same" {
		s.Decay, s.Final = own, r.number("muon_final_share")
	}
	return s
}

// decay is a weight decay at a step, whose learning rate takes the course rate.
func (r recipe) decay(step int, rate model.Schedule, first float64) float64 {
	switch r.text("weight_decay_schedule") {
	case "rate":
		return rate.Rate(step, first)
	case "linear":
		return model.Schedule{Decay: model.Linear, Total: int(r.number("steps"))}.Rate(step, first)
	}
	return first
}

// known reports whether the recipe explains the learning rates of the log: a later version of the stage may have
// schedules that this program does not know.
func known(run *history.Run) bool {
	r := recipe(run.Training.Recipe)
	for _, s := range run.Training.Steps {
		want := r.schedule().Rate(s.Step.Step-1, r.number("learning_rate"))
		if math.Abs(want-s.LearningRate) > 1e-6*math.Abs(s.LearningRate)+1e-15 {
			return false
		}
	}
	return len(r) > 0
}

// overSteps computes a line from a function of steps, which are counted from 0.
func overSteps(run *history.Run, of func(step int) float64) (line []plot.Point) {
	for _, s := range run.Training.Steps {
		line = append(line, plot.Point{X: float64(s.Step.Step), Y: of(s.Step.Step - 1)})
	}
	return plot.Averaged(line)
}

func learningRates(run *history.Run) []plot.Series {
	var line []plot.Point
	for _, s := range run.Training.Steps {
		line = append(line, plot.Point{X: float64(s.Step.Step), Y: s.LearningRate})
	}
	all := []plot.Series{{Name: "AdamW", Line: plot.Averaged(line)}}
	if r := recipe(run.Training.Recipe); r.text("optimizer") == "muon" && known(run) {
		rate, peak := r.muonSchedule(), r.number("muon_learning_rate")
		all = append(all, plot.Series{Name: "Muon", Color: 1,
			Line: overSteps(run, func(step int) float64 { return rate.Rate(step, peak) })})
	}
	return all
}

func weightDecays(run *history.Run) (all []plot.Series) {
	r := recipe(run.Training.Recipe)
	if !known(run) {
		return nil
	}
	for i, d := range []struct {
		name, key string
		rate      model.Schedule
	}{{"AdamW", "weight_decay", r.schedule()}, {"Muon", "muon_weight_decay", r.muonSchedule()}} {
		first := r.number(d.key)
		if first == 0 || d.name == "Muon" && r.text("optimizer") != "muon" {
			continue
		}
		all = append(all, plot.Series{Name: d.name, Color: i,
			Line: overSteps(run, func(step int) float64 { return r.decay(step, d.rate, first) })})
	}
	return all
}
