// Package measure opens a model file, a checkpoint or a packed model, and a dataset together, for stages that run the
// model over the validation split: the project's evaluate and probe, and stages of one's own (docs/examples/continue).
// It measures nothing itself.
//
//	s, err := measure.Open(job, in, job.Params.MicroTokens)
//	…
//	defer s.Close()
//	tokens, targets, err := s.Sequences(0, s.Batch)
//	losses, err := s.Model.Losses(tokens, targets, s.Settings)
package measure

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"bitnet1/kernels"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// Subject is a model that was loaded onto a device, and a dataset. Close frees both.
type Subject struct {
	Saved     *Saved
	Manifest  *dataset.Manifest // nil where the model was opened alone, as is Data
	Data      *dataset.Dataset
	Tokenizer tokenizer.Tokenizer
	Model     *model.Model   // computes Batch sequences of Seq tokens at once
	Settings  model.Settings // the model file's
	Batch     int
	Seq       int

	device kernels.Device
}

// Open opens the model file and the dataset of an event. The model will compute at most microTokens tokens at once, but
// always a whole sequence. An error is permanent (stage.Permanent) if trying again would not help.
func Open[P any](job *stage.Job[P], in event.CheckpointSaved, microTokens int) (*Subject, error) {
	s, err := subjectOf(job, in)
	if err != nil {
		return nil, err
	}
	if err = s.openDataset(job.Path, in.Manifest); err == nil {
		err = s.load(job.Path, job.Host, microTokens)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// subjectOf opens the model file of an event, and nothing else of the Subject.
func subjectOf[P any](job *stage.Job[P], in event.CheckpointSaved) (*Subject, error) {
	path, err := job.Path(in.Model)
	if err != nil {
		return nil, err
	}
	saved, err := openSaved(path)
	return &Subject{Saved: saved}, stage.Permanent(err)
}

// OpenModel opens the model file of an event alone: there are no Manifest and no Data, and the tokenizer is the one
// that the model was trained with. Sequences have seq tokens; 0: as many as the model reads.
func OpenModel[P any](job *stage.Job[P], in event.CheckpointSaved, seq, microTokens int) (*Subject, error) {
	s, err := subjectOf(job, in)
	if err != nil {
		return nil, err
	}
	s.Seq = cmp.Or(seq, s.Saved.Config.Seq)
	if err = s.ownTokenizer(); err == nil {
		err = s.compute(job.Host, microTokens)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ownTokenizer sets the tokenizer that the model was trained with.
func (s *Subject) ownTokenizer() (err error) {
	m := s.Saved
	switch {
	case s.Seq < 1 || s.Seq > m.Config.Seq:
		return stage.Permanentf("sequences of %d tokens: the checkpoint reads 1 to %d: give at most as many, or leave the "+
			"length out", s.Seq, m.Config.Seq)
	case m.Tokenizer == "":
		return stage.Permanentf(`the checkpoint does not name its tokenizer: write it into the description beside the ` +
			`file, as "tokenizer": "gpt2"`)
	}
	s.Tokenizer, err = tokenizer.Open(m.Tokenizer, m.TokenizerFile)
	if err == nil && s.Tokenizer.Vocab() > m.Config.Vocab {
		err = fmt.Errorf("the tokenizer %s has %d token ids, the checkpoint knows %d", m.Tokenizer, s.Tokenizer.Vocab(),
			m.Config.Vocab)
	}
	return stage.Permanent(err)
}

func (s *Subject) openDataset(find func(artifact.Ref) (string, error), manifest artifact.Ref) error {
	path, err := find(manifest)
	if err != nil {
		return err
	}
	s.Data, s.Manifest, err = dataset.Load(path, func(d dataset.Shard) (string, error) {
		return find(artifact.Ref{Digest: d.Digest, Kind: "shard", Name: d.Name, Size: d.Size})
	})
	if err != nil {
		return stage.Permanent(err)
	}
	return nil
}

func (s *Subject) load(find func(artifact.Ref) (string, error), host stage.Host, microTokens int) (err error) {
	if err := s.fits(); err != nil {
		return stage.Permanent(err)
	}
	s.Tokenizer, err = s.Manifest.Tokenizer.Open(func(t dataset.TokenizerInfo) (string, error) {
		return find(event.TokenizerRef(t.Digest, t.Size, t.FileName()))
	})
	if err != nil {
		return stage.Permanent(err)
	}
	s.Seq = s.Manifest.SequenceLength
	return s.compute(host, microTokens)
}

// compute loads the model onto a device, for sequences of Seq tokens.
func (s *Subject) compute(host stage.Host, microTokens int) (err error) {
	s.Batch = max(microTokens/s.Seq, 1)
	if s.device, err = compute.Open(host.Device, host.Threads); err != nil {
		return err
	}
	if s.Model, s.Settings, err = s.Saved.Inference(s.device, s.Batch, s.Seq); errors.Is(err, kernels.ErrMemory) {
		return stage.Permanentf("%s has too little memory for %d tokens at once: lower micro_tokens (%w)", s.device.Name(),
			s.Batch*s.Seq, err)
	}
	return err
}

// fits checks that the model can run on the dataset.
func (s *Subject) fits() error {
	m, d := s.Saved, s.Manifest
	switch {
	case m.Tokenizer != "" && m.Tokenizer != d.Tokenizer.Name:
		return OtherTokenizer(m.Provenance, d.Tokenizer.Name)
	case d.Tokenizer.Vocab > m.Config.Vocab:
		return fmt.Errorf("the dataset has %d token ids, the checkpoint knows %d", d.Tokenizer.Vocab, m.Config.Vocab)
	case d.SequenceLength > m.Config.Seq:
		return fmt.Errorf("the dataset's sequences have %d tokens, the checkpoint's at most %d: shard with %s",
			d.SequenceLength, m.Config.Seq, stage.Setting("shard", "sequence_length", strconv.Itoa(m.Config.Seq)))
	case m.Documents.Separate && m.Documents.EndOfText != int32(d.Tokenizer.EndOfText):
		return fmt.Errorf("the checkpoint's documents begin with token %d, the dataset's with token %d: tokenize the "+
			"dataset with the checkpoint's tokenizer", m.Documents.EndOfText, d.Tokenizer.EndOfText)
	case s.Data.Validation.Len() == 0:
		return errors.New("the dataset has no validation split, so there is nothing to measure on: set validation_share of " +
			"the stage shard above 0, or leave this stage out of the pipeline")
	}
	return nil
}

// OtherTokenizer is the error for a dataset of another tokenizer than that of the model.
func OtherTokenizer(m checkpoint.Provenance, of string) error {
	setting := stage.Setting("tokenize", "tokenizer", m.Tokenizer)
	if m.TokenizerFile != nil {
		setting = stage.Setting("tokenize", "tokenizer", "CHECKPOINT") +
			", the checkpoint's file, which holds its tokenizer"
	}
	return fmt.Errorf("the checkpoint knows the tokens of %s, the dataset has those of %s: tokenize the dataset with "+
		"%s", m.Tokenizer, of, setting)
}

// Count is the number of validation sequences, at most limit if limit is not 0.
func (s *Subject) Count(limit int) int {
	n := s.Data.Validation.Len()
	if limit > 0 {
		n = min(n, limit)
	}
	return n
}

// Sequences returns the tokens and targets of validation sequences from..to-1, Seq of each per sequence. A target of -1
// is not predicted.
func (s *Subject) Sequences(from, to int) (tokens, targets []int32, err error) {
	for i := from; i < to; i++ {
		if tokens, targets, err = s.Data.Validation.AppendTargets(i, tokens, targets); err != nil {
			return nil, nil, stage.Permanent(err)
		}
	}
	return tokens, targets, nil
}

// Text decodes tokens.
func (s *Subject) Text(tokens []int32) string {
	ids := make([]uint32, len(tokens))
	for i, t := range tokens {
		ids[i] = uint32(t)
	}
	return string(s.Tokenizer.Decode(nil, ids))
}

// Name is the file name of a report about the checkpoint, such as step-000600_evaluation.json.
func (s *Subject) Name(what string) string {
	return fmt.Sprintf("step-%06d_%s.json", s.Saved.Step, what)
}

// Close frees the device and closes the dataset and the checkpoint.
func (s *Subject) Close() error {
	err := s.Saved.Close()
	if s.Data != nil {
		err = errors.Join(err, s.Data.Close())
	}
	if s.device != nil {
		err = errors.Join(err, s.device.Close())
	}
	return err
}
