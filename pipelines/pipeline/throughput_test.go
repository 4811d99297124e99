package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/build"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
	"github.com/klauspost/compress/zstd"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/stage"
)

var (
	throughput = flag.Bool("throughput", false, "measure how fast the programs make datasets, "+
		"and print it as Markdown")
	throughputScale = flag.Int("throughput.scale", 1, "how many times as much text is taken")
)

// TestThroughput measures the data plane as users have it: the real programs, parquet compressed with zstd in, sealed
// shards out, wall-clock time of all processors of the machine. It asserts nothing about time: its tables go into
// docs/data.md.
func TestThroughput(t *testing.T) {
	if !*throughput {
		t.Skip("a measurement and no test: task data:bench runs it")
	}
	what, texts := benchTexts(t)
	fmt.Printf("%d processors; %s, parquet with zstd, groups of 1000 rows; gpt2.\n", runtime.NumCPU(), what)
	t.Run("files", func(t *testing.T) { measureFiles(t, texts) })
	t.Run("workers", func(t *testing.T) { measureWorkers(t, texts) })
}

// measureFiles makes a dataset of one file of each of two sizes.
func measureFiles(t *testing.T, texts []string) {
	var steps [][]string // of the last
	fmt.Print("\n| text | stage | wall-clock seconds | MB/s | processor seconds | MB a processor second | peak memory " +
		"|\n|---|---|---|---|---|---|---|\n")
	for _, times := range []int{2, 8} {
		w := newWorld(t)
		dir := t.TempDir()
		source := filepath.Join(dir, "texts.parquet")
		size := writeTexts(t, source, texts, times**throughputScale)
		tokens, dataset := filepath.Join(dir, "tokens"), filepath.Join(dir, "dataset")
		a := w.measure("tokenize", "run", "--in", source, "--out", tokens, "--log-level", "error")
		b := w.measure("shard", "run", "--in", filepath.Join(tokens, "texts.tokens.arrow"), "--out", dataset, "--log-level",
			"error")
		both := expense{a.wall + b.wall, a.cpu + b.cpu, max(a.memory, b.memory)}
		for _, row := range []struct {
			name string
			expense
		}{{"tokenize", a}, {"shard", b}, {"both", both}} {
			fmt.Printf("| %d MB | %s | %.2f | %.0f | %.2f | %.0f | %d MiB |\n", size/1e6, row.name, row.wall.Seconds(),
				speed(size, row.wall), row.cpu.Seconds(), speed(size, row.cpu), row.memory>>20)
		}
		steps = slices.Concat(stepRows(t, filepath.Join(tokens, stage.TimesFile("texts"))),
			stepRows(t, filepath.Join(dataset, stage.TimesFile("dataset"))))
	}
	fmt.Print("\n| stage | step | processor seconds | seconds by the clock, of all threads | MB a processor second |\n" +
		"|---|---|---|---|---|\n")
	for _, row := range steps {
		fmt.Printf("| %s |\n", strings.Join(row, " | "))
	}
}

