package dataset_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
)

func TestBatchRoundTrip(t *testing.T) {
	for _, info := range []dataset.TokenizerInfo{datasettest.Small, datasettest.Large} {
		docs := datasettest.Synthetic(dataset.BatchDocuments+100, info) // two record batches
		docs[5].Tokens = make([]uint32, dataset.BatchTokens+1)
		b, err := dataset.OpenBatch(datasettest.Batch(t, info, docs))
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
			if d != docs[i].BatchDocument || !slices.Equal(tokens.AppendTo(nil), docs[i].Tokens) {
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
	docs := datasettest.Synthetic(1000, datasettest.Small)
	a, _ := os.ReadFile(datasettest.Batch(t, datasettest.Small, docs))
	b, _ := os.ReadFile(datasettest.Batch(t, datasettest.Small, docs))
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Error("two writers differ")
	}
}

func TestBatchWriterRefuses(t *testing.T) {
	if _, err := dataset.NewBatchWriter(new(bytes.Buffer), dataset.TokenizerInfo{}); err == nil {
		t.Error("a batch without a tokenizer")
	}
	w, err := dataset.NewBatchWriter(new(bytes.Buffer), datasettest.Small)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(dataset.BatchDocument{ID: "x"}, []uint32{257}); err == nil ||
		!strings.Contains(err.Error(), "257") {
		t.Errorf("a token outside the vocabulary: %v", err)
	}
	if err := w.Append(dataset.BatchDocument{ID: "\xff"}, nil); err == nil {
		t.Error("an id that is not UTF-8")
	}
}

// readBatch reads all there is in a token batch.
func readBatch(path string) error {
	b, err := dataset.OpenBatch(path)
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
	damage(t, datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(20, datasettest.Small)),
		func(path, what string) {
			if err := readBatch(path); err == nil && strings.HasPrefix(what, "cut") {
				t.Errorf("%s: no error", what)
			}
		})
}

func FuzzBatch(f *testing.F) {
	for _, info := range []dataset.TokenizerInfo{datasettest.Small, datasettest.Large} {
		data, err := os.ReadFile(datasettest.Batch(f, info, datasettest.Synthetic(5, info)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(entangledArrow(40, 8))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		alloctest.AtMost(t, 1<<20+64*int64(len(data)), func() { readBatch(path) })
	})
}

// entangledArrow is an Arrow file whose schema has n fields that all are the same field, which has n children that all
// are the same, and so on: the number of its fields is n to the power of depth.
func entangledArrow(n, depth int) []byte {
	u16 := binary.LittleEndian.AppendUint16
	u32 := binary.LittleEndian.AppendUint32
	footer := u32(nil, 28)                   // where the footer's table is
	for _, v := range []uint16{8, 8, 0, 4} { // at 4: tables with field 1 alone, of 8 bytes
		footer = u16(footer, v)
	}
	for _, v := range []uint16{16, 8, 0, 0, 0, 0, 0, 4} { // at 12: with field 5 alone
		footer = u16(footer, v)
	}
	// its field refers to what follows
	table := func(vtable int) { footer = u32(u32(footer, uint32(len(footer)-vtable)), 4) }
	vector := func() { // all elements refer to what follows
		footer = u32(footer, uint32(n))
		for i := range n {
			footer = u32(footer, uint32(4*(n-i)))
		}
	}
	table(4) // the footer: a schema
	table(4) // the schema: fields
	vector()
	for range depth {
		table(12) // a field: children
		vector()
	}
	footer = u32(u32(footer, uint32(len(footer)-4)), 0) // a field of nothing
	data := append([]byte("ARROW1\x00\x00"), footer...)
	return append(u32(data, uint32(len(footer))), "ARROW1"...)
}

// TestEntangledSchema: a schema that refers to its own parts again and again is refused, in memory and time for its
// size.
func TestEntangledSchema(t *testing.T) {
	for _, data := range [][]byte{entangledArrow(16, 5), entangledArrow(64, 8)} { // a million fields, and 3·10^14
		alloctest.AtMost(t, 64*int64(len(data)), func() {
			if _, err := dataset.ParseArrow(data); !errors.Is(err, dataset.ErrCorrupt) {
				t.Errorf("a file of %d bytes: %v", len(data), err)
			}
		})
	}
	if _, err := dataset.ParseArrow(entangledArrow(1, 1)); err != nil {
		t.Errorf("a schema of two fields: %v", err)
	}
}

// TestOverlappingBatches: record batches that lie in one another are refused, for there is no end to how many there
// could be.
func TestOverlappingBatches(t *testing.T) {
	data, err := os.ReadFile(datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(20, datasettest.Small)))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := dataset.ParseArrow(data)
	if err != nil || len(blocks) != 1 {
		t.Fatalf("%v, %d blocks", err, len(blocks))
	}
	var block []byte
	for _, n := range blocks[0] {
		block = binary.LittleEndian.AppendUint64(block, uint64(n))
	}
	at := bytes.Index(data, block)
	if at < 0 {
		t.Fatal("no block in the footer")
	}
	// The block again in place of what follows it would break the footer, so the list of blocks is moved behind the
	// footer.
	end := len(data) - 10
	size := binary.LittleEndian.Uint32(data[end:])
	list := binary.LittleEndian.AppendUint32(nil, 2)
	list = append(append(list, block...), block...)
	twice := append(slices.Clone(data[:end]), list...)
	pos := end - int(size) // of the footer
	root := pos + int(binary.LittleEndian.Uint32(data[pos:]))
	vtable := root - int(int32(binary.LittleEndian.Uint32(data[root:])))
	field := root + int(binary.LittleEndian.Uint16(data[vtable+4+2*3:]))
	binary.LittleEndian.PutUint32(twice[field:], uint32(end-field))
	twice = append(binary.LittleEndian.AppendUint32(twice, size+uint32(len(list))), data[end+4:]...)
	if _, err := dataset.ParseArrow(twice); err == nil || !strings.Contains(err.Error(), "lies in the one before") {
		t.Errorf("a batch that is there twice: %v", err)
	}
}
