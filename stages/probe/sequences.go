package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"bitnet1/shared/digest"
	"bitnet1/shared/measure"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// sequences are what the model reads. Each has as many tokens and as many targets as the subject's Seq.
type sequences interface {
	// count is their number.
	count() int
	// read returns sequences from..to-1.
	read(from, to int) (tokens, targets []int32, err error)
}

// open opens the model of an event with what it reads: the text of the parameters, the validation split of the event's
// dataset or, without either, random tokens that are written twice.
func open(job *stage.Job[Params], in event.CheckpointSaved) (*measure.Subject, sequences, error) {
	p := job.Params
	text := p.Text != "" || p.Prompt != ""
	if !text && !in.Manifest.IsZero() {
		s, err := measure.Open(job, in, p.MicroTokens)
		if err == nil && p.SequenceLength != 0 && p.SequenceLength != s.Seq {
			err = errors.Join(stage.Permanentf("sequence_length is %d, and the dataset's sequences have %d tokens: "+
				"leave it out, or give a text", p.SequenceLength, s.Seq), s.Close())
		}
		return s, validation{s, p.Sequences}, err
	}
	s, err := measure.OpenModel(job, in, p.SequenceLength, p.MicroTokens)
	if err != nil {
		return nil, nil, err
	}
	var on sequences
	if text {
		on, err = cut(s, p)
	} else {
		on, err = newRandomTokens(s, p)
	}
	if err != nil {
		return nil, nil, stage.Permanent(errors.Join(err, s.Close()))
	}
	return s, on, nil
}

// validation is the beginning of the validation split.
type validation struct {
	*measure.Subject
	limit int // 0: all
}

func (v validation) count() int { return v.Count(v.limit) }

func (v validation) read(from, to int) (tokens, targets []int32, err error) {
	return v.Sequences(from, to)
}

// text is a text in sequences. It begins with an end of text, as documents do in a dataset, so that its first token is
// predicted as well.
type text struct {
	tokens []int32
	seq    int
	limit  int // sequences; 0: all
}

// mostText bounds the bytes that are read of a file.
const mostText = 64 << 20

// cut makes sequences of the text that the parameters give.
func cut(s *measure.Subject, p Params) (text, error) {
	content := []byte(p.Prompt)
	if p.Text != "" {
		f, err := os.Open(p.Text)
		if err != nil {
			return text{}, err
		}
		defer f.Close()
		if content, err = io.ReadAll(io.LimitReader(f, mostText)); err != nil {
			return text{}, fmt.Errorf("reading %s: %w", p.Text, err)
		}
	}
	t := text{tokens: []int32{int32(s.Tokenizer.EndOfText())}, seq: s.Seq, limit: p.Sequences}
	for _, id := range s.Tokenizer.Encode(nil, content) {
		t.tokens = append(t.tokens, int32(id))
	}
	if len(t.tokens) < 2 {
		return t, errors.New("the text is empty: nothing can be measured on it")
	}
	return t, nil
}

func (t text) count() int {
	n := (len(t.tokens) - 1 + t.seq - 1) / t.seq // the last token is a target only
	if t.limit > 0 {
		n = min(n, t.limit)
	}
	return n
}

// read fills up the last sequence with ends of text, which are not predicted.
func (t text) read(from, to int) (tokens, targets []int32, err error) {
	for i := from * t.seq; i < to*t.seq; i++ {
		token, target := t.tokens[0], int32(-1)
		if i < len(t.tokens) {
			token = t.tokens[i]
		}
		if i+1 < len(t.tokens) {
			target = t.tokens[i+1]
		}
		tokens, targets = append(tokens, token), append(targets, target)
	}
	return tokens, targets, nil
}

// textDigest identifies the text of the parameters; "" where they give none.
func (p Params) textDigest() string {
	if p.Prompt != "" {
		return digest.Bytes([]byte(p.Prompt))
	}
	return p.TextDigest
}

// each calls do with as many sequences at a time as the model computes, and reports progress: done of total sequences
// were computed before.
func each(ctx context.Context, job *stage.Job[Params], s *measure.Subject, on sequences, done, total int,
	do func(tokens, targets []int32) error) error {
	n := on.count()
	for from := 0; from < n; from += s.Batch {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		to := min(from+s.Batch, n)
		tokens, targets, err := on.read(from, to)
		if err == nil {
			err = do(tokens, targets)
		}
		if err != nil {
			return err
		}
		job.Progress(stage.Progress{Done: int64(done + to), Total: int64(total), Unit: "sequences"})
	}
	return nil
}
