package main

import (
	"context"
	"errors"
	"math"

	"bitnet1/kernels/philox"
	"bitnet1/shared/measure"
	"bitnet1/shared/stage"
)

// inductionReport is the content of *_induction.json. Every sequence is Length random tokens, written twice; only the
// second time can the next token be known, from the place after the token's first occurrence.
type inductionReport struct {
	about
	Repeats      int          `json:"repeats"`
	Length       int          `json:"length"`
	Symbols      int          `json:"symbols"`       // tokens that are drawn from
	CopyAccuracy float64      `json:"copy_accuracy"` // greedy, over the predictions of the second copy
	FirstBits    float64      `json:"first_bits"`    // bits per token in the first copy
	SecondBits   float64      `json:"second_bits"`   // and in the second
	Top          prefixHead   `json:"top"`
	Heads        []prefixHead `json:"heads"`
}

// prefixHead is how often a head points behind the previous occurrence of the present token.
type prefixHead struct {
	Layer  int     `json:"layer"`
	Head   int     `json:"head"`
	First  float64 `json:"prefix_matching"`   // by its first survivor
	AnyOf4 float64 `json:"prefix_matching_4"` // by any of its first four
}

// probeInduction runs the model over repeated random tokens.
func probeInduction(ctx context.Context, job *stage.Job[Params], s *measure.Subject) (inductionReport, error) {
	p, c := job.Params, s.Model.Config()
	i := &induction{Subject: s, length: s.Seq / 2, symbols: s.Manifest.Tokenizer.Vocab - 1, survivors: c.Survivors(s.Seq)}
	if i.length < 2 || i.symbols < 2 {
		return inductionReport{}, stage.Refuse(errors.New("the induction probe needs sequences of at least 4 tokens and a vocabulary of at least 3"))
	}
	i.first, i.four = make([]int64, c.Layers*c.Heads), make([]int64, c.Layers*c.Heads)
	for from := 0; from < p.Repeats; from += s.Batch {
		if ctx.Err() != nil {
			return inductionReport{}, ctx.Err()
		}
		to := min(from+s.Batch, p.Repeats)
		if err := i.batch(p.Seed, from, to); err != nil {
			return inductionReport{}, err
		}
		health := s.Count(p.Sequences)
		job.Progress(stage.Progress{Done: int64(health + to), Total: int64(health + p.Repeats), Unit: "sequences"})
	}
	r := i.report(c.Heads)
	r.Repeats = p.Repeats
	return r, nil
}

type induction struct {
	*measure.Subject
	length, symbols, survivors int

	sequences, copied     int64
	firstNats, secondNats float64
	first, four           []int64
}

// batch measures sequences from..to-1.
func (i *induction) batch(seed uint64, from, to int) error {
	n := to - from
	tokens, targets := make([]int32, n*i.Seq), make([]int32, n*i.Seq)
	for b := range n {
		i.draw(seed, from+b, tokens[b*i.Seq:][:i.Seq], targets[b*i.Seq:][:i.Seq])
	}
	losses, err := i.Model.Losses(tokens, targets, i.Settings)
	if err != nil {
		return err
	}
	i.sequences += int64(n)
	for k, nats := range losses {
		switch {
		case targets[k] < 0:
		case k%i.Seq < i.length-1:
			i.firstNats += float64(nats)
		case k%i.Seq >= i.length:
			i.secondNats += float64(nats)
		}
	}
	if err := i.pointers(n); err != nil {
		return err
	}
	return i.copies(tokens, targets)
}

// draw fills a sequence with random tokens, end of text excepted, and their repetition. What is left of an odd length is
// filled up with the first token and never counted.
func (i *induction) draw(seed uint64, sequence int, tokens, targets []int32) {
	key := philox.Key(seed)
	for k := range i.length {
		w := philox.Block(key, [4]uint32{uint32(k / 4), uint32(sequence), drawing, 0})[k%4]
		id := int32(uint64(w) * uint64(i.symbols) >> 32)
		if uint32(id) >= i.Tokenizer.EndOfText() {
			id++
		}
		tokens[k], tokens[k+i.length] = id, id
	}
	for k := range targets {
		targets[k] = -1
		if k+1 < 2*i.length {
			targets[k] = tokens[k+1]
		}
	}
}

// drawing separates these random numbers from others of the same seed.
const drawing = 0x494e4455

// counted are the positions of a sequence whose next token can be known.
func (i *induction) counted() (from, to int) { return i.length, 2*i.length - 1 }

// pointers counts the heads' matches in the batch that was just computed.
func (i *induction) pointers(sequences int) error {
	c := i.Model.Config()
	from, to := i.counted()
	for layer := range c.Layers {
		all, err := i.Model.Pointers(layer)
		if err != nil {
			return err
		}
		for n := range sequences * c.Heads {
			head := layer*c.Heads + n%c.Heads
			for k := from; k < to; k++ {
				chosen := all[(n*i.Seq+k)*i.survivors:][:i.survivors]
				behind := int32(k - i.length + 1)
				if chosen[0] == behind {
					i.first[head]++
				}
				for _, u := range chosen[:min(maxSurvivors, len(chosen))] {
					if u == behind {
						i.four[head]++
						break
					}
				}
			}
		}
	}
	return nil
}

// copies counts greedy predictions of the second copy that are right.
func (i *induction) copies(tokens, targets []int32) error {
	best, err := i.Model.Greedy(tokens, i.Settings)
	if err != nil {
		return err
	}
	from, to := i.counted()
	for b := 0; b < len(tokens); b += i.Seq {
		for k := b + from; k < b+to; k++ {
			if best[k] == targets[k] {
				i.copied++
			}
		}
	}
	return nil
}

func (i *induction) report(heads int) inductionReport {
	from, to := i.counted()
	second := float64(i.sequences) * float64(to-from)
	r := inductionReport{
		Length: i.length, Symbols: i.symbols, CopyAccuracy: float64(i.copied) / second,
		FirstBits:  i.firstNats / (float64(i.sequences) * float64(i.length-1)) / math.Ln2,
		SecondBits: i.secondNats / second / math.Ln2,
	}
	for n := range i.first {
		h := prefixHead{Layer: n / heads, Head: n % heads, First: float64(i.first[n]) / second, AnyOf4: float64(i.four[n]) / second}
		if n == 0 || h.First > r.Top.First {
			r.Top = h
		}
		r.Heads = append(r.Heads, h)
	}
	return r
}
