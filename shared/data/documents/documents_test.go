package documents

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/data/datasettest"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
	"github.com/klauspost/compress/zstd"
)

// readAll reads the documents of a file, with their texts copied.
func readAll(path string, o Options) ([]Document, Count, error) {
	d, err := Open(path, o)
	if err != nil {
		return nil, Count{}, err
	}
	defer d.Close()
	var docs []Document
	for doc, err := range d.All() {
		if err != nil {
			return docs, d.Count(), err
		}
		doc.Text = bytes.Clone(doc.Text)
		docs = append(docs, doc)
	}
	return docs, d.Count(), nil
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func gzipped(data string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(data))
	w.Close()
	return b.Bytes()
}

func zstandard(data string) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll([]byte(data), nil)
}

func TestJSONLShapes(t *testing.T) {
	const conversation = "user: Why?\n\nassistant: <think>Hm.</think>So."
	for name, c := range map[string]struct{ line, id, text string }{
		"text":      {`{"id":"a","text":"It rains.","score":3.5}`, "a", "It rains."},
		"no id":     {`{"text":"It rains."}`, "f.jsonl#0", "It rains."},
		"null id":   {`{"id":null,"text":"x"}`, "f.jsonl#0", "x"},
		"number id": {`{"id":17,"text":"x"}`, "17", "x"},
		"conversations": {`{"conversations":[{"from":"human","value":"Why?"},{"from":"gpt",` +
			`"value":"<think>Hm.</think>So."}],"id":"c","meta":{}}`, "c", conversation},
		"messages": {`{"messages":[{"type":"message","role":"user","content":"Why?"},{"role":"assistant",` +
			`"content":"<think>Hm.</think>So."}]}`, "f.jsonl#0", conversation},
		"input, output": {`{"input":"Why?","output":"<think>Hm.</think>So."}`, "f.jsonl#0", conversation},
		"escapes": {`{"text":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud800x"}`, "f.jsonl#0",
			"\"\\/\b\f\n\r\té😀\uFFFDx"},
		"upper case":    {`{"Text":"no","TEXT":"no","text":"yes"}`, "f.jsonl#0", "yes"},
		"empty text":    {`{"text":""}`, "f.jsonl#0", ""},
		"invalid UTF-8": {"{\"text\":\"caf\xe9 \xff\"}", "f.jsonl#0", "caf\xe9 \xff"},
		"byte order":    {"\uFEFF{\"text\":\"x\"}", "f.jsonl#0", "x"},
	} {
		docs, _, err := readAll(writeFile(t, "f.jsonl", []byte(c.line+"\n")), Options{})
		if err != nil || len(docs) != 1 {
			t.Errorf("%s: %d documents, %v", name, len(docs), err)
			continue
		}
		if d := docs[0]; d.ID != c.id || string(d.Text) != c.text || d.Source != "f.jsonl" || d.Row != 0 {
			t.Errorf("%s: %q %q, want %q %q", name, d.ID, d.Text, c.id, c.text)
		}
	}
}

