package tasks

import (
	"archive/tar"
	"bytes"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"bitnet1/shared/data/tokenizer"
)

// written writes files into a folder, by name, and returns the folder.
func written(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func zstandard(t *testing.T, text string) string {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(e.EncodeAll([]byte(text), nil))
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func archive(t *testing.T, members ...string) string {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(members); i += 2 {
		h := &tar.Header{Name: members[i], Typeflag: tar.TypeReg, Size: int64(len(members[i+1])), Mode: 0o644}
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write([]byte(members[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

const (
	cats = `{"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps."}` + "\n\n" +
		`{"sentence_good": "A cat sleeps.", "sentence_bad": "A cat sleep."}` + "\n"
	dogs = "\uFEFF" + `{"sentence_good": "Dogs bark.", "sentence_bad": "Dogs barks.", "UID": "agreement"}`
)

// However a task's files are packed, they have the same examples, and each example belongs to its file's set or to the
// set that its row names.
func TestFiles(t *testing.T) {
	dir := written(t, map[string]string{
		"folder/cats.jsonl": cats, "folder/more/dogs.jsonl.gz": gzipped(t, dogs), "folder/README.md": "no task",
		"pairs.tar": archive(t, "p/cats.jsonl", cats, "p/._cats.jsonl", "\x00", "p/dogs.jsonl", dogs,
			"p/LICENSE", "text"),
		"pairs.tar.zst": zstandard(t, archive(t, "dogs.jsonl.zst", zstandard(t, dogs), "cats.jsonl", cats)),
		"cats.jsonl":    cats, "cats.jsonl.zst": zstandard(t, cats), "cats.gz": gzipped(t, cats),
	})
	for name, want := range map[string]string{
		"folder":         "agreement:  Dogs bark., cats:  Cats sleep., cats:  A cat sleeps.",
		"pairs.tar":      "agreement:  Dogs bark., cats:  Cats sleep., cats:  A cat sleeps.",
		"pairs.tar.zst":  "agreement:  Dogs bark., cats:  Cats sleep., cats:  A cat sleeps.",
		"cats.jsonl":     "cats:  Cats sleep., cats:  A cat sleeps.",
		"cats.jsonl.zst": "cats:  Cats sleep., cats:  A cat sleeps.",
		"cats.gz":        "cats:  Cats sleep., cats:  A cat sleeps.",
	} {
		task, err := Read("blimp", filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, e := range task.Examples {
			got = append(got, e.Set+": "+e.Requests[e.Gold].Continuation)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s has %q, want %s", name, got, want)
		}
	}
}

// What is wrong with a task's files is said with the file and the line.
func TestWrongFiles(t *testing.T) {
	packed := zstandard(t, cats+strings.Repeat(cats, 50))
	tarred := archive(t, "a/cats.jsonl", cats)
	dir := written(t, map[string]string{
		"cut.jsonl": cats + cats[:30], "list.jsonl": cats + "[1]\n", "other.jsonl": cats + `{"question": "?", "answer": 1}`,
		"number.jsonl": `{"sentence_good": 7, "sentence_bad": "x"}`,
		"null.jsonl":   `{"sentence_good": null, "sentence_bad": "x"}`,
		"empty.jsonl":  `{"sentence_good": " ", "sentence_bad": "x"}`, "none.jsonl": "\n", "folder/README.md": "nothing",
		"cut.zst": packed[:len(packed)-9], "cut.tar": tarred[:600], "inside.tar": archive(t, "b/cut.jsonl", cats[:30]),
		"gold.jsonl":   `{"query": "q", "choices": ["a", "b"], "gold": 2}`,
		"half.jsonl":   `{"query": "q", "choices": ["a", "b"], "gold": 0.5}`,
		"key.jsonl":    `{"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}`,
		"flat.jsonl":   `{"question": "q", "choices": ["a"], "answerKey": "A"}`,
		"blank.jsonl":  `{"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}`,
		"place.jsonl":  `{"text": "It rains.", "pronoun": "It", "pronoun_loc": 90, "options": ["a", "b"], "label": 0}`,
		"reason.jsonl": `{"premise": "It fell.", "choice1": "a", "choice2": "b", "question": "why", "label": 0}`,
		"long.jsonl":   `{"sentence_good": "` + strings.Repeat("a", mostLine) + `", "sentence_bad": "x"}`,
	})
	for _, c := range []struct{ task, file, want string }{
		{"blimp", "cut.jsonl", "cut.jsonl: line 4: not a JSON object"},
		{"blimp", "list.jsonl", "list.jsonl: line 4: not a JSON object"},
		{"blimp", "other.jsonl", "other.jsonl: line 4: its keys are answer, question; want those of one of the " +
			"task's forms: sentence_good, sentence_bad"},
		{"blimp", "number.jsonl", "number.jsonl: line 1: sentence_good is 7, want a text"},
		{"blimp", "null.jsonl", "null.jsonl: line 1: sentence_good is null, want a text"},
		{"blimp", "empty.jsonl", "empty.jsonl: line 1: answer 0 is empty"},
		{"blimp", "none.jsonl", "has no examples"},
		{"blimp", "folder", "has no task files"},
		{"blimp", "nowhere", "no such file"},
		{"blimp", "cut.zst", "the file is truncated"},
		{"blimp", "cut.tar", "the file is truncated"},
		{"blimp", "inside.tar", "inside.tar: b/cut.jsonl: line 1: not a JSON object"},
		{"blimp", "long.jsonl", "long.jsonl: line 1: longer than 16 MiB"},
		{"hellaswag", "gold.jsonl", "gold.jsonl: line 1: the right answer is number 2 of 2, from 0"},
		{"hellaswag", "half.jsonl", "gold is 0.5, want a whole number"},
		{"arc_easy", "key.jsonl", `answerKey is "B", which is none of choices.label`},
		{"arc_easy", "flat.jsonl", "choices.text is"},
		{"commonsense_qa", "key.jsonl", "choices.text has 1 texts, want 5"},
		{"winogrande", "blank.jsonl", "no _ where an option belongs"},
		{"wsc273", "place.jsonl", "does not lie in the text"},
		{"copa", "reason.jsonl", "want cause or effect"},
		{"glue", "cut.jsonl", "there is no task \"glue\"; the tasks are blimp, lambada"},
	} {
		_, err := Read(c.task, filepath.Join(dir, c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.file, err, c.want)
		}
	}
}

// A row in llm-foundry's form makes the requests of the same row in the form of the dataset that the harness reads.
func TestForms(t *testing.T) {
	for task, rows := range map[string][2]string{
		"lambada": {`{"text": "He saw a\nbig  red fox"}`, `{"context": "He saw a\nbig  red", "continuation": "fox"}`},
		"hellaswag": {`{"activity_label": "Skiing", "ctx_a": "A man", "ctx_b": "the Snow", ` +
			`"endings": ["a [b] c", "d"], "label": "1"}`,
			`{"query": "Skiing: A man The snow", "choices": ["a c", "d"], "gold": 1}`},
		"arc_easy": {`{"question": "Why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}`,
			`{"query": "Question: Why?", "choices": ["a", "b"], "gold": 1}`},
		"arc_challenge": {`{"question": "Why?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}`,
			`{"query": "Question: Why?", "choices": ["a", "b"], "gold": 0}`},
		"openbookqa": {`{"question_stem": "Fog is", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": " B"}`,
			`{"query": "Fog is", "choices": ["a", "b"], "gold": 1}`},
		"piqa": {`{"goal": "dresser", "sol1": "a", "sol2": "b", "label": 1}`,
			`{"query": "Question: dresser\n", "choices": ["a", "b"], "gold": 1}`},
		"boolq": {`{"passage": "Fog is wet.", "question": "is fog wet", "label": true}`,
			`{"query": "Passage: Fog is wet.\nQuestion: is fog wet?", "choices": ["no", "yes"], "gold": 1}`},
		"copa": {`{"premise": "It rained.", "choice1": "They ran.", "choice2": "It shone.", ` +
			`"question": "effect", "label": 0}`,
			`{"query": "It rained therefore", "choices": ["they ran.", "it shone."], "gold": 0}`},
		"winogrande": {`{"sentence": "Ann met Eve so _ ran.", "option1": "Ann", "option2": "Eve", "answer": "2"}`,
			`{"context_options": ["Ann met Eve so Ann", "Ann met Eve so Eve"], "continuation": "ran.", "gold": 1}`},
		"wsc273": {`{"text": "Ann met Eve so she ran.", "pronoun": "she", "pronoun_loc": 15, ` +
			`"options": ["Ann", "Eve"], "label": 1}`,
			`{"context_options": ["Ann met Eve so Ann", "Ann met Eve so Eve"], "continuation": "ran.", "gold": 1}`},
	} {
		var examples []Example
		for _, row := range rows {
			got, err := Read(task, filepath.Join(written(t, map[string]string{"a.jsonl": row}), "a.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			e := got.Examples[0]
			e.File = ""
			examples = append(examples, e)
		}
		if !reflect.DeepEqual(examples[0], examples[1]) {
			t.Errorf("%s:\n%+v\n%+v", task, examples[0], examples[1])
		}
	}
}

// Tokens are those that the harness makes: of bytes and an end of text, 256.
func TestEncode(t *testing.T) {
	text, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r         Request
		ids       string
		n         int
		truncated bool
	}{
		{Request{"ab", " cd"}, "ab cd", 3, false},
		{Request{"ab  \n", "cd"}, "ab  \ncd", 5, false}, // white space goes to the continuation
		{Request{"", " cd"}, "\xff cd", 3, false},
		{Request{"abcdef", " ghi"}, "abcdef ghi", 4, true},
		{Request{"abcde", " ghi"}, "abcde ghi", 4, false},
		{Request{"a", "12345678"}, "a12345678", 8, false},
	} {
		got, err := Encode(text, c.r, 8)
		if err != nil {
			t.Errorf("%q: %v", c.r, err)
			continue
		}
		var ids []byte
		for _, id := range got.IDs {
			if id == 256 {
				id = 0xff
			}
			ids = append(ids, byte(id))
		}
		want := c.ids
		if c.truncated {
			want = want[len(want)-9:]
		}
		if string(ids) != want || got.Continuation != c.n || got.Truncated != c.truncated {
			t.Errorf("%q has %q, %d of the continuation, truncated %v", c.r, ids, got.Continuation, got.Truncated)
		}
	}
	for want, r := range map[string]Request{
		"more tokens than the model reads": {"a", "123456789"}, "white space alone": {" ", "a"},
	} {
		if _, err := Encode(text, r, 8); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", r, err, want)
		}
	}
}

// Scores are those that anyone computes by hand from likelihoods that are made up.
func TestScore(t *testing.T) {
	answers := func(nats ...float64) (all []Likelihood) {
		for _, n := range nats {
			all = append(all, Likelihood{Nats: n})
		}
		return all
	}
	task := &Task{Definition: Definition{Name: "made up", Metrics: normalized}, Examples: []Example{
		{Choices: []string{"ab", "abcd"}, Requests: make([]Request, 2), Gold: 0},
		{Choices: []string{"ab", "äöü"}, Requests: make([]Request, 2), Gold: 1},
		{Choices: []string{"a", "b", "c", "d"}, Requests: make([]Request, 4), Gold: 1},
	}}
	// Right, wrong over characters and bytes; right but for characters; the first of two equal ones, wrong.
	r := task.Score([][]Likelihood{answers(-3, -4), answers(-4.1, -4), answers(-2, -2, -9, -9)}, 100)
	error3 := func(right float64) float64 { // of three examples
		return math.Sqrt((right*(1-right/3)*(1-right/3) + (3-right)*right*right/9) / 2 / 3)
	}
	for i, right := range []float64{2, 1, 1} { // acc, acc_norm, acc_bytes
		s := r.Scores[i]
		if s.Metric != normalized[i] || s.Value != right/3 || math.Abs(*s.Error-error3(right)) > 1e-15 ||
			math.Abs(s.Chance-1.25/3) > 1e-15 {
			t.Errorf("%+v, want %g of 3", s, right)
		}
	}
	characters, bytes := task.Examples[1:2], answers(-2.1, -3)
	for metric, want := range map[string]float64{Normalized: 1, ByBytes: 1, Accuracy: 0} {
		if got := score(metric, characters, [][]Likelihood{bytes}, 100); got.Value != want || got.Error != nil {
			t.Errorf("%s of one example: %+v, want %g without an error", metric, got, want)
		}
	}
	likelihoods := [][]Likelihood{answers(-1.4, -3)} // 0.7 and 0.5 a byte, 0.7 and 1 a character
	if got := score(ByBytes, characters, likelihoods, 100).Value; got != 1 {
		t.Errorf("over bytes: %g", got)
	}
	if got := score(Normalized, characters, likelihoods, 100).Value; got != 0 {
		t.Errorf("over characters: %g", got)
	}
}

// The sets of a task count the same, whatever their sizes, and their errors are independent.
func TestScoreOfSets(t *testing.T) {
	task := &Task{Definition: Definition{Name: "made up", Metrics: []string{Perplexity, Accuracy}}}
	var likelihoods [][]Likelihood
	for i, nats := range []float64{-1, -2, -1, -3, -2, -3} {
		task.Examples = append(task.Examples, Example{Requests: make([]Request, 1), Set: "aabbbb"[i : i+1]})
		likelihoods = append(likelihoods, []Likelihood{{Nats: nats, Greedy: i%2 == 0, Tokens: 2}})
	}
	r := task.Score(likelihoods, 10)
	if len(r.Sets) != 2 || r.Sets[0].Examples != 2 || r.Sets[1].Examples != 4 || r.Examples != 6 {
		t.Fatalf("sets %+v", r.Sets)
	}
	perplexity, right := r.Scores[0], r.Scores[1]
	if want := (math.Exp(1.5) + math.Exp(2.25)) / 2; perplexity.Value != want {
		t.Errorf("perplexity %g, want %g", perplexity.Value, want)
	}
	a, b := 0.5*math.Exp(1.5), math.Sqrt((2*0.75*0.75+0.25*0.25+1.25*1.25)/3/4)*math.Exp(2.25)
	if want := math.Sqrt(a*a+b*b) / 2; math.Abs(*perplexity.Error-want) > 1e-12 {
		t.Errorf("its error %g, want %g", *perplexity.Error, want)
	}
	if math.Abs(perplexity.Chance-100) > 1e-9 || math.Abs(right.Chance-0.01) > 1e-12 || right.Value != 0.5 {
		t.Errorf("chance of two tokens of ten: %+v, %+v", perplexity, right)
	}
}

// A limit is of each set's first examples.
func TestLimit(t *testing.T) {
	for n, want := range map[int]string{0: "aabccc", 1: "abc", 2: "aabcc", 9: "aabccc"} {
		task := &Task{}
		for _, set := range "aabccc" {
			task.Examples = append(task.Examples, Example{Set: string(set), Line: len(task.Examples)})
		}
		task.Limit(n)
		got := ""
		for _, e := range task.Examples {
			got += e.Set
		}
		if got != want || n == 1 && task.Examples[2].Line != 3 {
			t.Errorf("%d of each set are %s, want %s", n, got, want)
		}
	}
}

// A digest is that of the contents and of names within the folder, wherever the folder lies.
func TestDigest(t *testing.T) {
	of := func(files map[string]string, name string) string {
		t.Helper()
		sum, err := Digest(filepath.Join(written(t, files), name))
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	folder := of(map[string]string{"x/a.jsonl": "1", "x/b.jsonl": "2", "x/notes.txt": "3"}, "x")
	if folder != of(map[string]string{"y/z/a.jsonl": "1", "y/z/b.jsonl": "2"}, "y/z") {
		t.Error("the same files have another digest in another folder")
	}
	for what, files := range map[string]map[string]string{
		"content": {"x/a.jsonl": "1", "x/b.jsonl": "3"}, "name": {"x/a.jsonl": "1", "x/c.jsonl": "2"},
		"number of files": {"x/a.jsonl": "1"},
	} {
		if of(files, "x") == folder {
			t.Errorf("another %s has the same digest", what)
		}
	}
	if of(map[string]string{"a.jsonl": "1"}, "a.jsonl") != of(map[string]string{"b.jsonl": "1"}, "b.jsonl") {
		t.Error("a file's name is part of its digest")
	}
}

// Whatever a file contains, reading it ends with examples or with an error.
func FuzzRead(f *testing.F) {
	for _, text := range []string{cats, dogs, `{"query": "q", "choices": ["a"], "gold": "0"}`,
		`{"text": "It is", "pronoun": "It", "pronoun_loc": -1, "options": ["a", "b"], "label": 0}`,
		`{"premise": "", "choice1": "", "choice2": "", "question": "cause", "label": 0}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "a.jsonl")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range Names() {
			task, err := Read(name, path)
			if (err == nil) == (task == nil) {
				t.Errorf("%s: %v and %v", name, task, err)
			}
		}
	})
}
