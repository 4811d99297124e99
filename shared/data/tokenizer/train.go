package tokenizer

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"
)

// Training says what vocabulary Train makes.
type Training struct {
	Vocab        int   // most ids: the end of text, 256 bytes and what is merged
	MinFrequency int64 // a pair that occurs less often is not merged
	// Merged, if set, is called before the first merge and after each, with the number of ids that there are.
	Merged func(ids int)
}

// leastVocab are the 256 bytes and the end of text.
const leastVocab = 257

// Validate reports values that no vocabulary can have.
func (t Training) Validate() error {
	switch {
	case t.Vocab < leastVocab || t.Vocab > maxID:
		return fmt.Errorf("a vocabulary of %d ids: it has %d at least, the 256 bytes and the end of text, and %d at "+
			"most", t.Vocab, leastVocab, maxID)
	case t.MinFrequency < 1:
		return fmt.Errorf("a least frequency of %d: a pair that is merged occurs once at least", t.MinFrequency)
	}
	return nil
}

// Train makes the tokenizer.json of byte-level byte pair encoding (Sennrich, Haddow and Birch 2016; on bytes: Radford
// and others 2019): the pair of tokens that occurs most often in the pieces is merged, and so on until the vocabulary
// has as many ids as are wanted or no pair occurs often enough. Of pairs that occur equally often the one with the
// smallest ids is merged first. The end of text has id 0; the bytes follow in the order of the characters that stand
// for them.
//
// The merges are those of BpeTrainer of Hugging Face's package tokenizers, version 0.23, with initial_alphabet and the
// end of text as the only special token, in all that decides about them. So Train, too, takes the occurrences of a pair
// for as many as there were before, after it was merged: this counts where a token can be merged in two ways.
func Train(ctx context.Context, p *Pieces, o Training) ([]byte, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	t := newTrainer(p)
	if o.Merged != nil {
		o.Merged(len(t.tokens))
	}
	for len(t.tokens) < o.Vocab && len(t.queue) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next := t.queue[0]
		if n := t.counts[next.pair]; n != next.count { // it has become rarer
			t.queue[0].count = n
			heap.Fix(&t.queue, 0)
			continue
		}
		if next.count < o.MinFrequency {
			break
		}
		heap.Pop(&t.queue)
		t.merge(next)
		if o.Merged != nil {
			o.Merged(len(t.tokens))
		}
	}
	return t.encode(p.pattern)
}

// trainer has the pieces as tokens.
type trainer struct {
	symbols      []uint32 // the tokens of all pieces; merging moves those of a piece to its start
	starts, ends []uint32 // of the pieces, in symbols
	times        []int64  // how often each piece occurs

	tokens []string // by id
	ids    map[string]uint32
	merges []tokenPair
	counts map[tokenPair]int64
	queue  candidates
	fresh  map[tokenPair][]uint32 // pieces in which a merge makes a pair
}

// tokenPair is two tokens, one after the other: the ids of the left and of the right one.
type tokenPair struct{ left, right uint32 }

// candidate is a pair that may be merged.
type candidate struct {
	pair   tokenPair
	count  int64    // at some time; it may have become rarer
	since  int      // number of merges before it was made
	pieces []uint32 // in which it was made
}

// candidates is a heap: the candidate that is merged next comes first.
type candidates []candidate

func (q candidates) Len() int      { return len(q) }
func (q candidates) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *candidates) Push(c any)   { *q = append(*q, c.(candidate)) }

func (q candidates) Less(i, j int) bool {
	a, b := &q[i], &q[j]
	return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.pair.left, b.pair.left),
		cmp.Compare(a.pair.right, b.pair.right), cmp.Compare(a.since, b.since)) < 0
}

func (q *candidates) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	*q = (*q)[:last]
	return c
}