func TestJSONLCounts(t *testing.T) {
	const lines = "{\"text\":\"one\"}\r\n\n{\"text\":null}\n{\"messages\":[]}\n{\"text\":\"t\xffo\"}\n" +
		`{"input":"a","output":null}` + "\n" + `{"text":"end"}`
	for name, data := range map[string][]byte{"plain": []byte(lines), "gzip": gzipped(lines),
		"zstd": zstandard(lines)} {
		docs, count, err := readAll(writeFile(t, "x", data), Options{Source: "s"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := (Count{Rows: 6, Documents: 3, Bytes: 9, Nulls: 3, InvalidUTF8: 1}); count != want {
			t.Errorf("%s: %+v, want %+v", name, count, want)
		}
		var ids []string
		for _, d := range docs {
			ids = append(ids, d.ID)
		}
		if !slices.Equal(ids, []string{"s#0", "s#4", "s#6"}) {
			t.Errorf("%s: ids %v", name, ids)
		}
	}
}

func TestUnreadableDocuments(t *testing.T) {
	const good = "{\"text\":\"a text long enough to be cut\"}\n"
	rows := parquetFile(t, 40, textColumn("text", texts(40)))
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"not JSON":        {[]byte("hello\n"), "line 1: not a JSON object"},
		"array":           {[]byte("[1]\n"), "element 1: field text is 1"},
		"null":            {[]byte("null\n"), "not a JSON object"},
		"cut line":        {[]byte(good + good[:20]), "line 2"},
		"cut gzip":        {gzipped(strings.Repeat(good, 50))[:60], "truncated"},
		"cut zstd":        {zstandard(strings.Repeat(good, 50))[:40], "truncated"},
		"no text":         {[]byte(`{"body":"x","title":"y"}`), "body, title"},
		"number":          {[]byte(`{"text":5}`), "field text is 5"},
		"messages string": {[]byte(`{"messages":"x"}`), "not a list"},
		"messages shape":  {[]byte(`{"messages":[{"content":"x"}]}`), "not a list of"},
		"second turn":     {[]byte(`{"messages":[{"role":"user","content":"x"},{"content":"x"}]}`), "turn 1"},
		"content list":    {[]byte(`{"messages":[{"role":"user","content":[1]}]}`), "not a string"},
		"long line":       {[]byte(`{"text":"` + strings.Repeat("x", 2000) + `"}`), "limit"},
		"parquet number":  {parquetFile(t, 10, numberColumn("text", 10)), "text is INT64"},
		"parquet no text": {parquetFile(t, 10, numberColumn("id", 10), textColumn("body", texts(10))),
			"among id, body"},
		"parquet long": {parquetFile(t, 1, textColumn("text", [][]byte{bytes.Repeat([]byte("x"), 2000)})),
			"limit"},
		"parquet magic":     {[]byte("PAR1"), "truncated"},
		"parquet cut":       {rows[:len(rows)-100], "fetch it again"},
		"parquet headless":  {append([]byte("PAR1"), rows[len(rows)/2:]...), "corrupt"},
		"parquet no footer": {append(slices.Clone(rows[:len(rows)-20]), make([]byte, 20)...), "truncated"},
		"parquet zeroed":    {zeroed(rows), "corrupt"},
	} {
		_, _, err := readAll(writeFile(t, "file.jsonl", c.data), Options{MaxDocument: 1000})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "file") {
			t.Errorf("%s: %v, want something with %q", name, err, c.want)
		}
	}
	if _, err := Open(t.TempDir(), Options{}); err == nil {
		t.Error("a directory opens")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Options{}); err == nil {
		t.Error("a missing file opens")
	}
}

// zeroed is a parquet file whose footer is intact and whose first data are zeros.
func zeroed(rows []byte) []byte {
	rows = slices.Clone(rows)
	clear(rows[4 : len(rows)/3])
	return rows
}

// testColumn is a column of a parquet file made for a test.
type testColumn struct {
	node  schema.Node
	write func(file.ColumnChunkWriter, int, int) error // the rows from, to
}

func texts(n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = fmt.Appendf(nil, "text %d %s", i, strings.Repeat("word ", i%20))
	}
	return list
}

// textColumn is a nullable string column.
func textColumn(name string, values [][]byte) testColumn {
	node := schema.Must(schema.NewPrimitiveNodeLogical(name, parquet.Repetitions.Optional, schema.StringLogicalType{},
		parquet.Types.ByteArray, -1, -1))
	return testColumn{node, func(w file.ColumnChunkWriter, from, to int) error {
		var present []parquet.ByteArray
		var def []int16
		for _, v := range values[from:to] {
			def = append(def, 0)
			if v != nil {
				present = append(present, v)
				def[len(def)-1] = 1
			}
		}
		_, err := w.(*file.ByteArrayColumnChunkWriter).WriteBatch(present, def, nil)
		return err
	}}
}

func numberColumn(name string, n int) testColumn {
	return testColumn{schema.NewInt64Node(name, parquet.Repetitions.Required, -1),
		func(w file.ColumnChunkWriter, from, to int) error {
			var values []int64
			for i := from; i < to; i++ {
				values = append(values, int64(100+i))
			}
			_, err := w.(*file.Int64ColumnChunkWriter).WriteBatch(values, nil, nil)
			return err
		}}
}

