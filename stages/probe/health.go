package main

import (
	"context"
	"math"

	"bitnet1/shared/measure"
	"bitnet1/shared/run/stage"
)

// A head is a specialist if its IPMR exceeds that of a random key by specialistMargin and by specialistErrors standard
// errors of the difference.
const (
	specialistMargin = 0.05
	specialistErrors = 3
)

// healthReport is the content of *_pointer_health.json. Standard errors are over sequences, and null for fewer than two
// sequences. The baselines random_… are expected values for keys that are drawn evenly from those that a query may
// read.
type healthReport struct {
	about
	Sequences int   `json:"sequences"`
	Positions int64 `json:"positions"` // with a next token to predict
	// positions whose token occurred before in the text that they may read; IPMR and M4 are shares of them
	Repeated int64 `json:"repeated"`

	RandomIPMR float64 `json:"random_ipmr"` // of a head that points at random keys
	RandomM4   float64 `json:"random_m4"`   // of a head whose survivors are distinct random keys
	RandomHDR  float64 `json:"random_hdr"`  // of a head that points at random keys

	GlobalIPMR      float64  `json:"global_ipmr"` // share of positions at which any head matches
	GlobalIPMRError *float64 `json:"global_ipmr_error"`
	// of the same number of heads that point at independent random keys
	RandomGlobalIPMR float64 `json:"random_global_ipmr"`

	Specialists int     `json:"specialists"` // heads whose IPMR exceeds random_ipmr by 0.05 and by 3 standard errors
	Top         head    `json:"top"`         // the head with the highest IPMR
	Heads       []head  `json:"heads"`
	ValBPC      float64 `json:"val_bpc"` // bits per token on these sequences

	// tokens that are read before the early loss, within the document if documents are separate
	EarlyPosition int `json:"early_position"`
	LatePosition  int `json:"late_position"` // and before the late loss
	// InContextScore is the late loss minus the early loss in nats (Olsson et al. 2022: token 500 minus token 50). It is
	// null if no token has that many tokens before it.
	InContextScore  *float64 `json:"in_context_score"`
	InContextTokens int64    `json:"in_context_tokens"` // number of late losses
}

// head holds the measures of one attention head.
type head struct {
	Layer int `json:"layer"`
	Head  int `json:"head"`
	// share of repeated positions whose first survivor follows an earlier occurrence of their token
	IPMR      float64  `json:"ipmr"`
	IPMRError *float64 `json:"ipmr_error"`
	M4        float64  `json:"m4"` // the same with any of the first four survivors
	M4Error   *float64 `json:"m4_error"`
	HDR       float64  `json:"hdr"` // exp(entropy of the distances to the first survivor) / number of possible distances
}

// maxSurvivors is the number of survivors that M4 looks at.
const maxSurvivors = 4

// pointerHealth runs the model over sequences and counts the matches of all pointers. In all, total sequences are
// computed.
func pointerHealth(ctx context.Context, job *stage.Job[Params], s *measure.Subject, on sequences,
	total int) (*tally, error) {
	t := newTally(s)
	return t, each(ctx, job, s, on, 0, total, func(tokens, targets []int32) error {
		losses, err := s.Model.Losses(tokens, targets, s.Settings)
		if err != nil {
			return err
		}
		return t.add(tokens, targets, losses)
	})
}

// tally counts matches over sequences.
type tally struct {
	*measure.Subject
	layers, heads, survivors int

	positions int64
	first     []measure.Mean // matches of the first survivor, by layer*heads + head
	four      []measure.Mean // and of any of the first four
	above     []measure.Mean // matches of the first survivor minus the expected matches of random keys
	anyHead   measure.Mean
	random    chances
	distances [][]int64 // histograms, by layer*heads + head
	read      []int64   // read[n] positions may read n+1 keys
	matched   []bool    // by position of the batch: whether any head matches
	sequences int

	nats  float64
	early window
	late  window
}

// window is the mean loss of tokens that have exactly position tokens before them.
type window struct {
	position int
	nats     float64
	count    int64
}

func (w *window) add(position int, nats float64) {
	if position == w.position {
		w.nats += nats
		w.count++
	}
}

func newTally(s *measure.Subject) *tally {
	c := s.Model.Config()
	t := &tally{Subject: s, layers: c.Layers, heads: c.Heads, survivors: c.Survivors(s.Seq)}
	all := c.Layers * c.Heads
	t.first, t.four, t.above = make([]measure.Mean, all), make([]measure.Mean, all), make([]measure.Mean, all)
	t.distances, t.read = make([][]int64, all), make([]int64, s.Seq)
	for i := range t.distances {
		t.distances[i] = make([]int64, s.Seq)
	}
	t.early.position, t.late.position = compared(s.Seq)
	return t
}

// compared are the two positions of the in-context score. Olsson et al. compare tokens 50 and 500 of sequences of 512;
// sequences shorter than 512 are compared at the same shares of their length.
func compared(seq int) (early, late int) { return min(50, seq*50/512), min(500, seq*500/512) }