// newTrainer has each byte as a token.
func newTrainer(p *Pieces) *trainer {
	t := &trainer{tokens: []string{endOfTextBytes}, ids: map[string]uint32{}, counts: map[tokenPair]int64{},
		fresh: map[tokenPair][]uint32{}, times: p.times, symbols: make([]uint32, len(p.all.bytes)),
		starts: make([]uint32, p.Len()), ends: slices.Clone(p.all.ends)}
	var alphabet []byte
	for b := range 256 {
		alphabet = append(alphabet, byte(b))
	}
	slices.SortFunc(alphabet, func(a, b byte) int { return cmp.Compare(visibleBytes[a], visibleBytes[b]) })
	for _, b := range alphabet {
		t.add(string([]byte{b}))
	}
	for i := range t.symbols {
		t.symbols[i] = t.ids[string(p.all.bytes[i:i+1])]
	}
	if len(t.ends) > 0 {
		copy(t.starts[1:], t.ends)
	}
	for piece := range t.ends {
		s := t.symbols[t.starts[piece]:t.ends[piece]]
		for i := 1; i < len(s); i++ {
			t.count(tokenPair{s[i-1], s[i]}, uint32(piece), 1)
		}
	}
	t.enqueue()
	return t
}

// add returns the id of a token. The token is new, or another merge has made it before.
func (t *trainer) add(token string) uint32 {
	id, there := t.ids[token]
	if !there {
		id = uint32(len(t.tokens))
		t.ids[token] = id
		t.tokens = append(t.tokens, token)
	}
	return id
}

// count notes that a pair occurs once more, or once less, in a piece.
func (t *trainer) count(p tokenPair, piece uint32, change int64) {
	t.counts[p] += change * t.times[piece]
	if change < 0 {
		return
	}
	if in := t.fresh[p]; len(in) == 0 || in[len(in)-1] != piece {
		t.fresh[p] = append(in, piece)
	}
}

// enqueue puts the pairs that were made into the queue.
func (t *trainer) enqueue() {
	for p, pieces := range t.fresh {
		if n := t.counts[p]; n > 0 {
			heap.Push(&t.queue, candidate{p, n, len(t.merges), pieces})
		}
	}
	t.fresh = map[tokenPair][]uint32{}
}

// merge merges a pair in the pieces in which it was made.
func (t *trainer) merge(c candidate) {
	made := t.add(t.tokens[c.pair.left] + t.tokens[c.pair.right])
	t.merges = append(t.merges, c.pair)
	for _, piece := range c.pieces {
		t.mergeIn(piece, c.pair, made)
	}
	t.enqueue()
}

// mergeIn merges a pair in a piece, from left to right.
func (t *trainer) mergeIn(piece uint32, p tokenPair, made uint32) {
	s, n := t.symbols[t.starts[piece]:t.ends[piece]], 0
	for i := 0; i < len(s); n++ {
		if s[i] != p.left || i+1 == len(s) || s[i+1] != p.right {
			s[n] = s[i]
			i++
			continue
		}
		i += 2
		if n > 0 {
			t.count(tokenPair{s[n-1], p.left}, piece, -1)
			t.count(tokenPair{s[n-1], made}, piece, 1)
		}
		if i < len(s) {
			t.count(tokenPair{p.right, s[i]}, piece, -1)
			t.count(tokenPair{made, s[i]}, piece, 1)
		}
		s[n] = made
	}
	t.ends[piece] = t.starts[piece] + uint32(n)
}

// encode writes the tokenizer.json. A pair that was merged twice has the place of its last merge.
func (t *trainer) encode(pattern string) ([]byte, error) {
	vocab := map[string]int{}
	for id, token := range t.tokens[1:] {
		vocab[visible([]byte(token))] = id + 1
	}
	last := map[tokenPair]int{}
	for rank, p := range t.merges {
		last[p] = rank
	}
	merges := []string{}
	for rank, p := range t.merges {
		if last[p] == rank {
			merges = append(merges, visible([]byte(t.tokens[p.left]))+" "+visible([]byte(t.tokens[p.right])))
		}
	}
	return encodeFile(vocab, merges, patterns[pattern], 0, false)
}
