// Command flips is a stage of one's own: it counts the weights whose sign is another one than in the checkpoint before.
package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"reflect"
	"slices"
	"strings"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/plot"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

type params struct {
	Picture bool `json:"picture" usage:"draw the share of every layer"`
}

// saved is the event checkpoint.saved as this stage reads it. Unlike event.CheckpointSaved it depends on the checkpoint
// before.
type saved struct {
	Model    artifact.Ref  `msgpack:"model"`
	Previous *artifact.Ref `msgpack:"previous"` // nil: the first one of a training
}

func (saved) Kind() string { return event.CheckpointSaved{}.Kind() }

func (s saved) Inputs() []string {
	if s.Previous == nil {
		return []string{s.Model.Digest}
	}
	return []string{s.Model.Digest, s.Previous.Digest}
}

type flipsCounted struct {
	Step    int           `msgpack:"step"`
	Since   int           `msgpack:"since"` // step of the checkpoint before
	Rate    float64       `msgpack:"rate"`  // share of the weights that flipped since, 0 to 1
	Flips   artifact.Ref  `msgpack:"flips"`
	Picture *artifact.Ref `msgpack:"picture,omitempty"`
}

func (flipsCounted) Kind() string       { return "flips.counted" }
func (e flipsCounted) Inputs() []string { return []string{e.Flips.Digest} }

// flips are the weights of a layer, and how many of them flipped.
type flips struct {
	Layer   string `json:"layer"`
	Weights int    `json:"weights"`
	Flipped int    `json:"flipped"`
}

func main() {
	os.Exit(stage.Main(stage.Spec[params, saved]{
		Name: "flips", About: "count the weights that flip between checkpoints", Version: "1",
		Example:  "flips run --in train/step-000100.safetensors --in train/step-000200.safetensors --out flips",
		Defaults: params{Picture: true}, Work: stage.Deterministic(count), Files: inOrder,
		Emits: []event.Body{flipsCounted{}},
		Results: []results.Result{{
			Kind: "flips.counted", Headline: "checkpoint {step}: {rate:.2%} of the weights flipped since {since}",
			Columns: []results.Column{{
				Key: "flips", Name: "flips", Value: "{rate:.2%}",
				About: "share of the weights whose sign is another one than in the checkpoint before",
			}},
		}},
	}, os.Args))
}

// inOrder compares each file of a command line with the one before.
func inOrder(in *stage.Files) ([]saved, error) {
	files, err := stage.BareCheckpoints(in)
	all := make([]saved, len(files))
	for i, file := range files {
		all[i].Model = file.Model
		if i > 0 {
			all[i].Previous = &files[i-1].Model
		}
	}
	return all, err
}

func count(ctx context.Context, job *stage.Job[params], in saved) error {
	if in.Previous == nil {
		job.Log.Info("nothing to compare with: it is the first checkpoint")
		return nil
	}
	before, err := open(job, *in.Previous)
	if err != nil {
		return err
	}
	defer before.Close()
	now, err := open(job, in.Model)
	if err != nil {
		return err
	}
	defer now.Close()
	if !reflect.DeepEqual(before.Config, now.Config) {
		return fmt.Errorf("%s and %s are checkpoints of different models", in.Previous.Name, in.Model.Name)
	}
	layers, err := compare(ctx, before.Parameters(), now.Parameters())
	if err != nil {
		return err
	}
	said := flipsCounted{Step: int(now.Step), Since: int(before.Step), Rate: rate(layers...)}
	name := fmt.Sprintf("step-%06d_flips", said.Step)
	if said.Flips, err = job.WriteJSON("flips", name+".json", layers); err != nil {
		return err
	}
	if job.Params.Picture {
		svg, err := plot.SVG(figure(layers), fmt.Sprintf("flips from step %d to step %d", said.Since, said.Step), "")
		if err != nil {
			return err
		}
		picture, err := artifact.Put(job, "picture", "image/svg+xml", name+".svg", svg)
		if err != nil {
			return err
		}
		said.Picture = &picture
	}
	return job.Emit(ctx, said)
}

func open(job *stage.Job[params], ref artifact.Ref) (*checkpoint.File, error) {
	path, err := job.Path(ref)
	if err != nil {
		return nil, err
	}
	return checkpoint.Open(path)
}

// compare counts the flips of each layer. The weights of a layer follow one another.
func compare(ctx context.Context, before, now iter.Seq2[model.Parameter, error]) ([]flips, error) {
	next, stop := iter.Pull2(now)
	defer stop()
	var layers []flips
	for was, err := range before {
		is, failed, _ := next()
		if err := errors.Join(err, failed, ctx.Err()); err != nil {
			return nil, err
		}
		matrix, isWeight := strings.CutSuffix(was.Name, ".weight")
		if !isWeight {
			continue
		}
		layer := matrix
		if parts := strings.Split(matrix, "."); parts[0] == "blocks" {
			layer = "block " + parts[1]
		}
		if len(layers) == 0 || layers[len(layers)-1].Layer != layer {
			layers = append(layers, flips{Layer: layer})
		}
		of := &layers[len(layers)-1]
		of.Weights += len(was.Data)
		for i, w := range was.Data {
			if (w < 0) != (is.Data[i] < 0) {
				of.Flipped++
			}
		}
	}
	return layers, nil
}

// rate is the share of weights that flipped.
func rate(layers ...flips) float64 {
	var sum flips
	for _, layer := range layers {
		sum.Weights += layer.Weights
		sum.Flipped += layer.Flipped
	}
	return float64(sum.Flipped) / float64(max(sum.Weights, 1))
}

func figure(layers []flips) plot.Figure {
	var names, texts []string
	var percent []float64
	for _, layer := range layers {
		names = append(names, layer.Layer)
		percent = append(percent, 100*rate(layer))
		texts = append(texts, fmt.Sprintf("%.2f %%", 100*rate(layer)))
	}
	return plot.Bars{Labels: names, Panels: []plot.Panel{{
		X:     plot.Axis{Label: "weights that flipped, %", Max: 1.3 * max(slices.Max(percent), 1e-3)},
		Parts: []plot.Part{{Values: percent}},
		Texts: texts,
	}}}
}
