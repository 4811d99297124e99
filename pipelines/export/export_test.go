package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"
	"google.golang.org/protobuf/encoding/protowire"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/measure/history/historytest"
	"bitnet1/shared/pythontest"
)

func run(t *testing.T, args ...string) (said string, err error) {
	t.Helper()
	var out bytes.Buffer
	app := newApp()
	app.Writer, app.ErrWriter = &out, &out
	err = app.Run(append([]string{"export"}, args...))
	return out.String(), err
}

// exported is the path of the file that a run is exported to.
func exported(t *testing.T, data, run_, format string) string {
	t.Helper()
	said, err := run(t, "--data", data, "--run", run_, "--format", format)
	if err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(said, ": ")
	return path
}

// Every number of a run is a metric, with its place in the training.
func TestMetrics(t *testing.T) {
	data, o := t.TempDir(), historytest.Options{}
	historytest.Make(t, data, "r", o)
	r, err := history.Read(data, "r")
	if err != nil {
		t.Fatal(err)
	}
	all := metricsOf(r)
	for _, want := range []metric{
		{"train/loss", "bits/token", 5, 5000, 2.5, -1, -1, "", o.Loss(5)},
		{"train/speed", "tokens/second", 5, 5000, 2.5, -1, -1, "", 2000},
		{"validation/loss", "bits/token", 6, 6000, 3, -1, -1, "", o.Loss(6) + 0.25},
		{"results/bits_per_token", "", 12, 12000, 6, -1, -1, "", o.Bits(12)},
		{"results/unigram_entropy", "", 12, 12000, 6, -1, -1, "", 7.5},
		{"results/bits_per_token", "", 12, 12000, 6, -1, -1, "sequences=2", o.Bits(12) + 1},
		{"probe/random_ipmr", "", 9, 9000, 4.5, -1, -1, "", 0.0625},
		{"probe/ipmr", "", 9, 9000, 4.5, 1, 0, "", historytest.IPMR(9, 1, 0)},
	} {
		if !slices.Contains(all, want) {
			t.Errorf("%+v is not among the metrics", want)
		}
	}
	if !slices.IsSortedFunc(all, func(a, b metric) int { return cmp.Compare(a.Step, b.Step) }) {
		t.Error("the metrics are not in the order of steps")
	}
	if slices.ContainsFunc(all, func(m metric) bool { return strings.Contains(m.Name, "best_head") }) {
		t.Error("a text is among the numbers")
	}
	// A run of which the times are lost has all numbers but those of time.
	if err := os.RemoveAll(filepath.Join(data, "runs", "r", "train", "times")); err != nil {
		t.Fatal(err)
	}
	if r, err = history.Read(data, "r"); err != nil {
		t.Fatal(err)
	}
	without := metricsOf(r)
	if want := len(all) - historytest.Steps; len(without) != want || !math.IsNaN(without[0].Seconds) {
		t.Errorf("%d metrics without times, want %d", len(without), want)
	}
}

// scalar is a number of an event file.
type scalar struct {
	tag   string
	step  int64
	value float32
	wall  float64
}

// readEvents reads an event file with code of its own: framing and checksums, then the fields of each message.
func readEvents(t *testing.T, b []byte) (version string, all []scalar) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 16 {
			t.Fatalf("%d bytes are left over", len(b))
		}
		n := binary.LittleEndian.Uint64(b)
		if binary.LittleEndian.Uint32(b[8:]) != masked(b[:8]) || binary.LittleEndian.Uint32(b[12+n:]) != masked(b[12:12+n]) {
			t.Fatal("a checksum is wrong")
		}
		event := fields(t, b[12:12+n])
		wall := math.Float64frombits(event[1].(uint64))
		if v, ok := event[3]; ok {
			version = string(v.([]byte))
		} else {
			value := fields(t, fields(t, event[5].([]byte))[1].([]byte))
			all = append(all, scalar{string(value[1].([]byte)), int64(event[2].(uint64)),
				math.Float32frombits(uint32(value[2].(uint64))), wall})
		}
		b = b[16+n:]
	}
	return version, all
}

func fields(t *testing.T, b []byte) map[protowire.Number]any {
	t.Helper()
	all := map[protowire.Number]any{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			all[number], n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			all[number] = uint64(v)
		case protowire.Fixed64Type:
			all[number], n = protowire.ConsumeFixed64(b)
		default:
			all[number], n = protowire.ConsumeBytes(b)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
	}
	return all
}

