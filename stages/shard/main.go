// Command shard is the stage that turns the token batches of all sources into a
// dataset: shuffled documents, packed into sequences of fixed length, split
// into training and validation shards.
package main

import (
	"context"
	"fmt"
	"os"

	"bitnet1/shared/artifact"
	"bitnet1/shared/dataset"
	"bitnet1/shared/event"
	"bitnet1/shared/stage"
)

// Params are the stage's parameters.
type Params struct {
	SequenceLength    int     `json:"sequence_length" usage:"tokens to predict in a sequence"`
	SequencesPerShard int     `json:"sequences_per_shard" usage:"sequences in a shard; 0: about 64 MiB of tokens"`
	ValidationShare   float64 `json:"validation_share" usage:"share of the documents in the validation split"`
	Seed              uint64  `json:"seed" usage:"order of the documents and which of them validate"`
}

func (p Params) options() dataset.SealOptions {
	return dataset.SealOptions{
		SequenceLength: p.SequenceLength, SequencesPerShard: p.SequencesPerShard,
		ValidationShare: p.ValidationShare, Seed: p.Seed,
	}
}

func main() {
	os.Exit(stage.Main(stage.Spec[Params, event.TokensWritten]{
		Name:     "shard",
		About:    "shuffle token batches and seal them as a dataset of fixed-length shards",
		Example:  "shard run --in tokens/*.tokens.arrow --out dataset --sequence-length 2048",
		Version:  "1",
		Defaults: Params{SequenceLength: 2048, ValidationShare: 0.01, Seed: 42},
		Check:    check,
		Gather:   seal,
		Files:    batches,
		Emits:    []event.Body{event.ShardSealed{}, event.DatasetSealed{}},
	}, os.Args))
}

func check(p Params) error {
	o := p.options()
	o.EnsureDefaults(dataset.TokenizerInfo{})
	return o.Validate()
}

// batches makes an event of every token batch that the command line names.
func batches(in *stage.Files) ([]event.TokensWritten, error) {
	var all []event.TokensWritten
	for _, file := range in.In {
		ref, err := in.Add("tokens", "application/vnd.apache.arrow.file", file)
		if err != nil {
			return nil, err
		}
		all = append(all, event.TokensWritten{Source: ref.Name, Batch: ref})
	}
	return all, nil
}

func seal(ctx context.Context, job *stage.Job[Params], in []event.TokensWritten) error {
	var paths []string
	for _, e := range in {
		path, err := job.Path(e.Batch)
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	sealed := map[string]artifact.Ref{} // by file name
	create := func(name string) (dataset.Output, error) {
		w, err := job.Create("shard", "application/vnd.apache.arrow.file", name)
		if err != nil {
			return nil, err
		}
		return &output{Writer: w, done: func(ref artifact.Ref) {
			sealed[name] = ref
			job.Progress(stage.Progress{Done: int64(len(sealed)), Total: int64(len(sealed) + 1), Unit: "shards"})
		}}, nil
	}
	manifest, err := dataset.Seal(ctx, job.Params.options(), paths, create)
	if err != nil {
		return err
	}
	return announce(ctx, job, manifest, sealed)
}

// output lets dataset.Seal write an artifact.
type output struct {
	*artifact.Writer
	done func(artifact.Ref)
}

// Commit implements dataset.Output.
func (o *output) Commit() (digest string, size int64, err error) {
	ref, err := o.Writer.Commit()
	if err == nil {
		o.done(ref)
	}
	return ref.Digest, ref.Size, err
}

// announce stores the manifest and says that the shards and the dataset are
// sealed.
func announce(ctx context.Context, job *stage.Job[Params], m *dataset.Manifest, sealed map[string]artifact.Ref) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	w, err := job.Create("manifest", "application/json", "manifest.json")
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		return err
	}
	ref, err := w.Commit()
	if err != nil {
		return err
	}
	for _, split := range []struct {
		name   string
		shards []dataset.Shard
	}{{"train", m.Splits.Train.Shards}, {"validation", m.Splits.Validation.Shards}} {
		for i, s := range split.shards {
			if err := job.Emit(ctx, event.ShardSealed{Split: split.name, Index: i, Shard: sealed[s.Name], Sequences: int(s.Sequences)}); err != nil {
				return err
			}
		}
	}
	if len(m.Splits.Validation.Shards) == 0 {
		job.Log.Warn(fmt.Sprintf("there is only %d document: the dataset has no validation split", m.Splits.Train.Documents))
	}
	return job.Emit(ctx, event.DatasetSealed{
		Manifest: ref, Documents: m.Splits.Train.Documents + m.Splits.Validation.Documents,
		TrainTokens: m.Splits.Train.Tokens, ValidationTokens: m.Splits.Validation.Tokens,
	})
}
