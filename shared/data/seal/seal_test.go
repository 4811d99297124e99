package seal_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"

	"github.com/zeebo/blake3"
)

func key(source string, row int64) string { return fmt.Sprintf("%s#%d", source, row) }

// TestEveryTokenOnce rebuilds all documents from the sequences and their ranges and compares: every token of every
// document is there, in its place, a target exactly once, and nothing else is.
func TestEveryTokenOnce(t *testing.T) {
	for _, info := range []dataset.TokenizerInfo{datasettest.Small, datasettest.Large} {
		for _, length := range []int{1, 2, 7, 64, 5000} {
			for _, perShard := range []int{1, 3, 1000} {
				if length < 7 && perShard == 1 {
					continue // thousands of files
				}
				t.Run(fmt.Sprintf("%s/%d/%d", info.Name, length, perShard), func(t *testing.T) {
					docs := datasettest.Synthetic(60, info)
					half := len(docs) / 2
					batches := []string{datasettest.Batch(t, info, docs[:half]),
						datasettest.Batch(t, info, docs[half:])}
					m, dir := datasettest.Seal(t, seal.Options{SequenceLength: length, SequencesPerShard: perShard,
						Seed: 3, ValidationShare: 0.2}, batches...)
					d := datasettest.Open(t, m, dir)
					checkAccounting(t, d, docs)
				})
			}
		}
	}
}

func checkAccounting(t *testing.T, d *dataset.Dataset, docs []datasettest.Document) {
	t.Helper()
	end := d.Manifest.Tokenizer.EndOfText
	want := map[string]datasettest.Document{}
	for _, doc := range docs {
		doc.Tokens = append(slices.Clone(doc.Tokens), end)
		want[key(doc.Source, doc.Row)] = doc
	}
	seen := map[string]string{} // document -> split
	splits := d.Manifest.Splits
	for part, split := range map[string]*dataset.Split{"train": d.Train, "validation": d.Validation} {
		info := map[string]dataset.SplitInfo{"train": splits.Train, "validation": splits.Validation}[part]
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
					targets[name] = make([]bool, len(doc.Tokens))
					size += doc.Bytes
				}
				for j := range r.Length {
					if got := tokens[r.Start+j]; got != int32(doc.Tokens[r.Offset+int64(j)]) {
						t.Fatalf("sequence %d token %d is %d instead of %s's token %d", i, r.Start+j, got, name,
							r.Offset+int64(j))
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
			seen[name] = part
		}
		if info.Tokens != total || info.Documents != int64(len(targets)) || info.Bytes != size {
			t.Errorf("split %s has %d targets, %d documents, %d bytes; the manifest says %d, %d, %d", part, total,
				len(targets), size, info.Tokens, info.Documents, info.Bytes)
		}
	}
	if len(seen) != len(docs) {
		t.Errorf("%d of %d documents are in the dataset", len(seen), len(docs))
	}
}

func TestSealDependsOnDocumentsAlone(t *testing.T) {
	docs := datasettest.Synthetic(50, datasettest.Small)
	reversed := slices.Clone(docs)
	slices.Reverse(reversed)
	o := seal.Options{SequenceLength: 32, SequencesPerShard: 8, Seed: 1, ValidationShare: 0.2}
	a, dirA := datasettest.Seal(t, o, datasettest.Batch(t, datasettest.Small, docs[:20]),
		datasettest.Batch(t, datasettest.Small, docs[20:]))
	b, dirB := datasettest.Seal(t, o, datasettest.Batch(t, datasettest.Small, reversed[:7]),
		datasettest.Batch(t, datasettest.Small, nil), datasettest.Batch(t, datasettest.Small, reversed[7:]))
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
	if c, _ := datasettest.Seal(t, o, datasettest.Batch(t, datasettest.Small,
		docs)); c.Splits.Train.Shards[0].Digest == a.Splits.Train.Shards[0].Digest {
		t.Error("another seed gives the same first shard")
	}
}

