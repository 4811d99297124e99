package documents

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// mustFilters parses conditions.
func mustFilters(t testing.TB, conditions ...string) (filters []Filter) {
	t.Helper()
	for _, c := range conditions {
		f, err := ParseFilter(c)
		if err != nil {
			t.Fatal(err)
		}
		filters = append(filters, f)
	}
	return filters
}

func TestNamedFields(t *testing.T) {
	const chat = `{"key":7,"body":"B","q":"Q","a":"A","talk":[{"role":"human","content":"hi"},{"role":"tool",` +
		`"content":null},{"role":"gpt","content":"ho"}],"text":"T"}`
	for name, c := range map[string]struct {
		fields   Fields
		template Template
		id, want string
	}{
		"by itself": {Fields{}, Template{}, "f#0", "T"},
		"text":      {Fields{Text: "body", ID: "key"}, Template{}, "7", "B"},
		"answer":    {Fields{Prompt: "q", Response: "a"}, Template{}, "f#0", "user: Q\n\nassistant: A"},
		"turns":     {Fields{Turns: "talk"}, Template{}, "f#0", "user: hi\n\nassistant: ho"},
		"template": {Fields{Turns: "talk"}, Template{Turn: "<|{role}|>{text}<|end|>", Between: "\n"}, "f#0",
			"<|user|>hi<|end|>\n<|assistant|>ho<|end|>"},
		"braces": {Fields{Prompt: "q", Response: "a"}, Template{Turn: "{x} {{text}", Between: "|"}, "f#0",
			"{x} {Q|{x} {A"},
		"literal newline": {Fields{Prompt: "q", Response: "a"}, Template{Turn: "{text}", Between: "\n"}, "f#0", "Q\nA"},
	} {
		docs, _, err := readAll(writeFile(t, "f", []byte(chat)), Options{Fields: c.fields, Template: c.template})
		if err != nil || len(docs) != 1 || docs[0].ID != c.id || string(docs[0].Text) != c.want {
			t.Errorf("%s: %+v, %v, want %q", name, docs, err, c.want)
		}
	}
	for name, c := range map[string]struct {
		fields Fields
		want   string
	}{
		"missing text":     {Fields{Text: "txt"}, `no column "txt" among a, body`},
		"missing response": {Fields{Prompt: "q", Response: "r"}, `no column "r"`},
		"no list":          {Fields{Turns: "body"}, "no list of"},
		"half an answer":   {Fields{Prompt: "q"}, "a prompt and its response"},
		"two texts":        {Fields{Text: "body", Turns: "talk"}, "name a text, or turns"},
	} {
		if _, _, err := readAll(writeFile(t, "f", []byte(chat)), Options{Fields: c.fields}); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestThinking(t *testing.T) {
	for text, want := range map[string]string{
		"<think>Hm.</think>\n\nYes.":           "Yes.",
		"Yes.":                                 "Yes.",
		"<think>never ends":                    "",
		"a<think>b</think>c<think>d</think> e": "ace",
		"no </think> start":                    "no </think> start",
		"<think></think>":                      "",
		"<think>a<think>b</think>c":            "c",
	} {
		if got := string(Template{StripThinking: true}.writeText(nil, []byte(text))); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		if got := string(Template{}.writeText(nil, []byte(text))); got != text {
			t.Errorf("%q is not kept: %q", text, got)
		}
	}
}

func TestFilters(t *testing.T) {
	const rows = `{"text":"a","score":3.5,"language":"en","int_score":4,"ok":true}
{"text":"b","score":2,"language":"en","int_score":2,"ok":false}
{"text":"c","score":3,"language":"de","int_score":3}
{"text":"d","language":null,"ok":true}
`
	for condition, want := range map[string]string{
		"score >= 3":     "ac",
		"score>3":        "a",
		"score < 3":      "b",
		"score <=3":      "bc",
		"int_score = 4":  "a",
		"int_score != 4": "bc",
		"language = en":  "ab",
		"language!='en'": "c",
		"ok = 1":         "ad",
	} {
		docs, count, err := readAll(writeFile(t, "f", []byte(rows)), Options{Filters: mustFilters(t, condition)})
		var got string
		for _, d := range docs {
			got += string(d.Text)
		}
		if err != nil || got != want || count.Filtered != int64(4-len(want)) || count.Rows != 4 {
			t.Errorf("%s: %q, want %q; %+v, %v", condition, got, want, count, err)
		}
	}
	docs, _, err := readAll(writeFile(t, "f", []byte(rows)),
		Options{Filters: mustFilters(t, "score >= 3", "language = en")})
	if err != nil || len(docs) != 1 {
		t.Errorf("two conditions: %d documents, %v", len(docs), err)
	}
	for condition, want := range map[string]string{"language > 3": "holds a text", "score = high": "holds a number"} {
		if _, _, err := readAll(writeFile(t, "f", []byte(rows)),
			Options{Filters: mustFilters(t, condition)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", condition, err, want)
		}
	}
	for _, bad := range []string{"", "score", "= 3", "score >=", "score > high", "language >= 'en'"} {
		if _, err := ParseFilter(bad); err == nil {
			t.Errorf("%q is a filter", bad)
		}
	}
}

func TestParquetFilters(t *testing.T) {
	values := texts(50)
	values[7] = nil
	path := writeFile(t, "f.parquet", parquetFile(t, 50, textColumn("text", texts(50)), numberColumn("score", 50),
		textColumn("dump", values)))
	docs, count, err := readAll(path, Options{Filters: mustFilters(t, "score >= 120", "score < 130")})
	if err != nil || len(docs) != 10 || docs[0].Row != 20 || count.Filtered != 40 {
		t.Errorf("%d documents, %+v, %v", len(docs), count, err)
	}
	docs, _, err = readAll(path, Options{Fields: Fields{Text: "dump", ID: "text"},
		Filters: mustFilters(t, fmt.Sprintf("text != '%s'", texts(50)[3]))})
	if err != nil || len(docs) != 48 || docs[3].ID != string(texts(50)[4]) {
		t.Errorf("%d documents, %v", len(docs), err)
	}
	if _, _, err := readAll(path, Options{Filters: mustFilters(t, "quality > 1")}); err == nil ||
		!strings.Contains(err.Error(), `no column "quality" among dump, score, text`) {
		t.Errorf("a missing column: %v", err)
	}
}

// TestFrom begins at every row and reads what is left, for all formats.
func TestFrom(t *testing.T) {
	var lines []string
	for i := range 30 {
		lines = append(lines, fmt.Sprintf(`{"text":"line %d"}`, i))
	}
	values := texts(30)
	values[4], values[20] = nil, nil
	for _, path := range []string{
		writeFile(t, "x.jsonl", []byte(strings.Join(lines, "\n"))),
		writeFile(t, "x.parquet", parquetFile(t, 30, textColumn("text", values))),
	} {
		all, _, err := readAll(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for from := range int64(32) {
			rest, count, err := readAll(path, Options{From: from})
			if err != nil {
				t.Fatalf("%s from %d: %v", path, from, err)
			}
			want := slices.DeleteFunc(slices.Clone(all), func(d Document) bool { return d.Row < from })
			same := func(a, b Document) bool {
				return a.ID == b.ID && a.Row == b.Row &&
					string(a.Text) == string(b.Text)
			}
			if !slices.EqualFunc(rest, want, same) || count.Rows != max(30-from, 0) {
				t.Errorf("%s from %d: %d documents of %d, %+v", path, from, len(rest), len(want), count)
			}
		}
	}
}