// add counts a batch. The model must have computed this batch last, because its pointers are read.
func (t *tally) add(tokens, targets []int32, losses []float32) error {
	t.matched = append(t.matched[:0], make([]bool, len(tokens))...)
	seen := make([]occurrences, len(tokens)/t.Seq)
	random := make([]chances, len(seen))
	t.sequences += len(seen)
	for b := range seen {
		from := b * t.Seq
		sequence := tokens[from : from+t.Seq]
		seen[b] = occurrencesOf(sequence, t.Model.Options().Documents.Starts(sequence, t.Seq))
		random[b] = t.context(targets[from:from+t.Seq], losses[from:from+t.Seq], seen[b])
		t.random.join(random[b])
	}
	for layer := range t.layers {
		pointers, err := t.Model.Pointers(layer)
		if err != nil {
			return err
		}
		for b := range seen {
			for h := range t.heads {
				at := (b*t.heads + h) * t.Seq * t.survivors
				t.head(layer*t.heads+h, b*t.Seq, targets[b*t.Seq:][:t.Seq], pointers[at:][:t.Seq*t.survivors], seen[b], random[b])
			}
		}
	}
	for b := range seen {
		matches := 0
		for _, m := range t.matched[b*t.Seq:][:t.Seq] {
			if m {
				matches++
			}
		}
		t.anyHead.Add(float64(matches), float64(random[b].positions))
	}
	return nil
}

// context counts the losses of one sequence, and returns the expected matches of random keys in it.
func (t *tally) context(targets []int32, losses []float32, seen occurrences) (random chances) {
	for k, target := range targets {
		if target < 0 {
			continue
		}
		t.positions++
		t.nats += float64(losses[k])
		read := k - int(seen.starts[k])
		t.read[read]++
		t.early.add(read, float64(losses[k]))
		t.late.add(read, float64(losses[k]))
		if n := seen.before[k]; n > 0 { // each earlier occurrence has one key after it
			random.add(int(n), read+1, t.survivors, t.layers*t.heads)
		}
	}
	return random
}

// head counts the pointers of head i in one sequence. The sequence begins at position at of the batch.
func (t *tally) head(i, at int, targets, pointers []int32, seen occurrences, random chances) {
	first, four := 0, 0
	for k, target := range targets {
		if target < 0 {
			continue
		}
		chosen := pointers[k*t.survivors:][:t.survivors]
		t.distances[i][k-int(chosen[0])]++
		if seen.before[k] == 0 {
			continue
		}
		if seen.matches(k, chosen[0]) {
			first++
			t.matched[at+k] = true
		}
		if seen.anyMatches(k, chosen) {
			four++
		}
	}
	repeated := float64(random.positions)
	t.first[i].Add(float64(first), repeated)
	t.four[i].Add(float64(four), repeated)
	t.above[i].Add(float64(first)-random.first, repeated)
}

func (t *tally) report() healthReport {
	r := healthReport{
		Sequences: t.sequences, Positions: t.positions, Repeated: t.random.positions,
		RandomIPMR: t.random.share(t.random.first), RandomM4: t.random.share(t.random.four),
		RandomHDR:  randomDiversity(t.read),
		GlobalIPMR: t.anyHead.Value(), GlobalIPMRError: t.anyHead.Error(), RandomGlobalIPMR: t.random.share(t.random.anyHead),
		ValBPC:        t.nats / float64(max(t.positions, 1)) / math.Ln2,
		EarlyPosition: t.early.position, LatePosition: t.late.position,
		InContextTokens: t.late.count,
	}
	if t.early.count > 0 && t.late.count > 0 {
		score := t.late.nats/float64(t.late.count) - t.early.nats/float64(t.early.count)
		r.InContextScore = &score
	}
	for i := range t.first {
		h := head{
			Layer: i / t.heads, Head: i % t.heads, HDR: diversity(t.distances[i]),
			IPMR: t.first[i].Value(), IPMRError: t.first[i].Error(), M4: t.four[i].Value(), M4Error: t.four[i].Error(),
		}
		if isSpecialist(t.above[i]) {
			r.Specialists++
		}
		if i == 0 || h.IPMR > r.Top.IPMR {
			r.Top = h
		}
		r.Heads = append(r.Heads, h)
	}
	return r
}

// isSpecialist reports whether a head is a specialist, given its matches above those of random keys.
func isSpecialist(above measure.Mean) bool {
	e := above.Error()
	return above.Value() >= specialistMargin && e != nil && above.Value() >= specialistErrors**e
}

// diversity is exp(entropy) of a histogram over the number of its bins.
func diversity[N int64 | float64](histogram []N) float64 {
	var total float64
	for _, n := range histogram {
		total += float64(n)
	}
	var entropy float64
	for _, n := range histogram {
		if n > 0 {
			p := float64(n) / total
			entropy -= p * math.Log(p)
		}
	}
	return math.Exp(entropy) / float64(len(histogram))
}

// occurrences counts, for each position of a sequence, the earlier occurrences of its token.
type occurrences struct {
	tokens []int32
	starts []int32 // first position that each position may read: 0, or the start of its document
	before []int32 // earlier occurrences of the token, from starts on
}

func occurrencesOf(tokens, starts []int32) occurrences {
	o := occurrences{tokens: tokens, starts: starts, before: make([]int32, len(tokens))}
	counts := map[int32]int32{}
	for k, token := range tokens {
		if int(starts[k]) == k {
			clear(counts)
		}
		o.before[k] = counts[token]
		counts[token]++
	}
	return o
}

// matches reports whether key u follows an earlier occurrence of the token at position k.
func (o occurrences) matches(k int, u int32) bool {
	return u > o.starts[k] && o.tokens[u-1] == o.tokens[k]
}

// anyMatches reports whether any of the first four survivors of position k matches.
func (o occurrences) anyMatches(k int, chosen []int32) bool {
	for _, u := range chosen[:min(maxSurvivors, len(chosen))] {
		if o.matches(k, u) {
			return true
		}
	}
	return false
}
