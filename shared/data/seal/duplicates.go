package seal

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/tokenizer"
)

// Which duplicates are left out. The first of several equal or similar documents stays, in the order of sources and
// rows.
const (
	KeepDuplicates  = "keep"  // none
	ExactDuplicates = "exact" // the same text, apart from case and white space
	NearDuplicates  = "near"  // also texts that share most of their phrases of five words
)

const (
	shingleWords = 5       // of a phrase
	maxWords     = 1 << 20 // of a document; what follows is not compared
	minhashBands = 14      // with 8 rows each, two documents of similarity 0.7 are compared in half of the cases,
	minhashRows  = 8       // of similarity 0.8 in 92 of 100, of similarity 0.9 always
	exampleBytes = 200     // of a duplicate's text in a report
)

// Duplicate is a document that was left out.
type Duplicate struct {
	Document   string  `json:"document"` // id
	Source     string  `json:"source"`
	Row        int64   `json:"row"`
	OfDocument string  `json:"of_document"` // the earlier document of which this is a copy; empty: in an earlier dataset
	OfSource   string  `json:"of_source"`   // the earlier document's source, or the list of texts that holds the text
	OfRow      int64   `json:"of_row"`
	Similarity float64 `json:"similarity"` // 1: the same text, apart from case and white space
	Text       string  `json:"text"`       // its beginning
}

// finder looks for duplicates among a sealer's entries.
type finder struct {
	*sealer
	tokenizer tokenizer.Tokenizer
}

// deduplicate takes duplicates out of the entries.
func (s *sealer) deduplicate(ctx context.Context) error {
	if s.options.Duplicates == KeepDuplicates {
		return nil
	}
	t, err := s.tokenizer.Open(s.options.Tokenizer)
	if err != nil {
		return fmt.Errorf("seal: looking for duplicates: %w", err)
	}
	f := &finder{s, t}
	s.duplicates = &dataset.Duplicates{Method: s.options.Duplicates}
	if err := f.digest(ctx); err != nil {
		return err
	}
	if err := f.removeKnown(); err != nil {
		return err
	}
	repeats := f.exact()
	err = f.remove(repeats, &s.duplicates.Exact)
	if err != nil || s.options.Duplicates == ExactDuplicates {
		return err
	}
	s.duplicates.Similarity = &s.options.Similarity
	if repeats, err = f.near(ctx); err != nil {
		return err
	}
	return f.remove(repeats, &s.duplicates.Near)
}

// repeat says that an entry repeats another.
type repeat struct {
	of         int // index of the earlier entry; -1: none; less: -2 minus the index of a list of known texts
	similarity float64
}

// known says that an entry repeats a text of Options.Known[i].
func known(i int) repeat { return repeat{-2 - i, 1} }

// remove removes the entries that repeat others, and counts them.
func (f *finder) remove(repeats []repeat, count *int64) error {
	kept := make([]entry, 0, len(f.entries))
	for i, e := range f.entries {
		if repeats[i].of == -1 {
			kept = append(kept, e)
			continue
		}
		d, tokens, err := f.batches[e.batch].Document(int(e.document))
		if err != nil {
			return err
		}
		*count++
		f.duplicates.Tokens += int64(tokens.Len())
		f.duplicates.Bytes += d.Bytes
		drop(&f.sources[e.source], d.Bytes, int64(tokens.Len()))
		if err := f.tell(d, repeats[i], tokens); err != nil {
			return err
		}
	}
	f.entries = kept
	return nil
}

// drop subtracts a document from the sums of its source.
func drop(s *dataset.Source, size, tokens int64) {
	s.Documents--
	s.Bytes -= size
	s.Tokens -= tokens
}

// tell gives the caller a duplicate.
func (f *finder) tell(d dataset.BatchDocument, r repeat, tokens dataset.Tokens) error {
	if f.options.Duplicate == nil {
		return nil
	}
	told := Duplicate{Document: d.ID, Source: d.Source, Row: d.Row, Similarity: r.similarity}
	if r.of < 0 {
		told.OfSource = f.options.Known[-2-r.of].Name
	} else {
		first := f.entries[r.of]
		of, _, err := f.batches[first.batch].Document(int(first.document))
		if err != nil {
			return err
		}
		told.OfDocument, told.OfSource, told.OfRow = of.ID, of.Source, of.Row
	}
	text := f.tokenizer.Decode(nil, tokens.Slice(0, min(tokens.Len(), exampleBytes)).AppendTo(nil))
	told.Text = string(text[:min(len(text), exampleBytes)])
	f.options.Duplicate(told)
	return nil
}

