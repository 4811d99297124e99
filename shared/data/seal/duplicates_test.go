package seal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/documents"
	"bitnet1/shared/data/seal"
)

// sealed seals with options and returns what was left out.
func sealed(t testing.TB, o seal.Options, batches ...string) (*dataset.Manifest, string, []seal.Duplicate) {
	t.Helper()
	var left []seal.Duplicate
	o.SequenceLength = 64
	o.Duplicate = func(d seal.Duplicate) { left = append(left, d) }
	m, dir := datasettest.Seal(t, o, batches...)
	return m, dir, left
}

func TestDuplicates(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	a, b := datasettest.Prose(random, 300), datasettest.Prose(random, 300)
	nearA := slices.Clone(a)
	nearA[100] = "changed" // touches 5 of 296 phrases
	farA := slices.Concat(a[:150], datasettest.Prose(random, 150))
	tok, info := datasettest.Tokenizer(t, "gpt2")
	first := datasettest.Texts(tok, "first", strings.Join(a, " "), strings.Join(b, " "), "A short one.", "")
	second := datasettest.Texts(tok, "second", strings.ToUpper(strings.Join(a, " \n ")), strings.Join(nearA, " "),
		strings.Join(farA, " "), "a  SHORT one.", "a short, one", " ")
	batches := []string{datasettest.Batch(t, info, second), datasettest.Batch(t, info, first)}
	for method, want := range map[string][]string{
		"keep":  nil,
		"exact": {"second/0=first/0", "second/3=first/2", "second/5=first/3"},
		"near":  {"second/0=first/0", "second/3=first/2", "second/5=first/3", "second/1=first/0", "second/4=first/2"},
	} {
		for threads := 1; threads < 4; threads++ {
			m, dir, left := sealed(t, seal.Options{Duplicates: method, Threads: threads}, batches...)
			var got []string
			for _, d := range left {
				got = append(got, d.Document+"="+d.OfDocument)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: left out %v, want %v", method, got, want)
			}
			kept := slices.DeleteFunc(slices.Concat(first, second), func(d datasettest.Document) bool {
				return slices.ContainsFunc(left, func(l seal.Duplicate) bool { return l.Document == d.ID })
			})
			checkAccounting(t, datasettest.Open(t, m, dir), kept)
			if method == "keep" {
				if m.Duplicates != nil {
					t.Errorf("%+v", m.Duplicates)
				}
				continue
			}
			if n := m.Duplicates.Exact + m.Duplicates.Near; n != int64(len(want)) || m.Duplicates.Exact != 3 ||
				m.Duplicates.Method != method {
				t.Errorf("%s: %+v", method, m.Duplicates)
			}
		}
	}
}

// TestNearDuplicatesByDefinition compares with the similarities of all pairs: no document that is left is very much
// like an earlier one, and none that was left out was unlike all.
func TestNearDuplicatesByDefinition(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var texts []string
	for range 40 {
		base := datasettest.Prose(random, 200)
		for range 1 + random.IntN(4) {
			words := slices.Clone(base)
			for range random.IntN(8) {
				words[random.IntN(len(words))] = "other"
			}
			texts = append(texts, strings.Join(words, " "))
		}
	}
	tok, info := datasettest.Tokenizer(t, "gpt2")
	docs := datasettest.Texts(tok, "s", texts...)
	_, _, left := sealed(t, seal.Options{Duplicates: seal.NearDuplicates, Threads: 2}, datasettest.Batch(t, info, docs))
	out := map[int64]seal.Duplicate{}
	for _, d := range left {
		out[d.Row] = d
	}
	set := func(text string) []uint64 {
		s := slices.Clone(seal.Shingles(text))
		slices.Sort(s)
		return slices.Compact(s)
	}
	missed := 0
	for i := range texts {
		most := 0.0
		for j := range i {
			most = max(most, seal.Jaccard(set(texts[i]), set(texts[j])))
		}
		d, gone := out[int64(i)]
		if gone && (most < 0.8 || d.Similarity > most) {
			t.Errorf("document %d is left out at similarity %v of at most %v", i, d.Similarity, most)
		}
		if !gone && most > 0.95 {
			t.Errorf("document %d is kept although one before has similarity %v", i, most)
		}
		if !gone && most >= 0.8 {
			missed++
		}
	}
	t.Logf("%d of %d left out, %d missed", len(out), len(texts), missed)
	if len(out) < 10 || missed > len(out)/3 {
		t.Errorf("%d left out, %d missed", len(out), missed)
	}
}

