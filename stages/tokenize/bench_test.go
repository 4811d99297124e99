package main

import (
	"bufio"
	"bytes"
	"fmt"
	"go/build"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/parquet/compress"
	"golang.org/x/sys/unix"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/documents"
)

// BenchmarkStage tokenizes a parquet file (zstd, groups of a thousand rows) of a book that every Go installation has,
// cut into documents of FineWeb's size, with two threads. With the stage shard it must reach 50 MB/s on two processors;
// what all processors together do in a second of their time, those of the process that decodes included, stands beside
// it.
func BenchmarkStage(b *testing.B) {
	book, err := os.ReadFile(filepath.Join(build.Default.GOROOT, "src", "testdata", "Isaac.Newton-Opticks.txt"))
	if err != nil {
		b.Skipf("the Go installation has no sample text: %v", err)
	}
	var groups [][]string
	size := 0
	for shift := 0; size < 48<<20; shift += 37 {
		var texts []string
		for range 1000 {
			at := (size + shift) % (len(book) - 4000)
			texts = append(texts, string(book[at:at+4000]))
			size += 4000
		}
		groups = append(groups, texts)
	}
	dir := b.TempDir()
	source := write(b, filepath.Join(dir, "x.parquet"), string(parquetFile(b, compress.Codecs.Zstd, groups...)))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	n, before := 0, processorTime(b)
	for b.Loop() {
		if run("--in", source, "--out", filepath.Join(dir, "out"), "--threads", "2", "--log-level", "error") != 0 {
			b.Fatal("failed")
		}
		n += size
	}
	b.ReportMetric(float64(n)/1e6/(processorTime(b)-before).Seconds(), "MB/cpu-s")
}

// BenchmarkFrame is what it costs a block of documents of FineWeb's size to come from another process, but for the
// pipe.
func BenchmarkFrame(b *testing.B) {
	full := &block{text: make([]byte, blockBytes)}
	for i := range blockBytes / 4096 {
		full.documents = append(full.documents, entry{
			BatchDocument: dataset.BatchDocument{ID: fmt.Sprintf("<urn:uuid:6a4fe97c-2cb9-4390-86de-%012d>", i), Row: int64(i),
				Bytes: 4096},
			counted: -1, textEnd: (i + 1) * 4096,
		})
	}
	full.count = documents.Count{Rows: int64(len(full.documents)), Documents: int64(len(full.documents)),
		Bytes: blockBytes}
	full.next = int64(len(full.documents))
	var pipe bytes.Buffer
	w := &frameWriter{out: bufio.NewWriter(&pipe)}
	b.SetBytes(blockBytes)
	b.ReportAllocs()
	for b.Loop() {
		if err := w.block(full); err != nil {
			b.Fatal(err)
		}
		_, data, err := readFrame(&pipe)
		if err == nil {
			_, err = readBlock(data, "s", 0)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// processorTime is what the process and those that it started have used.
func processorTime(b *testing.B) (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