// each calls do for every entry with its text, in several goroutines. Each goroutine has its own words.
func (f *finder) each(ctx context.Context, do func(i int, text []byte, w *words)) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var first error
	threads := max(f.options.Threads, 1)
	for k := range threads {
		all.Go(func() {
			var w words
			var text []byte
			for i := k; i < len(f.entries) && ctx.Err() == nil; i += threads {
				var err error
				if text, err = f.text(text[:0], f.entries[i], &w); err != nil {
					mu.Lock()
					first = cmp.Or(first, err)
					mu.Unlock()
					return
				}
				do(i, text, &w)
			}
		})
	}
	all.Wait()
	return cmp.Or(first, ctx.Err())
}

// text appends an entry's text to dst.
func (f *finder) text(dst []byte, e entry, w *words) ([]byte, error) {
	_, tokens, err := f.batches[e.batch].Document(int(e.document))
	if err != nil {
		return nil, err
	}
	w.tokens = tokens.AppendTo(w.tokens[:0])
	return f.tokenizer.Decode(dst, w.tokens), nil
}

// digest computes the digests of all texts.
func (f *finder) digest(ctx context.Context) error {
	return f.each(ctx, func(i int, text []byte, w *words) {
		w.plain = normalize(w.plain[:0], text)
		f.entries[i].text = xxh3.Hash128(w.plain)
	})
}

// byText is the order of the entries by text, and of entries with equal texts by index.
func (f *finder) byText() []int32 {
	order := make([]int32, len(f.entries))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(compareTexts(f.entries[a].text, f.entries[b].text), cmp.Compare(a, b))
	})
	return order
}

// removeKnown removes the entries whose texts are in lists of earlier datasets.
func (f *finder) removeKnown() error {
	if len(f.options.Known) == 0 {
		return nil
	}
	repeats := make([]repeat, len(f.entries))
	for i := range repeats {
		repeats[i].of = -1
	}
	order := f.byText()
	for k, name := range f.options.Known {
		f.duplicates.Known = append(f.duplicates.Known, name.Name)
		list, err := openTexts(name)
		if err != nil {
			return err
		}
		defer list.close()
		for _, i := range order {
			has, err := list.has(f.entries[i].text)
			if err != nil {
				return err
			}
			if has && repeats[i].of == -1 {
				repeats[i] = known(k)
			}
		}
	}
	return f.remove(repeats, &f.duplicates.Earlier)
}

// exact finds documents with equal texts, by their digests.
func (f *finder) exact() []repeat {
	order := f.byText()
	repeats := make([]repeat, len(f.entries))
	var first int32
	for k, i := range order {
		if k == 0 || f.entries[i].text != f.entries[order[k-1]].text {
			first = i
			repeats[i].of = -1
			continue
		}
		repeats[i] = repeat{int(first), 1}
	}
	return repeats
}

// near finds documents that are similar to earlier ones. MinHash (Broder, 1997) computes rows of small hashes for each
// document; the share of equal rows of two documents estimates the share of their common shingles. A document is
// compared exactly with the first document that has one of its bands of rows.
func (f *finder) near(ctx context.Context) ([]repeat, error) {
	bands := make([][minhashBands]uint32, len(f.entries))
	err := f.each(ctx, func(i int, text []byte, w *words) { bands[i] = minhash(w.shingles(text)) })
	if err != nil {
		return nil, err
	}
	candidates := make([][]int32, len(f.entries)) // earlier entries to compare with
	order := make([]int32, len(f.entries))
	for b := range minhashBands {
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortFunc(order, func(x, y int32) int {
			return cmp.Or(cmp.Compare(bands[x][b], bands[y][b]), cmp.Compare(x, y))
		})
		first := int32(0)
		for k, i := range order {
			if k == 0 || bands[i][b] != bands[order[k-1]][b] {
				first = i
			} else if bands[i][b] != 0 && !slices.Contains(candidates[i], first) {
				candidates[i] = append(candidates[i], first)
			}
		}
	}
	repeats := make([]repeat, len(f.entries))
	err = f.each(ctx, func(i int, text []byte, w *words) { repeats[i] = f.closest(i, text, candidates[i], w) })
	return repeats, err
}

