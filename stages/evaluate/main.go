// Command evaluate is the stage that measures a checkpoint: bits per token and per byte on the validation split, with
// the loss of a model that knows token frequencies alone (unigram) as the baseline, and scores on evaluation tasks.
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

func main() {
	os.Exit(stage.Main(stage.Spec[Params, event.CheckpointSaved]{
		Name:     "evaluate",
		About:    "measure a checkpoint on the validation split, in bits per token and per byte, and on evaluation tasks",
		Example:  "evaluate run --in model/step-000600.safetensors --dataset dataset/manifest.json --out evaluation",
		Version:  "3",
		Defaults: Params{MicroTokens: 4096},
		Check:    Params.check,
		Complete: (*Params).complete,
		Work:     stage.Deterministic(new(evaluator).evaluate),
		Files:    checkpoints, OnDataset: stage.OnDataset, Choice: stage.ByStep(), Threads: true, Device: true,
		Emits: []event.Body{event.EvaluationWritten{}, event.TasksScored{}},
		Results: []results.Result{{
			Kind: event.EvaluationWritten{}.Kind(),
			Headline: "checkpoint {step} evaluated: {bits_per_token:.3}[ ± {bits_per_token_error:.3}] bits/token" +
				" (unigram {unigram_entropy:.3}), {bits_per_byte:.3} bits/byte" +
				"[, accuracy {accuracy:.1%}][ (most frequent token {unigram_accuracy:.1%})]",
			Columns: []results.Column{
				{
					Key: "bits_per_token", Name: "bits/token", Value: "{bits_per_token:.3}", Better: results.Lower,
					About: "loss on the whole validation text, bits per token", Error: "{bits_per_token_error:.3}",
					Baseline: &results.Baseline{
						Key: "unigram_entropy", Name: "unigram", Value: "{unigram_entropy:.3}",
						About: "bits per token of a model that knows only how often each token occurs in training",
					},
				},
				{
					Key: "bits_per_byte", Name: "bits/byte", Value: "{bits_per_byte:.3}", Better: results.Lower,
					About: "the same loss per byte of the text",
				},
				{
					Key: "accuracy", Name: "accuracy", Value: "{accuracy:.1%}", Better: results.Higher,
					About: "share of tokens that the model predicts as most probable; with greedy only",
					Baseline: &results.Baseline{
						Key: "unigram_accuracy", Name: "guessed", Value: "{unigram_accuracy:.1%}",
						About: "accuracy of always naming the most frequent token of training",
					},
				},
			},
		}, taskResults()},
	}, os.Args))
}

// report is the content of *_evaluation.json.
type report struct {
	Checkpoint string `json:"checkpoint"` // digest
	Dataset    string `json:"dataset"`    // digest of the manifest
	Step       int64  `json:"step"`
	Split      string `json:"split"`
	// Documents is packed (tokens are predicted across the ends of documents) or separate, as the checkpoint was trained.
	Documents         string   `json:"documents"`
	Sequences         int      `json:"sequences"`
	Tokens            int64    `json:"tokens"` // predicted
	Bytes             int64    `json:"bytes"`  // of the text that these tokens encode
	BitsPerToken      float64  `json:"bits_per_token"`
	BitsPerTokenError *float64 `json:"bits_per_token_error"` // standard error over sequences; null for one sequence
	BitsPerByte       float64  `json:"bits_per_byte"`
	ValBPC            float64  `json:"val_bpc"` // bits per token under the PyTorch project's name
	// share of tokens predicted as most probable; with greedy only
	Accuracy        *float64 `json:"accuracy,omitempty"`
	UnigramAccuracy *float64 `json:"unigram_accuracy,omitempty"` // of always naming the most frequent token of training
	UnigramEntropy  float64  `json:"unigram_entropy"`            // bits per token of a unigram model

	Breakdown   *breakdownReport   `json:"breakdown,omitempty"`   // with breakdown only
	Calibration *calibrationReport `json:"calibration,omitempty"` // with calibration only
}

// checkpoints makes the events of the checkpoints that --in names, with the dataset of --dataset if there is one.
func checkpoints(in *stage.Files) ([]event.CheckpointSaved, error) {
	if in.Dataset == "" {
		return stage.BareCheckpoints(in)
	}
	return stage.Checkpoints(in)
}

// evaluator is the stage at work.
type evaluator struct{ scores lastScores }

func (e *evaluator) evaluate(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved) error {
	if in.Manifest.Digest == "" && len(job.Params.Tasks) == 0 {
		return stage.Permanent(errors.New("nothing to measure on: add --dataset MANIFEST (its shards beside it), or " +
			"--tasks NAME=PATH"))
	}
	all, err := readTasks(job.Params) // before anything is computed: what is wrong with a file is said at once
	if err != nil {
		return stage.Permanent(err)
	}
	if in.Manifest.Digest != "" {
		if err := evaluateSplit(ctx, job, in); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		return e.scores.score(ctx, job, in, all)
	}
	return nil
}

// evaluateSplit measures the model on the validation split.
func evaluateSplit(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved) error {
	subject, err := measure.Open(job, in, job.Params.MicroTokens)
	if err != nil {
		return err
	}
	defer subject.Close()
	r := report{Checkpoint: in.Model.Digest, Dataset: in.Manifest.Digest, Step: subject.Saved.Step, Split: "validation",
		Documents: subject.Saved.Documents.String()}
	e := evaluation{job: job, Subject: subject}
	if err := e.run(ctx, &r); err != nil {
		return err
	}
	ref, err := job.WriteJSON("evaluation", subject.Name("evaluation"), r)
	if err != nil {
		return err
	}
	return job.Emit(ctx, event.EvaluationWritten{
		Step: int(r.Step), Model: in.Model, Report: ref,
		BitsPerToken: r.BitsPerToken, BitsPerTokenError: r.BitsPerTokenError, BitsPerByte: r.BitsPerByte,
		UnigramEntropy: r.UnigramEntropy, Accuracy: r.Accuracy, UnigramAccuracy: r.UnigramAccuracy,
	})
}