// stepRows are the steps in a file of times.
func stepRows(t *testing.T, path string) (rows [][]string) {
	t.Helper()
	data, err := os.ReadFile(path)
	var times stage.JobTimes
	if err == nil {
		err = json.Unmarshal(data, &times)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range times.Steps {
		if s.CPU < 0.01 { // it is not measured well
			continue
		}
		rows = append(rows, []string{times.Stage, s.Step, fmt.Sprintf("%.2f", s.CPU), fmt.Sprintf("%.2f", s.Wall),
			fmt.Sprintf("%.0f", float64(times.Bytes)/1e6/s.CPU)})
	}
	return rows
}

// measureWorkers tokenizes eight files by one, two and four processes of the stage with one encoding thread each,
// linked by the event server. Each has a second process that decodes.
func measureWorkers(t *testing.T, texts []string) {
	sources := t.TempDir()
	size := 0
	for i := range 8 {
		size += writeTexts(t, filepath.Join(sources, fmt.Sprintf("%d.parquet", i)), texts[i*len(texts)/8:(i+1)*len(texts)/8],
			4**throughputScale)
	}
	fmt.Print("\n| workers | wall-clock seconds | MB/s | against one worker | processors busy | MB a processor second " +
		"|\n|---|---|---|---|---|---|\n")
	var one time.Duration
	for _, workers := range []int{1, 2, 4} {
		w := newWorld(t)
		w.env = []string{"BITNET1_THREADS=1", "GOMAXPROCS=1"}
		definition := filepath.Join(t.TempDir(), "tokenize.yml")
		text := fmt.Sprintf("name: throughput\nabout: tokenize alone\nsources: [%q]\nstages: {tokenize: {}}\n"+
			"workers: {tokenize: %d}\n", filepath.Join(sources, "*.parquet"), workers)
		if err := os.WriteFile(definition, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		used := w.measure("pipeline", "run", "--run", "throughput", "--preset", "nano", "--set", "tokenize.tokenizer=gpt2",
			"--json", definition)
		wall := eventsApart(t, w.data)
		one = cmp.Or(one, wall)
		fmt.Printf("| %d | %.2f | %.0f | %.2f | %.2f | %.0f |\n", workers, wall.Seconds(), speed(size, wall),
			one.Seconds()/wall.Seconds(), used.cpu.Seconds()/used.wall.Seconds(), speed(size, used.cpu))
	}
}

// eventsApart is the time from the first source to the last token batch.
func eventsApart(t *testing.T, data string) time.Duration {
	t.Helper()
	at := func(kind string) (times []int64) {
		events, err := journal.Open(data).Read("throughput", kind)
		if err != nil || len(events) != 8 {
			t.Fatalf("%d events %s, %v", len(events), kind, err)
		}
		for _, e := range events {
			times = append(times, e.Time)
		}
		return times
	}
	return time.Duration(
		slices.Max(at(event.TokensWritten{}.Kind()))-slices.Min(at(event.SourceAdded{}.Kind()))) * time.Millisecond
}

func speed(size int, d time.Duration) float64 { return float64(size) / 1e6 / d.Seconds() }

// expense is what a program took, with the processes that it started.
type expense struct {
	wall, cpu time.Duration
	memory    int64 // bytes, at most, of all processes together, without mapped files; looked at fifty times a second
}

// measure runs a program to its end.
func (w *world) measure(program string, args ...string) expense {
	w.t.Helper()
	cmd := w.command(program, args...)
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &stderr
	started := time.Now()
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		var peak int64
		for {
			select {
			case <-stop:
				most <- peak
				return
			case <-time.After(20 * time.Millisecond):
				var sum int64
				for _, pid := range family(cmd.Process.Pid) {
					sum += memory(pid)
				}
				peak = max(peak, sum)
			}
		}
	}()
	err := cmd.Wait()
	u := expense{wall: time.Since(started)}
	close(stop)
	u.memory = <-most
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", program, args, err, stderr.String())
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() // of those that it waited for as well
	return u
}

// family is a process and those that its first thread started.
func family(pid int) []int {
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		said, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(said)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, family(n)...)
			}
		}
	}
	return all
}

// memory is the private memory of a process, without pages of mapped files, which the system can take back at any time.
// It is 0 if the system does not say.
func memory(pid int) int64 {
	said, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(said), "RssAnon:")
	var n int64
	_, _ = fmt.Sscan(rest, &n)
	return n << 10
}

// benchTexts are some sixty megabytes of documents: sections of textbooks where they are, or else pieces of a book that
// came with Go.
func benchTexts(t *testing.T) (what string, texts []string) {
	path := filepath.Join(cmp.Or(os.Getenv("BITNET1_SHARED"), filepath.Join("..", "..", "..", "shared")), "data",
		"openstax.jsonl.zst")
	f, err := os.Open(path)
	if err != nil {
		book, err := os.ReadFile(filepath.Join(build.Default.GOROOT, "src", "testdata", "Isaac.Newton-Opticks.txt"))
		if err != nil {
			t.Skipf("neither textbooks nor the Go installation's sample text: %v", err)
		}
		for at := 0; len(texts) < 15000; at = (at + 3701) % (len(book) - 4000) {
			texts = append(texts, string(book[at:at+4000]))
		}
		return "pieces of Newton's Opticks (set BITNET1_SHARED for textbooks)", texts
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for d := json.NewDecoder(z); ; {
		var line struct{ Text string }
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			return "sections of textbooks", texts
		} else if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, line.Text)
	}
}

// writeTexts writes a parquet file that has all texts so many times, and returns how many bytes of text that is.
func writeTexts(t *testing.T, path string, texts []string, times int) (size int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	node := schema.Must(schema.NewPrimitiveNodeLogical("text", parquet.Repetitions.Required, schema.StringLogicalType{},
		parquet.Types.ByteArray, -1, -1))
	root := schema.MustGroup(schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{node}, -1))
	w := file.NewParquetWriter(f, root, file.WithWriterProps(parquet.NewWriterProperties(
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithDictionaryDefault(false), parquet.WithStats(false))))
	for range times {
		for group := range slices.Chunk(texts, 1000) {
			values := make([]parquet.ByteArray, len(group))
			for i, text := range group {
				values[i], size = parquet.ByteArray(text), size+len(text)
			}
			c, err := w.AppendRowGroup().NextColumn()
			if err == nil {
				_, err = c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, nil, nil)
			}
			if err = errors.Join(err, c.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return size
}
