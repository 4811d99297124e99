// Command shard is the stage that turns the token batches of all sources into a dataset: it shuffles the documents,
// packs them into sequences of fixed length, and divides the sequences into training and validation shards.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

// Params are the stage's parameters.
type Params struct {
	SequenceLength    int     `json:"sequence_length" usage:"tokens to predict in a sequence"`
	CountedTargets    []int   `json:"counted_targets" usage:"from,to: only these targets of a sequence are predicted and counted; none: all targets"`
	SequencesPerShard int     `json:"sequences_per_shard" usage:"sequences in a shard; 0: about 64 MiB of tokens"`
	ValidationShare   float64 `json:"validation_share" usage:"share of the documents in the validation split; of a single document its end. 0: no validation"`
	Seed              uint64  `json:"seed" seed:"own" usage:"order of the documents and choice of the validation split; the pipeline's seed does not change it"`

	Duplicates string   `json:"duplicates" usage:"keep, exact (leave out equal documents) or near (leave out similar documents too)"`
	Similarity float64  `json:"similarity" usage:"near: share of their five-word phrases that similar documents have in common, 0 to 1"`
	Known      []string `json:"known" digest:"-" usage:"texts.digests of earlier datasets, whose texts are left out; needs duplicates exact or near"`
	Mixture    []string `json:"mixture" usage:"shares of the tokens by patterns of source names, such as glm/*=20,fineweb/*=80; empty: all documents"`

	KnownDigests []string `json:"known_digests" usage:"digests of the files known; computed when absent, and files of other digests are refused"`
}

func (p Params) options() (seal.Options, error) {
	o := seal.Options{
		SequenceLength: p.SequenceLength, Counted: p.CountedTargets, SequencesPerShard: p.SequencesPerShard,
		ValidationShare: p.ValidationShare, Seed: p.Seed, Duplicates: p.Duplicates, Similarity: p.Similarity,
	}
	for i, path := range p.Known {
		name := path // as long as complete has not found the digest
		if i < len(p.KnownDigests) {
			name = p.KnownDigests[i]
		}
		o.Known = append(o.Known, seal.KnownTexts{Name: name, Path: path})
	}
	for _, text := range p.Mixture {
		share, err := seal.ParseShare(text)
		if err != nil {
			return o, err
		}
		o.Mixture = append(o.Mixture, share)
	}
	return o, nil
}

func main() {
	os.Exit(stage.Main(spec(), os.Args))
}

func spec() stage.Spec[Params, event.TokensWritten] {
	return stage.Spec[Params, event.TokensWritten]{
		Name:     "shard",
		About:    "shuffle token batches and seal them as a dataset of fixed-length shards",
		Example:  "shard run --in tokens/*.tokens.arrow --out dataset --sequence-length 2048",
		Version:  "4", // the end of an only document validates
		Defaults: defaults(),
		Check:    check,
		Complete: (*Params).complete,
		Threads:  true,
		Gather:   stage.Deterministic(sealDataset),
		Files:    batches,
		Emits:    []event.Body{event.ShardSealed{}, event.DatasetSealed{}},
		Results: []results.Result{{
			Kind:     event.DatasetSealed{}.Kind(),
			Headline: "dataset sealed: {documents} documents, {train_tokens} training and {validation_tokens} validation tokens",
		}},
	}
}

func defaults() Params {
	o := seal.DefaultOptions()
	return Params{SequenceLength: o.SequenceLength, ValidationShare: o.ValidationShare, Seed: 42, Duplicates: o.Duplicates,
		Similarity: o.Similarity}
}

func check(p Params) error {
	o, err := p.options()
	if err != nil {
		return err
	}
	return o.Validate()
}

