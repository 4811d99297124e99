package main

import (
	"go/build"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/parquet/compress"
	"golang.org/x/sys/unix"
)

// BenchmarkStage tokenizes a parquet file (zstd, groups of a thousand rows) of a book that every Go installation has, cut
// into documents of FineWeb's size, with two threads. With the stage shard it must reach 50 MB/s on two processors; what
// all processors together do in a second of their time stands beside it.
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
