package dataset

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// prose makes a text of n words.
func prose(random *rand.Rand, n int) []string {
	words := make([]string, n)
	for i := range words {
		words[i] = fmt.Sprintf("word%d", random.IntN(5000))
	}
	return words
}

// texted makes documents of texts, in GPT-2's tokens.
func texted(t testing.TB, source string, texts ...string) []document {
	tok := mustTokenizer(t, "gpt2")
	var docs []document
	for i, text := range texts {
		d := BatchDocument{ID: fmt.Sprintf("%s/%d", source, i), Source: source, Row: int64(i), Bytes: int64(len(text))}
		docs = append(docs, document{d, tok.Encode(nil, []byte(text))})
	}
	return docs
}

// sealed seals with options and returns what was left out.
func sealed(t testing.TB, o SealOptions, batches ...string) (*Manifest, string, []Duplicate) {
	t.Helper()
	var left []Duplicate
	o.SequenceLength = 64
	o.Duplicate = func(d Duplicate) { left = append(left, d) }
	m, dir := mustSeal(t, o, batches)
	return m, dir, left
}

func TestDuplicates(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	a, b := prose(random, 300), prose(random, 300)
	nearA := slices.Clone(a)
	nearA[100] = "changed" // touches 5 of 296 phrases
	farA := slices.Concat(a[:150], prose(random, 150))
	tok := mustTokenizer(t, "gpt2")
	first := texted(t, "first", strings.Join(a, " "), strings.Join(b, " "), "A short one.", "")
	second := texted(t, "second", strings.ToUpper(strings.Join(a, " \n ")), strings.Join(nearA, " "), strings.Join(farA, " "), "a  SHORT one.", "a short, one", " ")
	batches := []string{writeBatch(t, infoOf(tok), second), writeBatch(t, infoOf(tok), first)}
	for method, want := range map[string][]string{
		"keep":  nil,
		"exact": {"second/0=first/0", "second/3=first/2", "second/5=first/3"},
		"near":  {"second/0=first/0", "second/3=first/2", "second/5=first/3", "second/1=first/0", "second/4=first/2"},
	} {
		for threads := 1; threads < 4; threads++ {
			m, dir, left := sealed(t, SealOptions{Duplicates: method, Threads: threads}, batches...)
			var got []string
			for _, d := range left {
				got = append(got, d.Document+"="+d.OfDocument)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: left out %v, want %v", method, got, want)
			}
			kept := slices.DeleteFunc(slices.Concat(first, second), func(d document) bool {
				return slices.ContainsFunc(left, func(l Duplicate) bool { return l.Document == d.ID })
			})
			checkAccounting(t, mustOpen(t, m, dir), kept)
			if method == "keep" {
				if m.Duplicates != nil {
					t.Errorf("%+v", m.Duplicates)
				}
				continue
			}
			if n := m.Duplicates.Exact + m.Duplicates.Near; n != int64(len(want)) || m.Duplicates.Exact != 3 || m.Duplicates.Method != method {
				t.Errorf("%s: %+v", method, m.Duplicates)
			}
		}
	}
}

// TestNearDuplicatesByDefinition compares with the similarities of all pairs: no document that is left is very much like an
// earlier one, and none that was left out was unlike all.
func TestNearDuplicatesByDefinition(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var texts []string
	for range 40 {
		base := prose(random, 200)
		for range 1 + random.IntN(4) {
			words := slices.Clone(base)
			for range random.IntN(8) {
				words[random.IntN(len(words))] = "other"
			}
			texts = append(texts, strings.Join(words, " "))
		}
	}
	tok := mustTokenizer(t, "gpt2")
	docs := texted(t, "s", texts...)
	_, _, left := sealed(t, SealOptions{Duplicates: NearDuplicates, Threads: 2}, writeBatch(t, infoOf(tok), docs))
	out := map[int64]Duplicate{}
	for _, d := range left {
		out[d.Row] = d
	}
	set := func(text string) []uint64 {
		s := slices.Clone(new(words).shingles([]byte(text)))
		slices.Sort(s)
		return slices.Compact(s)
	}
	missed := 0
	for i := range texts {
		most := 0.0
		for j := range i {
			most = max(most, jaccard(set(texts[i]), set(texts[j])))
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
	for text, want := range map[string]string{" A\t\nb  C ": "a b c", "": "", " \n ": "", "ÄÖ\u00a0Ü": "äö ü", "a\xffB": "a\xffb"} {
		if got := string(normalize(nil, []byte(text))); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestFineWebDuplicates compares with a plain set of normalised texts.
func TestFineWebDuplicates(t *testing.T) {
	tok := mustTokenizer(t, "gpt2")
	paths, _ := filepath.Glob(filepath.Join(sharedData(t), "fineweb", "*.parquet"))
	var docs []document
	texts := map[string]bool{}
	for _, path := range paths {
		all, _, err := readAll(path, DocumentOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			texts[string(normalize(nil, d.Text))] = true
			docs = append(docs, document{BatchDocument{d.ID, d.Source, d.Row, int64(len(d.Text))}, tok.Encode(nil, d.Text)})
		}
	}
	m, _, _ := sealed(t, SealOptions{Duplicates: ExactDuplicates, Threads: 2}, writeBatch(t, infoOf(tok), docs))
	if got := m.Duplicates.Exact; got != int64(len(docs)-len(texts)) || got == 0 {
		t.Errorf("%d of %d documents are duplicates, there are %d different texts", got, len(docs), len(texts))
	}
}

func TestMixture(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	var chat, web []string
	for range 200 {
		chat = append(chat, strings.Join(prose(random, 5+random.IntN(60)), " "))
	}
	for range 500 {
		web = append(web, strings.Join(prose(random, 5+random.IntN(60)), " "))
	}
	tok := mustTokenizer(t, "gpt2")
	all := slices.Concat(texted(t, "chat/a.jsonl", chat...), texted(t, "web/b.parquet", web...))
	batch := writeBatch(t, infoOf(tok), all)
	shares := func(list ...string) (parsed []Share) {
		for _, s := range list {
			share, err := ParseShare(s)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, share)
		}
		return parsed
	}
	for _, weight := range []float64{5, 20, 28, 80} {
		o := SealOptions{Mixture: shares(fmt.Sprintf("chat/*=%v", weight), fmt.Sprintf("web/*=%v", 100-weight))}
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
		mustOpen(t, m, dir)
	}
	for what, mixture := range map[string][]Share{"in no part": shares("chat/*=1"), "no source matches": shares("*/*=1", "glm=1")} {
		if _, err := Seal(context.Background(), usual(SealOptions{Mixture: mixture}), []string{batch}, into(t.TempDir())); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []string{"", "x", "x=", "=3", "x=0", "x=-1", "[=3", "x=many"} {
		if _, err := ParseShare(bad); err == nil {
			t.Errorf("%q is a share", bad)
		}
	}
}

// BenchmarkDuplicates looks for duplicates in made-up books, bytes of text a second.
func BenchmarkDuplicates(b *testing.B) {
	tok := mustTokenizer(b, "gpt2")
	docs := tokenizedBooks(b, tok)
	batch := writeBatch(b, infoOf(tok), docs)
	size := int64(0)
	for _, d := range docs {
		size += d.Bytes
	}
	for _, method := range []string{KeepDuplicates, ExactDuplicates, NearDuplicates} {
		b.Run(method, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Seal(context.Background(), usual(SealOptions{Duplicates: method}), []string{batch}, into(b.TempDir())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
