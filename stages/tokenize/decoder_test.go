package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/parquet/compress"
	"golang.org/x/sys/unix"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/documents"
	"bitnet1/shared/processtest"
	"bitnet1/shared/run/stage"
)

// faults are what befalls the process that decodes a source of that name, when it comes to the second row group, or to
// line 65,536. Each gets the output to write to instead, and the path of the source.
var faults = map[string]func(out io.Writer, path string){
	"panics": func(io.Writer, string) {
		go panic("a goroutine that nobody can recover")
		select {}
	},
	"hungers": func(io.Writer, string) {
		for all := [][]byte{}; ; {
			b := make([]byte, 16<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
		}
	},
	"loops": func(io.Writer, string) {
		for odd := uint64(1); odd != 0; odd *= 3 { // it never is
		}
	},
	"sleeps":   func(io.Writer, string) { time.Sleep(time.Hour) },
	"exits":    func(io.Writer, string) { os.Exit(0) },
	"babbles":  func(out io.Writer, _ string) { out.Write(bytes.Repeat([]byte("b\xff\xff\xff\xff"), 10)) },
	"pretends": func(out io.Writer, _ string) { out.Write([]byte{frameBlock, 8, 0, 0, 0, 2, 2, 0, 0, 0, 0, 2, 2}) },
	"killed":   func(io.Writer, string) { unix.Kill(os.Getpid(), unix.SIGKILL) },
	"killedonce": func(_ io.Writer, path string) {
		if os.Mkdir(path+".killed", 0o755) == nil {
			unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	},
}

// decodeWithFaults is decodeMain with what faults say.
func decodeWithFaults(in io.Reader, out, stderr io.Writer) int {
	buffered := bufio.NewReader(in)
	line, err := buffered.ReadBytes('\n')
	if err != nil {
		return 2
	}
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return 2
	}
	out = &watched{out, filepath.Join(filepath.Dir(string(r.Path)), statuses, filepath.Base(string(r.Path)))}
	if fault := faults[strings.TrimSuffix(r.Source, filepath.Ext(r.Source))]; fault != nil {
		inner := out
		out = &faulty{inner, func() { fault(inner, string(r.Path)) }}
	}
	return decodeMain(io.MultiReader(bytes.NewReader(line), buffered), out, stderr)
}

// statuses is a folder beside the sources in which processes that decode leave their status, where a test has made it.
const statuses = "statuses"

// watched is an output that leaves the process's status in a file, if it can, before the last frame.
type watched struct {
	io.Writer
	path string
}

func (w *watched) Write(p []byte) (int, error) {
	if p[0] == frameEnd || p[0] == frameBad {
		if said, err := os.ReadFile("/proc/self/status"); err == nil {
			_ = os.WriteFile(w.path, said, 0o644)
		}
	}
	return w.Writer.Write(p)
}

// faulty is an output that fails when it is told of the second row group.
type faulty struct {
	io.Writer
	fail func()
}

func (f *faulty) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if place := (fields{data: p[min(len(p), 5):]}); p[0] == framePlace && len(p) < 30 &&
		(place.number() == 1 || place.count() > 0) {
		f.fail()
	}
	return n, err
}

// groups is a parquet file of three row groups.
func groups(t testing.TB) string {
	var texts []string
	for i := range 60 {
		texts = append(texts, fmt.Sprintf("text %d", i))
	}
	return string(parquetFile(t, compress.Codecs.Zstd, texts[:20], texts[20:40], texts[40:]))
}