// parquetFile writes rows with seven to a row group.
func parquetFile(t testing.TB, rows int, columns ...testColumn) []byte {
	t.Helper()
	var fields schema.FieldList
	for _, c := range columns {
		fields = append(fields, c.node)
	}
	root := schema.MustGroup(schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1))
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, root,
		file.WithWriterProps(parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy))))
	for from := 0; from < rows; from += 7 {
		group := w.AppendRowGroup()
		for _, c := range columns {
			cw, err := group.NextColumn()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.write(cw, from, min(from+7, rows)); err != nil {
				t.Fatal(err)
			}
			cw.Close()
		}
		group.Close()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParquetShapes(t *testing.T) {
	values := texts(30)
	values[3], values[29] = nil, nil
	values[8] = []byte("caf\xe9")
	path := writeFile(t, "f.parquet", parquetFile(t, 30, numberColumn("extra", 30), textColumn("text", values),
		numberColumn("id", 30)))
	docs, count, err := readAll(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if count.Rows != 30 || count.Documents != 28 || count.Nulls != 2 || count.InvalidUTF8 != 1 {
		t.Errorf("%+v", count)
	}
	for _, d := range docs {
		if !bytes.Equal(d.Text, values[d.Row]) || d.ID != fmt.Sprint(100+d.Row) {
			t.Errorf("row %d: id %s, text %q", d.Row, d.ID, d.Text)
		}
	}
	path = writeFile(t, "qa.parquet", parquetFile(t, 30, textColumn("input", texts(30)), textColumn("output", values)))
	docs, count, err = readAll(path, Options{})
	if err != nil || count.Documents != 28 || count.Nulls != 2 {
		t.Fatalf("%+v, %v", count, err)
	}
	if d := docs[1]; string(d.Text) != "user: text 1 word \n\nassistant: text 1 word " || d.ID != "qa.parquet#1" {
		t.Errorf("%s: %q", d.ID, d.Text)
	}
	if d, err := Open(path, Options{}); err != nil || d.Rows() != 30 {
		t.Errorf("rows: %v", err)
	} else {
		d.Close()
	}
}

// TestParquetConversations reads lists of structs, some of them empty or null, over several pages.
func TestParquetConversations(t *testing.T) {
	const rows = 300 // more elements than are decoded at once
	var fromValues, valueValues []parquet.ByteArray
	var def, rep []int16
	want := map[int64]string{}
	for i := range rows {
		switch i % 5 {
		case 3: // null list
			def, rep = append(def, 0), append(rep, 0)
		case 4: // empty list
			def, rep = append(def, 1), append(rep, 0)
		default:
			var list []turn
			for k := range i%7 + 1 {
				role, text := []string{"human", "gpt"}[k%2], fmt.Sprintf("turn %d of %d", k, i)
				fromValues, valueValues = append(fromValues, parquet.ByteArray(role)),
					append(valueValues, parquet.ByteArray(text))
				def, rep = append(def, 2), append(rep, int16(min(k, 1)))
				list = append(list, turn{[]byte(role), []byte(text)})
			}
			text, err := defaultTemplate().write(nil, list)
			if err != nil {
				t.Fatal(err)
			}
			want[int64(i)] = string(text)
		}
	}
	leafNode := func(name string) schema.Node {
		return schema.Must(schema.NewPrimitiveNodeLogical(name, parquet.Repetitions.Required,
			schema.StringLogicalType{}, parquet.Types.ByteArray, -1, -1))
	}
	element := schema.Must(schema.NewGroupNode("list", parquet.Repetitions.Repeated, schema.FieldList{
		schema.Must(schema.NewGroupNode("element", parquet.Repetitions.Required,
			schema.FieldList{leafNode("from"), leafNode("value")}, -1))}, -1))
	list := schema.Must(schema.NewGroupNodeLogical("conversations", parquet.Repetitions.Optional,
		schema.FieldList{element}, schema.NewListLogicalType(), -1))
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, schema.MustGroup(schema.NewGroupNode("schema", parquet.Repetitions.Required,
		schema.FieldList{list}, -1)))
	group := w.AppendRowGroup()
	for _, values := range [][]parquet.ByteArray{fromValues, valueValues} {
		cw, err := group.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cw.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, def, rep); err != nil {
			t.Fatal(err)
		}
		cw.Close()
	}
	group.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	docs, count, err := readAll(writeFile(t, "c.parquet", b.Bytes()), Options{})
	if err != nil || count.Rows != rows || count.Nulls != rows*2/5 {
		t.Fatalf("%+v, %v", count, err)
	}
	for _, d := range docs {
		if string(d.Text) != want[d.Row] {
			t.Fatalf("row %d: %q, want %q", d.Row, d.Text, want[d.Row])
		}
	}
}

func defaultTemplate() Template {
	var t Template
	t.ensureDefaults()
	return t
}

func TestRealFiles(t *testing.T) {
	dir := datasettest.RealData(t)
	for pattern, want := range map[string]int64{"fineweb/*.parquet": 3000, "glm/*.jsonl": 100} {
		paths, _ := filepath.Glob(filepath.Join(dir, pattern))
		var total int64
		for _, path := range paths {
			_, count, err := readAll(path, Options{})
			if err != nil {
				t.Error(err)
			}
			if count.Nulls != 0 || count.InvalidUTF8 != 0 {
				t.Errorf("%s: %+v", path, count)
			}
			total += count.Documents
		}
		if total != want {
			t.Errorf("%s: %d documents instead of %d", pattern, total, want)
		}
	}
	if testing.Short() {
		t.Skip("the large files are left out")
	}
	if _, count, err := readAll(filepath.Join(dir, "openstax.jsonl.zst"), Options{}); err != nil ||
		count.Documents != 4495 {
		t.Errorf("%+v, %v", count, err)
	}
}

