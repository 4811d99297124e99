package main

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// tokenizing are the arguments of a run that does nothing but tokenize.
func tokenizing(t *testing.T, sources ...string) []string {
	t.Helper()
	args := []string{"run", "--json", "--preset", "nano"}
	for _, s := range sources {
		args = append(args, "--source", s)
	}
	return append(args, write(t, "words.yml", []byte("stages: {tokenize: {tokenizer: bytes}}\n")))
}

// sourceNames are the names of the sources in the only run there is, sorted.
func (w *world) sourceNames() (names []string) {
	w.t.Helper()
	j := journal.Open(w.data)
	runs, err := j.Runs()
	if err != nil || len(runs) != 1 {
		w.t.Fatal(runs, err)
	}
	added, err := journal.Bodies[event.SourceAdded](j, runs[0])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range added {
		names = append(names, a.Name)
	}
	slices.Sort(names)
	return names
}

// A run takes relative and absolute paths, ** and names that are no UTF-8. The same files in another spelling continue
// the same run.
func TestSourcesAsTyped(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"top.jsonl", "c/d/deep.jsonl", "c/caf\xe9.jsonl"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(`{"text":"`+filepath.Base(filepath.Dir(path))+`"}`+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(root, filepath.Join(dir, "top.jsonl")) // the programs run there
	if err != nil {
		t.Fatal(err)
	}
	first := w.must("pipeline", tokenizing(t, relative, filepath.Join(dir, "c/**/*.jsonl"))...)
	w.must("pipeline", tokenizing(t, filepath.Join(dir, "c/caf*"), filepath.Join(dir, "c/../c/d/deep.jsonl"),
		filepath.Join(dir, "top.jsonl"))...)
	if names := w.sourceNames(); !slices.Equal(names, []string{"c/caf%E9.jsonl", "c/d/deep.jsonl", "top.jsonl"}) {
		t.Errorf("%q", names)
	}
	documents := 0.0
	for _, m := range messages(first) {
		if n, ok := m.Body["documents"].(float64); ok && m.Event.Kind == (event.TokensWritten{}).Kind() {
			documents += n
		}
	}
	if documents != 3 {
		t.Errorf("%g documents", documents)
	}
}

// The stage that fetches a URL sends its signature and password to the server. No file and no message contains them.
// With another signature it is the same run.
func TestSecretsOfSources(t *testing.T) {
	var valid atomic.Value // the server's requests read it
	valid.Store("first")
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "ann" || password != "hunter2secret" || r.URL.Query().Get("X-Amz-Signature") != valid.Load().(string)+
			"signature" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeContent(rw, r, "", time.Unix(1, 0), strings.NewReader(`{"text":"once upon a time"}`+"\n"))
	}))
	defer server.Close()
	w := newWorld(t)
	location := func() string {
		return strings.Replace(server.URL, "://", "://ann:hunter2secret@", 1) +
			"/books/a.jsonl?X-Amz-Date=1&part=7&X-Amz-Signature=" + valid.Load().(string) + "signature"
	}
	said := w.must("pipeline", tokenizing(t, location())...)
	valid.Store("second")
	said += w.must("pipeline", tokenizing(t, location())...)
	w.sourceNames() // one run alone
	valid.Store("third")
	stale := w.run("tokenize", "run", "--in", strings.Replace(location(), "third", "stale", 1), "--out", t.TempDir())
	said += stale.stdout + stale.stderr
	if stale.status == 0 || !strings.Contains(stale.stderr, "part=7") || !strings.Contains(stale.stderr, "403") {
		t.Errorf("a stale signature: %d %s", stale.status, stale.stderr)
	}
	if err := filepath.WalkDir(w.data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			said += string(content)
			return err
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2secret", "firstsignature", "secondsignature", "stalesignature", "ann:"} {
		if strings.Contains(said, secret) {
			t.Errorf("%s is told", secret)
		}
	}
	if !strings.Contains(said, "/books/a.jsonl?part=7") {
		t.Error("the URL is not told without them either")
	}
}

// Sources with different columns make one dataset. The key of a source's job depends on the source's parameters.
// Mistakes are found before anything starts.
func TestParametersBySource(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"new.jsonl": `{"text":"new"}`,
		"old/a.jsonl": `{"body":"old","text":"not this","score":1}`, "old/b.jsonl": `{"body":"older","score":9}`} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := func(sources string) string {
		return write(t, "mixed.yml",
			[]byte("sources:\n  - "+filepath.Join(dir, "new.jsonl")+"\n  - "+sources+"\nstages: "+
				"{tokenize: {tokenizer: bytes}}\n"))
	}
	old := filepath.Join(dir, "old", "*.jsonl")
	w := newWorld(t)
	size := func(sources string) (bytes float64) {
		for _, m := range messages(w.must("pipeline", "run", "--json", "--preset", "nano", file(sources))) {
			if n, ok := m.Body["bytes"].(float64); ok {
				bytes += n
			}
		}
		return bytes
	}
	if got := size("{path: '" + old + "', text_column: body}"); got != float64(len("new"+"old"+"older")) {
		t.Errorf("%g bytes", got)
	}
	if got := size("{path: '" + old + "', text_column: body, filters: [score > 5]}"); got != float64(len("new"+"older")) {
		t.Errorf("with a filter %g bytes", got)
	}
	for sources, says := range map[string]string{
		"{text_column: body}":                                "needs a path",
		"{path: '" + old + "', text_colum: body}":            `did you mean "text_column"`,
		"{path: '" + old + "', tokenizer: gpt2}":             "the same for all sources",
		"{path: '" + old + "', filters: 3}":                  "mixed.yml:3",
		"{path: '" + old + "', filters: [x]}":                "old/a.jsonl",
		"{path: '" + old + "', turn_template: no text here}": "{text}",
		"[a, b]": "give a list of files",
	} {
		w.refuses(1, []string{says}, "pipeline", "run", "--preset", "nano", file(sources))
	}
}
