package main

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/run/results"
)

// metric is one number of a run.
type metric struct {
	Name       string // such as train/loss
	Unit       string // empty where the number has none, or none is known
	Step       int64
	Tokens     int64   // of training, until the step; -1: not known
	Seconds    float64 // of training, until the step; NaN: not known
	Layer      int32   // of a head's measure; -1: of the whole model
	Head       int32
	Parameters string // how parameters differ from the run's own: sequences=2
	Value      float64
}

// place is where a training is at a step.
type place struct {
	tokens  int64
	seconds float64
}

// metricsOf are the numbers of a run by step, in the same order always. Numbers that are not finite are left out.
func metricsOf(run *history.Run) (all []metric) {
	places := map[int64]place{}
	for _, s := range run.Training.Steps {
		places[int64(s.Step.Step)] = place{s.Tokens, s.Elapsed}
	}
	for _, c := range run.Training.Checkpoints {
		if _, ok := places[int64(c.Step)]; !ok {
			places[int64(c.Step)] = place{c.Tokens, c.Elapsed}
		}
	}
	all = slices.Concat(trainingMetrics(run), resultMetrics(run), probeMetrics(run))
	all = slices.DeleteFunc(all, func(m metric) bool { return math.IsNaN(m.Value) || math.IsInf(m.Value, 0) })
	for i := range all {
		at, ok := places[all[i].Step]
		if !ok {
			at = place{-1, math.NaN()}
		}
		all[i].Tokens, all[i].Seconds = at.tokens, at.seconds
	}
	slices.SortStableFunc(all, func(a, b metric) int { return cmp.Compare(a.Step, b.Step) })
	return all
}

// ofModel is a metric of the whole model.
func ofModel(step int64, name, unit string, value float64) metric {
	return metric{Name: name, Unit: unit, Step: step, Layer: -1, Head: -1, Value: value}
}

func trainingMetrics(run *history.Run) (all []metric) {
	var before history.Step
	for _, s := range run.Training.Steps {
		add := func(name, unit string, value float64) {
			all = append(all, ofModel(int64(s.Step.Step), name, unit, value))
		}
		add("train/loss", "bits/token", s.TrainBPC)
		add("train/learning_rate", "", s.LearningRate)
		add("train/gamma", "", s.Gamma)
		add("train/gradient_norm", "", s.GradientNorm)
		if s.Flipped > 0 {
			add("train/flipped", "weights", float64(s.Flipped))
		}
		if s.Sequence > 0 {
			add("train/sequence", "tokens", float64(s.Sequence))
		}
		if took := s.Elapsed - before.Elapsed; took > 0 { // not where either is not known
			add("train/speed", "tokens/second", float64(s.Tokens-before.Tokens)/took)
		}
		before = s
	}
	for _, c := range run.Training.Checkpoints {
		all = append(all, ofModel(int64(c.Step), "train/mean_loss", "bits/token", c.TrainBPC))
		if c.ValBPC != nil {
			all = append(all, ofModel(int64(c.Step), "validation/loss", "bits/token", *c.ValBPC))
		}
	}
	return all
}

// resultMetrics are the columns of the run's tables whose values are numbers, baselines among them. A table whose rows
// are not named by numbers has no steps.
func resultMetrics(run *history.Run) (all []metric) {
	for _, t := range run.Tables {
		for _, row := range slices.Concat(t.Rows, t.Others) {
			step, ok := row.Place()
			if !ok {
				continue
			}
			for _, c := range t.Columns {
				m := ofModel(int64(step), "results/"+c.Key, c.Unit, row.Cells[c.Key].Number())
				m.Parameters = results.Label(row.Overrides)
				all = append(all, m)
			}
		}
	}
	return all
}

func probeMetrics(run *history.Run) (all []metric) {
	for _, p := range run.Probes {
		for _, key := range slices.Sorted(maps.Keys(p.Measures)) {
			all = append(all, ofModel(int64(p.Step), "probe/"+key, "", p.Measures[key]))
		}
		for _, h := range p.Heads {
			for _, key := range slices.Sorted(maps.Keys(h.Measures)) {
				all = append(all, metric{Name: "probe/" + key, Step: int64(p.Step), Layer: int32(h.Layer), Head: int32(h.Head),
					Value: h.Measures[key]})
			}
		}
	}
	return all
}