func TestNormalize(t *testing.T) {
	for text, want := range map[string]string{" A\t\nb  C ": "a b c", "": "", " \n ": "", "ÄÖ\u00a0Ü": "äö ü",
		"a\xffB": "a\xffb"} {
		if got := string(seal.Normalize(nil, []byte(text))); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestFineWebDuplicates compares with a plain set of normalised texts.
func TestFineWebDuplicates(t *testing.T) {
	tok, info := datasettest.Tokenizer(t, "gpt2")
	paths, _ := filepath.Glob(filepath.Join(datasettest.RealData(t), "fineweb", "*.parquet"))
	var docs []datasettest.Document
	texts := map[string]bool{}
	for _, path := range paths {
		r, err := documents.Open(path, documents.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for d, err := range r.All() {
			if err != nil {
				t.Fatal(err)
			}
			texts[string(seal.Normalize(nil, d.Text))] = true
			docs = append(docs, datasettest.Document{
				BatchDocument: dataset.BatchDocument{ID: d.ID, Source: d.Source, Row: d.Row, Bytes: int64(len(d.Text))},
				Tokens:        tok.Encode(nil, d.Text),
			})
		}
	}
	m, _, _ := sealed(t, seal.Options{Duplicates: seal.ExactDuplicates, Threads: 2}, datasettest.Batch(t, info, docs))
	if got := m.Duplicates.Exact; got != int64(len(docs)-len(texts)) || got == 0 {
		t.Errorf("%d of %d documents are duplicates, there are %d different texts", got, len(docs), len(texts))
	}
}

func TestMixture(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	var chat, web []string
	for range 200 {
		chat = append(chat, strings.Join(datasettest.Prose(random, 5+random.IntN(60)), " "))
	}
	for range 500 {
		web = append(web, strings.Join(datasettest.Prose(random, 5+random.IntN(60)), " "))
	}
	tok, info := datasettest.Tokenizer(t, "gpt2")
	all := slices.Concat(datasettest.Texts(tok, "chat/a.jsonl", chat...),
		datasettest.Texts(tok, "web/b.parquet", web...))
	batch := datasettest.Batch(t, info, all)
	shares := func(list ...string) (parsed []dataset.Share) {
		for _, s := range list {
			share, err := seal.ParseShare(s)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, share)
		}
		return parsed
	}
	for _, weight := range []float64{5, 20, 28, 80} {
		o := seal.Options{Mixture: shares(fmt.Sprintf("chat/*=%v", weight), fmt.Sprintf("web/*=%v", 100-weight))}
		m, dir, _ := sealed(t, o, batch)
		c, w := m.Mixture[0], m.Mixture[1]
		if got := 100 * float64(c.Tokens) / float64(c.Tokens+w.Tokens); got < weight-0.5 || got > weight+0.5 {
			t.Errorf("%v %% of the tokens are wanted, %v came", weight, got)
		}
		if c.Left > 0 && w.Left > 0 || c.Documents+c.Left != 200 || w.Documents+w.Left != 500 {
			t.Errorf("%+v", m.Mixture)
		}
		if m.Sources[0].Tokens != c.Tokens || m.Sources[1].Documents != w.Documents {
			t.Errorf("%+v %+v", m.Sources, m.Mixture)
		}
		again, _, _ := sealed(t, o, batch)
		x, _ := m.Encode()
		y, _ := again.Encode()
		if string(x) != string(y) {
			t.Error("two mixtures differ")
		}
		datasettest.Open(t, m, dir)
	}
	for what, mixture := range map[string][]dataset.Share{"in no part": shares("chat/*=1"),
		"no source matches": shares("*/*=1", "glm=1")} {
		if _, err := seal.Dataset(context.Background(), datasettest.Usual(seal.Options{Mixture: mixture}),
			[]string{batch}, datasettest.Into(t.TempDir())); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []string{"", "x", "x=", "=3", "x=0", "x=-1", "[=3", "x=many"} {
		if _, err := seal.ParseShare(bad); err == nil {
			t.Errorf("%q is a share", bad)
		}
	}
}

// BenchmarkDuplicates looks for duplicates in made-up books, bytes of text a second.
func BenchmarkDuplicates(b *testing.B) {
	docs, info := books(b)
	batch := datasettest.Batch(b, info, docs)
	size := int64(0)
	for _, d := range docs {
		size += d.Bytes
	}
	for _, method := range []string{seal.KeepDuplicates, seal.ExactDuplicates, seal.NearDuplicates} {
		b.Run(method, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := seal.Dataset(context.Background(), datasettest.Usual(seal.Options{Duplicates: method}),
					[]string{batch}, datasettest.Into(b.TempDir())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
