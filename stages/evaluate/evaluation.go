package main

import (
	"context"
	"math"
	"time"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure"
	"bitnet1/shared/run/stage"
)

// evaluation runs a model over the validation split.
type evaluation struct {
	*measure.Subject
	job *stage.Job[Params]

	nats   measure.Mean
	right  int64 // tokens that the model predicts as most probable
	tokens int64
	counts []int64 // of predicted tokens, by id

	decoded     []byte       // of bytesOf
	parts       *breakdown   // nil unless it is asked for
	calibration *calibration // nil unless it is asked for
}

// run evaluates the model a batch at a time and fills in the measurements of r.
func (e *evaluation) run(ctx context.Context, r *report) error {
	n := e.Count(e.job.Params.Sequences)
	e.counts = make([]int64, e.Model.Config().Vocab)
	if e.job.Params.Breakdown {
		e.parts = newBreakdown(e.Seq, e.Saved.Documents)
	}
	if e.job.Params.Calibration {
		e.calibration = new(calibration)
	}
	started := time.Now()
	for from := 0; from < n; from += e.Batch {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		to := min(from+e.Batch, n)
		if err := e.batch(from, to); err != nil {
			return err
		}
		e.job.Progress(stage.Progress{Done: int64(to), Total: int64(n), Unit: "sequences", Values: map[string]float64{
			"tokens_per_second": float64(e.tokens) / time.Since(started).Seconds(),
		}})
	}
	frequencies, err := trainingFrequencies(e.Data.Train, len(e.counts))
	if err != nil {
		return stage.Permanent(err)
	}
	r.Sequences, r.Tokens, r.Bytes = n, e.tokens, e.bytes()
	if r.Bytes == 0 {
		return stage.Permanentf("the %d tokens to predict stand for no text, only for ends of texts: the validation "+
			"split's documents are empty", r.Tokens)
	}
	r.BitsPerToken = e.nats.Value() / math.Ln2
	if nats := e.nats.Error(); nats != nil {
		bits := *nats / math.Ln2
		r.BitsPerTokenError = &bits
	}
	r.BitsPerByte = r.BitsPerToken * float64(r.Tokens) / float64(r.Bytes)
	r.ValBPC = r.BitsPerToken
	r.UnigramEntropy = frequencies.entropy(e.counts)
	if e.job.Params.Greedy {
		accuracy, unigram := float64(e.right)/float64(e.tokens), frequencies.accuracy(e.counts)
		r.Accuracy, r.UnigramAccuracy = &accuracy, &unigram
	}
	if e.parts != nil {
		r.Breakdown = e.parts.report()
	}
	if e.calibration != nil {
		r.Calibration = e.calibration.report()
	}
	return nil
}

// batch adds the losses of sequences from..to-1.
func (e *evaluation) batch(from, to int) error {
	tokens, targets, err := e.Sequences(from, to)
	if err != nil {
		return err
	}
	losses, err := e.Model.Losses(tokens, targets, e.Settings)
	if err != nil {
		return err
	}
	for b := 0; b < len(targets); b += e.Seq {
		end := b + e.Seq
		e.add(targets[b:end], losses[b:end])
		if e.parts == nil {
			continue
		}
		ranges, err := e.Data.Validation.Ranges(from + b/e.Seq)
		if err == nil {
			err = e.parts.add(tokens[b:end], targets[b:end], losses[b:end], ranges, e.bytesOf)
		}
		if err != nil {
			return stage.Permanent(err)
		}
	}
	if !e.job.Params.Greedy && e.calibration == nil {
		return nil
	}
	wanted := func(row int) bool { return targets[row] >= 0 }
	return e.Model.EachLogits(tokens, wanted, e.Settings, func(row int, logits []float32) {
		if model.Best(logits) == targets[row] {
			e.right++
		}
		if e.calibration != nil {
			e.calibration.add(logits, targets[row])
		}
	})
}

// add counts the targets and losses of one sequence.
func (e *evaluation) add(targets []int32, losses []float32) {
	nats, predicted := 0.0, 0
	for k, target := range targets {
		if target >= 0 {
			e.counts[target]++
			predicted++
			nats += float64(losses[k])
		}
	}
	e.tokens += int64(predicted)
	e.nats.Add(nats, float64(predicted))
}

// bytes is the length of the text that the predicted tokens encode.
func (e *evaluation) bytes() int64 {
	var total int64
	for token, n := range e.counts {
		if n > 0 {
			total += n * int64(e.bytesOf(int32(token)))
		}
	}
	return total
}

// bytesOf is the length of a token's text. An end of text has none.
func (e *evaluation) bytesOf(token int32) int {
	if uint32(token) == e.Tokenizer.EndOfText() {
		return 0
	}
	e.decoded = e.Tokenizer.Decode(e.decoded[:0], []uint32{uint32(token)})
	return len(e.decoded)
}