// TestFineWebLength compares with what the files' own columns say of the text.
func TestFineWebLength(t *testing.T) {
	paths, _ := filepath.Glob(filepath.Join(datasettest.RealData(t), "fineweb", "*.parquet"))
	for _, path := range paths[:min(len(paths), 3)] {
		docs, _, err := readAll(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		reader, err := file.OpenParquetFile(path, false)
		if err != nil {
			t.Fatal(err)
		}
		column, err := reader.RowGroup(0).Column(reader.MetaData().Schema.ColumnIndexByName("text_length"))
		if err != nil {
			t.Fatal(err)
		}
		lengths, def := make([]int32, len(docs)), make([]int16, len(docs))
		if _, n, err := column.(*file.Int32ColumnChunkReader).ReadBatch(int64(len(docs)), lengths, def,
			nil); err != nil || n != len(docs) {
			t.Fatalf("%d lengths, %v", n, err)
		}
		reader.Close()
		for i, d := range docs {
			if got := len([]rune(string(d.Text))); got != int(lengths[i]) {
				t.Errorf("%s row %d: %d characters, the file says %d", path, i, got, lengths[i])
			}
		}
	}
}

// nullableV2 is a file of one text column with nulls in data pages of version 2, where a single bit of a page header
// once made reading go on for ever.
func nullableV2(t testing.TB, rows int) []byte {
	t.Helper()
	values := texts(rows)
	for i := 0; i < rows; i += 3 {
		values[i] = nil
	}
	column := textColumn("text", values)
	root := schema.MustGroup(schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{column.node},
		-1))
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, root,
		file.WithWriterProps(parquet.NewWriterProperties(parquet.WithDataPageVersion(parquet.DataPageV2))))
	for from := 0; from < rows; from += 7 {
		group := w.AppendRowGroup()
		cw, err := group.NextColumn()
		if err == nil {
			err = column.write(cw, from, min(from+7, rows))
		}
		if err != nil {
			t.Fatal(err)
		}
		cw.Close()
		group.Close()
	}
	w.Close()
	return b.Bytes()
}

// TestDamagedParquet flips every bit, and cuts: every result is an error or all of the rows. What damage does to other
// encodings, codecs and page versions is tested in package parquet.
func TestDamagedParquet(t *testing.T) {
	const rows = 40
	for name, good := range map[string][]byte{
		"version 1": parquetFile(t, rows, textColumn("text", texts(rows)), textColumn("id", texts(rows))),
		"version 2": nullableV2(t, rows),
	} {
		try := func(data []byte, what string, mayPass bool) {
			reader, err := openParquet(bytes.NewReader(data), int64(len(data)), Options{MaxDocument: 1 << 20})
			d := &Reader{rows: reader, options: Options{MaxDocument: 1 << 20}}
			for ok := err == nil; ok; ok = err == nil {
				_, _, err = d.read()
			}
			if err == io.EOF && (!mayPass || d.count.Rows != rows) {
				t.Errorf("%s, %s: %d rows and no error", name, what, d.count.Rows)
			}
		}
		for i := range good {
			bit := i % 8
			flipped := slices.Clone(good)
			flipped[i] ^= 1 << bit
			try(flipped, fmt.Sprintf("bit %d of byte %d flipped", bit, i), true)
			if i%5 == 0 {
				try(good[:i], fmt.Sprintf("cut at %d", i), false)
			}
		}
	}
}

// TestConformanceFiles opens Apache's collection of well-formed, odd and corrupt files, none of which has a text: an
// error says which file, and nothing panics. Their contents are read in package parquet.
func TestConformanceFiles(t *testing.T) {
	paths, _ := filepath.Glob(filepath.Join(datasettest.RealData(t), "parquet-testing", "data", "*.parquet*"))
	for _, path := range paths {
		_, count, err := readAll(path, Options{})
		if err == nil && count.Rows == 0 {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), filepath.Base(path)) ||
			strings.Contains(err.Error(), "defect") {
			t.Errorf("%s has no text but gives %v", filepath.Base(path), err)
		}
	}
}

