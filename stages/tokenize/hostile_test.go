package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// parquetFile writes texts, in one page a column chunk.
func parquetFile(t testing.TB, codec compress.Compression, groups ...[]string) []byte {
	t.Helper()
	node := schema.Must(schema.NewPrimitiveNodeLogical("text", parquet.Repetitions.Optional, schema.StringLogicalType{},
		parquet.Types.ByteArray, -1, -1))
	root := schema.MustGroup(schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{node}, -1))
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, root,
		file.WithWriterProps(parquet.NewWriterProperties(parquet.WithCompression(codec), parquet.WithDictionaryDefault(false),
			parquet.WithStats(false))))
	for _, texts := range groups {
		group := w.AppendRowGroup()
		c, err := group.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		values, def := make([]parquet.ByteArray, len(texts)), make([]int16, len(texts))
		for i, text := range texts {
			values[i], def[i] = parquet.ByteArray(text), 1
		}
		if _, err := c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, def, nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		group.Close()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostileFiles gives the program damaged files, files at every limit, and Apache's conformance files where they
// are: it ends, without a crash, in bounded memory, and every file is complete or refused with a reason.
func TestHostileFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, statuses), 0o755); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	files := map[string]string{}
	rows := map[string]int{} // that a file must have, if it is not refused
	add := func(name string, data []byte, n int) {
		files[name] = write(t, filepath.Join(dir, name), string(data))
		rows[name] = n
	}
	var texts []string
	for i := range 50 {
		texts = append(texts, fmt.Sprintf("text %d %s", i, strings.Repeat("word ", i)))
	}
	good := parquetFile(t, compress.Codecs.Zstd, texts[:20], texts[20:])
	add("good.parquet", good, 50)
	for i := range 150 {
		data := bytes.Clone(good)
		at := random.IntN(len(data))
		switch i % 3 {
		case 0:
			data[at] ^= 1 << random.IntN(8)
		case 1:
			data = data[:at]
		default:
			clear(data[at:min(at+20, len(data))])
		}
		add(fmt.Sprintf("damaged%d.parquet", i), data, 50)
	}
	noise := make([]byte, 15<<20) // nearly a token a byte
	for i := range noise {
		noise[i] = "qxzjkvw"[random.IntN(7)]
	}
	add("longest.parquet", parquetFile(t, compress.Codecs.Uncompressed, []string{string(noise)}), 1)
	// Repeated noise, not one letter: twelve letters' pages would unpack to so much that the file is refused, unless the
	// limit of memory ends the process in between.
	repeated := strings.Repeat(string(noise[:4<<10]), 2560)
	add("pages.parquet", parquetFile(t, compress.Codecs.Zstd, slicesOf(repeated, 12)), 12)
	add("longer.parquet", parquetFile(t, compress.Codecs.Zstd, []string{strings.Repeat("a", 17<<20)}), -1)
	add("bomb.parquet", parquetFile(t, compress.Codecs.Zstd, slicesOf(strings.Repeat("a", 15<<20), 20)), -1)
	add("line.jsonl", []byte(`{"text":"`+strings.Repeat(`\u0041`, 15<<20/6-10)+`"}`), 1)
	add("keys.jsonl", []byte(`{`+strings.Repeat(`"a":1,`, 2<<20)+`"text":"x"}`), 1)
	paths, _ := filepath.Glob(filepath.Join(sharedDir(), "data", "parquet-testing", "data", "*.parquet*"))
	args := []string{"run", "--json", "--out", filepath.Join(dir, "out"), "--on-bad-file", "skip", "--log-level", "error"}
	for _, path := range files {
		args = append(args, "--in", path)
	}
	for _, path := range paths {
		args = append(args, "--in", path)
	}
	c := self(args...)
	status := filepath.Join(dir, "status")
	c.Env = append(c.Env, asProgram+"="+status)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	stdout, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	checkOutcomes(t, stdout, rows, len(files)+len(paths))
	own, decoder := peak(t, status), 0
	for name := range files {
		if most := peak(t, filepath.Join(dir, statuses, name)); most > decoder {
			decoder = most
			t.Logf("%d MiB to decode %s", most, name)
		}
	}
	t.Logf("%d files, at most %d MiB of memory and %d MiB to decode", len(files)+len(paths), own, decoder)
	if limited && own+decoder > 512 { // the race detector has memory of its own
		t.Error("that is more than 512 MiB")
	}
}

// peak is the most memory, in MiB, that the process had at a time that left this status.
func peak(t *testing.T, status string) (most int) {
	t.Helper()
	said, err := os.ReadFile(status)
	if err != nil {
		t.Skipf("the system does not say how much memory a process takes: %v", err)
	}
	_, rest, _ := strings.Cut(string(said), "VmHWM:")
	if _, err := fmt.Sscan(rest, &most); err != nil {
		t.Fatal(err)
	}
	return most >> 10
}

func slicesOf(text string, n int) (all []string) {
	for range n {
		all = append(all, text)
	}
	return all
}

// sharedDir is a folder of real data that is not part of the project.
func sharedDir() string {
	if dir := os.Getenv("BITNET1_SHARED"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "..", "shared")
}

// checkOutcomes reads what the program says of each file.
func checkOutcomes(t *testing.T, stdout []byte, rows map[string]int, files int) {
	t.Helper()
	refused, said := 0, 0
	for line := range bytes.Lines(stdout) {
		var e struct {
			Body struct {
				Source, Refused string
				Rows            int
			}
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		said++
		want, ours := rows[e.Body.Source]
		switch {
		case e.Body.Refused != "":
			refused++
			if strings.Contains(e.Body.Refused, "defect") || ours && want > 0 && !strings.HasPrefix(e.Body.Source, "damaged") {
				t.Errorf("%s is refused: %s", e.Body.Source, e.Body.Refused)
			}
		case ours && e.Body.Rows != want:
			t.Errorf("%s: %d rows, want %d", e.Body.Source, e.Body.Rows, want)
		}
	}
	if said != files || refused < 50 {
		t.Errorf("%d files have an outcome of %d, %d are refused", said, files, refused)
	}
}
