package documents

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"

	"bitnet1/shared/pythontest"
)

// answer is what reading a file gives: the texts of its documents, joined, or the error.
func answer(path string, o Options) string {
	docs, _, err := readAll(path, o)
	if err != nil {
		return "error: " + err.Error()
	}
	var all []string
	for _, d := range docs {
		all = append(all, string(d.Text))
	}
	return strings.Join(all, "|")
}

// TestOddRowsDoNotLoseAFile: what is wrong with a row is said of that row, and the rows around it are documents.
func TestOddRowsDoNotLoseAFile(t *testing.T) {
	long := `{"text":"` + strings.Repeat("x", 2000) + `"}`
	for name, c := range map[string]struct{ line, want string }{
		"no JSON":     {`nonsense`, "line 2: not a JSON object"},
		"cut object":  {`{"text":"b`, "line 2: not a JSON object"},
		"a list":      {`[1]`, "line 2: not a JSON object"},
		"two values":  {`{"text":"b"} x`, "line 2: not a JSON object"},
		"a number":    {`{"text":5}`, "line 2: field text is 5 and not a string"},
		"a structure": {`{"text":{"a":1}}`, "not a string"},
		"too long":    {long, "line 2: longer than the limit of 1000 bytes"},
		"nested too deep": {`{"x":` + strings.Repeat("[", 490) + strings.Repeat("]", 490) + `,"text":5}`,
			"line 2: field text is 5"},
		"turns of no shape": {`{"messages":[5]}`,
			"line 2: messages is not a list of {from, value} or {role, content}"},
		"a turn without role": {`{"messages":[{"role":"user","content":"a"},{"content":"b"}]}`,
			`row 1: turn 1 says "b" and has no role`},
		"a turn that is none": {`{"messages":[{"role":"user","content":"a"},5]}`,
			"line 2: field messages: turn 1 is 5"},
	} {
		var said []string
		o := Options{MaxDocument: 1000, Odd: func(row int64,
			why string) {
			said = append(said, fmt.Sprint(row, " ", why))
		}}
		docs, count, err := readAll(writeFile(t, "f", []byte(`{"text":"a"}`+"\n"+c.line+"\n"+`{"text":"c"}`+"\n")), o)
		if err != nil || len(docs) != 2 || docs[1].Row != 2 || count.Odd != 1 || count.Rows != 3 {
			t.Errorf("%s: %d documents, %+v, %v", name, len(docs), count, err)
		}
		if len(said) != 1 || !strings.Contains(said[0], "1 ") || !strings.Contains(said[0], c.want) {
			t.Errorf("%s: %q, want %q", name, said, c.want)
		}
	}
	// A long text in a parquet file is odd as well.
	values := texts(20)
	values[8] = bytes.Repeat([]byte("x"), 1500)
	docs, count, err := readAll(writeFile(t, "f", parquetFile(t, 20, textColumn("text", values))),
		Options{MaxDocument: 1000})
	if err != nil || len(docs) != 19 || count.Odd != 1 {
		t.Errorf("parquet: %d documents, %+v, %v", len(docs), count, err)
	}
}