// complete sets KnownDigests, because a job is known by the contents of the lists and not by their paths.
func (p *Params) complete() error {
	var digests []string
	for i, path := range p.Known {
		sum, _, err := digest.File(path)
		if err != nil {
			return fmt.Errorf("known: %w", err)
		}
		if i < len(p.KnownDigests) && p.KnownDigests[i] != sum {
			return fmt.Errorf("known: %s has digest %s, known_digests says %s: it is another list", path, digest.Short(sum),
				digest.Short(p.KnownDigests[i]))
		}
		digests = append(digests, sum)
	}
	if len(p.KnownDigests) > len(digests) {
		return fmt.Errorf("known_digests: %d digests for %d files in known", len(p.KnownDigests), len(digests))
	}
	p.KnownDigests = digests
	return nil
}

// batches makes an event tokens.written of every token batch that --in names.
func batches(in *stage.Files) ([]event.TokensWritten, error) {
	var all []event.TokensWritten
	for _, file := range in.In {
		ref, err := in.Add("tokens", "application/vnd.apache.arrow.file", file)
		if err != nil {
			return nil, err
		}
		written, err := counted(file)
		if err != nil {
			return nil, err
		}
		written.Batch = ref
		all = append(all, written)
	}
	return all, nil
}

// counted is the event of a token batch as far as the batch tells: rows that were left out are not in the batch.
func counted(path string) (event.TokensWritten, error) {
	var e event.TokensWritten
	b, err := dataset.OpenBatch(path)
	if err != nil {
		return e, err
	}
	defer b.Close()
	for i := range b.Len() {
		d, _, err := b.Document(i)
		if err != nil {
			return e, err
		}
		e.Source = d.Source
		e.Bytes += d.Bytes
	}
	e.Documents, e.Rows, e.Tokens = int64(b.Len()), int64(b.Len()), b.Tokens()
	if t := b.Tokenizer(); t.Digest != "" {
		ref := tokenizerRef(t)
		e.Tokenizer = &ref
	}
	return e, nil
}

func tokenizerRef(t dataset.TokenizerInfo) artifact.Ref {
	return event.TokenizerRef(t.Digest, t.Size, t.FileName())
}

func sealDataset(ctx context.Context, job *stage.Job[Params], in []event.TokensWritten) error {
	var paths []string
	for _, e := range in {
		path, err := job.Path(e.Batch)
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	sealed := map[string]artifact.Ref{} // by file name
	create := func(name string) (seal.Output, error) {
		kind, mediaType := "shard", "application/vnd.apache.arrow.file"
		if name == seal.TextsName {
			kind, mediaType = "texts", "application/octet-stream"
		}
		w, err := job.Create(kind, mediaType, name)
		if err != nil {
			return nil, err
		}
		return &output{Writer: w, done: func(ref artifact.Ref) {
			sealed[name] = ref
			job.Progress(stage.Progress{Done: int64(len(sealed)), Total: int64(len(sealed) + 1), Unit: "shards"})
		}}, nil
	}
	o, err := job.Params.options()
	if err != nil {
		return stage.Permanent(err)
	}
	facts := newReport(in)
	times := new(stopwatch)
	o.Threads, o.Duplicate, o.Step = job.Host.Threads, facts.addDuplicate, times.begin
	o.Tokenizer = func(t dataset.TokenizerInfo) (string, error) { return job.Path(tokenizerRef(t)) }
	manifest, err := seal.Dataset(ctx, o, paths, create)
	if errors.As(err, new(seal.NoDatasetError)) {
		return stage.Permanent(facts.withRows(err))
	}
	if err != nil {
		return err
	}
	times.end()
	facts.complete(manifest)
	if err := job.WriteTimes("dataset",
		stage.JobTimes{Stage: "shard", Of: "dataset", Bytes: facts.Bytes, Steps: times.Steps()}); err != nil {
		return err
	}
	return announce(ctx, job, manifest, sealed, facts)
}

// stopwatch measures the time of steps that follow each other.
type stopwatch struct {
	stage.Times
	step  string
	began stage.Mark
}

func (s *stopwatch) begin(step string) {
	s.end()
	s.step, s.began = step, stage.Now()
}

func (s *stopwatch) end() {
	if s.step != "" {
		s.Since(s.step, s.began)
	}
	s.step = ""
}

// output lets seal.Dataset write an artifact.
type output struct {
	*artifact.Writer
	done func(artifact.Ref)
}

// Commit implements seal.Output.
func (o *output) Commit() (digest string, size int64, err error) {
	ref, err := o.Writer.Commit()
	if err == nil {
		o.done(ref)
	}
	return ref.Digest, ref.Size, err
}

// announce stores the manifest and the report, and announces the shards and the dataset.
func announce(ctx context.Context, job *stage.Job[Params], m *dataset.Manifest, sealed map[string]artifact.Ref,
	facts *report) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	ref, err := artifact.Put(job, "manifest", "application/json", "manifest.json", b)
	if err != nil {
		return err
	}
	tokenizer, err := keepTokenizer(job, m.Tokenizer)
	if err != nil {
		return err
	}
	if b, err = facts.json(); err != nil {
		return err
	}
	factsRef, err := artifact.Put(job, "facts", "application/json", "dataset.json", b)
	if err != nil {
		return err
	}
	reportRef, err := artifact.Put(job, "report", "text/markdown", "dataset.md", facts.markdown())
	if err != nil {
		return err
	}
	for _, split := range []struct {
		name   string
		shards []dataset.Shard
	}{{"train", m.Splits.Train.Shards}, {"validation", m.Splits.Validation.Shards}} {
		for i, s := range split.shards {
			if err := job.Emit(ctx,
				event.ShardSealed{Split: split.name, Index: i, Shard: sealed[s.Name], Sequences: int(s.Sequences)}); err != nil {
				return err
			}
		}
	}
	warnOfSplits(job, m)
	return job.Emit(ctx, event.DatasetSealed{
		Manifest: ref, Documents: m.Splits.Train.Documents + m.Splits.Validation.Documents,
		TrainTokens: m.Splits.Train.Tokens, ValidationTokens: m.Splits.Validation.Tokens,
		Report: reportRef, Facts: factsRef, Texts: sealed[seal.TextsName], Tokenizer: tokenizer,
	})
}

