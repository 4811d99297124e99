package dataset_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
)

// readDataset reads all there is and checks what the reader promises.
func readDataset(m *dataset.Manifest, locate func(dataset.Shard) (string, error)) error {
	d, err := dataset.Open(m, locate)
	if err != nil {
		return err
	}
	defer d.Close()
	var tokens []int32
	for _, s := range []*dataset.Split{d.Train, d.Validation} {
		for i := range s.Len() {
			var valid int
			if tokens, valid, err = s.Sequence(i, tokens); err != nil {
				return err
			}
			if len(tokens) != m.SequenceLength+1 || valid < 1 || valid > m.SequenceLength {
				return fmt.Errorf("promise broken: %d tokens, %d valid", len(tokens), valid)
			}
			for _, id := range tokens {
				if id < 0 || int(id) >= m.Tokenizer.Vocab {
					return fmt.Errorf("promise broken: token %d", id)
				}
			}
			ranges, err := s.Ranges(i)
			if err != nil {
				return err
			}
			for _, r := range ranges {
				if r.Source < 0 || r.Source >= len(m.Sources) || r.Start < 0 || r.Length < 1 ||
					r.Start+r.Length > len(tokens) {
					return fmt.Errorf("promise broken: range %+v", r)
				}
			}
		}
	}
	return nil
}

func TestOpenRefuses(t *testing.T) {
	o := seal.Options{SequenceLength: 16, SequencesPerShard: 10, ValidationShare: 0.3}
	m, dir := datasettest.Seal(t, o, datasettest.Batch(t, datasettest.Small,
		datasettest.Synthetic(60, datasettest.Small)))
	o.Seed = 1
	other, otherDir := datasettest.Seal(t, o, datasettest.Batch(t, datasettest.Small,
		datasettest.Synthetic(50, datasettest.Small)))
	if err := readDataset(m, datasettest.From(dir)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*dataset.Manifest)
		locate func(dataset.Shard) (string, error)
		want   string
	}{
		"a missing shard": {nil, datasettest.From(t.TempDir()), "no such file"},
		"a lost shard": {nil, func(dataset.Shard) (string, error) { return "", errors.New("not in the store") },
			"not in the store"},
		"another's shards": {func(m *dataset.Manifest) { m.Splits = other.Splits; m.Sources = other.Sources },
			datasettest.From(dir), "manifest says"},
		"another format": {func(m *dataset.Manifest) { m.Format = "v0" }, datasettest.From(dir), "format"},
		"no sources":     {func(m *dataset.Manifest) { m.Sources = nil }, datasettest.From(dir), "in sources"},
		"renamed source": {func(m *dataset.Manifest) {
			m.Sources = append([]dataset.Source(nil), m.Sources...)
			m.Sources[0].Name = "x"
		}, datasettest.From(dir), "another dataset"},
		"swapped splits": {func(m *dataset.Manifest) {
			m.Splits.Train, m.Splits.Validation = m.Splits.Validation, m.Splits.Train
		}, datasettest.From(dir), "another dataset"},
	} {
		changed := *m
		if c.change != nil {
			c.change(&changed)
		}
		if err := readDataset(&changed, c.locate); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := readDataset(other, datasettest.From(otherDir)); err != nil {
		t.Error(err)
	}
}

func TestOutOfRange(t *testing.T) {
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 16},
		datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(20, datasettest.Small)))
	d := datasettest.Open(t, m, dir)
	for _, i := range []int{-1, d.Train.Len()} {
		if _, _, err := d.Train.Sequence(i, nil); err == nil {
			t.Errorf("there is a sequence %d", i)
		}
		if _, err := d.Train.Ranges(i); err == nil {
			t.Errorf("there are ranges of sequence %d", i)
		}
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 16},
		datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(50, datasettest.Small)))
	d := datasettest.Open(t, m, dir)
	buffer := make([]int32, 17)
	var tokens, targets []int32
	allocs := testing.AllocsPerRun(100, func() {
		d.Train.Stored(3)
		d.Train.Sequence(3, buffer)
		tokens, targets, _ = d.Train.AppendTargets(3, tokens[:0], targets[:0])
	})
	if allocs != 0 {
		t.Errorf("%v allocations a sequence", allocs)
	}
}

func TestDamagedShard(t *testing.T) {
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 8, ValidationShare: 0.5},
		datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(6, datasettest.Small)))
	name := m.Splits.Train.Shards[0].Name
	damage(t, filepath.Join(dir, name), func(path, what string) {
		err := readDataset(m, func(s dataset.Shard) (string, error) {
			if s.Name == name {
				return path, nil
			}
			return filepath.Join(dir, s.Name), nil
		})
		if err == nil && strings.HasPrefix(what, "cut") || err != nil && strings.Contains(err.Error(), "promise") {
			t.Errorf("%s: %v", what, err)
		}
	})
}