// TestFormatIsFrozen: what is sealed today has the digests of before. A deliberate change of a format, of the order or
// of the Arrow module changes them and deserves a new version.
func TestFormatIsFrozen(t *testing.T) {
	batch := datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(100, datasettest.Small))
	m, _ := datasettest.Seal(t, seal.Options{SequenceLength: 32, Seed: 9, ValidationShare: 0.2}, batch)
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
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 16},
		datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(200, datasettest.Small)))
	d := datasettest.Open(t, m, dir)
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
	tok, info := datasettest.Tokenizer(t, "bytes")
	text := "Ünder the greenwood tree, who loves to lie with me, and tune his merry note unto the sweet bird's throat."
	batch := datasettest.Batch(t, info, datasettest.Texts(tok, "s", text))
	for share, want := range map[float64]int{0.25: 27, 0.0001: 2, 0.9999: 106,
		0: 0} { // of 106 bytes and an end of text
		o := datasettest.Usual(seal.Options{SequenceLength: 8})
		o.ValidationShare = share
		dir := t.TempDir()
		m, err := seal.Dataset(context.Background(), o, []string{batch}, datasettest.Into(dir))
		if err != nil {
			t.Fatal(err)
		}
		train, validation := m.Splits.Train, m.Splits.Validation
		if int(validation.Tokens) != want || int(train.Tokens) != len(text)+1-want ||
			train.Bytes+validation.Bytes != int64(len(text)) || m.ValidationShare != share {
			t.Errorf("share %v: %+v, %+v", share, train, validation)
		}
		var got []byte
		d := datasettest.Open(t, m, dir)
		for _, s := range []*dataset.Split{d.Train, d.Validation} {
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

// TestZeros: a zero is a value. Without a validation share nothing validates; at a similarity of 0 all is left out that
// is worth comparing; a sequence of no tokens is refused.
func TestZeros(t *testing.T) {
	batch := datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(200, datasettest.Small))
	o := datasettest.Usual(seal.Options{SequenceLength: 16})
	o.ValidationShare = 0
	m, err := seal.Dataset(context.Background(), o, []string{batch}, datasettest.Into(t.TempDir()))
	if err != nil || m.Splits.Validation.Documents != 0 || m.Splits.Train.Documents != 200 ||
		len(m.Splits.Validation.Shards) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := dataset.ParseManifest(mustEncode(t, m)); err != nil {
		t.Error(err)
	}
	o.SequenceLength = 0
	if _, err := seal.Dataset(context.Background(), o, []string{batch}, datasettest.Into(t.TempDir())); err == nil ||
		!strings.Contains(err.Error(), "sequence length of 0") {
		t.Error(err)
	}
}

func mustEncode(t *testing.T, m *dataset.Manifest) []byte {
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
				m, _ := datasettest.Seal(t, seal.Options{SequenceLength: 8, Seed: seed, ValidationShare: share},
					datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(n, datasettest.Small)))
				if m.Splits.Train.Documents == 0 || n > 1 && m.Splits.Validation.Documents == 0 {
					t.Fatalf("%d documents, share %v: %d train, %d validate", n, share, m.Splits.Train.Documents,
						m.Splits.Validation.Documents)
				}
			}
		}
	}
}

func TestValidationShare(t *testing.T) {
	m, _ := datasettest.Seal(t, seal.Options{SequenceLength: 64, ValidationShare: 0.1},
		datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(3000, datasettest.Small)))
	if got := m.Splits.Validation.Documents; got < 240 || got > 360 {
		t.Errorf("%d of 3000 documents validate at a share of 0.1", got)
	}
}

func TestSealRefuses(t *testing.T) {
	good := datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(5, datasettest.Small))
	for name, c := range map[string]struct {
		o       seal.Options
		batches []string
		want    string
	}{
		"nothing":        {seal.Options{}, nil, "no token batches"},
		"no documents":   {seal.Options{}, []string{datasettest.Batch(t, datasettest.Small, nil)}, "no documents"},
		"the same batch": {seal.Options{}, []string{good, good}, "listed twice"},
		"another tokenizer": {seal.Options{}, []string{good, datasettest.Batch(t, datasettest.Large, nil)},
			"tokenize both alike"},
		"a negative length":   {seal.Options{SequenceLength: -1}, []string{good}, "sequence length"},
		"a share of one":      {seal.Options{ValidationShare: 1}, []string{good}, "validation share"},
		"a missing file":      {seal.Options{}, []string{good + "x"}, "no such file"},
		"no batch":            {seal.Options{}, []string{"seal_test.go"}, "not a token batch"},
		"negative shard size": {seal.Options{SequencesPerShard: -1}, []string{good}, "per shard"},
	} {
		_, err := seal.Dataset(context.Background(), datasettest.Usual(c.o), c.batches, datasettest.Into(t.TempDir()))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing is an seal.Output that breaks after some bytes.
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
	batch := datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(50, datasettest.Small))
	for _, left := range []int{0, 100, 2000} {
		aborted := 0
		_, err := seal.Dataset(context.Background(), datasettest.Usual(seal.Options{SequenceLength: 16}),
			[]string{batch}, func(string) (seal.Output, error) {
				return &failing{left, &aborted}, nil
			})
		if err == nil || !strings.Contains(err.Error(), "disk full") || aborted != 1 {
			t.Errorf("after %d bytes: aborted %d times, %v", left, aborted, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := seal.Dataset(ctx, datasettest.Usual(seal.Options{}), []string{batch},
		datasettest.Into(t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// books are datasettest.Books in the tokens of GPT-2, as a batch's documents.
func books(t testing.TB) (docs []datasettest.Document, info dataset.TokenizerInfo) {
	t.Helper()
	tok, info := datasettest.Tokenizer(t, "gpt2")
	return datasettest.Texts(tok, "books", datasettest.Books()...), info
}

func TestBooksEndToEnd(t *testing.T) {
	docs, info := books(t)
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 256, SequencesPerShard: 500, ValidationShare: 0.05},
		datasettest.Batch(t, info, docs))
	checkAccounting(t, datasettest.Open(t, m, dir), docs)
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(encoded), dir) {
		t.Error("the manifest contains a path")
	}
	back, err := dataset.ParseManifest(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := back.Encode(); !bytes.Equal(again, encoded) {
		t.Error("the manifest changes when it is read and written")
	}
}

// BenchmarkSeal writes made-up books as shards: bytes of text and tokens of GPT-2 a second.
func BenchmarkSeal(b *testing.B) {
	docs, info := books(b)
	batch := datasettest.Batch(b, info, docs)
	dir, n := b.TempDir(), int64(0)
	b.ReportAllocs()
	for b.Loop() {
		m, err := seal.Dataset(context.Background(), datasettest.Usual(seal.Options{}), []string{batch},
			datasettest.Into(dir))
		if err != nil {
			b.Fatal(err)
		}
		n += m.Splits.Train.Tokens + m.Splits.Validation.Tokens
		b.SetBytes(m.Splits.Train.Bytes + m.Splits.Validation.Bytes)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mtokens/s")
}
