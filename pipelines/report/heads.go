package main

import (
	"fmt"
	"math"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/plot"
)

// mostMaps is how many checkpoints a film strip shows.
const mostMaps = 12

// view is something that heads do, as maps of a checkpoint each.
type view struct {
	key, name string // of the figure's file, and of what is drawn
	caption   string
	random    string // key of what a head has that points at random keys; may be empty
	of        func([]history.Probe) plot.HeatMaps
}

var views = []view{
	{"ipmr", "IPMR", "A map has a row for each layer and a column for each head. Induction pointer match rate: of the " +
		"positions whose token occurred before, the share whose first survivor is a key right after such an occurrence.",
		"random_ipmr", strip("ipmr", "IPMR")},
	{"prefix_matching", "Prefix matching", "The same on random tokens that are written twice: positions of the second " +
		"copy (Olsson et al. 2022).", "random_prefix_matching", strip("prefix_matching", "prefix matching")},
	{"previous_token", "Previous token", "Mean attention to the key before the query, of random tokens (TransformerLens).",
		"random_previous_token", strip("previous_token", "attention")},
	{"duplicate_token", "Duplicate token", "Mean attention to keys that have the query's token, of random tokens " +
		"written twice (TransformerLens).", "random_duplicate_token", strip("duplicate_token", "attention")},
	{"induction", "Induction", "Mean attention to keys after such keys (TransformerLens).", "random_induction",
		strip("induction", "attention")},
	{"copying", "Copying", "Of the logits that a head raises, the share of the tokens that it points at (after Olsson " +
		"et al. 2022).", "random_copying", strip("copying", "copying")},
	{"hdr", "HDR", "Diversity of the distances pointed: exp(entropy of the distances) over the number of distances " +
		"possible.", "random_hdr", strip("hdr", "HDR")},
	{"distances", "Pointer distances", "Share of a layer's pointers by the number of bits of the distance between query " +
		"and first survivor: 0 is the query's own key, 1 the key before, n the keys from 2^(n−1) to 2^n − 1 before. Rows " +
		"are layers.", "", distances},
}

// headFigures draw what heads look at: a film strip of each view and run, of one scale for all runs.
func headFigures(runs []*history.Run) (all []*figure) {
	for _, v := range views {
		var strips []plot.HeatMaps
		scale := 0.0
		for _, run := range runs {
			f := v.of(chosen(run.Probes))
			strips, scale = append(strips, f), max(scale, highest(f))
		}
		for i, run := range runs {
			if len(strips[i].Maps) == 0 || scale == 0 {
				continue
			}
			strips[i].Scale.Max = scale
			f := &figure{Name: v.key, Title: v.name, Caption: v.caption, part: partHeads, drawn: strips[i]}
			if len(runs) > 1 {
				f.Name, f.Title = fmt.Sprintf("%s-%d", v.key, i+1), v.name+" of "+run.ID
			}
			if n := len(run.Probes); n > mostMaps {
				f.Caption += fmt.Sprintf(" Of %d checkpoints, %d are shown.", n, mostMaps)
			}
			f.Caption += chance(run.Probes, v.random)
			all = append(all, f)
		}
	}
	return all
}

// highest is the largest number of all maps.
func highest(f plot.HeatMaps) (most float64) {
	for _, m := range f.Maps {
		for _, row := range m.Values {
			for _, v := range row {
				if !math.IsNaN(v) {
					most = max(most, v)
				}
			}
		}
	}
	return most
}

// chosen are at most mostMaps probes, the first and the last among them.
func chosen(all []history.Probe) []history.Probe {
	if len(all) <= mostMaps {
		return all
	}
	few := make([]history.Probe, mostMaps)
	for i := range few {
		few[i] = all[i*(len(all)-1)/(mostMaps-1)]
	}
	return few
}

// chance says what a head that points at random keys has.
func chance(probes []history.Probe, key string) string {
	if len(probes) == 0 {
		return ""
	}
	v, ok := probes[len(probes)-1].Measures[key]
	if !ok {
		return ""
	}
	return fmt.Sprintf(" A random key has %.1f %%.", 100*v)
}

// strip draws a measure of heads, in percent.
func strip(key, name string) func([]history.Probe) plot.HeatMaps {
	return func(probes []history.Probe) plot.HeatMaps {
		f := plot.HeatMaps{Rows: "layer", Columns: "head", Scale: plot.Axis{Label: name + ", %"}}
		for _, p := range probes {
			if values := p.Map(key); values != nil {
				f.Maps = append(f.Maps, plot.HeatMap{Title: fmt.Sprintf("step %d", p.Step), Values: percent(values)})
			}
		}
		return f
	}
}

func percent(values [][]float64) [][]float64 {
	all := make([][]float64, len(values))
	for i, row := range values {
		for _, v := range row {
			all[i] = append(all[i], 100*v)
		}
	}
	return all
}

// distances are the histograms of pointer distances by layer.
func distances(probes []history.Probe) plot.HeatMaps {
	f := plot.HeatMaps{Rows: "layer", Columns: "bits of the distance", Scale: plot.Axis{Label: "pointers, %"}}
	for _, p := range probes {
		var layers [][]float64
		for _, h := range p.Heads {
			if len(h.Distances) == 0 || h.Layer < 0 || h.Layer >= maxLayers {
				continue
			}
			for len(layers) <= h.Layer {
				layers = append(layers, nil)
			}
			for bin, n := range h.Distances {
				if bin == len(layers[h.Layer]) {
					layers[h.Layer] = append(layers[h.Layer], 0)
				}
				layers[h.Layer][bin] += n
			}
		}
		for _, layer := range layers {
			sum := 0.0
			for _, n := range layer {
				sum += n
			}
			for i := range layer {
				layer[i] = layer[i] / sum
			}
		}
		if layers != nil {
			f.Maps = append(f.Maps, plot.HeatMap{Title: fmt.Sprintf("step %d", p.Step), Values: percent(layers)})
		}
	}
	return f
}

// maxLayers bounds what a damaged report may claim.
const maxLayers = 1 << 10
