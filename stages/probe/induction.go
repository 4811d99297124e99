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

// probeInduction runs the model over repeated random tokens. Done sequences of total were computed before. The scores
// of heads may be nil.
func probeInduction(ctx context.Context, job *stage.Job[Params], s *measure.Subject, scores *patternScores, done,
	total int) (inductionReport, error) {
	on, err := newRandomTokens(s, job.Params)
	if err != nil {
		return inductionReport{}, stage.Permanent(err)
	}
	i := newInduction(on, scores)
	if err := each(ctx, job, s, on, done, total, i.add); err != nil {
		return inductionReport{}, err
	}
	r := i.report(s.Model.Config().Heads)
	r.Repeats = job.Params.Repeats
	return r, nil
}

// randomTokens are sequences of random tokens that are written twice.
type randomTokens struct {
	*measure.Subject
	length  int // of one copy
	symbols int // different tokens that are drawn from
	repeats int // number of sequences
	seed    uint64
}

func newRandomTokens(s *measure.Subject, p Params) (randomTokens, error) {
	vocabulary := s.Tokenizer.Vocab()
	if s.Manifest != nil {
		vocabulary = s.Manifest.Tokenizer.Vocab
	}
	r := randomTokens{s, s.Seq / 2, vocabulary - 1, p.Repeats, p.Seed}
	if r.length < 2 || r.symbols < 2 {
		return r, errors.New("the induction probe needs sequences of at least 4 tokens and a vocabulary of at least 3")
	}
	return r, nil
}

func (r randomTokens) count() int { return r.repeats }

func (r randomTokens) read(from, to int) (tokens, targets []int32, err error) {
	tokens, targets = make([]int32, (to-from)*r.Seq), make([]int32, (to-from)*r.Seq)
	for i := range to - from {
		r.draw(from+i, tokens[i*r.Seq:][:r.Seq], targets[i*r.Seq:][:r.Seq])
	}
	return tokens, targets, nil
}

// token is a random token other than the end of text, the k-th of a sequence.
func (r randomTokens) token(sequence, k int) int32 {
	w := philox.Block(philox.Key(r.seed), [4]uint32{uint32(k / 4), uint32(sequence), drawing, 0})[k%4]
	id := int32(uint64(w) * uint64(r.symbols) >> 32)
	if uint32(id) >= r.Tokenizer.EndOfText() {
		id++
	}
	return id
}

// draw fills a sequence with random tokens, and with their repetition. The last position of a sequence of odd length is
// not counted.
func (r randomTokens) draw(sequence int, tokens, targets []int32) {
	for k := range r.length {
		id := r.token(sequence, k)
		tokens[k], tokens[k+r.length] = id, id
	}
	for k := range targets {
		targets[k] = -1
		if k+1 < 2*r.length {
			targets[k] = tokens[k+1]
		}
	}
}

// drawing separates these random numbers from others of the same seed.
const drawing = 0x494e4455

// counted is the range of positions whose next token can be known.
func (r randomTokens) counted() (from, to int) { return r.length, 2*r.length - 1 }

type induction struct {
	randomTokens
	survivors int
	scores    *patternScores // nil: not asked for

	sequences             int64
	copied                measure.Mean
	random                chances
	firstNats, secondNats float64
	first, four           []int64
}

func newInduction(on randomTokens, scores *patternScores) *induction {
	c := on.Model.Config()
	all := c.Layers * c.Heads
	return &induction{randomTokens: on, survivors: c.Survivors(on.Seq), scores: scores, first: make([]int64, all),
		four: make([]int64, all)}
}

// add measures a batch.
func (i *induction) add(tokens, targets []int32) error {
	losses, err := i.Model.Losses(tokens, targets, i.Settings)
	if err != nil {
		return err
	}
	i.sequences += int64(len(tokens) / i.Seq)
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
			if i.scores != nil {
				i.scores.add(head, seen[n/c.Heads], all[n*i.Seq*i.survivors:][:i.Seq*i.survivors])
			}
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
