package dataset

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/blake3"

	"bitnet1/shared/data/tokenizer"
)

// diskOutput is the simplest store: a file under its name.
type diskOutput struct {
	*os.File
	digest hash.Hash
	size   int64
}

func (o *diskOutput) Write(p []byte) (int, error) {
	o.digest.Write(p)
	o.size += int64(len(p))
	return o.File.Write(p)
}

func (o *diskOutput) Commit() (string, int64, error) {
	return hex.EncodeToString(o.digest.Sum(nil)), o.size, o.Close()
}

func (o *diskOutput) Abort() error { return errors.Join(o.Close(), os.Remove(o.Name())) }

func into(dir string) func(string) (Output, error) {
	return func(name string) (Output, error) {
		f, err := os.Create(filepath.Join(dir, name))
		return &diskOutput{File: f, digest: blake3.New()}, err
	}
}

func from(dir string) func(Shard) (string, error) {
	return func(s Shard) (string, error) { return filepath.Join(dir, s.Name), nil }
}

func infoOf(t tokenizer.Tokenizer) TokenizerInfo {
	return TokenizerInfo{Name: t.Name(), Vocab: t.Vocab(), EndOfText: t.EndOfText()}
}

func mustTokenizer(t testing.TB, name string) tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.New(name)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// document is a text with its identity, for tests that keep everything in memory.
type document struct {
	BatchDocument
	tokens []uint32
}

func key(source string, row int64) string { return fmt.Sprintf("%s#%d", source, row) }

// writeBatch writes documents as a token batch and returns its path.
func writeBatch(t testing.TB, info TokenizerInfo, docs []document) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "*.arrow")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := NewBatchWriter(f, info)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		if err := w.Append(d.BatchDocument, d.tokens); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// synthetic makes n documents of 0 to 40 tokens, spread over three sources.
func synthetic(n int, info TokenizerInfo) []document {
	docs := make([]document, n)
	state := uint64(n)
	next := func(below int) int {
		state = mix(state + 1)
		return int(state % uint64(below))
	}
	for i := range docs {
		docs[i].BatchDocument = BatchDocument{ID: fmt.Sprintf("doc-%d", i), Source: fmt.Sprintf("source-%d", i%3), Row: int64(i / 3), Bytes: int64(next(200))}
		for range next(41) {
			docs[i].tokens = append(docs[i].tokens, uint32(next(info.Vocab-1)))
		}
	}
	return docs
}

var (
	small = TokenizerInfo{Name: "bytes", Vocab: 257, EndOfText: 256}
	large = TokenizerInfo{Name: "huge", Vocab: 200_000, EndOfText: 199_999}
)

// usual gives zeros the usual values.
func usual(o SealOptions) SealOptions {
	usual := DefaultSealOptions()
	o.SequenceLength = cmp.Or(o.SequenceLength, usual.SequenceLength)
	o.ValidationShare = cmp.Or(o.ValidationShare, usual.ValidationShare)
	o.Duplicates = cmp.Or(o.Duplicates, usual.Duplicates)
	o.Similarity = cmp.Or(o.Similarity, usual.Similarity)
	return o
}

func mustSeal(t testing.TB, o SealOptions, batches []string) (*Manifest, string) {
	t.Helper()
	dir := t.TempDir()
	m, err := Seal(context.Background(), usual(o), batches, into(dir))
	if err != nil {
		t.Fatal(err)
	}
	return m, dir
}

