package dataset_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
)

// The tests here compare the reader of this package with that of the Arrow module: docs/decisions/own-arrow-reader.md.

// frugal is an allocator of the Arrow module that panics where more than 1 GiB is asked for.
type frugal struct{ memory.Allocator }

func (f frugal) Allocate(size int) []byte {
	if size > 1<<30 {
		panic(fmt.Sprintf("allocation of %d bytes", size))
	}
	return f.Allocator.Allocate(size)
}

// readWithModule gives do every record batch of a shard as the Arrow module reads it.
func readWithModule(data []byte, do func(tokens []uint16)) error {
	f, err := ipc.NewFileReader(bytes.NewReader(data), ipc.WithAllocator(frugal{memory.DefaultAllocator}))
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range f.NumRecords() {
		record, err := f.RecordAt(i)
		if err != nil {
			return err
		}
		do(record.Column(0).(*array.FixedSizeList).ListValues().(*array.Uint16).Uint16Values())
		record.Release()
	}
	return nil
}

// One changed byte of a record batch's header makes the Arrow module panic or ask for gigabytes, which ends a process.
// TestDamagedShard shows that the reader of this package gives errors.
func TestModuleDoesNotSurviveDamage(t *testing.T) {
	batch := datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(6, datasettest.Small))
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 8, ValidationShare: 0.5}, batch)
	good, err := os.ReadFile(filepath.Join(dir, m.Splits.Train.Shards[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := dataset.ParseArrow(good)
	if err != nil {
		t.Fatal(err)
	}
	// The header of the first record batch alone: with a byte of the footer changed the module asks for memory in a way
	// that no test survives.
	header := int(blocks[0][1])
	errs, panics, huge := 0, 0, 0
	for i := int(blocks[0][0]); i < int(blocks[0][0])+header; i++ {
		data := slices.Clone(good)
		data[i] ^= []byte{0x01, 0x80, 0xff}[i%3]
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); strings.HasPrefix(r, "allocation") {
					huge++
				} else if r != "<nil>" {
					panics++
				}
			}()
			if readWithModule(data, func([]uint16) {}) != nil {
				errs++
			}
		}()
	}
	t.Logf("%d bytes of a header, each changed: %d errors, %d panics, %d allocations of more than 1 GiB", header, errs,
		panics, huge)
	if panics == 0 && huge == 0 {
		t.Error("the Arrow module survives damage: docs/decisions/own-arrow-reader.md has lost a reason")
	}
}

// BenchmarkReaders reads all tokens of a dataset, and single sequences in random order: with the reader of this
// package, and with the Arrow module, which makes a record batch of 4 MiB for each.
func BenchmarkReaders(b *testing.B) {
	_, info := datasettest.Tokenizer(b, "gpt2")
	m, dir := datasettest.Seal(b, seal.Options{}, datasettest.Batch(b, info, long(32<<20, info)))
	d := datasettest.Open(b, m, dir)
	path := filepath.Join(dir, m.Splits.Train.Shards[0].Name)
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	n := int(m.Splits.Train.Shards[0].Sequences)
	width := m.SequenceLength + 1
	order := dataset.Order(n, 1, 0)
	var sum uint64
	add := func(tokens []uint16) {
		for _, id := range tokens {
			sum += uint64(id)
		}
	}
	stored := func(i int) {
		tokens, err := d.Train.Stored(i)
		if err != nil {
			b.Fatal(err)
		}
		add(tokens.U16)
	}
	f, err := ipc.NewFileReader(bytes.NewReader(data))
	if err != nil {
		b.Fatal(err)
	}
	first, err := f.RecordAt(0)
	if err != nil {
		b.Fatal(err)
	}
	perRecord := int(first.NumRows())
	for name, c := range map[string]struct {
		sequences int // a turn reads
		read      func(turn int)
	}{
		"all/own": {n, func(int) {
			for i := range n {
				stored(i)
			}
		}},
		"all/module": {n, func(int) {
			if err := readWithModule(data, add); err != nil {
				b.Fatal(err)
			}
		}},
		"random/own": {1, func(turn int) { stored(order.At(turn % n)) }},
		"random/module": {1, func(turn int) {
			i := order.At(turn % n)
			record, err := f.RecordAt(i / perRecord)
			if err != nil {
				b.Fatal(err)
			}
			all := record.Column(0).(*array.FixedSizeList).ListValues().(*array.Uint16).Uint16Values()
			add(all[i%perRecord*width:][:width])
			record.Release()
		}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(2 * width * c.sequences))
			for i := 0; b.Loop(); i++ {
				c.read(i)
			}
		})
	}
}
