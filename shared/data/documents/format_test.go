package documents

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"bitnet1/shared/filetype"

	"github.com/klauspost/compress/gzip"
)

// textsOf reads a file of the given name and content.
func textsOf(t testing.TB, name, content string, o Options) (texts []string, count Count, err error) {
	t.Helper()
	// as where a remote file is fetched to: the source's name says what it is
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	o.Source = name
	d, err := Open(path, o)
	if err != nil {
		return nil, count, err
	}
	defer d.Close()
	for document, err := range d.All() {
		if err != nil {
			return texts, d.Count(), err
		}
		texts = append(texts, string(document.Text))
	}
	return texts, d.Count(), nil
}

func TestFormats(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte("once\n\nupon"))
	z.Close()
	column := Options{Fields: Fields{Text: "body"}}
	filter, err := ParseFilter("stars >= 3")
	if err != nil {
		t.Fatal(err)
	}
	other, err := ParseFilter("text != b")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, content string
		o             Options
		want          []string
	}{
		// Plain text.
		{"input.txt", "To be,\n\nor not.\n", Options{}, []string{"To be,\n\nor not.\n"}},
		{"input", "once upon", Options{}, []string{"once upon"}},
		{"a.txt", "\uFEFFonce", Options{}, []string{"once"}},
		{"a.txt", "caf\xe9", Options{}, []string{"caf\xe9"}},
		{"a.txt", " \n\n", Options{}, nil},
		{"a.txt", "", Options{}, nil},
		{"a.txt", "{not} JSON\n", Options{}, []string{"{not} JSON\n"}},
		{"a.txt", "[1] a note\n", Options{}, []string{"[1] a note\n"}},
		{"a.txt", `{"text":"a"}` + "\n" + `{"text":"b"}`, Options{}, []string{"a", "b"}},
		{"a.md.GZ", packed.String(), Options{Split: SplitBlank}, []string{"once", "upon"}},
		{"a.txt", "\n\na\nb\n \t\r\nc\n\n\n\nd", Options{Split: SplitBlank}, []string{"a\nb", "c", "d"}},
		{"a.txt", "a\r\n\r\nb\r\n", Options{Split: SplitBlank}, []string{"a", "b"}},
		{"a.txt", "a\r\n\nb", Options{Split: SplitLine}, []string{"a", "b"}},
		{"a.txt", "a\n<|end|>\n\nb<|end|><|end|>c", Options{Split: "<|end|>"}, []string{"a", "b", "c"}},
		{"a.log", "a line", Options{Format: FormatText}, []string{"a line"}},

		// JSON lists.
		{"a.json", ` [ "a", {"text":"b","n":[1,{"x":"]"}]} , null, "c\"]\\" ] `, Options{}, []string{"a", "b", `c"]\`}},
		{"a.jsonl", `["a"]`, Options{}, []string{"a"}},
		{"a", "[\n {\"body\": \"a\",\n \"text\": \"no\"}\n]\n\uFEFF[]\n[\"b\"]", column, []string{"a", "b"}},
		{"a.json", `[{"messages":[{"role":"user","content":"hi"},{"role":"bot","content":"ho"}]}]`, Options{},
			[]string{"user: hi\n\nbot: ho"}},
		{"a.json", `{"text":"a"}`, Options{}, []string{"a"}},
		{"a.json", `[{"text":"a","stars":2},{"text":"b","stars":3},"c"]`, Options{Filters: []Filter{filter}},
			[]string{"b"}},
		{"a.json", `[]`, Options{}, nil},
		{"a.json", `["a",5,{"text":"b"},{"text":[1]},{bad},"c"]`, Options{}, []string{"a", "b", "c"}}, // three odd rows

		// Tables.
		{"a.csv", "id,text\n1,\"a, \"\"b\"\"\nc\"\n2,\n3,d\n", Options{}, []string{"a, \"b\"\nc", "d"}},
		{"a.csv", "\uFEFFtext\r\na\r\n\r\nb\r\n", Options{}, []string{"a", "b"}},
		{"a.csv", "text;n\na,b;1\n", Options{}, []string{"a,b"}},
		{"a.csv", "n, body\n1,a\\n\x01\xff\"\n2,\"ü\"\n", column, []string{"ü"}}, // a quote inside: an odd row
		{"a.csv", "text,stars\na,2\nb,10\nc,x\n", Options{Filters: []Filter{filter}}, []string{"b"}},
		{"a.csv", "text\n12\nb\n", Options{Filters: []Filter{other}}, []string{"12"}},
		{"a.csv", "input,output\nwhy,42\n", Options{}, []string{"user: why\n\nassistant: 42"}},
		{"a.csv", "text,n\nshort\na,1\nb,2,3\n", Options{}, []string{"a"}},
		{"a.csv", "text\n12\ntrue\nnull\n", Options{}, []string{"12", "true", "null"}},
		{"a.csv", "text", Options{}, nil},
		{"a.csv", "", Options{}, nil},
		{"a.tsv", "text\tn\n\"Well,\" he said, \"no.\" \t1\n\"quoted \"\"too\"\"\"\t2\na\tb\tc\n", Options{},
			[]string{`"Well," he said, "no." `, `quoted "too"`}},
		{"a.data", "text\tn\na\t1\n", Options{Format: FormatTSV}, []string{"a"}},
		{"a.csv", "text\tn\n\"a\tb\"\t1\n", Options{}, []string{"a\tb"}},
	} {
		got, count, err := textsOf(t, c.name, c.content, c.o)
		if err != nil || !slices.Equal(got, c.want) ||
			count.Rows != count.Documents+count.Nulls+count.Filtered+count.Odd {
			t.Errorf("%s %q: %q, %+v, %v; want %q", c.name, c.content, got, count, err, c.want)
		}
	}
}

func TestRefusedFormats(t *testing.T) {
	filter, err := ParseFilter("stars >= 3")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, content string
		o             Options
		says          string
	}{
		{"words.docx", "once upon", Options{}, "set format to text"},
		{"a.txt", "once", Options{Filters: []Filter{filter}}, "plain text has none"},
		{"a.txt", "once", Options{Format: "tex"}, "choose one of jsonl, json"},
		{"a.json", `["a"`, Options{}, "has no end"},
		{"a.json", `["a", "b`, Options{}, "element 2: the JSON list has no end"},
		{"a.json", `["a" "b"]`, Options{}, "after element 1"},
		{"a.json", `["a",,"b"]`, Options{}, "no JSON list"},
		{"a.json", `["a",]`, Options{}, "no JSON list"},
		{"a.json", `["a"] x`, Options{}, "no JSON list"},
		{"a.json", "{\n \"rows\": []\n}", Options{}, "jq"},
		{"a.csv", "words,n\na,1\n", Options{}, "among words, n"},
		{"a.csv", "text,n\na,\"1\nb,2\n", Options{}, "line 2: a quote in this row is not closed"},
		{"a.csv", "text\n\"" + strings.Repeat("a\n", 10_000), Options{MaxDocument: 100}, "is a quote not closed?"},
	} {
		if got, _, err := textsOf(t, c.name, c.content, c.o); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %.60q: %q, %v; want %s", c.name, c.content, got, err, c.says)
		}
	}
}

// TestOddRowsAreNamed: a row that cannot be understood is named by its line in the file, whatever lines rows take.
func TestOddRowsAreNamed(t *testing.T) {
	for name, content := range map[string]string{
		"a.csv": "text,n\n\"a\nb\",1\n\nwrong\n", "a.tsv": "text\tn\na\t1\nb\t1\n\nwrong\n",
	} {
		var said []string
		if _, count, err := textsOf(t, name, content,
			Options{Odd: func(_ int64, why string) { said = append(said, why) }}); err != nil || count.Odd != 1 {
			t.Errorf("%s: %+v, %v", name, count, err)
		}
		if !slices.Equal(said, []string{"line 5: 1 columns where the header has 2"}) {
			t.Errorf("%s: %q", name, said)
		}
	}
}

// TestLongText: a text that is too long for one document ends at the end of a line, and nothing of it is lost.
func TestLongText(t *testing.T) {
	for name, line := range map[string]string{"lines": "It was the best of times.\n", "one line": "ünterbrechung",
		"bytes": "\x80\x81\x82\x83\x84"} {
		text := strings.Repeat(line, 10_000)
		for _, split := range []string{SplitFile, SplitBlank} {
			got, _, err := textsOf(t, "a.txt", text, Options{MaxDocument: 20_000, Split: split})
			if err != nil || len(got) < 4 {
				t.Fatalf("%s: %d documents, %v", name, len(got), err)
			}
			whole := strings.Join(got, "")
			if split == SplitBlank && name == "lines" {
				whole = strings.Join(got, "\n") + "\n"
			}
			if whole != text {
				t.Errorf("%s, %s: %d bytes of %d", name, split, len(whole), len(text))
			}
			for i, part := range got {
				if len(part) > 10_000 || name == "lines" && split == SplitFile && !strings.HasSuffix(part, "\n") ||
					name == "one line" && !utf8.ValidString(part) {
					t.Errorf("%s: part %d of %d bytes, %.20q", name, i, len(part), part)
				}
			}
		}
	}
}

// TestGoOnInFormats: reading from a row on gives what follows, in every format.
func TestGoOnInFormats(t *testing.T) {
	var list, table, tabs, text []string
	for i := range 300 {
		list = append(list, fmt.Sprintf(`{"text":"%d"}`, i))
		table = append(table, fmt.Sprintf("%d,\"text\n%d\"", i, i))
		tabs = append(tabs, fmt.Sprintf("%d\t%d", i, i))
		text = append(text, fmt.Sprintf("line %d\n", i))
		if i%7 == 3 {
			list, table, tabs, text = append(list, "5"), append(table, "odd"), append(tabs, "odd"), append(text, "\n")
		}
	}
	for name, content := range map[string]string{
		"a.json": "[" + strings.Join(list, ",") + "]", "a.csv": "n,text\n" + strings.Join(table, "\n"),
		"a.tsv": "n\ttext\n" + strings.Join(tabs, "\n"), "a.txt": strings.Join(text, "\n"),
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		read := func(from int64) (rows []string, next int64) {
			d, err := Open(path, Options{From: from, Split: SplitBlank})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for document, err := range d.All() {
				if err != nil {
					t.Fatal(name, err)
				}
				rows = append(rows, fmt.Sprintf("%d %s", document.Row, document.Text))
			}
			return rows, d.Next()
		}
		whole, end := read(0)
		if len(whole) != 300 {
			t.Fatalf("%s: %d documents", name, len(whole))
		}
		for _, from := range []int64{1, 4, 5, 100, 250, end, end + 10} {
			rest, next := read(from)
			want := whole[slices.IndexFunc(append(whole, "999999 "), func(s string) bool {
				var row int64
				fmt.Sscan(s, &row)
				return row >= from
			}):]
			if !slices.Equal(rest, want) || next != max(end, from) {
				t.Errorf("%s from %d: %d documents, want %d; next %d", name, from, len(rest), len(want), next)
			}
		}
	}
}

// FuzzFormats: whatever a file holds, it is read with work in proportion to its size, or refused, and every row is
// counted.
func FuzzFormats(f *testing.F) {
	for _, seed := range []string{`["a",{"text":"b"}]`, "text,n\n\"a\",1\n", "text\tn\na\t1\n", "a\n\nb", "[[[[",
		"\"\"\"\"", ",,,,\n,,,,\n", "\uFEFF[\"\\\\\"]"} {
		for _, format := range formats {
			f.Add(seed, format.name, SplitBlank)
		}
	}
	f.Fuzz(func(t *testing.T, content, format, split string) {
		if format == FormatAuto || validateFormat(format) != nil || len(content) > 1<<16 {
			return
		}
		_, count, err := textsOf(t, "fuzz", content, Options{Format: format, Split: split, MaxDocument: 1 << 12})
		if err == nil && count.Rows != count.Documents+count.Nulls+count.Filtered+count.Odd {
			t.Errorf("%+v", count)
		}
		if count.Rows > int64(len(content))+1 || count.Bytes > 2*int64(len(content)) {
			t.Errorf("%d bytes are %+v", len(content), count)
		}
	})
}

// TestLimitsOfFormats: a row beyond the limit is counted and left out, and a document of plain text is cut, wherever
// its end is; whoever waits is told where reading is.
func TestLimitsOfFormats(t *testing.T) {
	long := strings.Repeat("long ", 40)
	for name, content := range map[string]string{
		"a.json": `["` + long + `",{"text":"` + long + `"},"b"]`, "a.tsv": "text\n" + long + "\n" + long + "\nb\n",
	} {
		at := 0
		odd := func(_ int64, why string) {
			if !strings.Contains(why, "longer than the limit of 100 bytes") {
				t.Errorf("%s: %s", name, why)
			}
		}
		got, count, err := textsOf(t, name, content, Options{MaxDocument: 100, Odd: odd, At: func(int, int64) { at++ }})
		if err != nil || !slices.Equal(got, []string{"b"}) || count.Odd != 2 || at == 0 {
			t.Errorf("%s: %q, %+v, %v, told %d times", name, got, count, err, at)
		}
	}
	got, _, err := textsOf(t, "a.txt", long+"|b", Options{MaxDocument: 400, Split: "|"})
	if err != nil || !slices.Equal(got, []string{long, "b"}) {
		t.Errorf("%q, %v", got, err)
	}
	got, _, err = textsOf(t, "a.txt", long+"|b", Options{MaxDocument: 300, Split: "|"})
	if err != nil || !slices.Equal(got, []string{long[:150], long[150:], "b"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestExtensions: which format a text has by the extension of its name, and which files of a folder are read.
func TestExtensions(t *testing.T) {
	for name, want := range map[string]string{
		"a.jsonl": FormatJSONL, "a.ndjson": FormatJSONL, "a.json": FormatJSONL, "a.csv": FormatCSV, "a.tsv": FormatTSV,
		"a.tab": FormatTSV, "a.txt": FormatText, "a.text": FormatText, "a.md": FormatText, "a.markdown": FormatText,
		"a.rst": FormatText, "a.tex": FormatText, "a": FormatText, "A.CSV.GZ": FormatCSV, "a.tsv.zstd": FormatTSV,
	} {
		if got, err := formatOf(name, filetype.Text, nil); got != want || err != nil {
			t.Errorf("%s is %q, %v, want %q", name, got, err, want)
		}
	}
	if _, err := formatOf("a.log", filetype.Text, nil); err == nil || !strings.Contains(err.Error(), ".tsv, .json") {
		t.Errorf("an unknown extension: %v", err)
	}
	if want := []string{".parquet", ".jsonl", ".ndjson", ".csv", ".tsv"}; !slices.Equal(TypicalExtensions(), want) {
		t.Errorf("in a folder %v are read, want %v", TypicalExtensions(), want)
	}
}
