package main

import (
	"context"
	"math"
	"time"

	"bitnet1/shared/dataset"
	"bitnet1/shared/model"
	"bitnet1/shared/stage"
	"bitnet1/shared/tokenizer"
)

// evaluation runs a model over a split.
type evaluation struct {
	job      *stage.Job[Params]
	model    *model.Model
	settings model.Settings
	split    *dataset.Split
	seq      int
	text     tokenizer.Tokenizer

	nats   float64
	tokens int64
	counts []int64 // of predicted tokens, by id
}

// run evaluates batch sequences at a time and fills in the measurements of r.
func (e *evaluation) run(ctx context.Context, batch int, r *report) error {
	n := e.split.Len()
	if limit := e.job.Params.Sequences; limit > 0 {
		n = min(n, limit)
	}
	e.counts = make([]int64, e.model.Config().Vocab)
	started := time.Now()
	for from := 0; from < n; from += batch {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		to := min(from+batch, n)
		if err := e.batch(from, to); err != nil {
			return err
		}
		e.job.Progress(stage.Progress{Done: int64(to), Total: int64(n), Unit: "sequences", Values: map[string]float64{
			"tokens_per_second": float64(e.tokens) / time.Since(started).Seconds(),
		}})
	}
	bits := e.nats / math.Ln2
	r.Sequences, r.Tokens, r.Bytes = n, e.tokens, e.bytes()
	r.BitsPerToken = bits / float64(r.Tokens)
	r.BitsPerByte = bits / float64(r.Bytes)
	r.ValBPC = r.BitsPerToken
	r.UnigramEntropy = e.entropy()
	return nil
}

// batch adds the losses of sequences from..to-1.
func (e *evaluation) batch(from, to int) error {
	var tokens, targets, buffer []int32
	for i := from; i < to; i++ {
		var valid int
		var err error
		if buffer, valid, err = e.split.Sequence(i, buffer); err != nil {
			return stage.Refuse(err)
		}
		tokens = append(tokens, buffer[:e.seq]...)
		for k := range e.seq {
			target := int32(-1)
			if k < valid {
				target = buffer[k+1]
				e.counts[target]++
				e.tokens++
			}
			targets = append(targets, target)
		}
	}
	losses, err := e.model.Losses(tokens, targets, e.settings)
	if err != nil {
		return err
	}
	for _, loss := range losses { // 0 where nothing was to be predicted
		e.nats += float64(loss)
	}
	return nil
}

// bytes is how much text the predicted tokens stand for; ends of text stand for
// none.
func (e *evaluation) bytes() int64 {
	var total int64
	for token, n := range e.counts {
		if n > 0 && uint32(token) != e.text.EndOfText() {
			total += n * int64(len(e.text.Decode(nil, []uint32{uint32(token)})))
		}
	}
	return total
}

// entropy is that of the predicted tokens' frequencies, in bits: what a model
// that knew only these frequencies would need per token.
func (e *evaluation) entropy() float64 {
	var sum float64
	for _, n := range e.counts {
		if n > 0 {
			p := float64(n) / float64(e.tokens)
			sum -= p * math.Log2(p)
		}
	}
	return sum
}
