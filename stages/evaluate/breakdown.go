package main

import (
	"fmt"
	"math"
	"math/bits"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure"
)

// breakdown divides the loss: by document, by position, and by whether induction can predict a token.
type breakdown struct {
	separate  model.Documents
	documents documents
	exact     []sum          // by the number of tokens read, from 1
	buckets   []measure.Mean // the same in powers of two
	induction [2]measure.Mean
}

// sum is the loss of some of the targets, in nats.
type sum struct{ nats, tokens float64 }

func (s *sum) add(loss float32) {
	s.nats += float64(loss)
	s.tokens++
}

// The parts of the loss by induction.
const (
	other = iota
	predictable
)

// breakdownReport is what a breakdown adds to the report. Means are over targets, and standard errors over sequences.
type breakdownReport struct {
	DocumentCount        int         `json:"document_count"`          // with a target
	BitsPerTokenInterval *[2]float64 `json:"bits_per_token_interval"` // 95 %, over documents; null for a single one
	BitsPerByteInterval  *[2]float64 `json:"bits_per_byte_interval"`
	Resamples            int         `json:"resamples"` // of the documents, from which the intervals come

	Positions      []positions `json:"positions"`        // in powers of two
	BitsByPosition []*float64  `json:"bits_by_position"` // element i: after i+1 tokens; null without targets there

	Induction inductionReport `json:"induction"`
}

// positions is the loss after from to to tokens were read.
type positions struct {
	From int `json:"from"`
	To   int `json:"to"`
	part
}

type inductionReport struct {
	Predictable part `json:"predictable"` // the target followed an earlier occurrence of the present token
	Other       part `json:"other"`
}

// part is the loss of some of the targets.
type part struct {
	Tokens            int64    `json:"tokens"`
	BitsPerToken      *float64 `json:"bits_per_token"` // null without tokens
	BitsPerTokenError *float64 `json:"bits_per_token_error"`
}

func newBreakdown(seq int, d model.Documents) *breakdown {
	return &breakdown{separate: d, documents: documents{number: map[documentKey]int{}}, exact: make([]sum, seq),
		buckets: make([]measure.Mean, bucket(seq)+1)}
}

// bucket is the number of the bucket of a number of tokens read: 1, 2 to 3, 4 to 7 and so on.
func bucket(read int) int { return bits.Len(uint(read)) - 1 }

// add adds a sequence. bytesOf is the length of a token's text.
func (b *breakdown) add(tokens, targets []int32, losses []float32, ranges []dataset.Range,
	bytesOf func(int32) int) error {
	if err := b.documents.add(targets, losses, ranges, bytesOf); err != nil {
		return err
	}
	starts := make([]int32, len(tokens))
	if b.separate.Separate {
		starts = b.separate.Starts(tokens, len(tokens))
	}
	var induction [2]sum
	buckets := make([]sum, len(b.buckets))
	seen := map[[2]int32]bool{} // pairs of successive tokens that may be read
	for k, target := range targets {
		if k > int(starts[k]) {
			seen[[2]int32{tokens[k-1], tokens[k]}] = true
		} else {
			clear(seen) // a document begins
		}
		if target < 0 {
			continue
		}
		read := k - int(starts[k]) + 1
		b.exact[read-1].add(losses[k])
		buckets[bucket(read)].add(losses[k])
		i := other
		if seen[[2]int32{tokens[k], target}] {
			i = predictable
		}
		induction[i].add(losses[k])
	}
	for i, s := range buckets {
		b.buckets[i].Add(s.nats, s.tokens)
	}
	for i, s := range induction {
		b.induction[i].Add(s.nats, s.tokens)
	}
	return nil
}

func (b *breakdown) report() *breakdownReport {
	r := &breakdownReport{DocumentCount: len(b.documents.sums), Resamples: resamples,
		Induction: inductionReport{Predictable: partOf(b.induction[predictable]), Other: partOf(b.induction[other])}}
	r.BitsPerTokenInterval, r.BitsPerByteInterval = b.documents.intervals()
	for _, s := range b.exact {
		var inBits *float64
		if s.tokens > 0 {
			value := s.nats / s.tokens / math.Ln2
			inBits = &value
		}
		r.BitsByPosition = append(r.BitsByPosition, inBits)
	}
	for i, m := range b.buckets {
		r.Positions = append(r.Positions, positions{1 << i, min(2<<i-1, len(b.exact)), partOf(m)})
	}
	return r
}

// partOf reads a mean of nats.
func partOf(m measure.Mean) part {
	p := part{Tokens: int64(m.Weight())}
	if p.Tokens == 0 {
		return p
	}
	inBits := m.Value() / math.Ln2
	p.BitsPerToken = &inBits
	if e := m.Error(); e != nil {
		inBits := *e / math.Ln2
		p.BitsPerTokenError = &inBits
	}
	return p
}

// documentKey identifies a document of a dataset.
type documentKey struct {
	source int
	row    int64
}

// documentSums are of the targets of one document.
type documentSums struct{ nats, tokens, bytes float64 }

type documents struct {
	number map[documentKey]int
	sums   []documentSums
}

// add adds a sequence whose tokens come from ranges of documents. Target k is token k+1.
func (d *documents) add(targets []int32, losses []float32, ranges []dataset.Range, bytesOf func(int32) int) error {
	counted := 0
	for _, r := range ranges {
		key := documentKey{r.Source, r.Row}
		i, known := d.number[key]
		for k := max(r.Start-1, 0); k < r.Start-1+r.Length && k < len(targets); k++ {
			if targets[k] < 0 {
				continue
			}
			if !known {
				i, known = len(d.sums), true
				d.number[key] = i
				d.sums = append(d.sums, documentSums{})
			}
			s := &d.sums[i]
			s.nats += float64(losses[k])
			s.tokens++
			s.bytes += float64(bytesOf(targets[k]))
			counted++
		}
	}
	for _, target := range targets {
		if target >= 0 {
			counted--
		}
	}
	if counted != 0 {
		return fmt.Errorf("the documents of a sequence do not cover its targets (by %d): make the dataset's shards again",
			counted)
	}
	return nil
}