// TestMemoryOfHostileLines: a line of the greatest length made of millions of small values takes little beside itself.
func TestMemoryOfHostileLines(t *testing.T) {
	const size = 8 << 20
	for name, line := range map[string]string{
		"keys":     `{` + strings.Repeat(`"a":1,`, size/6) + `"text":"x"}`,
		"elements": `{"text":"x","l":[` + strings.Repeat(`{},`, size/3) + `0]}`,
		"turns":    `{"messages":[` + strings.Repeat(`{"role":"","content":""},`, size/26) + `{}]}`,
		"nesting":  `{"text":"x","l":` + strings.Repeat(`[`, size/2) + strings.Repeat(`]`, size/2) + `}`,
		"escapes":  `{"text":"` + strings.Repeat(`\u0000`, size/6) + `"}`,
	} {
		path := writeFile(t, "f", []byte(line))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := readAll(path, Options{})
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / size; got > 16 {
			t.Errorf("%s: %d bytes for each of the line's (%v)", name, got, err)
		}
		if refused := name == "turns" || name == "nesting"; refused != (err != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fuzzDocuments reads a file of any bytes: its rows, its text and the memory that reading takes are bounded by its
// size.
func fuzzDocuments(t *testing.T, path string, data []byte) {
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	most := int64(1<<16 + 64*len(data))
	var documents int64
	var count Count
	alloctest.AtMost(t, 48<<20+64*most,
		func() { // a decoder of zstd or brotli takes some megabytes, whatever the file
			d, err := Open(path, Options{MaxDocument: 1 << 16, maxWork: most})
			if err != nil {
				return
			}
			defer d.Close()
			for _, err := range d.All() {
				if err != nil {
					break
				}
				documents++
			}
			count = d.Count()
		})
	if documents != count.Documents || count.Rows != count.Documents+count.Nulls+count.Filtered+count.Odd {
		t.Fatalf("%d documents, %+v", documents, count)
	}
	if count.Rows > most || count.Bytes > 8*most {
		t.Fatalf("%+v of a file of %d bytes", count, len(data))
	}
}

func FuzzParquet(f *testing.F) {
	f.Add(parquetFile(f, 10, textColumn("text", texts(10)), numberColumn("id", 10)))
	f.Add(parquetFile(f, 3, textColumn("input", texts(3)), textColumn("output", texts(3))))
	repeated := make([][]byte, 3000)
	for i := range repeated {
		repeated[i] = bytes.Repeat([]byte("x"), 1000)
	}
	f.Add(parquetFile(f, len(repeated), textColumn("text", repeated)))
	data, err := os.ReadFile(filepath.Join("testdata", "types.parquet"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzDocuments(t, filepath.Join(dir, fmt.Sprint(os.Getpid())),
			append([]byte("PAR1"), data[min(4, len(data)):]...))
	})
}

func FuzzJSONL(f *testing.F) {
	f.Add([]byte("{\"text\":\"a\\u00e9\\ud83d\\ude00\\n\"}\n{\"text\":null}\n"))
	f.Add([]byte(`{"messages":[{"role":"user","content":"x"}]}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"text":"x"},"y",null]},{"role":"a"}],` +
		`"x":NaN}{"text":-Infinity}` + "}\uFEFF{"))
	f.Add([]byte(`{"conversations":[{"from":"human","value":"\ud800\u"}],"id":3}`))
	f.Add(gzipped(`{"input":"a","output":"b"}`))
	f.Add(append(gzipped(`{"text":"b"}`+"\n"), 0, 0, 0))
	f.Add(zstandard(`{"text":"b"}`))
	f.Add(zstandard(strings.Repeat(`{"text":"b"}`+"\n", 1<<16))) // a hundred bytes, and nearly a megabyte
	f.Add([]byte(strings.Repeat("{}", 10000)))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) { fuzzDocuments(t, filepath.Join(dir, fmt.Sprint(os.Getpid())), data) })
}

// BenchmarkDocuments reads the same texts from parquet and from JSON Lines, bytes of text a second.
func BenchmarkDocuments(b *testing.B) {
	var all [][]byte
	var lines []byte
	size := int64(0)
	for _, text := range datasettest.Books() {
		all, size = append(all, []byte(text)), size+int64(len(text))
		line, _ := json.Marshal(map[string]string{"text": text})
		lines = append(append(lines, line...), '\n')
	}
	for name, content := range map[string][]byte{"x.parquet": parquetFile(b, len(all), textColumn("text", all)),
		"x.jsonl": lines} {
		b.Run(name, func(b *testing.B) {
			path := writeFile(b, name, content)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				d, err := Open(path, Options{})
				if err != nil {
					b.Fatal(err)
				}
				for _, err := range d.All() {
					if err != nil {
						b.Fatal(err)
					}
				}
				d.Close()
			}
		})
	}
}