// The checksum is that of the record format's description: a CRC32C, rotated and moved.
func TestMasked(t *testing.T) {
	crc := uint32(0xe3069283) // CRC32C of "123456789" (RFC 3720)
	if got, want := masked([]byte("123456789")), bits.RotateLeft32(crc, -15)+0xa282ead8; got != want {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestTensorBoardEvents(t *testing.T) {
	data, o := t.TempDir(), historytest.Options{}
	historytest.Make(t, data, "r", o)
	path := exported(t, data, "r", "tensorboard")
	if want := filepath.Join(data, "experiments", "export", "tensorboard", "r",
		fmt.Sprintf("events.out.tfevents.%d.bitnet1", historytest.Started/1000)); path != want {
		t.Errorf("written to %s, want %s", path, want)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	version, all := readEvents(t, b)
	if version != "brain.Event:2" {
		t.Errorf("version %q", version)
	}
	began := float64(historytest.Started) / 1000
	for _, want := range []scalar{
		{"train/loss", 5, float32(o.Loss(5)), began + 2.5},
		{"results/bits_per_token", 12, float32(o.Bits(12)), began + 6},
		{"probe/ipmr/L1.H0", 9, float32(historytest.IPMR(9, 1, 0)), began + 4.5},
	} {
		if !slices.Contains(all, want) {
			t.Errorf("%+v is not among the scalars", want)
		}
	}
	if n := len(slices.DeleteFunc(all, func(s scalar) bool { return s.tag != "results/bits_per_token" })); n != 4 {
		t.Errorf("%d losses of evaluations, want one for each checkpoint: none with other parameters", n)
	}
	// Equal runs have equal files.
	if again, err := os.ReadFile(exported(t, data, "r", "tensorboard")); err != nil || !bytes.Equal(b, again) {
		t.Errorf("two exports of a run differ: %v", err)
	}
	parquet, err := os.ReadFile(exported(t, data, "r", "parquet"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(exported(t, data, "r", "parquet")); err != nil || !bytes.Equal(parquet, again) {
		t.Errorf("two exports of a run differ: %v", err)
	}
}

// python runs a script of testdata, and skips without the modules that it imports.
func python(t *testing.T, script string, modules []string, args ...string) string {
	t.Helper()
	name := pythontest.Interpreter(t, modules...)
	out, err := exec.Command(name, append([]string{filepath.Join("testdata", script)}, args...)...).Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return string(out)
}

// TensorBoard's own reader finds the runs, their tags and their values.
func TestTensorBoardReadsEvents(t *testing.T) {
	data, o := t.TempDir(), historytest.Options{}
	historytest.Make(t, data, "r", o)
	dir := filepath.Dir(exported(t, data, "r", "tensorboard"))
	said := python(t, "events.py", []string{"tensorboard.backend.event_processing.event_accumulator"}, dir)
	for step := 1; step <= historytest.Steps; step++ {
		if want := fmt.Sprintf("train/loss %d %.4f\n", step, o.Loss(step)); !strings.Contains(said, want) {
			t.Errorf("TensorBoard does not read %s", want)
		}
	}
	if want := fmt.Sprintf("probe/ipmr/L1.H1 12 %.4f\n", historytest.IPMR(12, 1, 1)); !strings.Contains(said, want) {
		t.Errorf("TensorBoard does not read %s:\n%s", want, said)
	}
}

// Libraries of others read the Parquet file, each column with its type, and find the numbers.
func TestOthersReadParquet(t *testing.T) {
	data, o := t.TempDir(), historytest.Options{}
	historytest.Make(t, data, "r", o)
	path := exported(t, data, "r", "parquet")
	want := fmt.Sprintf("r|train/loss|bits/token|5|5000|2.5|None|None|None|%.4f\n"+
		"r|results/bits_per_token|None|12|12000|6.0|None|None|sequences=2|%.4f\n"+
		"r|probe/ipmr|None|9|9000|4.5|1|0|None|%.4f\n", o.Loss(5), o.Bits(12)+1, historytest.IPMR(9, 1, 0))
	for _, library := range []string{"pyarrow.parquet", "duckdb"} {
		t.Run(library, func(t *testing.T) {
			if got := python(t, "rows.py", []string{library}, library, path); got != want {
				t.Errorf("%s reads\n%s\nwant\n%s", library, got, want)
			}
		})
	}
}

// A row of the Parquet file has the metric's values, and nulls where nothing is known.
func TestParquetRows(t *testing.T) {
	var b bytes.Buffer
	all := []metric{{"train/loss", "bits/token", 5, 5000, 2.5, -1, -1, "", 3.5},
		{"probe/ipmr", "", 6, -1, math.NaN(), 1, 2, "sequences=2", 0.25}}
	if err := writeParquet(&b, &history.Run{ID: "r"}, all); err != nil {
		t.Fatal(err)
	}
	table, err := pqarrow.ReadTable(t.Context(), bytes.NewReader(b.Bytes()), parquet.NewReaderProperties(nil),
		pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	var got [2][]string
	for i := range int(table.NumCols()) {
		column := table.Column(i).Data().Chunk(0)
		for row := range got {
			got[row] = append(got[row], column.ValueStr(row))
		}
	}
	for row, want := range []string{
		"r train/loss bits/token 5 5000 2.5 (null) (null) (null) 3.5",
		"r probe/ipmr (null) 6 (null) (null) 1 2 sequences=2 0.25",
	} {
		if strings.Join(got[row], " ") != want {
			t.Errorf("%q, want %q", got[row], want)
		}
	}
}

// What cannot be done is said, with what can.
func TestRefuses(t *testing.T) {
	data := t.TempDir()
	historytest.Make(t, data, "r", historytest.Options{})
	for want, args := range map[string][]string{
		"wandb sync":                        {"--format", "wandb"},
		"use parquet or tensorboard":        {"--format", "csv"},
		"did you mean r?":                   {"--format", "parquet", "--run", "rr"},
		"name runs with --run":              {"--format", "parquet", "r"},
		"give --format parquet|tensorboard": {"--run", "r"},
	} {
		_, err := run(t, append([]string{"--data", data}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	if _, err := run(t, "--data", t.TempDir(), "--format", "parquet"); err == nil ||
		!strings.Contains(err.Error(), "no runs") {
		t.Errorf("without a run: %v", err)
	}
	for _, gone := range []string{"train", "events/checkpoint.saved", "events/probe.written"} {
		if err := os.RemoveAll(filepath.Join(data, "runs", "r", gone)); err != nil {
			t.Fatal(err)
		}
	}
	said, err := run(t, "--data", data, "--format", "parquet")
	if err != nil || !strings.Contains(said, "no numbers yet") {
		t.Errorf("a run that has hardly begun: %q, %v", said, err)
	}
}
