package parquet

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"
	arrow "github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// column is what a file holds in one column: levels and values.
type column struct {
	path     string
	def, rep []uint8
	values   Values
}

// readFile reads all columns of all row groups.
func readFile(data []byte, o Options) ([]column, error) {
	f, err := Open(bytes.NewReader(data), int64(len(data)), o)
	if err != nil {
		return nil, err
	}
	var all []column
	for i, c := range f.Columns() {
		all = append(all, column{path: c.Path})
		for g := range f.Groups() {
			if err := readChunk(f, g, i, &all[i]); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

func readChunk(f *File, group, index int, into *column) error {
	c, err := f.Read(group, index)
	if err != nil {
		return err
	}
	defer c.Close()
	var b Batch
	for {
		if err := c.Read(&b); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		into.def, into.rep = append(into.def, b.Def...), append(into.rep, b.Rep...)
		for _, v := range b.Values.Bytes {
			into.values.Bytes = append(into.values.Bytes, bytes.Clone(v))
		}
		into.values.Ints = append(into.values.Ints, b.Values.Ints...)
		into.values.Floats = append(into.values.Floats, b.Values.Floats...)
	}
}

// layout is one way in which a file can be written.
type layout struct {
	codec    compress.Compression
	version  arrow.DataPageVersion
	encoding arrow.Encoding
	dict     bool
}

func (l layout) String() string {
	v := 1
	if l.version == arrow.DataPageV2 {
		v = 2
	}
	e := l.encoding.String()
	if l.dict {
		e = "dictionary"
	}
	return fmt.Sprintf("%v/v%d/%s", l.codec, v, e)
}

// writeFile writes a file of optional columns of the given type with the Arrow module, in groups of rows and small
// pages.
func writeFile(t testing.TB, l layout, kind arrow.Type, rows int) []byte {
	t.Helper()
	node := schema.MustPrimitive(schema.NewPrimitiveNode("v", arrow.Repetitions.Optional, kind, -1, -1))
	root := schema.MustGroup(schema.NewGroupNode("schema", arrow.Repetitions.Required, schema.FieldList{node}, -1))
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, root, file.WithWriterProps(arrow.NewWriterProperties(
		arrow.WithCompression(l.codec), arrow.WithDataPageVersion(l.version), arrow.WithDictionaryDefault(l.dict),
		arrow.WithEncoding(l.encoding), arrow.WithDataPageSize(512), arrow.WithBatchSize(64))))
	random := rand.New(rand.NewPCG(7, uint64(rows)))
	for from := 0; from < rows; from += 300 {
		group := w.AppendRowGroup()
		c, err := group.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		n := min(300, rows-from)
		def := make([]int16, n)
		for i := range def {
			def[i] = int16(min(random.IntN(5), 1))
		}
		if err := writeValues(c, random, def); err != nil {
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

func writeValues(c file.ColumnChunkWriter, random *rand.Rand, def []int16) (err error) {
	n := 0
	for _, d := range def {
		n += int(d)
	}
	switch c := c.(type) {
	case *file.ByteArrayColumnChunkWriter:
		v := make([]arrow.ByteArray, n)
		for i := range v {
			v[i] = fmt.Appendf(nil, "common start %d %s", random.IntN(20), strings.Repeat("x", random.IntN(9)))
		}
		_, err = c.WriteBatch(v, def, nil)
	case *file.Int32ColumnChunkWriter:
		v := make([]int32, n)
		for i := range v {
			v[i] = int32(random.Uint64N(1 << random.IntN(33)))
		}
		_, err = c.WriteBatch(v, def, nil)
	case *file.Int64ColumnChunkWriter:
		v := make([]int64, n)
		for i := range v {
			v[i] = int64(random.Uint64() >> random.IntN(64))
		}
		_, err = c.WriteBatch(v, def, nil)
	case *file.Float32ColumnChunkWriter:
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(random.IntN(30)) / 4
		}
		_, err = c.WriteBatch(v, def, nil)
	case *file.Float64ColumnChunkWriter:
		v := make([]float64, n)
		for i := range v {
			v[i] = math.Float64frombits(random.Uint64() &^ (1 << 62))
		}
		_, err = c.WriteBatch(v, def, nil)
	case *file.BooleanColumnChunkWriter:
		v := make([]bool, n)
		for i := range v {
			v[i] = random.IntN(3) == 0
		}
		_, err = c.WriteBatch(v, def, nil)
	}
	return err
}

// readArrow reads the only column of a file with the Arrow module.
func readArrow(t testing.TB, data []byte) column {
	t.Helper()
	r, err := file.NewParquetReader(bytes.NewReader(data),
		file.WithReadProps(arrow.NewReaderProperties(memory.NewGoAllocator())))
	if err != nil {
		t.Fatal(err)
	}
	all := column{path: "v"}
	for g := range r.NumRowGroups() {
		c, err := r.RowGroup(g).Column(0)
		if err != nil {
			t.Fatal(err)
		}
		const n = 1000
		var def [n]int16
		var levels int64
		var values int
		v := &all.values
		switch c := c.(type) {
		case *file.ByteArrayColumnChunkReader:
			var out [n]arrow.ByteArray
			levels, values, err = c.ReadBatch(n, out[:], def[:], nil)
			for _, x := range out[:values] {
				v.Bytes = append(v.Bytes, bytes.Clone(x))
			}
		case *file.Int32ColumnChunkReader:
			var out [n]int32
			levels, values, err = c.ReadBatch(n, out[:], def[:], nil)
			for _, x := range out[:values] {
				v.Ints = append(v.Ints, int64(x))
			}
		case *file.Int64ColumnChunkReader:
			var out [n]int64
			levels, values, err = c.ReadBatch(n, out[:], def[:], nil)
			v.Ints = append(v.Ints, out[:values]...)
		case *file.Float32ColumnChunkReader:
			var out [n]float32
			levels, values, err = c.ReadBatch(n, out[:], def[:], nil)
			for _, x := range out[:values] {
				v.Floats = append(v.Floats, float64(x))
			}
		case *file.Float64ColumnChunkReader:
			var out [n]float64
			levels, values, err = c.ReadBatch(n, out[:], def[:], nil)
			v.Floats = append(v.Floats, out[:values]...)
		case *file.BooleanColumnChunkReader:
			var out [n]bool
			levels, values, err = c.ReadBatch(n, out[:], def[:], nil)
			for _, x := range out[:values] {
				v.Ints = append(v.Ints, map[bool]int64{true: 1}[x])
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range def[:levels] {
			all.def = append(all.def, uint8(d))
		}
	}
	return all
}

var (
	codecs = []compress.Compression{compress.Codecs.Uncompressed, compress.Codecs.Snappy, compress.Codecs.Gzip,
		compress.Codecs.Brotli, compress.Codecs.Zstd}
	kinds = []arrow.Type{arrow.Types.ByteArray, arrow.Types.Int32, arrow.Types.Int64, arrow.Types.Float,
		arrow.Types.Double, arrow.Types.Boolean}
)

// layouts lists the ways in which the Arrow module can write a type.
func layouts(kind arrow.Type) (all []layout) {
	for _, version := range []arrow.DataPageVersion{arrow.DataPageV1, arrow.DataPageV2} {
		for _, codec := range codecs {
			add := func(e arrow.Encoding, dict bool) { all = append(all, layout{codec, version, e, dict}) }
			add(arrow.Encodings.Plain, false)
			switch kind {
			case arrow.Types.ByteArray:
				add(arrow.Encodings.DeltaLengthByteArray, false)
				add(arrow.Encodings.DeltaByteArray, false)
			case arrow.Types.Int32, arrow.Types.Int64:
				add(arrow.Encodings.DeltaBinaryPacked, false)
			case arrow.Types.Boolean:
				continue
			}
			add(arrow.Encodings.Plain, true)
		}
	}
	return all
}

// TestAgreesWithArrow reads every type in every encoding, codec and page version as the Arrow module does.
func TestAgreesWithArrow(t *testing.T) {
	for _, kind := range kinds {
		for _, l := range layouts(kind) {
			data := writeFile(t, l, kind, 700)
			got, err := readFile(data, Options{})
			if err != nil {
				t.Errorf("%v/%v: %v", kind, l, err)
				continue
			}
			want := readArrow(t, data)
			if len(want.def) != 700 || !reflect.DeepEqual(got[0], want) {
				t.Errorf("%v/%v: %d levels and %d values, want %d and %d", kind, l, len(got[0].def),
					got[0].values.Len(), len(want.def), want.values.Len())
			}
		}
	}
}

// TestDamage flips bits, clears regions, and cuts, in files of all layouts: every result is all rows or an error.
func TestDamage(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	trials := 60
	if testing.Short() {
		trials = 5
	}
	for _, kind := range kinds {
		for _, l := range layouts(kind) {
			good := writeFile(t, l, kind, 700)
			for range trials {
				data, what := damage(random, good)
				got, err := readFile(data, Options{MaxPage: 1 << 20, MaxHeld: 4 << 20, MaxValue: 1 << 20})
				if err == nil && len(got[0].def) != 700 {
					t.Errorf("%v/%v: %s: %d rows and no error", kind, l, what, len(got[0].def))
				}
			}
		}
	}
}

// damage returns a damaged copy.
func damage(random *rand.Rand, good []byte) ([]byte, string) {
	data := bytes.Clone(good)
	at := random.IntN(len(data))
	switch random.IntN(5) {
	case 0:
		return data[:at], fmt.Sprintf("cut at %d", at)
	case 1:
		n := min(1+random.IntN(64), len(data)-at)
		clear(data[at : at+n])
		return data, fmt.Sprintf("%d zeros at %d", n, at)
	case 2:
		n := min(1+random.IntN(64), len(data)-at)
		return append(data[:at], data[at+n:]...), fmt.Sprintf("%d bytes missing at %d", n, at)
	case 3:
		n := min(1+random.IntN(8), len(data)-at)
		for i := range n {
			data[at+i] = byte(random.Uint32())
		}
		return data, fmt.Sprintf("%d random bytes at %d", n, at)
	}
	bit := random.IntN(8)
	data[at] ^= 1 << bit
	return data, fmt.Sprintf("bit %d of byte %d flipped", bit, at)
}

// TestMemoryIsBounded: a file that claims gigabytes is refused without taking them.
func TestMemoryIsBounded(t *testing.T) {
	good := writeFile(t, layout{codec: compress.Codecs.Zstd, encoding: arrow.Encodings.Plain}, arrow.Types.ByteArray,
		700)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		data, _ := damage(random, good)
		readFile(data, Options{MaxPage: 1 << 20, MaxHeld: 2 << 20, MaxValue: 1 << 20})
	}
	runtime.ReadMemStats(&after)
	// A zstd decoder takes about 10 MB; each file makes one.
	if got := (after.TotalAlloc - before.TotalAlloc) / 300; got > 32<<20 {
		t.Errorf("%d bytes a file", got)
	}
	if _, err := readFile(good, Options{MaxPage: 100}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("a page beyond the limit: %v", err)
	}
	if _, err := readFile(good, Options{MaxHeld: 100}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("pages beyond the limit: %v", err)
	}
	good = writeFile(t, layout{codec: compress.Codecs.Zstd, encoding: arrow.Encodings.DeltaByteArray},
		arrow.Types.ByteArray, 700)
	if _, err := readFile(good, Options{MaxValue: 3}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("a value beyond the limit: %v", err)
	}
}

// conformanceFiles are Apache's collection of well-formed, odd and corrupt files.
func conformanceFiles(t testing.TB) []string {
	t.Helper()
	dir := os.Getenv("BITNET1_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "data", "parquet-testing", "data")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no conformance files: set BITNET1_SHARED to the folder that holds data/parquet-testing")
	}
	var paths []string
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, ".parquet") && !strings.HasSuffix(path, ".json") {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

// refused says which conformance files are refused, by parts of their names, and with which words.
var refused = []struct{ name, want string }{
	{"corrupt-checksum", "the checksum of a page differs"},
	{"encrypt_columns_plaintext_footer.parquet.encrypted", "not supported"},
	{".encrypted", "encrypted files are not supported"},
	{"large_string_map", "a page of 1073741828 bytes, more than the limit"}, // a gigabyte in one value
	{"nation.dict-malformed", "a page of 28 bytes where the column has only 13 left"},
	{"repeated_no_annotation", "6 rows in row groups but 0 in all"},
}

func refusal(name string) string {
	for _, r := range refused {
		if strings.Contains(name, r.name) {
			return r.want
		}
	}
	return ""
}

func TestConformanceFiles(t *testing.T) {
	read := 0
	for _, path := range conformanceFiles(t) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		all, err := readFile(data, Options{})
		f, openErr := Open(bytes.NewReader(data), int64(len(data)), Options{})
		want := refusal(name)
		switch {
		case err == nil && want != "":
			t.Errorf("%s is read where %q is expected", name, want)
		case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v", name, err)
		case err == nil && openErr == nil:
			read++
			for i, c := range all {
				rows := int64(0)
				for _, r := range c.rep {
					if r == 0 {
						rows++
					}
				}
				if f.Columns()[i].MaxRep > 0 && rows != f.Rows() {
					t.Errorf("%s: column %s has %d rows of %d", name, c.path, rows, f.Rows())
				}
			}
		}
	}
	t.Logf("%d files read in full", read)
}

// TestLZ4 reads the two framings of Hadoop's codec and the raw one, which hold the same rows.
func TestLZ4(t *testing.T) {
	var first []Values
	for _, path := range conformanceFiles(t) {
		name := filepath.Base(path)
		if name != "hadoop_lz4_compressed.parquet" && name != "non_hadoop_lz4_compressed.parquet" &&
			name != "lz4_raw_compressed.parquet" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := readFile(data, Options{})
		var all []Values
		for _, c := range columns {
			all = append(all, c.values)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if first == nil {
			first = all
		} else if !reflect.DeepEqual(all, first) {
			t.Errorf("%s differs from the others", name)
		}
	}
}

// drain reads all columns and keeps nothing. It counts the levels and the bytes of values that it is given.
func drain(data []byte, o Options) (work int64, err error) {
	f, err := Open(bytes.NewReader(data), int64(len(data)), o)
	if err != nil {
		return 0, err
	}
	for i := range f.Columns() {
		for g := range f.Groups() {
			c, err := f.Read(g, i)
			if err != nil {
				return work, err
			}
			var b Batch
			for err = c.Read(&b); err == nil; err = c.Read(&b) {
				work += int64(b.Levels)
				for _, v := range b.Values.Bytes {
					work += int64(len(v))
				}
			}
			c.Close()
			if err != io.EOF {
				return work, err
			}
		}
	}
	return work, nil
}

// repeated is a file in which a dictionary has one value of a kilobyte and every row is this value: some hundred bytes
// stand for all rows.
func repeated(t testing.TB, rows int) []byte {
	t.Helper()
	node := schema.MustPrimitive(schema.NewPrimitiveNode("v", arrow.Repetitions.Optional, arrow.Types.ByteArray, -1,
		-1))
	root := schema.MustGroup(schema.NewGroupNode("schema", arrow.Repetitions.Required, schema.FieldList{node}, -1))
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, root,
		file.WithWriterProps(arrow.NewWriterProperties(arrow.WithCompression(compress.Codecs.Zstd),
			arrow.WithStats(false))))
	c, err := w.AppendRowGroup().NextColumn()
	if err != nil {
		t.Fatal(err)
	}
	values, def := make([]arrow.ByteArray, rows), make([]int16, rows)
	for i := range values {
		values[i], def[i] = bytes.Repeat([]byte("x"), 1000), 1
	}
	if _, err := c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, def, nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWorkIsBounded: values that a few bytes stand for are given up to a bound that the size of the file sets.
func TestWorkIsBounded(t *testing.T) {
	const rows = 5000
	data := repeated(t, rows)
	if work, err := drain(data, Options{}); err != nil || work != rows*1001 {
		t.Errorf("%d, %v", work, err)
	}
	const most = 1 << 20
	if work, err := drain(data, Options{MaxWork: most}); err == nil ||
		!strings.Contains(err.Error(), "times the bytes of the file") || work > most {
		t.Errorf("%d bytes of a file of %d, where %d are the limit: %v", work, len(data), most, err)
	}
}

// FuzzRead reads files of any bytes: what is read of them and the memory that is taken are bounded by their size.
func FuzzRead(f *testing.F) {
	for _, kind := range kinds {
		for _, l := range layouts(kind) {
			if l.codec == compress.Codecs.Uncompressed || l.codec == compress.Codecs.Zstd {
				f.Add(writeFile(f, l, kind, 40))
			}
		}
	}
	f.Add(repeated(f, 3000))
	paths, _ := filepath.Glob(filepath.Join("testdata", "*.parquet"))
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		most := int64(1<<16 + 64*len(data))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		work, _ := drain(data, Options{MaxPage: 1 << 16, MaxHeld: 1 << 18, MaxValue: 1 << 16, MaxWork: most})
		runtime.ReadMemStats(&after)
		if work > most {
			t.Errorf("%d levels and bytes of a file of %d bytes", work, len(data))
		}
		// A decoder of zstd or brotli takes some megabytes, whatever the file.
		if got := int64(after.TotalAlloc - before.TotalAlloc); got > 64<<20+16*most {
			t.Errorf("%d bytes of memory for a file of %d", got, len(data))
		}
	})
}

// BenchmarkRead decodes strings written by the Arrow module; the Arrow module's own reader stands beside it.
func BenchmarkRead(b *testing.B) {
	for _, l := range []layout{
		{codec: compress.Codecs.Uncompressed, encoding: arrow.Encodings.Plain},
		{codec: compress.Codecs.Zstd, encoding: arrow.Encodings.Plain},
		{codec: compress.Codecs.Snappy, encoding: arrow.Encodings.Plain, dict: true},
	} {
		node := schema.MustPrimitive(schema.NewPrimitiveNode("v", arrow.Repetitions.Optional, arrow.Types.ByteArray, -1,
			-1))
		root := schema.MustGroup(schema.NewGroupNode("schema", arrow.Repetitions.Required, schema.FieldList{node}, -1))
		var out bytes.Buffer
		w := file.NewParquetWriter(&out, root, file.WithWriterProps(arrow.NewWriterProperties(
			arrow.WithCompression(l.codec), arrow.WithDictionaryDefault(l.dict), arrow.WithEncoding(l.encoding))))
		group := w.AppendRowGroup()
		c, _ := group.NextColumn()
		random, size := rand.New(rand.NewPCG(7, 8)), 0
		var values []arrow.ByteArray
		for range 4000 {
			var text []byte
			for range 600 {
				text = fmt.Appendf(text, "word%d ", random.IntN(3000))
			}
			values, size = append(values, text), size+len(text)
		}
		def := bytes.Repeat([]byte{1}, len(values))
		levels := make([]int16, len(def))
		for i := range levels {
			levels[i] = 1
		}
		c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, levels, nil)
		c.Close()
		group.Close()
		w.Close()
		data := out.Bytes()
		b.Run(l.String(), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				f, err := Open(bytes.NewReader(data), int64(len(data)), Options{})
				if err != nil {
					b.Fatal(err)
				}
				c, err := f.Read(0, 0)
				if err != nil {
					b.Fatal(err)
				}
				var batch Batch
				got := 0
				for err = c.Read(&batch); err == nil; err = c.Read(&batch) {
					for _, v := range batch.Values.Bytes {
						got += len(v)
					}
				}
				if err != io.EOF || got != size {
					b.Fatal(got, err)
				}
			}
		})
		b.Run(l.String()+"/arrow", func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				props := arrow.NewReaderProperties(memory.NewGoAllocator())
				props.BufferedStreamEnabled = true
				r, err := file.NewParquetReader(bytes.NewReader(data), file.WithReadProps(props))
				if err != nil {
					b.Fatal(err)
				}
				c, _ := r.RowGroup(0).Column(0)
				var out [256]arrow.ByteArray
				var def [256]int16
				got := 0
				for c.HasNext() {
					_, n, err := c.(*file.ByteArrayColumnChunkReader).ReadBatch(256, out[:], def[:], nil)
					if err != nil {
						b.Fatal(err)
					}
					for _, v := range out[:n] {
						got += len(v)
					}
				}
				if got != size {
					b.Fatal(got)
				}
			}
		})
	}
}
