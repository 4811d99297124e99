package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/processtest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/stage"
	"bitnet1/shared/run/vfs"
)

// asProgram makes the test's own binary be the stage's program, which says in the file that it names how much memory it
// took.
const asProgram = "BITNET1_TEST_TOKENIZE"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == decodeCommand {
		os.Exit(decodeWithFaults(os.Stdin, os.Stdout, os.Stderr))
	}
	path := os.Getenv(asProgram)
	if path == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(nameless) != "" {
		vfs.OS = heldFS{vfs.OS}
	}
	status := program(os.Args)
	said, err := os.ReadFile("/proc/self/status")
	if err == nil {
		os.WriteFile(path, said, 0o644)
	}
	os.Exit(status)
}

// nameless is set for programs that never give their batch its name, and so do not end before they are killed.
const nameless = "BITNET1_TEST_NAMELESS"

type heldFS struct{ vfs.FS }

func (f heldFS) Rename(from, to string) error {
	if strings.HasSuffix(to, ".tokens.arrow") {
		time.Sleep(time.Hour)
	}
	return f.FS.Rename(from, to)
}

func (f heldFS) Link(from, to string) error {
	if strings.HasSuffix(to, ".tokens.arrow") {
		time.Sleep(time.Hour)
	}
	return f.FS.Link(from, to)
}

// self is the stage's program with arguments.
func self(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asProgram+"="+os.DevNull)
	return c
}

// run runs the stage in this process and returns its exit status.
func run(args ...string) int {
	return stage.Main(spec(), append([]string{"tokenize", "run"}, args...))
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// lines are documents as JSON Lines, of about size bytes.
func lines(size int) string {
	random := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the quick brown fox jumps over a lazy dog while seven wizards quietly mix liquid jade")
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `{"id":"d%d","score":%d,"text":"`, i, i%5)
		for range random.IntN(400) {
			fmt.Fprintf(&b, "%s%d ", words[random.IntN(len(words))], random.IntN(100))
		}
		b.WriteString("\"}\n")
		if i%97 == 0 {
			b.WriteString(`{"text":null}` + "\n")
		}
	}
	return b.String()
}

