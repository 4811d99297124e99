// Package datasettest makes what tests of datasets work on: made-up documents, token batches and sealed datasets, as
// files of the test's own folder.
package datasettest

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeebo/blake3"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/data/tokenizer"
)

// Small and Large are vocabularies whose ids take 16 and 32 bits.
var (
	Small = dataset.TokenizerInfo{Name: "bytes", Vocab: 257, EndOfText: 256}
	Large = dataset.TokenizerInfo{Name: "huge", Vocab: 200_000, EndOfText: 199_999}
)

// Tokenizer returns the tokenizer of that name and what files say of it.
func Tokenizer(t testing.TB, name string) (tokenizer.Tokenizer, dataset.TokenizerInfo) {
	t.Helper()
	tok, err := tokenizer.New(name)
	if err != nil {
		t.Fatal(err)
	}
	return tok, dataset.TokenizerInfo{Name: tok.Name(), Vocab: tok.Vocab(), EndOfText: tok.EndOfText()}
}

// Document is a document of a token batch with its tokens.
type Document struct {
	dataset.BatchDocument
	Tokens []uint32
}

// Synthetic makes n documents of 0 to 40 tokens, spread over three sources.
func Synthetic(n int, info dataset.TokenizerInfo) []Document {
	docs := make([]Document, n)
	state := uint64(n)
	next := func(below int) int {
		state = dataset.SplitMix64(state + 1)
		return int(state % uint64(below))
	}
	for i := range docs {
		docs[i].BatchDocument = dataset.BatchDocument{
			ID: fmt.Sprintf("doc-%d", i), Source: fmt.Sprintf("source-%d", i%3), Row: int64(i / 3),
			Bytes: int64(next(200)),
		}
		for range next(41) {
			docs[i].Tokens = append(docs[i].Tokens, uint32(next(info.Vocab-1)))
		}
	}
	return docs
}

// Texts makes documents of texts, with a tokenizer's tokens. The ids are the source's name and the row.
func Texts(tok tokenizer.Tokenizer, source string, texts ...string) []Document {
	var docs []Document
	for i, text := range texts {
		d := dataset.BatchDocument{ID: fmt.Sprintf("%s/%d", source, i), Source: source, Row: int64(i),
			Bytes: int64(len(text))}
		docs = append(docs, Document{d, tok.Encode(nil, []byte(text))})
	}
	return docs
}

// Prose makes n words.
func Prose(random *rand.Rand, n int) []string {
	words := make([]string, n)
	for i := range words {
		words[i] = fmt.Sprintf("word%d", random.IntN(5000))
	}
	return words
}

// Books makes a hundred texts of a few thousand words each, the same in every run.
func Books() (texts []string) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		texts = append(texts, strings.Join(Prose(random, 500+random.IntN(3000)), " "))
	}
	return texts
}

// Batch writes documents as a token batch and returns its path.
func Batch(t testing.TB, info dataset.TokenizerInfo, docs []Document) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "*.arrow")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := dataset.NewBatchWriter(f, info)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		if err := w.Append(d.BatchDocument, d.Tokens); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// output is a file under its name.
type output struct {
	*os.File
	digest hash.Hash
	size   int64
}

func (o *output) Write(p []byte) (int, error) {
	o.digest.Write(p)
	o.size += int64(len(p))
	return o.File.Write(p)
}

func (o *output) Commit() (string, int64, error) {
	return hex.EncodeToString(o.digest.Sum(nil)), o.size, o.Close()
}

func (o *output) Abort() error { return errors.Join(o.Close(), os.Remove(o.Name())) }

// Into puts the files of a sealed dataset into a folder.
func Into(dir string) func(name string) (seal.Output, error) {
	return func(name string) (seal.Output, error) {
		f, err := os.Create(filepath.Join(dir, name))
		return &output{File: f, digest: blake3.New()}, err
	}
}

// From finds shards in a folder.
func From(dir string) func(dataset.Shard) (string, error) {
	return func(s dataset.Shard) (string, error) { return filepath.Join(dir, s.Name), nil }
}

// Usual gives options that are zero the usual values.
func Usual(o seal.Options) seal.Options {
	usual := seal.DefaultOptions()
	o.SequenceLength = cmp.Or(o.SequenceLength, usual.SequenceLength)
	o.ValidationShare = cmp.Or(o.ValidationShare, usual.ValidationShare)
	o.Duplicates = cmp.Or(o.Duplicates, usual.Duplicates)
	o.Similarity = cmp.Or(o.Similarity, usual.Similarity)
	return o
}

// Seal seals token batches into a folder of the test's own, with Usual options.
func Seal(t testing.TB, o seal.Options, batches ...string) (m *dataset.Manifest, dir string) {
	t.Helper()
	dir = t.TempDir()
	m, err := seal.Dataset(context.Background(), Usual(o), batches, Into(dir))
	if err != nil {
		t.Fatal(err)
	}
	return m, dir
}

// Open opens a dataset whose shards lie in a folder, until the test ends.
func Open(t testing.TB, m *dataset.Manifest, dir string) *dataset.Dataset {
	t.Helper()
	d, err := dataset.Open(m, From(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// RealData is a folder of real data that is not part of the project. Without it the test is skipped.
func RealData(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("BITNET1_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "data")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no real data: set BITNET1_SHARED to the folder that holds data/fineweb and data/glm")
	}
	return dir
}