func FuzzShard(f *testing.F) {
	m, dir := datasettest.Seal(f, seal.Options{SequenceLength: 8, ValidationShare: 0.5},
		datasettest.Batch(f, datasettest.Small, datasettest.Synthetic(6, datasettest.Small)))
	shard := m.Splits.Train.Shards[0]
	data, err := os.ReadFile(filepath.Join(dir, shard.Name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	work := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(work, fmt.Sprint(os.Getpid()))
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		changed := *m
		changed.Splits.Train.Shards = []dataset.Shard{shard}
		changed.Splits.Train.Shards[0].Size = max(int64(len(data)), 1)
		alloctest.AtMost(t, 1<<20+64*int64(len(data)), func() {
			err := readDataset(&changed, func(s dataset.Shard) (string, error) {
				if s.Name == shard.Name {
					return path, nil
				}
				return filepath.Join(dir, s.Name), nil
			})
			if err != nil && strings.Contains(err.Error(), "promise") {
				t.Fatal(err)
			}
		})
	})
}

func FuzzManifest(f *testing.F) {
	m, _ := datasettest.Seal(f, seal.Options{SequenceLength: 8},
		datasettest.Batch(f, datasettest.Small, datasettest.Synthetic(6, datasettest.Small)))
	data, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var m *dataset.Manifest
		var err error
		alloctest.AtMost(t, 1<<20+256*int64(len(data)), func() { m, err = dataset.ParseManifest(data) })
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := dataset.ParseManifest(again); err != nil || back.Tokenizer != m.Tokenizer {
			t.Fatalf("read, written and read again: %v", err)
		}
	})
}

// TestSequencesLieInTheMapping: what Stored gives is the mapped file itself, in every record batch of every shard, and
// Sequence is the same tokens.
func TestSequencesLieInTheMapping(t *testing.T) {
	for _, info := range []dataset.TokenizerInfo{datasettest.Small, datasettest.Large} {
		m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 5000, SequencesPerShard: 700},
			datasettest.Batch(t, info, long(4_000_000, info)))
		d := datasettest.Open(t, m, dir)
		files := len(d.Train.Mappings())
		if files < 2 || d.Train.RecordBatches() <= files {
			t.Fatalf("%d files, %d record batches: too few to test", files, d.Train.RecordBatches())
		}
		var buffer []int32
		for i := range d.Train.Len() {
			stored, err := d.Train.Stored(i)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(d.Train.Mappings(), func(data []byte) bool { return within(stored, data) }) {
				t.Fatalf("sequence %d lies in no mapping", i)
			}
			if buffer, _, err = d.Train.Sequence(i, buffer); err != nil {
				t.Fatal(err)
			}
			for k, id := range stored.AppendTo(nil) {
				if buffer[k] != int32(id) {
					t.Fatalf("sequence %d: token %d is %d in the file, %d as read", i, k, id, buffer[k])
				}
			}
		}
	}
}

// long is one document of n tokens, a number of documents that short sequences would make many record batches of.
func long(n int, info dataset.TokenizerInfo) []datasettest.Document {
	d := datasettest.Document{BatchDocument: dataset.BatchDocument{ID: "long", Source: "s", Bytes: int64(n)}}
	for i := range n {
		d.Tokens = append(d.Tokens, uint32(dataset.SplitMix64(uint64(i))%uint64(info.Vocab-1)))
	}
	return []datasettest.Document{d, {BatchDocument: dataset.BatchDocument{ID: "short", Source: "s", Row: 1, Bytes: 1},
		Tokens: []uint32{1}}}
}

// within tells whether all tokens lie in data.
func within(tokens dataset.Tokens, data []byte) bool {
	start, size := uintptr(unsafe.Pointer(unsafe.SliceData(tokens.U16))), 2*uintptr(len(tokens.U16))
	if tokens.U32 != nil {
		start, size = uintptr(unsafe.Pointer(unsafe.SliceData(tokens.U32))), 4*uintptr(len(tokens.U32))
	}
	first := uintptr(unsafe.Pointer(&data[0]))
	return size > 0 && start >= first && start+size <= first+uintptr(len(data))
}

// BenchmarkSequence reads sequences of 2048 targets, one after the other and in random order, as a trainer gets them
// and as they lie in the file. A training step at a million tokens a second must not wait for one hundredth of its
// time: it is the share that "% of a step" gives.
func BenchmarkSequence(b *testing.B) {
	_, info := datasettest.Tokenizer(b, "gpt2")
	docs := long(64<<20, info) // far more than the processor's caches hold
	m, dir := datasettest.Seal(b, seal.Options{}, datasettest.Batch(b, info, docs))
	d := datasettest.Open(b, m, dir)
	order := dataset.Order(d.Train.Len(), 1, 0)
	var tokens, targets []int32
	var sum uint64
	for name, read := range map[string]func(int) error{
		"stored": func(i int) error {
			stored, err := d.Train.Stored(i)
			for _, id := range stored.U16 {
				sum += uint64(id)
			}
			return err
		},
		"trainer": func(i int) (err error) {
			tokens, targets, err = d.Train.AppendTargets(i, tokens[:0], targets[:0])
			return err
		},
	} {
		for way, at := range map[string]func(int) int{
			"in order": func(i int) int { return i % order.Len() },
			"random":   func(i int) int { return order.At(i % order.Len()) },
		} {
			b.Run(name+"/"+way, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(2 * 2049)
				n := 0
				for i := 0; b.Loop(); i++ {
					if err := read(at(i)); err != nil {
						b.Fatal(err)
					}
					n++
				}
				speed := float64(n) * 2048 / b.Elapsed().Seconds()
				b.ReportMetric(speed/1e6, "Mtokens/s")
				b.ReportMetric(100*1e6/speed, "%-of-a-step")
			})
		}
	}
}