// batchTexts reads the texts of a token batch of bytes.
func batchTexts(t testing.TB, path string) (texts []string) {
	t.Helper()
	b, err := dataset.OpenBatch(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range b.Len() {
		_, tokens, err := b.Document(i)
		if err != nil {
			t.Fatal(err)
		}
		var text []byte
		for _, id := range tokens.AppendTo(nil) {
			text = append(text, byte(id))
		}
		texts = append(texts, string(text))
	}
	return texts
}

// TestKilledAnywhere kills the program after some of its work is durable, again and again, and lets others with more or
// fewer threads go on: the batch is the same as without. A part that is damaged since is made again, with those after
// it.
func TestKilledAnywhere(t *testing.T) {
	dir := t.TempDir()
	source := write(t, filepath.Join(dir, "x.jsonl"), lines(12<<20))
	whole, broken := filepath.Join(dir, "whole"), filepath.Join(dir, "broken")
	if status := run("--in", source, "--out", whole, "--tokenizer", "bytes"); status != 0 {
		t.Fatal(status)
	}
	for kill := range 4 {
		c := self("run", "--in", source, "--out", broken, "--tokenizer", "bytes", "--threads", fmt.Sprint(1+kill%3))
		c.Env = append(c.Env, nameless+"=1")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		processtest.Eventually(t, func() bool {
			parts, _ := filepath.Glob(filepath.Join(broken, ".jobs", "*", "*", "scratch", "*.json"))
			return len(parts) > kill
		}, "part %d", kill)
		c.Process.Kill()
		if err := c.Wait(); err == nil {
			t.Fatalf("the program ended before it was killed after part %d", kill)
		}
	}
	parts, err := filepath.Glob(filepath.Join(broken, ".jobs", "*", "*", "scratch", "part-000002-*.arrow"))
	if err != nil || len(parts) != 1 {
		t.Fatal(parts, err)
	}
	part, err := os.ReadFile(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	part[len(part)/2] ^= 1
	if err := errors.Join(os.Chmod(parts[0], 0o644), os.WriteFile(parts[0], part, 0o644)); err != nil {
		t.Fatal(err)
	}
	c := self("run", "--in", source, "--out", broken, "--tokenizer", "bytes")
	out, err := c.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("going on where an earlier attempt stopped")) ||
		!bytes.Contains(out, []byte("parts=2")) || !bytes.Contains(out, []byte(parts[0])) {
		t.Fatalf("%v\n%s", err, out)
	}
	a, err := os.ReadFile(filepath.Join(whole, "x.tokens.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(broken, "x.tokens.arrow"))
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%d bytes without interruption, %d with (%v)", len(a), len(b), err)
	}
	var times stage.JobTimes
	said, err := os.ReadFile(filepath.Join(broken, stage.TimesFile("x")))
	if err == nil {
		err = json.Unmarshal(said, &times)
	}
	var steps []string
	for _, s := range times.Steps {
		steps = append(steps, s.Step)
	}
	slices.Sort(steps)
	if err != nil || times.Of != "x.jsonl" || times.Bytes == 0 ||
		!slices.Equal(steps, []string{stepDecode, stepTokenize, stepWrite}) {
		t.Errorf("times %+v, %v", times, err)
	}
	if left, _ := filepath.Glob(filepath.Join(broken, ".jobs", "*", "*", "scratch", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestThreadsDoNotMatter(t *testing.T) {
	dir := t.TempDir()
	source := write(t, filepath.Join(dir, "x.jsonl"), lines(3<<20))
	var first []byte
	for _, threads := range []string{"1", "2", "7"} {
		out := filepath.Join(dir, threads)
		if status := run("--in", source, "--out", out, "--threads", threads); status != 0 {
			t.Fatal(status)
		}
		data, err := os.ReadFile(filepath.Join(out, "x.tokens.arrow"))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = data
		} else if !bytes.Equal(first, data) {
			t.Errorf("%s threads make other bytes", threads)
		}
	}
}

func TestColumnsTemplatesAndFilters(t *testing.T) {
	dir := t.TempDir()
	source := write(t, filepath.Join(dir, "x.jsonl"), `{"q":"Why?","a":"<think>Hm.</think>\nSo.","score":4}
{"q":"Who?","a":"I.","score":1}
`)
	for want, args := range map[string][]string{
		"user: Why?\n\nassistant: <think>Hm.</think>\nSo.|user: Who?\n\nassistant: I.": nil,
		"user: Why?\n\nassistant: So.": {"--strip-thinking", "true", "--filters",
			"score >= 3"},
		"[user]Why?\n[assistant]<think>Hm.</think>\nSo.|[user]Who?\n[assistant]I.": {"--turn-template", "[{role}]{text}",
			"--turn-separator", "\n"},
	} {
		out := filepath.Join(dir, fmt.Sprint(len(want)))
		args = append(args, "--in", source, "--out", out, "--tokenizer", "bytes", "--prompt-column", "q", "--response-column",
			"a")
		if status := run(args...); status != 0 {
			t.Fatalf("%v: %d", args, status)
		}
		if got := strings.Join(batchTexts(t, filepath.Join(out, "x.tokens.arrow")), "|"); got != want {
			t.Errorf("%v: %q, want %q", args, got, want)
		}
	}
	for _, bad := range [][]string{{"--filters", "score"}, {"--turn-template", "{role}"}, {"--prompt-column", "q"},
		{"--on-bad-file", "ask"}, {"--tokenizer", "llama"}} {
		if status := run(append(bad, "--in", source, "--out", dir)...); status != 2 {
			t.Errorf("%v: exit status %d", bad, status)
		}
	}
}

// TestBadFiles: a file that breaks off is refused as a whole, and the others are done if the user wants so.
func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good.jsonl"), `{"text":"a","token_count":1}`)
	bad := write(t, filepath.Join(dir, "bad.jsonl"), `{"text":"b"}`+"\n"+`{"text":"cut sho`)
	out := filepath.Join(dir, "out")
	if status := run("--in", bad, good, "--out", out, "--tokenizer", "bytes"); status != 1 {
		t.Errorf("a bad file ends with status %d", status)
	}
	c := self("run", "--json", "--in", bad, good, "--out", out, "--tokenizer", "bytes", "--on-bad-file", "skip")
	stdout, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var refused []string
	for line := range bytes.Lines(stdout) {
		var e struct {
			Body struct {
				Refused         string
				Documents, Rows int
			}
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		refused = append(refused, e.Body.Refused)
		if e.Body.Refused != "" && (e.Body.Documents != 0 || e.Body.Rows != 0) {
			t.Errorf("a refused file counts: %s", line)
		}
	}
	if len(refused) != 2 || !strings.Contains(refused[0], "line 2") || refused[1] != "" {
		t.Errorf("refused: %q", refused)
	}
	if got := batchTexts(t, filepath.Join(out, "bad.tokens.arrow")); len(got) != 0 {
		t.Errorf("the refused file left %q", got)
	}
	if got := batchTexts(t, filepath.Join(out, "good.tokens.arrow")); len(got) != 1 {
		t.Errorf("the good file left %q", got)
	}
}

// TestOddRows: rows that cannot be understood are counted and named, and the others are documents; wherever reading
// begins again, the same rows are named.
func TestOddRows(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	const rows = 140_000
	for i := range rows {
		switch {
		case i%28_000 == 7, i == 65_530: // the latter just before the first process dies
			text.WriteString("nonsense\n")
		case i%28_000 == 9:
			text.WriteString(`{"text":5}` + "\n")
		default:
			fmt.Fprintf(&text, `{"text":"document %d"}`+"\n", i)
		}
	}
	// and decoded by a second process from the middle on
	source := write(t, filepath.Join(dir, "killedonce.jsonl"), text.String())
	out, err := self("run", "--json", "--in", source, "--out", filepath.Join(dir, "out"), "--tokenizer",
		"bytes").Output()
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Body struct {
			Documents, Rows, Odd int64
			OddRows              []string `json:"odd_rows"`
		}
	}
	if err := json.Unmarshal(out, &e); err != nil {
		t.Fatal(err)
	}
	if b := e.Body; b.Documents != rows-11 || b.Rows != rows || b.Odd != 11 || len(b.OddRows) != maxOddRows ||
		!strings.HasPrefix(b.OddRows[0], "line 8: not a JSON object") ||
		b.OddRows[1] != "line 10: field text is 5 and not a string" ||
		!strings.HasPrefix(b.OddRows[6], "line 65531: ") || !strings.HasPrefix(b.OddRows[9], "line 112008: ") {
		t.Errorf("%d documents of %d rows, %d odd: %q", b.Documents, b.Rows, b.Odd, b.OddRows)
	}
	if _, err := os.Stat(source + ".killed"); err != nil {
		t.Error("one process decoded it all")
	}
}

// TestRemoteSource fetches a file from a server that breaks off at first.
func TestRemoteSource(t *testing.T) {
	text := lines(1 << 20)
	broken := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if r.Method == http.MethodGet && !broken {
			broken = true
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			w.Write([]byte(text[:1000]))
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}))
	defer server.Close()
	dir := t.TempDir()
	local := write(t, filepath.Join(dir, "x.jsonl"), text)
	if run("--in", local, "--out", filepath.Join(dir, "local")) != 0 ||
		run("--in", server.URL+"/x.jsonl", "--out", filepath.Join(dir, "remote")) != 0 {
		t.Fatal("failed")
	}
	a, _ := os.ReadFile(filepath.Join(dir, "local", "x.tokens.arrow"))
	b, err := os.ReadFile(filepath.Join(dir, "remote", "x.tokens.arrow"))
	if err != nil || !bytes.Equal(a, b) || !broken {
		t.Errorf("%d bytes of tokens, %d from the server (%v)", len(a), len(b), err)
	}
	if run("--in", server.URL+"/x.jsonl", "--out", dir, "--tokenizer", "llama") != 2 {
		t.Error("a wrong tokenizer is no wrong usage")
	}
}

// TestFileTokenCounts compares what a file says of its tokens with ours.
func TestFileTokenCounts(t *testing.T) {
	dir := t.TempDir()
	source := write(t, filepath.Join(dir, "x.jsonl"), `{"text":"Hello world","token_count":2}
{"text":"Hello world","token_count":3}
{"text":"Hello world"}
`)
	for tokenizer, want := range map[string]string{"gpt2": `"counted":2`, "bytes": `"counted":0`} {
		out, err := self("run", "--json", "--in", source, "--out", filepath.Join(dir, tokenizer), "--tokenizer",
			tokenizer).Output()
		if err != nil || !strings.Contains(string(out), want) || tokenizer == "gpt2" &&
			!strings.Contains(string(out), `"miscounted":1`) {
			t.Errorf("%s: %s, %v", tokenizer, out, err)
		}
	}
}

// TestBatchNames: whatever a source is called, its batch has a name that an artifact can have, and another for another
// source.
func TestBatchNames(t *testing.T) {
	long := strings.Repeat("é", 300)
	taken := map[string]string{}
	for _, source := range []string{"a.jsonl", "x/y/b.parquet", `back\slash.txt`, "caf%E9.txt", "no\u00a0break.txt",
		"zero\u200bwidth.txt", ".hidden", long + "1.txt", long + "2.txt"} {
		name := batchName(source)
		if !artifact.ValidName(name) || taken[name] != "" {
			t.Errorf("%q: %q, as %q", source, name, taken[name])
		}
		taken[name] = source
	}
	if got := batchName("x/y/b.parquet"); got != "x_y_b.tokens.arrow" {
		t.Error(got)
	}
}

// TestNameThatIsNoText: a file is opened by the bytes of its name, also by the process that decodes it.
func TestNameThatIsNoText(t *testing.T) {
	dir := t.TempDir()
	source := write(t, filepath.Join(dir, "caf\xe9.jsonl"), `{"text":"au lait"}`)
	if run("--in", source, "--out", filepath.Join(dir, "out"), "--tokenizer", "bytes") != 0 {
		t.Fatal("failed")
	}
	if got := batchTexts(t, filepath.Join(dir, "out", "caf%E9.tokens.arrow")); !slices.Equal(got, []string{"au lait"}) {
		t.Errorf("%q", got)
	}
}

// TestEmptyTemplate: nothing between turns is nothing, and a turn without its text is refused.
func TestEmptyTemplate(t *testing.T) {
	dir := t.TempDir()
	source := write(t, filepath.Join(dir, "x.jsonl"),
		`{"messages":[{"role":"user","content":"a"},{"role":"bot","content":"b"}]}`)
	for separator, want := range map[string]string{"": "ab", " + ": "a + b"} {
		out := filepath.Join(dir, "out"+separator)
		if run("--in", source, "--out", out, "--tokenizer", "bytes", "--turn-template", "{text}", "--turn-separator",
			separator) != 0 {
			t.Fatal("failed")
		}
		if got := batchTexts(t, filepath.Join(out, "x.tokens.arrow")); !slices.Equal(got, []string{want}) {
			t.Errorf("%q: %q", separator, got)
		}
	}
	if run("--in", source, "--out", dir, "--turn-template", "") != 2 {
		t.Error("an empty template is taken")
	}
}

// TestNoDocuments: a file of which nothing is a document makes an empty batch, of each format.
func TestNoDocuments(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"nulls.jsonl": `{"text":null,"score":9}`,
		"filtered.jsonl": `{"text":"a","score":1}`} {
		source := write(t, filepath.Join(dir, name), text)
		if run("--in", source, "--out", dir, "--tokenizer", "bytes", "--filters", "score > 3") != 0 {
			t.Errorf("%s failed", name)
		}
		if got := batchTexts(t, filepath.Join(dir, strings.TrimSuffix(name, ".jsonl")+".tokens.arrow")); len(got) != 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestFormatsOnTheCommandLine: files of every format are documents of one stage, each read as what it is.
func TestFormatsOnTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--out", filepath.Join(dir, "out"), "--tokenizer", "bytes", "--text-split", "---"}
	for name, text := range map[string]string{
		"input.txt": "To be, --- or not.\n", "rows.csv": "id,text\n7,\"a\nb\"\n", "list.json": `["a", {"text": "b"}]`,
		"lines.jsonl": `{"text":"a"}`,
	} {
		args = append(args, "--in", write(t, filepath.Join(dir, name), text))
	}
	if run(args...) != 0 {
		t.Fatal("failed")
	}
	for name, want := range map[string][]string{"input": {"To be, ", " or not."}, "rows": {"a\nb"}, "list": {"a", "b"},
		"lines": {"a"}} {
		if got := batchTexts(t, filepath.Join(dir, "out", name+".tokens.arrow")); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, bad := range [][]string{{"--format", "xml"}, {"--text-split", ""}} {
		if run(append(bad, "--in", dir, "--out", dir)...) != 2 {
			t.Errorf("%v is taken", bad)
		}
	}
}