// TestMissingKeysAreNull: a row without any key that makes a text is as one whose text is null; a file of such rows
// alone is an error that names the keys there are.
func TestMissingKeysAreNull(t *testing.T) {
	const rows = `{"id":7,"error":"timed out"}` + "\n" + `{"text":"a"}` + "\n" + `{}` + "\n" +
		`{"input":"no output"}` + "\n"
	for _, fields := range []Fields{{}, {Text: "text"}} {
		_, count, err := readAll(writeFile(t, "f", []byte(rows)), Options{Fields: fields})
		if want := (Count{Rows: 4, Documents: 1, Bytes: 1, Nulls: 3}); err != nil || count != want {
			t.Errorf("%+v: %+v, %v", fields, count, err)
		}
	}
	for want, o := range map[string]Options{
		`no column "body" among error, id`:        {Fields: Fields{Text: "body"}},
		`no column "chat" among error, id`:        {Fields: Fields{Turns: "chat"}},
		`no column "language" in any line`:        {Filters: mustFilters(t, "language = en")},
		"no column of text among error, id: say ": {Source: "without"},
	} {
		text := rows
		if o.Source != "" {
			text = `{"id":7,"error":"timed out"}` + "\n" + `{"id":8}` + "\n"
		}
		if _, _, err := readAll(writeFile(t, "f", []byte(text)), o); err == nil ||
			!strings.Contains(strings.Replace(err.Error(), "id, error", "error, id", 1), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestJSONAsPeopleWriteIt: what Python, editors and cat leave in files of JSON Lines.
func TestJSONAsPeopleWriteIt(t *testing.T) {
	const mark = "\uFEFF"
	for name, c := range map[string]struct{ data, want string }{
		"NaN elsewhere":          {`{"text":"a","x":NaN}`, "a"},
		"infinities elsewhere":   {`{"x":[Infinity,-Infinity,{"y":NaN}],"text":"a"}`, "a"},
		"NaN for a missing text": {`{"text":NaN}` + "\n" + `{"text":"b"}`, "b"},
		"NaN within a text":      {`{"text":"NaN, \"Infinity\\","x":NaN}`, `NaN, "Infinity\`},
		"duplicate keys":         {`{"text":"a","text":"b"}`, "b"},
		"escaped keys":           {`{"\u0074ext":"a"}`, "a"},
		"lone surrogates":        {`{"text":"a\ud800b\udc00"}`, "a\uFFFDb\uFFFD"},
		"numbers without end":    {`{"x":1e999999999,"y":` + strings.Repeat("9", 500) + `,"text":"a"}`, "a"},
		"deep elsewhere": {`{"x":` + strings.Repeat("[", 900) + strings.Repeat("]", 900) + `,"text":"a"}`,
			"a"},
		"marks of byte order": {mark + `{"text":"a"}` + "\n" + mark + `{"text":"b"}` + "\r\n" +
			mark + "\n" + mark + mark + ` {"text":"c"}`, "a|b|c"},
		"a mark within a text":      {`{"text":"a` + mark + `b"}`, "a" + mark + "b"},
		"joined without a line end": {`{"text":"a"}{"text":"}{"}` + "\n" + `{"text":"c"}`, "a|}{|c"},
		"joined with a mark":        {`{"text":"a"}` + mark + `{"text":"}` + mark + `{"}` + "\n", "a|}" + mark + "{"},
		"joined with NaN":           {`{"text":"a","x":NaN}{"text":"b","x":-Infinity}`, "a|b"},
		"white space at both ends":  {" \t{\"text\":\"a\"} \t\r\n", "a"},
		"empty":                     {"", ""},
		"a mark alone":              {mark, ""},
		"empty lines alone":         {"\n\r\n \n", ""},
		"a path":                    {`{"meta":{"body":"no"},"text":"a"}`, "a"},
	} {
		for compression, data := range map[string][]byte{"plain": []byte(c.data), "gzip": gzipped(c.data),
			"zstd": zstandard(c.data)} {
			if got := answer(writeFile(t, "f", data), Options{}); got != c.want {
				t.Errorf("%s, %s: %.200q, want %q", name, compression, got, c.want)
			}
		}
	}
	for _, bad := range []string{`{"text":"a","x":nan}`, `{"x":1NaN}`, `{"x":NaN1}`, `{"x":-NaN}`, `{"x":+Infinity}`,
		`{"x":--Infinity}`, `{NaN:1}`, `{"x":Infinity0}`} {
		if got := answer(writeFile(t, "f", []byte(bad)), Options{}); !strings.Contains(got, "not a JSON object") {
			t.Errorf("%s gives %q", bad, got)
		}
	}
	for from := range int64(4) {
		o := Options{From: from}
		path := writeFile(t, "f", []byte(`{"text":"a"}{"text":"b"}`+mark+`{"text":"c"}`+"\n"+`{"text":"d"}`))
		if got := answer(path, o); got != strings.Join([]string{"a", "b", "c", "d"}[from:], "|") {
			t.Errorf("joined lines from row %d: %q", from, got)
		}
	}
}

// TestCompressedFiles: every legal sequence of frames and members.
func TestCompressedFiles(t *testing.T) {
	one, two := `{"text":"a"}`+"\n", `{"text":"b"}`+"\n"
	skippable := append([]byte{0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0}, "abc"...)
	zeros := make([]byte, 700)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"two members":               {slices.Concat(gzipped(one), gzipped(two)), "a|b"},
		"an empty member between":   {slices.Concat(gzipped(one), gzipped(""), gzipped(two)), "a|b"},
		"a padded member":           {slices.Concat(gzipped(one), zeros), "a"},
		"padding between":           {slices.Concat(gzipped(one), zeros, gzipped(two)), "a|b"},
		"a text over two members":   {slices.Concat(gzipped(one[:5]), gzipped(one[5:]+two)), "a|b"},
		"something behind a member": {slices.Concat(gzipped(one), []byte("junk")), "not gzip follows"},
		"two frames":                {slices.Concat(zstandard(one), zstandard(two)), "a|b"},
		"skippable frames everywhere": {slices.Concat(skippable, zstandard(one), skippable, zstandard(two),
			skippable), "a|b"},
		"a skippable frame alone":  {skippable, ""},
		"something behind a frame": {slices.Concat(zstandard(one), []byte("junk")), "not zstd follows"},
		"a cut skippable frame":    {slices.Concat(zstandard(one), skippable[:9]), "truncated"},
		"a window of 2 GiB": {[]byte("\x28\xb5\x2f\xfd\x00\xa8\x69\x00\x00" + one),
			"a window of more than 128 MiB"},
		"a window of 2 GiB, further on": {slices.Concat(zstandard(one),
			[]byte("\x28\xb5\x2f\xfd\x00\xa8\x69\x00\x00"+one)), "zstd -dc --long=31"},
		"a window of 128 MiB": {[]byte("\x28\xb5\x2f\xfd\x00\x88\x69\x00\x00" + one), "a"},
		"parquet in gzip": {gzipped(string(parquetFile(t, 3, textColumn("text", texts(3))))),
			"inside gzip: the file is a parquet file: decompress"},
		"tar in zstd": {zstandard(strings.Repeat("\x00", 257) + "ustar\x0000"), "a tar archive"},
		"gzip in gzip": {gzipped(string(gzipped(one))),
			"inside gzip: the file is compressed with gzip"},
		"UTF-16 in gzip": {gzipped("\xff\xfe{\x00\"\x00"), "UTF-16LE"},
	} {
		got := answer(writeFile(t, "f", c.data), Options{})
		if got != c.want && !(strings.HasPrefix(got, "error: ") && c.want != "" && strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	in := &bounded{in: strings.NewReader(strings.Repeat("x", 100)), left: 60}
	if got, err := io.ReadAll(in); err == nil || !strings.Contains(err.Error(), "times its size") || len(got) != 60 {
		t.Errorf("%d bytes of at most 60, %v", len(got), err)
	}
}

// TestFilesWithoutBytes: texts may be empty; parquet, gzip and zstd never are, so that such a file is half a download.
func TestFilesWithoutBytes(t *testing.T) {
	for name, want := range map[string]string{"f": "", "f.jsonl": "", "f.parquet": "no parquet file is",
		"f.jsonl.gz": "no gzip file is", "f.zst": "no zstd file is"} {
		if got := answer(writeFile(t, name, nil), Options{}); (got != "") != (want != "") ||
			!strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestTurnsWithoutContent: a turn that says nothing is passed over, wherever it stands, and one in parts says all of
// them.
func TestTurnsWithoutContent(t *testing.T) {
	for name, c := range map[string]struct{ line, want string }{
		"no content": {`{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"c"}]},` +
			`{"role":"tool","content":"b"}]}`, "user: a\n\ntool: b"},
		"null": {`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null}]}`,
			"user: a"},
		"first without": {`{"messages":[{"role":"assistant","tool_calls":[]},{"role":"tool","content":"b"}]}`,
			"tool: b"},
		"none says a thing": {`{"messages":[{"role":"assistant"},{"role":"user","content":null}]}`, ""},
		"parts": {`{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url",` +
			`"image_url":{"url":"x"}},{"type":"text","text":"b"}]},{"role":"assistant","content":"c"}]}`,
			"user: ab\n\nassistant: c"},
		"parts of strings": {`{"messages":[{"role":"user","content":["a","b",null]}]}`, "user: ab"},
		"one part":         {`{"messages":[{"role":"user","content":{"type":"text","text":"a"}}]}`, "user: a"},
		"pictures alone": {`{"messages":[{"role":"user","content":[{"type":"image_url"}]},{"role":"assistant",` +
			`"content":"a"}]}`, "assistant: a"},
		"no parts": {`{"messages":[{"role":"user","content":[]},{"role":"assistant","content":"a"}]}`,
			"assistant: a"},
		"empty content":  {`{"messages":[{"role":"user","content":""}]}`, "user: "},
		"value in parts": {`{"conversations":[{"from":"human","value":[{"text":"a"}]}]}`, "user: a"},
		"a nested role": {`{"messages":[{"author":{"role":"tool","content":"no"},"role":"user","content":"a",` +
			`"source":{"content":"no"}}]}`, "user: a"},
	} {
		if got := answer(writeFile(t, "f", []byte(c.line)), Options{}); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// node is a group or, without children, a column of strings.
func node(name string, repetition parquet.Repetition, list bool, children ...schema.Node) schema.Node {
	if len(children) == 0 {
		return schema.Must(schema.NewPrimitiveNodeLogical(name, repetition, schema.StringLogicalType{},
			parquet.Types.ByteArray, -1, -1))
	}
	if !list {
		return schema.MustGroup(schema.NewGroupNode(name, repetition, children, -1))
	}
	return schema.Must(schema.NewGroupNodeLogical(name, repetition, children, schema.NewListLogicalType(), -1))
}

// TestNestedColumns: the fields of a turn are found by their whole path at the depth of the turn, in every form that a
// list can have, whatever else lies in the turn under the same names.
func TestNestedColumns(t *testing.T) {
	required, optional, repeated := parquet.Repetitions.Required, parquet.Repetitions.Optional,
		parquet.Repetitions.Repeated
	role, content := func() schema.Node { return node("role", optional, false) },
		func() schema.Node { return node("content", optional, false) }
	decoys := func() []schema.Node {
		return []schema.Node{
			node("author", optional, false, role(), content()),
			node("citations", optional, true, node("list", repeated, false,
				node("element", optional, false, content(), role()))),
			node("meta", optional, false, node("key_value", repeated, false, node("key", required, false),
				node("content", optional, false))),
		}
	}
	turn := func(name string, r parquet.Repetition) schema.Node {
		return node(name, r, false, append(decoys(), role(), content())...)
	}
	parts := func(inner ...schema.Node) schema.Node {
		return node("messages", optional, true, node("list", repeated, false,
			node("element", optional, false, append(append(decoys(), role()), inner...)...)))
	}
	for name, messages := range map[string]schema.Node{
		"three levels": node("messages", optional, true,
			node("list", repeated, false, turn("element", optional))),
		"three, other names": node("messages", required, true,
			node("bag", repeated, false, turn("array_element", required))),
		"two levels, array": node("messages", optional, true,
			node("array", repeated, false, append(decoys(), role(), content())...)),
		"two levels, tuple":    node("messages", optional, true, turn("messages_tuple", repeated)),
		"two levels, any name": node("messages", optional, true, turn("item", repeated)),
		"no list around":       turn("messages", repeated),
		"parts of structures": parts(node("content", optional, true,
			node("list", repeated, false, node("element", optional, false, node("type", optional, false),
				node("text", optional, false))))),
		"parts, array": parts(node("content", optional, true,
			node("array", repeated, false, node("text", optional, false)))),
		"parts, tuple": parts(node("content", optional, true,
			node("content_tuple", repeated, false, node("text", optional, false)))),
		"parts of strings": parts(node("content", optional, true,
			node("list", repeated, false, node("element", optional, false)))),
		"one part": parts(node("content", optional, false, node("type", optional, false),
			node("text", optional, false))),
	} {
		data := writeNested(t, messages)
		if got := answer(writeFile(t, "f", data), Options{}); got != "user: right\n\nassistant: right" &&
			got != "user: rightright\n\nassistant: rightright" {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, content := range map[string]schema.Node{
		"lists of lists of parts": node("content", optional, true,
			node("list", repeated, false, node("element", repeated, false, node("text", optional, false)))),
		"parts without a text": node("content", optional, true,
			node("content_tuple", repeated, false, node("type", optional, false))),
	} {
		if got := answer(writeFile(t, "f", writeNested(t, parts(content))), Options{}); !strings.Contains(got,
			"no column of text") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// writeNested writes one row with two turns, of which everything that is no part of the turns themselves says "wrong".
// A list within a turn has two elements.
func writeNested(t *testing.T, messages schema.Node) []byte {
	t.Helper()
	root := schema.MustGroup(schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{messages},
		-1))
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, root)
	group := w.AppendRowGroup()
	tree := schema.NewSchema(root)
	for i := range tree.NumColumns() {
		c, err := group.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		column := tree.Column(i)
		path := strings.Split(column.Path(), ".")
		top, last := column.MaxDefinitionLevel(), path[len(path)-1]
		inside := slices.ContainsFunc(path, func(p string) bool {
			return p == "author" || p == "citations" ||
				p == "meta"
		})
		text := func(turn int) parquet.ByteArray {
			switch {
			case inside:
				return parquet.ByteArray("wrong")
			case last == "role":
				return parquet.ByteArray([]string{"user", "assistant"}[turn])
			case last == "type":
				return parquet.ByteArray("text")
			}
			return parquet.ByteArray("right")
		}
		var values []parquet.ByteArray
		var def, rep []int16
		for turn := range 2 {
			for part := range int(column.MaxRepetitionLevel()) {
				values, def = append(values, text(turn)), append(def, top)
				rep = append(rep, []int16{int16(turn), 2, 3}[part])
			}
		}
		if _, err := c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, def, rep); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	group.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// conditions are what filters find in the rows that testdata/write_types.py made, joined.
var conditions = map[string]string{
	"int = 9007199254740993":                       "b", // which float64 does not tell from its neighbour
	"int != 9007199254740993":                      "a|c",
	"int > 9007199254740992":                       "b|c",
	"int >= 9007199254740993":                      "b|c",
	"int < 9223372036854775807":                    "a|b",
	"int = 9223372036854775807.0":                  "c",
	"int = 9.223372036854775807e18":                "c",
	"int < inf":                                    "a|b|c",
	"unsigned > 9223372036854775807":               "b|c",
	"unsigned = 18446744073709551615":              "c",
	"decimal = 0.1":                                "a",
	"decimal = 0.10":                               "a",
	"decimal >= 3":                                 "b|c",
	"decimal > 12345678901234567890.12":            "c",
	"decimal = 12345678901234567890.13":            "c",
	"small < 0":                                    "a",
	"small = -0.5":                                 "a",
	"small <= .25":                                 "a|b",
	"double = 0.1":                                 "a",
	"double <= 0.1":                                "a",
	"double > 1e300":                               "c",
	"single = 0.1":                                 "a",
	"single <= 0.1":                                "a",
	"half = 0.1":                                   "a",
	"keep = true":                                  "a|c",
	"keep = True":                                  "a|c",
	"keep != true":                                 "b",
	"keep = false":                                 "b",
	"keep = 1":                                     "a|c",
	"keep = 0":                                     "b",
	"date >= 2024-01-01":                           "b|c",
	"date = 2024-02-29":                            "b",
	"date < 2024-02-29T00:00:01":                   "a|b",
	"stamp >= 2024-02-29T12:00:00":                 "b|c",
	"stamp >= 2024-02-29T12:00:00.000001":          "c",
	"stamp = 2024-02-29 12:00":                     "b",
	"stamp > '2024-02-29T12:00:00'":                "c",
	"stamp < 1970-01-01":                           "a",
	"zoned = 2024-02-29T12:00:00Z":                 "b",
	"zoned = 2024-02-29T13:00:00+01:00":            "b",
	"zoned >= 2024-02-29T13:00:01+0100":            "c",
	"zoned < 2024-02-29":                           "a",
	"time > 09:30":                                 "b|c",
	"time <= 09:30:00":                             "a",
	"time = 23:59:59.999999":                       "c",
	"language = en":                                "a|b",
	"language != en":                               "c",
	"language = 'en'":                              "a|b",
	"uuid = 01234567-89ab-cdef-0123-456789abcdef":  "a",
	"uuid = 01234567-89AB-CDEF-0123-456789ABCDEF":  "a",
	"uuid != 01234567-89ab-cdef-0123-456789abcdef": "b|c",
	"meta.score >= 2":                              "b|c",
	"meta.kind = x":                                "a|c",
	"nothing = 1":                                  "",
	"nothing != 1":                                 "",
	"language > 3":                                 "error: holds a text",
	"int = high":                                   "error: holds a number",
	"int = true":                                   "error: holds a number",
	"int >= 2024-01-01":                            "error: holds a number",
	"keep = yes":                                   "error: holds true or false",
	"keep > 0":                                     "error: holds true or false",
	"none = 1":                                     `error: no column "none"`,
}

// meets checks that a condition finds the rows that it should.
func meets(t *testing.T, path, condition string) {
	t.Helper()
	got, want := answer(path, Options{Filters: mustFilters(t, condition)}), conditions[condition]
	if reason, failed := strings.CutPrefix(want, "error: "); got != want &&
		!(failed && strings.HasPrefix(got, "error: ") && strings.Contains(got, reason)) {
		t.Errorf("%s: %s: %q, want %q", filepath.Base(path), condition, got, want)
	}
}

// TestFormatsAgree asks the same of the same rows as parquet, with every type there is, and as JSON Lines.
func TestFormatsAgree(t *testing.T) {
	for condition := range conditions {
		for _, name := range []string{"types.parquet", "types_integers.parquet", "types.jsonl"} {
			meets(t, filepath.Join("testdata", name), condition)
		}
	}
	for name, c := range map[string]struct {
		fields Fields
		want   string
	}{
		"a number": {Fields{Text: "int"}, "9007199254740992|9007199254740993|9223372036854775807"},
		"unsigned": {Fields{Text: "unsigned"}, "1|9223372036854775808|18446744073709551615"},
		"truth":    {Fields{Text: "keep"}, "true|false|true"},
		"a time":   {Fields{Text: "time"}, "09:30:00|10:00:00|23:59:59.999999"},
		"a date":   {Fields{Text: "date"}, "1969-12-31|2024-02-29|2024-03-01"},
		"a zone":   {Fields{Text: "zoned"}, "1969-12-31T23:59:59.5Z|2024-02-29T12:00:00Z|2024-03-01T00:00:00Z"},
		"UUID": {Fields{Text: "uuid"},
			"01234567-89ab-cdef-0123-456789abcdef|00000000-0000-0000-0000-000000000002|00000000-0000-0000-0000-000000000003"},
		"nested":      {Fields{Text: "meta.kind"}, "x|y|x"},
		"nulls alone": {Fields{Text: "nothing"}, ""},
		"answers": {Fields{Prompt: "text", Response: "keep"},
			"user: a\n\nassistant: true|user: b\n\nassistant: false|user: c\n\nassistant: true"},
	} {
		for _, file := range []string{"types.parquet", "types.jsonl"} {
			if got := answer(filepath.Join("testdata", file), Options{Fields: c.fields}); got != c.want {
				t.Errorf("%s: %s: %q, want %q", file, name, got, c.want)
			}
		}
	}
	for _, file := range []string{"types.parquet", "types.jsonl"} {
		for id, want := range map[string]string{"uuid": "01234567-89ab-cdef-0123-456789abcdef", "unsigned": "1",
			"keep": "true", "meta.score": "1"} {
			docs, _, err := readAll(filepath.Join("testdata", file), Options{Fields: Fields{ID: id}})
			if err != nil || docs[0].ID != want {
				t.Errorf("%s: id %s: %v, %v, want %s", file, id, docs, err, want)
			}
		}
	}
}

// TestPythonWritesTypes: what filters find in a file with every type does not depend on the library that wrote it.
func TestPythonWritesTypes(t *testing.T) {
	for library, lost := range map[string]string{"pyarrow": "", "polars": "uuid",
		"duckdb": "half"} { // a type that it does not write
		t.Run(library, func(t *testing.T) {
			python := pythontest.Interpreter(t, "pyarrow", library)
			path := filepath.Join(t.TempDir(), library+".parquet")
			if out, err := exec.Command(python, filepath.Join("testdata", "rewrite.py"), library,
				path).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for condition := range conditions {
				if lost == "" || !strings.HasPrefix(condition, lost) {
					meets(t, path, condition)
				}
			}
		})
	}
}

// TestEmptyParquet: a file of no rows need not have the columns of others, nor any.
func TestEmptyParquet(t *testing.T) {
	empty := filepath.Join("testdata", "empty.parquet") // of an empty table without columns
	for _, o := range []Options{{}, {Fields: Fields{Text: "body"}}, {Filters: mustFilters(t, "score > 1")}} {
		if got := answer(empty, o); got != "" {
			t.Errorf("%q", got)
		}
		if got := answer(writeFile(t, "f", parquetFile(t, 0, numberColumn("x", 0))), o); got != "" {
			t.Errorf("%q", got)
		}
	}
}

// TestNaN: nothing is equal to it, less or greater.
func TestNaN(t *testing.T) {
	double := testColumn{schema.NewFloat64Node("x", parquet.Repetitions.Required, -1),
		func(w file.ColumnChunkWriter, from, to int) error {
			_, err := w.(*file.Float64ColumnChunkWriter).WriteBatch([]float64{math.NaN(), 1, math.Inf(1)}[from:to], nil,
				nil)
			return err
		}}
	rows := parquetFile(t, 3, double, textColumn("text", [][]byte{[]byte("a"), []byte("b"), []byte("c")}))
	lines := `{"text":"a","x":NaN}` + "\n" + `{"text":"b","x":1}` + "\n" + `{"text":"c","x":Infinity}`
	for condition, want := range map[string]string{"x = 1": "b", "x != 1": "a|c", "x < 2": "b", "x >= 0": "b|c",
		"x < inf": "b", "x = inf": "c", "x != inf": "a|b", "x > -inf": "b|c"} {
		for name, data := range map[string][]byte{"parquet": rows, "jsonl": []byte(lines)} {
			if got := answer(writeFile(t, "f", data), Options{Filters: mustFilters(t, condition)}); got != want {
				t.Errorf("%s: %s: %q, want %q", name, condition, got, want)
			}
		}
	}
}

// TestNullColumn: a column of the null type has nulls alone, even if it has values.
func TestNullColumn(t *testing.T) {
	null := testColumn{schema.Must(schema.NewPrimitiveNodeLogical("text", parquet.Repetitions.Required,
		schema.NullLogicalType{}, parquet.Types.ByteArray, -1, -1)),
		func(w file.ColumnChunkWriter, from, to int) error {
			_, err := w.(*file.ByteArrayColumnChunkWriter).WriteBatch([]parquet.ByteArray{{'a'}}, nil, nil)
			return err
		}}
	if _, count, err := readAll(writeFile(t, "f", parquetFile(t, 1, null)), Options{}); err != nil || count.Nulls != 1 {
		t.Errorf("%+v, %v", count, err)
	}
}

// TestParquetTypesThatAreNoText are refused by name.
func TestParquetTypesThatAreNoText(t *testing.T) {
	bson := testColumn{schema.MustPrimitive(schema.NewPrimitiveNodeConverted("x", parquet.Repetitions.Required,
		parquet.Types.ByteArray, schema.ConvertedTypes.BSON, -1, -1, -1, -1)),
		func(w file.ColumnChunkWriter, from, to int) error {
			_, err := w.(*file.ByteArrayColumnChunkWriter).WriteBatch([]parquet.ByteArray{{5, 0, 0, 0, 0}}, nil, nil)
			return err
		}}
	path := writeFile(t, "f", parquetFile(t, 1, bson, textColumn("text", texts(1))))
	for _, o := range []Options{{Fields: Fields{Text: "x"}}, {Fields: Fields{ID: "x"}},
		{Filters: mustFilters(t, "x = 1")}} {
		if got := answer(path, o); !strings.Contains(got, "BSON") || !strings.HasPrefix(got, "error: ") {
			t.Errorf("%q", got)
		}
	}
	if got := answer(path, Options{}); got != string(texts(1)[0]) {
		t.Errorf("a column that nobody asked for: %q", got)
	}
}

func TestDecimals(t *testing.T) {
	ascending := []string{
		"-1e999999999999999999999", "-10", "-9.99", "-1e-5", "0", "1e-999999999999999999999", "1e-30", "0.00001", "0.1",
		"0.10000000000000000000001",
		"1", "1.5", "9.99", "10", "9007199254740992", "9007199254740993", "1e16", "1e400", "1e999999999999999999",
	}
	for i, a := range ascending {
		for k, b := range ascending {
			if got := parseDecimal([]byte(a)).compare(parseDecimal([]byte(b))); got != min(max(i-k, -1), 1) {
				t.Errorf("%s compares with %s as %d", a, b, got)
			}
		}
	}
	for _, same := range [][2]string{{"0", "-0"}, {"0", "0.00e5"}, {"10", "1e1"}, {"10", "010.00"}, {"0.5", ".5"},
		{"0.5", "5e-1"}, {"1", "0.001e3"}, {"1.", "+1"}, {"120", "12e+1"}} {
		if a, b := parseDecimal([]byte(same[0])), parseDecimal([]byte(same[1])); a.compare(b) != 0 ||
			!isDecimal(same[0]) || !isDecimal(same[1]) {
			t.Errorf("%s and %s differ: %+v %+v", same[0], same[1], a, b)
		}
	}
	for _, s := range []string{"", "-", ".", "e5", "1e", "1e+", "1.2.3", "0x10", "1_000", "++1", "1e5.5", "nan", "1 "} {
		if isDecimal(s) {
			t.Errorf("%q is a decimal", s)
		}
	}
}
