package dataset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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

func TestSequenceReusesItsBuffer(t *testing.T) {
	m, dir := mustSeal(t, SealOptions{SequenceLength: 16}, []string{writeBatch(t, small, synthetic(50, small))})
	d := mustOpen(t, m, dir)
	buffer := make([]int32, 17)
	allocs := testing.AllocsPerRun(100, func() { d.Train.Sequence(3, buffer) })
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
}

func FuzzManifest(f *testing.F) {
	m, _ := mustSeal(f, SealOptions{SequenceLength: 8}, []string{writeBatch(f, small, synthetic(6, small))})
	data, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
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

// BenchmarkSequence reads random sequences of 2048 targets; it must not be slower than a training step needs, some
// 10^8 tokens a second.
func BenchmarkSequence(b *testing.B) {
	tok := mustTokenizer(b, "gpt2")
	m, dir := mustSeal(b, SealOptions{}, []string{writeBatch(b, infoOf(tok), sampleBatch(b, tok))})
	d := mustOpen(b, m, dir)
	order, buffer := Order(d.Train.Len(), 1, 0), []int32(nil)
	n := 0
	for i := 0; b.Loop(); i++ {
		tokens, valid, err := d.Train.Sequence(order.At(i%order.Len()), buffer)
		if err != nil {
			b.Fatal(err)
		}
		buffer = tokens
		n += valid
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mtokens/s")
}
