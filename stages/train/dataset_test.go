package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/artifact"
	"bitnet1/shared/dataset"
	"bitnet1/shared/tokenizer"
)

// writeDataset seals the texts, tokenized as bytes, into sequences of seq tokens and returns the manifest's path.
func writeDataset(t *testing.T, seq int, texts ...string) string {
	t.Helper()
	dir := t.TempDir()
	folder, err := artifact.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	batch := filepath.Join(dir, "texts.tokens.arrow")
	writeBatch(t, batch, texts)
	m, err := dataset.Seal(t.Context(), dataset.SealOptions{SequenceLength: seq, ValidationShare: 0.2, Seed: 3}, []string{batch},
		func(name string) (dataset.Output, error) {
			w, err := folder.Create("shard", "", name)
			return output{w}, err
		})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeBatch(t *testing.T, path string, texts []string) {
	t.Helper()
	bytes, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := dataset.NewBatchWriter(f, dataset.TokenizerInfo{Name: bytes.Name(), Vocab: bytes.Vocab(), EndOfText: bytes.EndOfText()})
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		row := dataset.BatchDocument{ID: fmt.Sprint(i), Source: "texts", Row: int64(i), Bytes: int64(len(text))}
		if err := w.Append(row, bytes.Encode(nil, []byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// output lets dataset.Seal write an artifact.
type output struct{ *artifact.Writer }

func (o output) Commit() (digest string, size int64, err error) {
	ref, err := o.Writer.Commit()
	return ref.Digest, ref.Size, err
}

// proverbs are enough text for a few batches.
func proverbs() []string {
	var texts []string
	for i := range 12 {
		texts = append(texts, strings.Repeat(fmt.Sprintf("Proverb %d: a watched pot never boils, and %d hands make light work. ", i, i*i), 6))
	}
	return texts
}
