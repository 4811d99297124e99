package main

import (
	"context"
	"errors"
	"math"

	"bitnet1/kernels/number/philox"
	"bitnet1/shared/measure"
	"bitnet1/shared/run/stage"
)

// inductionReport is the content of *_induction.json. Every sequence is Length random tokens, written twice: the next
// token can be known in the second copy only. The standard error is over sequences, and null for one sequence. The
// baselines random_… are expected values of guesses, and of keys that are drawn evenly.
type inductionReport struct {
	about
	Repeats      int          `json:"repeats"`
	Length       int          `json:"length"`
	Symbols      int          `json:"symbols"`       // number of different tokens that are drawn from
	CopyAccuracy float64      `json:"copy_accuracy"` // share of the second copy that is predicted as most probable
	CopyError    *float64     `json:"copy_accuracy_error"`
	RandomCopy   float64      `json:"random_copy_accuracy"` // of guesses: 1 / symbols
	FirstBits    float64      `json:"first_bits"`           // bits per token in the first copy
	SecondBits   float64      `json:"second_bits"`          // and in the second
	RandomBits   float64      `json:"random_bits"`          // of guesses: log2 of symbols
	RandomPrefix float64      `json:"random_prefix_matching"`
	RandomFour   float64      `json:"random_prefix_matching_4"`
	Top          prefixHead   `json:"top"`
	Heads        []prefixHead `json:"heads"`
}

// prefixHead is the prefix matching of one attention head: how often it points at the token after an earlier occurrence
// of the present token (Olsson et al. 2022).
type prefixHead struct {
	Layer  int     `json:"layer"`
	Head   int     `json:"head"`
	First  float64 `json:"prefix_matching"`   // its first survivor does
	AnyOf4 float64 `json:"prefix_matching_4"` // any of its first four survivors does
}

// probeInduction runs the model over repeated random tokens.
func probeInduction(ctx context.Context, job *stage.Job[Params], s *measure.Subject) (inductionReport, error) {
	p, c := job.Params, s.Model.Config()
	i := &induction{Subject: s, length: s.Seq / 2, symbols: s.Manifest.Tokenizer.Vocab - 1, survivors: c.Survivors(s.Seq)}
	if i.length < 2 || i.symbols < 2 {
		return inductionReport{}, stage.Permanent(
			errors.New("the induction probe needs sequences of at least 4 tokens and a vocabulary of at least 3"))
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

	sequences             int64
	copied                measure.Mean
	random                chances
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
	if err := i.pointers(tokens); err != nil {
		return err
	}
	return i.copies(tokens, targets)
}

// draw fills a sequence with random tokens other than the end of text, and with their repetition. The last position of
// a sequence of odd length is not counted.
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

// counted is the range of positions whose next token can be known.
func (i *induction) counted() (from, to int) { return i.length, 2*i.length - 1 }

// pointers counts the matches of all heads in the batch that the model computed last.
func (i *induction) pointers(tokens []int32) error {
	c := i.Model.Config()
	from, to := i.counted()
	seen := make([]occurrences, len(tokens)/i.Seq)
	for b := range seen {
		seen[b] = occurrencesOf(tokens[b*i.Seq:][:i.Seq], make([]int32, i.Seq)) // no document ends among random tokens
		for k := from; k < to; k++ {
			i.random.add(int(seen[b].before[k]), k+1, i.survivors, c.Layers*c.Heads)
		}
	}
	for layer := range c.Layers {
		all, err := i.Model.Pointers(layer)
		if err != nil {
			return err
		}
		for n := range len(seen) * c.Heads {
			head := layer*c.Heads + n%c.Heads
			for k := from; k < to; k++ {
				chosen := all[(n*i.Seq+k)*i.survivors:][:i.survivors]
				if seen[n/c.Heads].matches(k, chosen[0]) {
					i.first[head]++
				}
				if seen[n/c.Heads].anyMatches(k, chosen) {
					i.four[head]++
				}
			}
		}
	}
	return nil
}

// copies counts the tokens of the second copy that the model predicts as most probable.
func (i *induction) copies(tokens, targets []int32) error {
	best, err := i.Model.Greedy(tokens, i.Settings)
	if err != nil {
		return err
	}
	from, to := i.counted()
	for b := 0; b < len(tokens); b += i.Seq {
		right := 0
		for k := b + from; k < b+to; k++ {
			if best[k] == targets[k] {
				right++
			}
		}
		i.copied.Add(float64(right), float64(to-from))
	}
	return nil
}

func (i *induction) report(heads int) inductionReport {
	from, to := i.counted()
	second := float64(i.sequences) * float64(to-from)
	r := inductionReport{
		Length: i.length, Symbols: i.symbols,
		CopyAccuracy: i.copied.Value(), CopyError: i.copied.Error(), RandomCopy: 1 / float64(i.symbols),
		FirstBits:  i.firstNats / (float64(i.sequences) * float64(i.length-1)) / math.Ln2,
		SecondBits: i.secondNats / second / math.Ln2, RandomBits: math.Log2(float64(i.symbols)),
		RandomPrefix: i.random.share(i.random.first), RandomFour: i.random.share(i.random.four),
	}
	for n := range i.first {
		h := prefixHead{Layer: n / heads, Head: n % heads, First: float64(i.first[n]) / second,
			AnyOf4: float64(i.four[n]) / second}
		if n == 0 || h.First > r.Top.First {
			r.Top = h
		}
		r.Heads = append(r.Heads, h)
	}
	return r
}