// TestDecoderFaults: whatever happens to the process that decodes a file, the file is refused with the reason and its
// row group, and the stage goes on with the others.
func TestDecoderFaults(t *testing.T) {
	dir := t.TempDir()
	content := groups(t)
	args := []string{"run", "--json", "--out", filepath.Join(dir, "out"), "--tokenizer", "bytes", "--on-bad-file", "skip",
		"--log-level", "error"}
	want := map[string]string{
		"panics": "panic: a goroutine that nobody can recover", "exits": "exit status 0", "killed": "signal: killed",
		"babbles": "does not make sense", "pretends": "does not make sense", "killedonce": "", "good": "",
	}
	if _, err := os.Stat("/proc/self/exe"); err == nil && limited {
		want["hungers"] = "out of memory" // other systems do not limit it
	}
	for name := range want {
		args = append(args, "--in", write(t, filepath.Join(dir, name+".parquet"), content))
	}
	cmd, stderr := self(args...), new(strings.Builder)
	cmd.Stderr = stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	for line := range bytes.Lines(stdout) {
		var e struct {
			Body struct {
				Source, Refused string
				Documents       int
			}
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(e.Body.Source, ".parquet")
		reason, there := want[name]
		delete(want, name)
		switch {
		case !there:
			t.Errorf("unexpected: %s", line)
		case reason == "" && (e.Body.Refused != "" || e.Body.Documents != 60):
			t.Errorf("%s: %d documents, refused: %s", name, e.Body.Documents, e.Body.Refused)
		case reason != "" && (!strings.Contains(e.Body.Refused, reason) || !strings.Contains(e.Body.Refused, "row group 1") ||
			e.Body.Documents != 0):
			t.Errorf("%s: %d documents, refused: %s", name, e.Body.Documents, e.Body.Refused)
		}
	}
	if len(want) > 0 {
		t.Errorf("nothing is said of %v", want)
	}
	good, again := batchTexts(t, filepath.Join(dir, "out", "good.tokens.arrow")), batchTexts(t,
		filepath.Join(dir, "out", "killedonce.tokens.arrow"))
	if len(good) != 60 || !slices.Equal(good, again) {
		t.Errorf("a file whose decoder was killed once gives %d documents, not the %d of one that was not", len(again),
			len(good))
	}
}

// TestSilentDecoder: a decoder that loops is ended and the file refused; one that merely waits is no fault of the file.
func TestSilentDecoder(t *testing.T) {
	for name, refused := range map[string]bool{"loops": true, "sleeps": false} {
		path := write(t, filepath.Join(t.TempDir(), name), groups(t))
		d := &decoder{
			request: request{Path: []byte(path), Source: name, Params: spec().Defaults, Memory: decoderMemory},
			silence: 2 * time.Second, times: new(stage.Times),
		}
		err := d.read(t.Context(), func(*block) error { return nil })
		if err == nil || errors.As(err, new(badFile)) != refused {
			t.Errorf("%s: %v", name, err)
		}
		if refused && !strings.Contains(err.Error(), "row group 1, after row 20") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDecoderEndsWithItsParent: neither a kill of the stage nor the end of its job leaves a process behind.
func TestDecoderEndsWithItsParent(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skipf("the system does not say which processes there are: %v", err)
	}
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "loops.parquet"), groups(t))
	c := self("run", "--in", path, "--out", dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	child := childOf(t, c.Process.Pid)
	c.Process.Kill()
	c.Wait()
	waitForEnd(t, child)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		d := &decoder{
			request: request{Path: []byte(path), Source: "loops.parquet", Params: spec().Defaults, Memory: decoderMemory},
			silence: time.Hour, times: new(stage.Times),
		}
		done <- d.read(ctx, func(*block) error { return nil })
	}()
	child = childOf(t, os.Getpid())
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	waitForEnd(t, child)
}

// childOf waits for a process to have a child.
func childOf(t *testing.T, parent int) (child int) {
	t.Helper()
	processtest.Eventually(t, func() bool {
		all, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range all {
			said, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			_, rest, _ := bytes.Cut(said, []byte(") "))
			if parts := strings.Fields(string(rest)); len(parts) > 1 && parts[0] != "Z" && parts[1] == strconv.Itoa(parent) {
				child, _ = strconv.Atoi(filepath.Base(filepath.Dir(path)))
				return true
			}
		}
		return false
	}, "a process that decodes")
	return child
}

func waitForEnd(t *testing.T, pid int) {
	t.Helper()
	processtest.Eventually(t, func() bool {
		said, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(said, []byte(") Z "))
	}, "the end of process %d", pid)
}

// FuzzFrame: frames of any bytes give a block that keeps its promises, or an error; and a block comes back as it was.
func FuzzFrame(f *testing.F) {
	b := &block{
		documents: []entry{
			{BatchDocument: dataset.BatchDocument{ID: "a", Source: "s", Row: 3, Bytes: 5}, counted: -1, textEnd: 5},
			{BatchDocument: dataset.BatchDocument{ID: "", Source: "s", Row: 9, Bytes: 0}, counted: 7, textEnd: 5},
		},
		text: []byte("hello"), next: 10, count: documents.Count{Rows: 4, Documents: 2, Bytes: 5, Nulls: 1, Filtered: 1},
	}
	var frame bytes.Buffer
	w := &frameWriter{out: bufio.NewWriter(&frame)}
	if err := w.block(b); err != nil {
		f.Fatal(err)
	}
	f.Add(frame.Bytes())
	f.Add([]byte{frameBlock, 0, 0, 0, 2})                                          // of 32 MiB that are not there
	f.Add([]byte("b\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x80\x01")) // of 8192 documents that are not there
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		kind, payload, err := readFrame(bytes.NewReader(data))
		if err == nil {
			readBlock(payload, "s", 3)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 3*blockBytes+256*uint64(len(data)) {
			t.Errorf("%d bytes of memory for %d", got, len(data))
		}
		if err != nil || kind != frameBlock {
			return
		}
		got, err := readBlock(payload, "s", 3)
		if err != nil {
			return
		}
		if bytes.Equal(data, frame.Bytes()) && !reflect.DeepEqual(got, b) {
			t.Errorf("%+v came back as %+v", b, got)
		}
		end, row := 0, int64(2)
		for _, d := range got.documents {
			if d.textEnd < end || d.textEnd > len(got.text) || d.Row <= row {
				t.Fatalf("a document to %d after one to %d, in row %d after %d", d.textEnd, end, d.Row, row)
			}
			end, row = d.textEnd, d.Row
		}
		if end != len(got.text) || got.next <= row {
			t.Fatalf("%d bytes of %d, row %d after %d", end, len(got.text), got.next, row)
		}
	})
}