func mustOpen(t testing.TB, m *Manifest, dir string) *Dataset {
	t.Helper()
	d, err := Open(m, from(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestEveryTokenOnce rebuilds all documents from the sequences and their ranges and compares: every token of every
// document is there, in its place, a target exactly once, and nothing else is.
func TestEveryTokenOnce(t *testing.T) {
	for _, info := range []TokenizerInfo{small, large} {
		for _, length := range []int{1, 2, 7, 64, 5000} {
			for _, perShard := range []int{1, 3, 1000} {
				if length < 7 && perShard == 1 {
					continue // thousands of files
				}
				t.Run(fmt.Sprintf("%s/%d/%d", info.Name, length, perShard), func(t *testing.T) {
					docs := synthetic(60, info)
					half := len(docs) / 2
					batches := []string{writeBatch(t, info, docs[:half]), writeBatch(t, info, docs[half:])}
					m, dir := mustSeal(t, SealOptions{SequenceLength: length, SequencesPerShard: perShard, Seed: 3, ValidationShare: 0.2}, batches)
					d := mustOpen(t, m, dir)
					checkAccounting(t, d, docs)
				})
			}
		}
	}
}

func checkAccounting(t *testing.T, d *Dataset, docs []document) {
	t.Helper()
	end := d.Manifest.Tokenizer.EndOfText
	want := map[string]document{}
	for _, doc := range docs {
		doc.tokens = append(slices.Clone(doc.tokens), end)
		want[key(doc.Source, doc.Row)] = doc
	}
	seen := map[string]string{} // document -> split
	for _, split := range []*Split{d.Train, d.Validation} {
		info := d.Manifest.Splits.Train
		if split == d.Validation {
			info = d.Manifest.Splits.Validation
		}
		targets := map[string][]bool{}
		var total, size int64
		var buffer, previous []int32
		for i := range split.Len() {
			tokens, valid, err := split.Sequence(i, buffer)
			if err != nil {
				t.Fatal(err)
			}
			buffer = tokens
			if i == 0 && tokens[0] != int32(end) {
				t.Errorf("split begins with %d and not with an end of text", tokens[0])
			}
			if i > 0 && previous[len(previous)-1] != tokens[0] {
				t.Errorf("sequence %d does not begin with the last token of the one before", i)
			}
			previous = append(previous[:0], tokens...)
			total += int64(valid)
			for _, pad := range tokens[valid+1:] {
				if pad != int32(end) {
					t.Errorf("padded with %d", pad)
				}
			}
			ranges, err := split.Ranges(i)
			if err != nil {
				t.Fatal(err)
			}
			at := 0
			if i == 0 {
				at = 1 // the opening end of text
			}
			for _, r := range ranges {
				if r.Start != at {
					t.Fatalf("sequence %d: a range starts at %d instead of %d", i, r.Start, at)
				}
				at += r.Length
				name := key(d.Manifest.Sources[r.Source].Name, r.Row)
				doc, ok := want[name]
				if !ok || doc.ID != r.Document {
					t.Fatalf("range of unknown document %s, id %s", name, r.Document)
				}
				if targets[name] == nil {
					targets[name] = make([]bool, len(doc.tokens))
					size += doc.Bytes
				}
				for j := range r.Length {
					if got := tokens[r.Start+j]; got != int32(doc.tokens[r.Offset+int64(j)]) {
						t.Fatalf("sequence %d token %d is %d instead of %s's token %d", i, r.Start+j, got, name, r.Offset+int64(j))
					}
					if r.Start+j > 0 { // the first token is context only
						if targets[name][r.Offset+int64(j)] {
							t.Fatalf("token %d of %s is a target twice", r.Offset+int64(j), name)
						}
						targets[name][r.Offset+int64(j)] = true
					}
				}
			}
			if at != valid+1 {
				t.Errorf("sequence %d: ranges end at %d instead of %d", i, at, valid+1)
			}
		}
		for name, marks := range targets {
			if slices.Contains(marks, false) {
				t.Errorf("%s: token %d of %d is no target", name, slices.Index(marks, false), len(marks))
			}
			if other, ok := seen[name]; ok {
				t.Errorf("%s is in both splits (%s)", name, other)
			}
			seen[name] = split.name
		}
		if info.Tokens != total || info.Documents != int64(len(targets)) || info.Bytes != size {
			t.Errorf("split %s has %d targets, %d documents, %d bytes; the manifest says %d, %d, %d", split.name, total, len(targets), size, info.Tokens, info.Documents, info.Bytes)
		}
	}
	if len(seen) != len(docs) {
		t.Errorf("%d of %d documents are in the dataset", len(seen), len(docs))
	}
}

func TestSealDependsOnDocumentsAlone(t *testing.T) {
	docs := synthetic(50, small)
	reversed := slices.Clone(docs)
	slices.Reverse(reversed)
	o := SealOptions{SequenceLength: 32, SequencesPerShard: 8, Seed: 1, ValidationShare: 0.2}
	a, dirA := mustSeal(t, o, []string{writeBatch(t, small, docs[:20]), writeBatch(t, small, docs[20:])})
	b, dirB := mustSeal(t, o, []string{writeBatch(t, small, reversed[:7]), writeBatch(t, small, nil), writeBatch(t, small, reversed[7:])})
	encodedA, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	encodedB, _ := b.Encode()
	if !bytes.Equal(encodedA, encodedB) {
		t.Errorf("manifests differ:\n%s\n%s", encodedA, encodedB)
	}
	for _, s := range slices.Concat(a.Splits.Train.Shards, a.Splits.Validation.Shards) {
		x, err := os.ReadFile(filepath.Join(dirA, s.Name))
		if err != nil {
			t.Fatal(err)
		}
		y, _ := os.ReadFile(filepath.Join(dirB, s.Name))
		if !bytes.Equal(x, y) {
			t.Errorf("shard %s differs", s.Name)
		}
	}
	o.Seed = 2
	if c, _ := mustSeal(t, o, []string{writeBatch(t, small, docs)}); c.Splits.Train.Shards[0].Digest == a.Splits.Train.Shards[0].Digest {
		t.Error("another seed gives the same first shard")
	}
}

// TestFormatIsFrozen: what is sealed today has the digests of before. A deliberate change of a format, of the order or of
// the Arrow module changes them and deserves a new version.
func TestFormatIsFrozen(t *testing.T) {
	batch := writeBatch(t, small, synthetic(100, small))
	m, _ := mustSeal(t, SealOptions{SequenceLength: 32, Seed: 9, ValidationShare: 0.2}, []string{batch})
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(batch)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"manifest": {encoded, "caef1507c2bd61b409b4e0b84ffbf354a2b88f18ea6d41561e3b7e2005d6c4eb"},
		"batch":    {data, "791ef490dbf1b6ee6571e6d1b9fb5a2788f5b23508c3a29cda19c505322091a2"},
	} {
		if sum := blake3.Sum256(c.data); hex.EncodeToString(sum[:]) != c.want {
			t.Errorf("%s: digest %x, was %s", name, sum, c.want)
		}
	}
}

func TestSealShuffles(t *testing.T) {
	m, dir := mustSeal(t, SealOptions{SequenceLength: 16}, []string{writeBatch(t, small, synthetic(200, small))})
	d := mustOpen(t, m, dir)
	var rows []int64
	for i := range d.Train.Len() {
		ranges, err := d.Train.Ranges(i)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range ranges {
			rows = append(rows, r.Row)
		}
	}
	rows = slices.Compact(rows)
	rising := 0
	for i := 1; i < len(rows); i++ {
		if rows[i] > rows[i-1] {
			rising++
		}
	}
	if rising < len(rows)/3 || rising > len(rows)*2/3 {
		t.Errorf("%d of %d neighbours are in order", rising, len(rows))
	}
}

// TestOnlyDocument: the end of an only document validates, so that one file of text can be trained on and measured.
func TestOnlyDocument(t *testing.T) {
	tok := mustTokenizer(t, "bytes")
	text := "Ünder the greenwood tree, who loves to lie with me, and tune his merry note unto the sweet bird's throat."
	batch := writeBatch(t, infoOf(tok), []document{{BatchDocument{ID: "d", Source: "s", Bytes: int64(len(text))}, tok.Encode(nil, []byte(text))}})
	for share, want := range map[float64]int{0.25: 27, 0.0001: 2, 0.9999: 106, 0: 0} { // of 106 bytes and an end of text
		o := usual(SealOptions{SequenceLength: 8})
		o.ValidationShare = share
		dir := t.TempDir()
		m, err := Seal(context.Background(), o, []string{batch}, into(dir))
		if err != nil {
			t.Fatal(err)
		}
		train, validation := m.Splits.Train, m.Splits.Validation
		if int(validation.Tokens) != want || int(train.Tokens) != len(text)+1-want || train.Bytes+validation.Bytes != int64(len(text)) || m.ValidationShare != share {
			t.Errorf("share %v: %+v, %+v", share, train, validation)
		}
		var got []byte
		d := mustOpen(t, m, dir)
		for _, s := range []*Split{d.Train, d.Validation} {
			for i := range s.Len() {
				_, targets, err := s.AppendTargets(i, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, id := range targets {
					if id >= 0 && id < 256 {
						got = append(got, byte(id))
					}
				}
			}
		}
		if string(got) != text {
			t.Errorf("share %v: the splits have %q", share, got)
		}
	}
}

// TestZeros: a zero is a value. Without a validation share nothing validates; at a similarity of 0 all is left out that is worth
// comparing; a sequence of no tokens is refused.
func TestZeros(t *testing.T) {
	batch := writeBatch(t, small, synthetic(200, small))
	o := usual(SealOptions{SequenceLength: 16})
	o.ValidationShare = 0
	m, err := Seal(context.Background(), o, []string{batch}, into(t.TempDir()))
	if err != nil || m.Splits.Validation.Documents != 0 || m.Splits.Train.Documents != 200 || len(m.Splits.Validation.Shards) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := ParseManifest(mustEncode(t, m)); err != nil {
		t.Error(err)
	}
	o.SequenceLength = 0
	if _, err := Seal(context.Background(), o, []string{batch}, into(t.TempDir())); err == nil || !strings.Contains(err.Error(), "sequence length of 0") {
		t.Error(err)
	}
}

func mustEncode(t *testing.T, m *Manifest) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBothSplitsGetADocument(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for seed := range uint64(20) {
			for _, share := range []float64{0.0001, 0.5, 0.9999} {
				m, _ := mustSeal(t, SealOptions{SequenceLength: 8, Seed: seed, ValidationShare: share}, []string{writeBatch(t, small, synthetic(n, small))})
				if m.Splits.Train.Documents == 0 || n > 1 && m.Splits.Validation.Documents == 0 {
					t.Fatalf("%d documents, share %v: %d train, %d validate", n, share, m.Splits.Train.Documents, m.Splits.Validation.Documents)
				}
			}
		}
	}
}

func TestValidationShare(t *testing.T) {
	m, _ := mustSeal(t, SealOptions{SequenceLength: 64, ValidationShare: 0.1}, []string{writeBatch(t, small, synthetic(3000, small))})
	if got := m.Splits.Validation.Documents; got < 240 || got > 360 {
		t.Errorf("%d of 3000 documents validate at a share of 0.1", got)
	}
}

func TestSealRefuses(t *testing.T) {
	good := writeBatch(t, small, synthetic(5, small))
	for name, c := range map[string]struct {
		o       SealOptions
		batches []string
		want    string
	}{
		"nothing":             {SealOptions{}, nil, "no token batches"},
		"no documents":        {SealOptions{}, []string{writeBatch(t, small, nil)}, "no documents"},
		"the same batch":      {SealOptions{}, []string{good, good}, "listed twice"},
		"another tokenizer":   {SealOptions{}, []string{good, writeBatch(t, large, nil)}, "tokenize both alike"},
		"a negative length":   {SealOptions{SequenceLength: -1}, []string{good}, "sequence length"},
		"a share of one":      {SealOptions{ValidationShare: 1}, []string{good}, "validation share"},
		"a missing file":      {SealOptions{}, []string{good + "x"}, "no such file"},
		"no batch":            {SealOptions{}, []string{"seal_test.go"}, "not a token batch"},
		"negative shard size": {SealOptions{SequencesPerShard: -1}, []string{good}, "per shard"},
	} {
		_, err := Seal(context.Background(), usual(c.o), c.batches, into(t.TempDir()))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing is an Output that breaks after some bytes.
type failing struct {
	left    int
	aborted *int
}

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}
func (f *failing) Commit() (string, int64, error) { return "", 0, errors.New("disk full") }
func (f *failing) Abort() error                   { *f.aborted++; return nil }

func TestSealAbortsWhatFails(t *testing.T) {
	batch := writeBatch(t, small, synthetic(50, small))
	for _, left := range []int{0, 100, 2000} {
		aborted := 0
		_, err := Seal(context.Background(), usual(SealOptions{SequenceLength: 16}), []string{batch}, func(string) (Output, error) {
			return &failing{left, &aborted}, nil
		})
		if err == nil || !strings.Contains(err.Error(), "disk full") || aborted != 1 {
			t.Errorf("after %d bytes: aborted %d times, %v", left, aborted, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Seal(ctx, usual(SealOptions{}), []string{batch}, into(t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// tokenizedBooks reads made-up books from a parquet file and tokenizes them.
func tokenizedBooks(t testing.TB, tok tokenizer.Tokenizer) []document {
	t.Helper()
	all, size := bookTexts()
	d, err := OpenDocuments(writeFile(t, "books.parquet", parquetFile(t, len(all), textColumn("text", all))), DocumentOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var docs []document
	for doc, err := range d.All() {
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, document{BatchDocument{doc.ID, doc.Source, doc.Row, int64(len(doc.Text))}, tok.Encode(nil, doc.Text)})
	}
	if c := d.Count(); c.Documents != int64(len(all)) || c.Bytes != size || c.Nulls != 0 || c.InvalidUTF8 != 0 {
		t.Errorf("read %+v, want %d documents of %d bytes", c, len(all), size)
	}
	return docs
}

func TestBooksEndToEnd(t *testing.T) {
	tok := mustTokenizer(t, "gpt2")
	docs := tokenizedBooks(t, tok)
	m, dir := mustSeal(t, SealOptions{SequenceLength: 256, SequencesPerShard: 500, ValidationShare: 0.05}, []string{writeBatch(t, infoOf(tok), docs)})
	checkAccounting(t, mustOpen(t, m, dir), docs)
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(encoded), dir) {
		t.Error("the manifest contains a path")
	}
	back, err := ParseManifest(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := back.Encode(); !bytes.Equal(again, encoded) {
		t.Error("the manifest changes when it is read and written")
	}
}

// BenchmarkSeal writes made-up books as shards: bytes of text and tokens of GPT-2 a second.
func BenchmarkSeal(b *testing.B) {
	tok := mustTokenizer(b, "gpt2")
	batch := writeBatch(b, infoOf(tok), tokenizedBooks(b, tok))
	dir, n := b.TempDir(), int64(0)
	b.ReportAllocs()
	for b.Loop() {
		m, err := Seal(context.Background(), usual(SealOptions{}), []string{batch}, into(dir))
		if err != nil {
			b.Fatal(err)
		}
		n += m.Splits.Train.Tokens + m.Splits.Validation.Tokens
		b.SetBytes(m.Splits.Train.Bytes + m.Splits.Validation.Bytes)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mtokens/s")
}
