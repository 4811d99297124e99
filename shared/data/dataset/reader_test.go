package dataset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// readDataset reads all there is and checks what the reader promises.
func readDataset(m *Manifest, locate func(Shard) (string, error)) error {
	d, err := Open(m, locate)
	if err != nil {
		return err
	}
	defer d.Close()
	var tokens []int32
	for _, s := range []*Split{d.Train, d.Validation} {
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
				if r.Source < 0 || r.Source >= len(m.Sources) || r.Start < 0 || r.Length < 1 || r.Start+r.Length > len(tokens) {
					return fmt.Errorf("promise broken: range %+v", r)
				}
			}
		}
	}
	return nil
}

func TestOpenRefuses(t *testing.T) {
	o := SealOptions{SequenceLength: 16, SequencesPerShard: 10, ValidationShare: 0.3}
	m, dir := mustSeal(t, o, []string{writeBatch(t, small, synthetic(60, small))})
	o.Seed = 1
	other, otherDir := mustSeal(t, o, []string{writeBatch(t, small, synthetic(50, small))})
	if err := readDataset(m, from(dir)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Manifest)
		locate func(Shard) (string, error)
		want   string
	}{
		"a missing shard":  {nil, from(t.TempDir()), "no such file"},
		"a lost shard":     {nil, func(Shard) (string, error) { return "", errors.New("not in the store") }, "not in the store"},
		"another's shards": {func(m *Manifest) { m.Splits = other.Splits; m.Sources = other.Sources }, from(dir), "manifest says"},
		"another format":   {func(m *Manifest) { m.Format = "v0" }, from(dir), "format"},
		"no sources":       {func(m *Manifest) { m.Sources = nil }, from(dir), "in sources"},
		"renamed source": {func(m *Manifest) {
			m.Sources = append([]Source(nil), m.Sources...)
			m.Sources[0].Name = "x"
		}, from(dir), "another dataset"},
		"swapped splits": {func(m *Manifest) {
			m.Splits.Train, m.Splits.Validation = m.Splits.Validation, m.Splits.Train
		}, from(dir), "another dataset"},
	} {
		changed := *m
		if c.change != nil {
			c.change(&changed)
		}
		if err := readDataset(&changed, c.locate); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := readDataset(other, from(otherDir)); err != nil {
		t.Error(err)
	}
}

func TestOutOfRange(t *testing.T) {
	m, dir := mustSeal(t, SealOptions{SequenceLength: 16}, []string{writeBatch(t, small, synthetic(20, small))})
	d := mustOpen(t, m, dir)
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
	m, dir := mustSeal(t, SealOptions{SequenceLength: 16}, []string{writeBatch(t, small, synthetic(50, small))})
	d := mustOpen(t, m, dir)
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
	m, dir := mustSeal(t, SealOptions{SequenceLength: 8, ValidationShare: 0.5}, []string{writeBatch(t, small, synthetic(6, small))})
	name := m.Splits.Train.Shards[0].Name
	damage(t, filepath.Join(dir, name), func(path, what string) {
		err := readDataset(m, func(s Shard) (string, error) {
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
	m, dir := mustSeal(f, SealOptions{SequenceLength: 8, ValidationShare: 0.5}, []string{writeBatch(f, small, synthetic(6, small))})
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
		changed.Splits.Train.Shards = []Shard{shard}
		changed.Splits.Train.Shards[0].Size = max(int64(len(data)), 1)
		takesAtMost(t, 1<<20+64*int64(len(data)), func() {
			err := readDataset(&changed, func(s Shard) (string, error) {
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
	m, _ := mustSeal(f, SealOptions{SequenceLength: 8}, []string{writeBatch(f, small, synthetic(6, small))})
	data, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var m *Manifest
		var err error
		takesAtMost(t, 1<<20+256*int64(len(data)), func() { m, err = ParseManifest(data) })
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseManifest(again); err != nil || back.Tokenizer != m.Tokenizer {
			t.Fatalf("read, written and read again: %v", err)
		}
	})
}

// TestSequencesLieInTheMapping: what Stored gives is the mapped file itself, in every record batch of every shard, and
// Sequence is the same tokens.
func TestSequencesLieInTheMapping(t *testing.T) {
	for _, info := range []TokenizerInfo{small, large} {
		m, dir := mustSeal(t, SealOptions{SequenceLength: 5000, SequencesPerShard: 700}, []string{writeBatch(t, info, long(4_000_000, info))})
		d := mustOpen(t, m, dir)
		if len(d.Train.files) < 2 || len(d.Train.chunks) <= len(d.Train.files) {
			t.Fatalf("%d files, %d record batches: too few to test", len(d.Train.files), len(d.Train.chunks))
		}
		var buffer []int32
		for i := range d.Train.Len() {
			stored, err := d.Train.Stored(i)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(d.Train.files, func(f *arrowFile) bool { return within(stored, f.data) }) {
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
func long(n int, info TokenizerInfo) []document {
	d := document{BatchDocument: BatchDocument{ID: "long", Source: "s", Bytes: int64(n)}}
	for i := range n {
		d.tokens = append(d.tokens, uint32(mix(uint64(i))%uint64(info.Vocab-1)))
	}
	return []document{d, {BatchDocument: BatchDocument{ID: "short", Source: "s", Row: 1, Bytes: 1}, tokens: []uint32{1}}}
}

// within tells whether all tokens lie in data.
func within(tokens Tokens, data []byte) bool {
	start, size := uintptr(unsafe.Pointer(unsafe.SliceData(tokens.U16))), 2*uintptr(len(tokens.U16))
	if tokens.U32 != nil {
		start, size = uintptr(unsafe.Pointer(unsafe.SliceData(tokens.U32))), 4*uintptr(len(tokens.U32))
	}
	first := uintptr(unsafe.Pointer(&data[0]))
	return size > 0 && start >= first && start+size <= first+uintptr(len(data))
}

// BenchmarkSequence reads sequences of 2048 targets, one after the other and in random order, as a trainer gets them and as
// they lie in the file. A training step at a million tokens a second must not wait for one hundredth of its time: it is
// the share that "% of a step" gives.
func BenchmarkSequence(b *testing.B) {
	tok := mustTokenizer(b, "gpt2")
	docs := long(64<<20, infoOf(tok)) // far more than the processor's caches hold
	m, dir := mustSeal(b, SealOptions{}, []string{writeBatch(b, infoOf(tok), docs)})
	d := mustOpen(b, m, dir)
	order := Order(d.Train.Len(), 1, 0)
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
