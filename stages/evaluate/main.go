// Command evaluate is the stage that measures a checkpoint on the validation
// split: bits per token and per byte, beside the entropy of token frequencies.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/artifact"
	"bitnet1/shared/checkpoint"
	"bitnet1/shared/dataset"
	"bitnet1/shared/event"
	"bitnet1/shared/stage"
	"bitnet1/shared/tokenizer"
)

// Params are the stage's parameters.
type Params struct {
	Sequences   int `json:"sequences" usage:"validation sequences to evaluate on, from the first; 0: all"`
	MicroTokens int `json:"micro_tokens" usage:"tokens computed at once"`
}

func main() {
	os.Exit(stage.Main(stage.Spec[Params, event.CheckpointSaved]{
		Name:     "evaluate",
		About:    "measure a checkpoint on the validation split: bits per token and per byte",
		Example:  "evaluate run --in model/step-000600.safetensors --dataset dataset/manifest.json --out evaluation",
		Version:  "1",
		Defaults: Params{MicroTokens: 4096},
		Check: func(p Params) error {
			if p.Sequences < 0 || p.MicroTokens < 1 {
				return errors.New("sequences must not be negative and micro_tokens must be positive")
			}
			return nil
		},
		Work:  evaluate,
		Files: stage.Checkpoints,
		Emits: []event.Body{event.EvaluationWritten{}},
	}, os.Args))
}

// report is the content of *_evaluation.json.
type report struct {
	Checkpoint     string  `json:"checkpoint"` // digest
	Dataset        string  `json:"dataset"`    // digest of the manifest
	Step           int64   `json:"step"`
	Split          string  `json:"split"`
	Sequences      int     `json:"sequences"`
	Tokens         int64   `json:"tokens"` // predicted
	Bytes          int64   `json:"bytes"`  // of text that these tokens stand for
	BitsPerToken   float64 `json:"bits_per_token"`
	BitsPerByte    float64 `json:"bits_per_byte"`
	ValBPC         float64 `json:"val_bpc"`         // bits per token under the seed's name
	UnigramEntropy float64 `json:"unigram_entropy"` // of the predicted tokens' frequencies, bits per token
}

func evaluate(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved) error {
	path, err := job.Path(in.Model)
	if err != nil {
		return err
	}
	saved, err := checkpoint.Read(path)
	if err != nil {
		return stage.Refuse(err)
	}
	if path, err = job.Path(in.Manifest); err != nil {
		return err
	}
	data, manifest, err := dataset.Load(path, func(s dataset.Shard) (string, error) {
		return job.Path(artifact.Ref{Digest: s.Digest, Kind: "shard", Name: s.Name, Size: s.Size})
	})
	if err != nil {
		return stage.Refuse(err)
	}
	defer data.Close()
	if err := fits(saved, manifest, data); err != nil {
		return stage.Refuse(err)
	}
	text, err := tokenizer.New(manifest.Tokenizer.Name)
	if err != nil {
		return stage.Refuse(err)
	}
	batch := max(job.Params.MicroTokens/manifest.SequenceLength, 1)
	m, settings, err := saved.Inference(cpu.New(cpu.Options{Workers: job.Host.Threads}), batch, manifest.SequenceLength)
	if err != nil {
		return err
	}
	r := report{Checkpoint: in.Model.Digest, Dataset: in.Manifest.Digest, Step: saved.Step, Split: "validation"}
	e := evaluation{job: job, model: m, settings: settings, split: data.Validation, seq: manifest.SequenceLength, text: text}
	if err := e.run(ctx, batch, &r); err != nil {
		return err
	}
	return write(ctx, job, in, r)
}

// fits makes sure that the checkpoint can be evaluated on the dataset.
func fits(m checkpoint.Model, d *dataset.Manifest, data *dataset.Dataset) error {
	switch {
	case m.Tokenizer != "" && m.Tokenizer != d.Tokenizer.Name:
		return fmt.Errorf("the checkpoint knows the tokens of %s, the dataset has those of %s: tokenize the dataset with --tokenizer %s", m.Tokenizer, d.Tokenizer.Name, m.Tokenizer)
	case d.Tokenizer.Vocab > m.Config.Vocab:
		return fmt.Errorf("the dataset has %d token ids, the checkpoint knows %d", d.Tokenizer.Vocab, m.Config.Vocab)
	case d.SequenceLength > m.Config.Seq:
		return fmt.Errorf("the dataset's sequences have %d tokens, the checkpoint's at most %d: shard with --sequence-length %d", d.SequenceLength, m.Config.Seq, m.Config.Seq)
	case data.Validation.Len() == 0:
		return errors.New("the dataset has no validation split: shard it with at least two documents")
	}
	return nil
}

func write(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved, r report) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	w, err := job.Create("evaluation", "application/json", fmt.Sprintf("step-%06d_evaluation.json", r.Step))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(append(b, '\n')); err != nil {
		return err
	}
	ref, err := w.Commit()
	if err != nil {
		return err
	}
	return job.Emit(ctx, event.EvaluationWritten{
		Step: int(r.Step), Model: in.Model, Report: ref,
		BitsPerToken: r.BitsPerToken, BitsPerByte: r.BitsPerByte, UnigramEntropy: r.UnigramEntropy,
	})
}