// keepTokenizer puts the tokenizer.json beside the dataset; nil: the tokenizer is built in.
func keepTokenizer(job *stage.Job[Params], t dataset.TokenizerInfo) (*artifact.Ref, error) {
	if t.Digest == "" {
		return nil, nil
	}
	path, err := job.Path(tokenizerRef(t))
	if err != nil {
		return nil, err
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ref, err := artifact.Put(job, "tokenizer", "application/json", t.FileName(), file)
	return &ref, err
}

// warnOfSplits warns of a dataset without a validation split, of one whose validation split is larger than it should
// be, and of one whose text is less than half a sequence.
func warnOfSplits(job *stage.Job[Params], m *dataset.Manifest) {
	if len(m.Splits.Validation.Shards) == 0 {
		why := "validation_share is 0"
		if m.ValidationShare > 0 {
			why = "its only document cannot be divided"
		}
		job.Log.Warn("the dataset has no validation split: " + why + ". Training has no validation loss, and evaluate and " +
			"probe have nothing to measure")
	}
	if training, validation := m.Splits.Train.Tokens, m.Splits.Validation.Tokens; validation > training &&
		m.ValidationShare < 0.5 {
		job.Log.Warn(fmt.Sprintf("the validation split has %d of the %d tokens, though validation_share is %g: documents "+
			"are not divided, and large ones fell to it. Cut them into smaller ones, or take another seed: %s",
			validation, training+validation, m.ValidationShare,
			stage.Setting("shard", "seed", strconv.FormatUint(job.Params.Seed+1, 10))))
	}
	if text := m.Splits.Train.Tokens; len(m.Counted) == 0 && text < int64(m.SequenceLength)/2 {
		job.Log.Warn(fmt.Sprintf("the training text has %d tokens, and the one sequence that it is in has %d: the others "+
			"are padding, from which nothing is learnt. Choose a smaller sequence_length", text, m.SequenceLength))
	}
}