// closest is the first candidate that is similar enough.
func (f *finder) closest(i int, text []byte, candidates []int32, w *words) repeat {
	if len(candidates) == 0 {
		return repeat{of: -1}
	}
	slices.Sort(candidates)
	own := slices.Clone(w.shingles(text))
	slices.Sort(own)
	own = slices.Compact(own)
	for _, c := range candidates {
		other, err := f.text(nil, f.entries[c], w)
		if err != nil {
			continue // no error: each has read the text before
		}
		shingles := w.shingles(other)
		slices.Sort(shingles)
		if s := jaccard(own, slices.Compact(shingles)); s >= f.options.Similarity {
			return repeat{int(c), s}
		}
	}
	return repeat{of: -1}
}

// jaccard is the size of the intersection of two sorted sets over that of their union.
func jaccard(a, b []uint64) float64 {
	both := 0
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			both++
			i++
			j++
		case a[i] < b[j]:
			i++
		default:
			j++
		}
	}
	return float64(both) / float64(max(len(a)+len(b)-both, 1))
}

// words is scratch memory of a goroutine.
type words struct {
	tokens []uint32
	plain  []byte
	hashes []uint64
	grams  []uint64
}

// normalize appends a text in lower case. Runs of white space become one space, and white space at both ends is
// removed.
func normalize(dst, text []byte) []byte {
	gap := false
	start := len(dst)
	for i := 0; i < len(text); {
		r, n := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(text[i:])
		}
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, text[i]) // bytes that are not UTF-8 stay as they are
		case unicode.IsSpace(r):
			gap = len(dst) > start
		default:
			if gap {
				dst, gap = append(dst, ' '), false
			}
			dst = utf8.AppendRune(dst, unicode.ToLower(r))
		}
		i += n
	}
	return dst
}

// shingles are the hashes of the phrases of a text: shingleWords consecutive words of letters and digits, in lower
// case. A shorter text is one phrase; a text without words has none. They are valid until the next call.
func (w *words) shingles(text []byte) []uint64 {
	w.hashes, w.grams = w.hashes[:0], w.grams[:0]
	w.plain = w.plain[:0]
	finish := func() {
		if len(w.plain) > 0 {
			w.hashes = append(w.hashes, xxh3.Hash(w.plain))
			w.plain = w.plain[:0]
		}
	}
	for i := 0; i < len(text) && len(w.hashes) < maxWords; {
		r, n := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(text[i:])
		}
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			w.plain = utf8.AppendRune(w.plain, unicode.ToLower(r))
		} else {
			finish()
		}
		i += n
	}
	finish()
	if len(w.hashes) == 0 {
		return nil
	}
	for i := 0; i == 0 || i+shingleWords <= len(w.hashes); i++ {
		var h uint64
		for _, word := range w.hashes[i:min(i+shingleWords, len(w.hashes))] {
			h = dataset.SplitMix64(h*0x9e3779b97f4a7c15 + word)
		}
		w.grams = append(w.grams, h)
	}
	return w.grams
}

// minhash computes the bands of a document: a hash of minhashRows minima each, or 0 if there are no shingles.
func minhash(shingles []uint64) (bands [minhashBands]uint32) {
	if len(shingles) == 0 {
		return bands
	}
	var least [minhashBands * minhashRows]uint32
	for i := range least {
		least[i] = ^uint32(0)
	}
	for _, s := range shingles {
		for i := range least {
			// Multiplication by an odd number permutes 64 bits. The upper half of the product is a good enough hash.
			least[i] = min(least[i], uint32(s*multipliers[i]>>32))
		}
	}
	for b := range bands {
		var h uint64
		for _, v := range least[b*minhashRows : (b+1)*minhashRows] {
			h = dataset.SplitMix64(h ^ uint64(v) + 0x9e3779b97f4a7c15)
		}
		bands[b] = max(uint32(h>>32), 1)
	}
	return bands
}

var multipliers = func() (m [minhashBands * minhashRows]uint64) {
	for i := range m {
		m[i] = dataset.SplitMix64(uint64(i+1)*0x9e3779b97f4a7c15) | 1
	}
	return m
}()
