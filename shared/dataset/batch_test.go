package dataset

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestBatchRoundTrip(t *testing.T) {
	for _, info := range []TokenizerInfo{small, large} {
		docs := synthetic(batchDocuments+100, info) // two record batches
		docs[5].tokens = make([]uint32, batchTokens+1)
		b, err := OpenBatch(writeBatch(t, info, docs))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if b.Len() != len(docs) || b.Tokenizer() != info {
			t.Fatalf("%d documents of %v", b.Len(), b.Tokenizer())
		}
		var total int64
		for i := len(docs) - 1; i >= 0; i-- {
			d, tokens, err := b.Document(i)
			if err != nil {
				t.Fatal(err)
			}
			if d != docs[i].BatchDocument || !slices.Equal(tokens.AppendTo(nil), docs[i].tokens) {
				t.Fatalf("document %d differs: %+v", i, d)
			}
			total += int64(tokens.Len())
		}
		if total != b.Tokens() {
			t.Errorf("%d tokens, %d in all", total, b.Tokens())
		}
		for _, i := range []int{-1, len(docs)} {
			if _, _, err := b.Document(i); err == nil {
				t.Errorf("there is a document %d", i)
			}
		}
	}
}

func TestBatchIsDeterministic(t *testing.T) {
	docs := synthetic(1000, small)
	a, _ := os.ReadFile(writeBatch(t, small, docs))
	b, _ := os.ReadFile(writeBatch(t, small, docs))
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Error("two writers differ")
	}
}

func TestBatchWriterRefuses(t *testing.T) {
	if _, err := NewBatchWriter(new(bytes.Buffer), TokenizerInfo{}); err == nil {
		t.Error("a batch without a tokenizer")
	}
	w, err := NewBatchWriter(new(bytes.Buffer), small)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(BatchDocument{ID: "x"}, []uint32{257}); err == nil || !strings.Contains(err.Error(), "257") {
		t.Errorf("a token outside the vocabulary: %v", err)
	}
	if err := w.Append(BatchDocument{ID: "\xff"}, nil); err == nil {
		t.Error("an id that is not UTF-8")
	}
}

// readBatch reads all there is in a token batch.
func readBatch(path string) error {
	b, err := OpenBatch(path)
	if err != nil {
		return err
	}
	defer b.Close()
	var ids []uint32
	for i := range b.Len() {
		_, tokens, err := b.Document(i)
		if err != nil {
			return err
		}
		ids = tokens.AppendTo(ids[:0])
	}
	return nil
}

// damage writes versions of a file with one byte changed or the end cut off, and calls f with each.
func damage(t *testing.T, path string, f func(path, what string)) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), filepath.Base(path))
	write := func(data []byte, what string) {
		if err := os.WriteFile(bad, data, 0o644); err != nil {
			t.Fatal(err)
		}
		f(bad, what)
	}
	for i := range good {
		flipped := slices.Clone(good)
		flipped[i] ^= []byte{0x01, 0x80, 0xff}[i%3]
		write(flipped, fmt.Sprintf("byte %d changed", i))
		if i%5 == 0 {
			write(good[:i], fmt.Sprintf("cut at %d", i))
		}
	}
}

func TestDamagedBatch(t *testing.T) {
	damage(t, writeBatch(t, small, synthetic(20, small)), func(path, what string) {
		if err := readBatch(path); err == nil && strings.HasPrefix(what, "cut") {
			t.Errorf("%s: no error", what)
		}
	})
}

func FuzzBatch(f *testing.F) {
	for _, info := range []TokenizerInfo{small, large} {
		data, err := os.ReadFile(writeBatch(f, info, synthetic(5, info)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		readBatch(path)
	})
}
