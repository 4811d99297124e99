// Command probe is the stage that looks inside a checkpoint. The pointer health probe measures where attention heads
// point on validation text. The induction probe measures whether the model copies a sequence of random tokens that it
// has read.
package main

import (
	"context"
	"errors"
	"os"

	"bitnet1/shared/measure"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

// Params are the stage's parameters.
type Params struct {
	Sequences   int    `json:"sequences" usage:"number of validation sequences, from the first; 0: all"`
	Repeats     int    `json:"repeats" usage:"induction probe: number of sequences of random tokens, each written twice"`
	Seed        uint64 `json:"seed" usage:"induction probe: seed of the random tokens"`
	MicroTokens int    `json:"micro_tokens" usage:"tokens computed at once"`
}

func main() {
	os.Exit(stage.Main(stage.Spec[Params, event.CheckpointSaved]{
		Name:     "probe",
		About:    "probe a checkpoint's pointers on validation text and its induction on repeated random tokens",
		Example:  "probe run --in model/step-000600.safetensors --dataset dataset/manifest.json --out probe",
		Version:  "3",
		Defaults: Params{Sequences: 128, Repeats: 32, Seed: 42, MicroTokens: 4096},
		Check: func(p Params) error {
			if p.Sequences < 0 || p.Repeats < 1 || p.MicroTokens < 1 {
				return errors.New("sequences must not be negative, repeats and micro_tokens must be positive")
			}
			return nil
		},
		Work:  stage.Deterministic(probe),
		Files: stage.Checkpoints, OnDataset: stage.OnDataset, Choice: stage.ByStep(), Threads: true, Device: true,
		Emits: []event.Body{event.ProbeWritten{}},
		Results: []results.Result{{
			Kind: event.ProbeWritten{}.Kind(),
			Headline: "checkpoint {step} probed: best head L{top_layer}.H{top_head} with IPMR {top_ipmr:.1%}[ " +
				"± {top_ipmr_error:.1%}]" +
				"[ (random key {random_ipmr:.1%})], copied {copy_accuracy:.1%}[ (chance {random_copy_accuracy:.1%})]",
			Columns: []results.Column{
				{Key: "best_head", Name: "best head", Value: "L{top_layer}.H{top_head}",
					About: "layer and attention head with the highest IPMR"},
				{
					Key: "ipmr", Name: "IPMR", Value: "{top_ipmr:.1%}", Better: results.Higher,
					Error: "{top_ipmr_error:.1%}",
					About: "induction pointer match rate of that head: how often it points at the token after an earlier " +
						"occurrence of the present one",
					Baseline: &results.Baseline{
						Key: "random_ipmr", Name: "random", Value: "{random_ipmr:.1%}", About: "IPMR of a random key",
					},
				},
				{
					Key: "copy_accuracy", Name: "copied", Value: "{copy_accuracy:.1%}", Better: results.Higher,
					About: "share of a repeated random sequence that the model predicts", Error: "{copy_accuracy_error:.1%}",
					Baseline: &results.Baseline{
						Key: "random_copy_accuracy", Name: "chance", Value: "{random_copy_accuracy:.1%}",
						About: "share that guesses predict",
					},
				},
			},
		}},
	}, os.Args))
}

func probe(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved) error {
	subject, err := measure.Open(job, in, job.Params.MicroTokens)
	if err != nil {
		return err
	}
	defer subject.Close()
	about := about{Checkpoint: in.Model.Digest, Dataset: in.Manifest.Digest, Step: subject.Saved.Step,
		Documents: subject.Saved.Documents.String()}
	health, err := pointerHealth(ctx, job, subject)
	if err != nil {
		return err
	}
	induction, err := probeInduction(ctx, job, subject)
	if err != nil {
		return err
	}
	health.about, induction.about = about, about
	written := event.ProbeWritten{
		Step: int(about.Step), Model: in.Model,
		TopLayer: health.Top.Layer, TopHead: health.Top.Head, TopIPMR: health.Top.IPMR, GlobalIPMR: health.GlobalIPMR,
		TopIPMRError: health.Top.IPMRError, RandomIPMR: health.RandomIPMR, RandomGlobalIPMR: health.RandomGlobalIPMR,
		Specialists:  health.Specialists,
		CopyAccuracy: induction.CopyAccuracy, CopyAccuracyError: induction.CopyError,
		RandomCopyAccuracy: induction.RandomCopy,
	}
	if written.Health, err = job.WriteJSON("probe", subject.Name("pointer_health"), health); err != nil {
		return err
	}
	if written.Induction, err = job.WriteJSON("probe", subject.Name("induction"), induction); err != nil {
		return err
	}
	return job.Emit(ctx, written)
}

// about is the part that both reports begin with.
type about struct {
	Checkpoint string `json:"checkpoint"` // digest
	Dataset    string `json:"dataset"`    // digest of the manifest
	Step       int64  `json:"step"`
	Documents  string `json:"documents"` // packed or separate, as the checkpoint was trained
}
