// Command train is the stage that trains a 1-bit language model on a dataset and saves checkpoints. A training that was
// stopped or killed continues from its last checkpoint or later, and ends with the same bytes as one that was not.
//
// Start reading at trainer.run: it takes steps, saves checkpoints and pauses.
package main

import (
	"context"
	"errors"
	"os"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == rankCommand {
		os.Exit(rankMain())
	}
	os.Exit(stage.Main(stage.Spec[Params, event.DatasetSealed]{
		Name:     "train",
		About:    "train a 1-bit language model on a dataset and save checkpoints",
		Example:  "train run --in dataset/manifest.json --out model --preset nano --steps 100",
		Version:  "3",
		Defaults: defaults(),
		Check:    Params.check,
		Complete: (*Params).complete,
		Work:     stage.Deterministic(train),
		Threads:  true, Device: true, Devices: true, CheckHost: checkHost,
		Files: manifests,
		Emits: []event.Body{event.CheckpointSaved{}, event.TrainingFinished{}},
		Results: []results.Result{{
			Kind: event.CheckpointSaved{}.Kind(),
			Headline: "checkpoint {step} saved: training {train_bits:.3} bits/token" +
				"[, validation sample {validation_bits:.3}][ (best){best}]",
			Row: &results.Column{Key: "step", Name: "checkpoint", Value: "{step}", About: "optimizer steps taken"},
			Columns: []results.Column{
				{
					Key: "train_bits", Name: "training", Value: "{train_bits:.3}", Unit: "bits/token",
					About: "loss on the training text, mean since the checkpoint before",
				},
				{
					Key: "validation_bits", Name: "validation", Value: "{validation_bits:.3}", Unit: "bits/token",
					Better: results.Lower, Mark: "best", Unless: "blend", About: "loss on a sample of the validation text",
				},
			},
		}},
	}, os.Args))
}

// manifests makes the event dataset.sealed of the manifest that --in names.
func manifests(in *stage.Files) ([]event.DatasetSealed, error) {
	if len(in.In) != 1 {
		return nil, command.UsageError(errors.New("give one manifest: --in dataset/manifest.json"))
	}
	ref, err := in.Add("manifest", "application/json", in.In[0])
	return []event.DatasetSealed{{Manifest: ref}}, err
}

func train(ctx context.Context, job *stage.Job[Params], in event.DatasetSealed) error {
	path, err := job.Path(in.Manifest)
	if err != nil {
		return err
	}
	data, manifest, err := dataset.Load(path, func(s dataset.Shard) (string, error) {
		return job.Path(artifact.Ref{Digest: s.Digest, Kind: "shard", Name: s.Name, Size: s.Size})
	})
	if err != nil {
		return stage.Permanent(err)
	}
	defer data.Close()
	t, err := newTrainer(ctx, job, in, data, manifest)
	if err != nil {
		return stage.Permanent(err)
	}
	defer t.close()
	if err := t.resume(); err != nil {
		return t.advise(err)
	}
	if err := t.share(); err != nil {
		return err
	}
	return t.advise(t.run(ctx))
}
