package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// A run has no gap if every listener of every event has answered, and all outputs in the listeners' records are there.
func TestGap(t *testing.T) {
	dir := t.TempDir()
	store, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	j := journal.Open(dir)
	write := func(stage, job string, body event.Body) event.Envelope {
		t.Helper()
		raw, err := event.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Wrap("r", stage, job, event.Part{}, body.Kind(), raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Write(e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	listeners := map[string][]string{"source.added": {"tokenize", "count"}}
	gap := func(want string) {
		t.Helper()
		got, err := Gap(store, j, "r", listeners)
		if err != nil || got == "" != (want == "") || !strings.Contains(got, want) {
			t.Errorf("the gap is %q (%v), want %q", got, err, want)
		}
	}
	gap("")
	added := event.SourceAdded{Name: "a.txt", Path: "a.txt", Digest: strings.Repeat("ab", 32), Size: 1}
	source := write("launcher", "", added)
	gap("tokenize has not answered source.added")
	write("tokenize", "", event.JobFinished{Listener: "tokenize", Input: source.ID, Outcome: event.Failed, At: 1})
	gap("tokenize has not answered source.added")
	key := strings.Repeat("cd", 32)
	write("tokenize", key, event.JobFinished{Listener: "tokenize", Input: source.ID, Key: key, Outcome: event.Done})
	gap("count has not answered source.added")
	write("count", "", event.JobFinished{Listener: "count", Input: source.ID, Outcome: event.Done})
	gap("")

	body := event.PackWritten{Step: 3, Pack: artifact.Ref{Digest: strings.Repeat("ef", 32), Kind: "pack", Name: "m.bit2"}}
	raw, err := event.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(Root(store), "tokenize", key, []byte("{}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Add(body.Kind(), raw); err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	gap("tokenize has made pack.written")
	write("tokenize", key, body)
	gap("")
}

// Lacks names the artifact that an event mentions and the store does not have.
func TestLacks(t *testing.T) {
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ref, err := artifact.Put(store, "pack", "application/octet-stream", "m.bit2", []byte("bits"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := event.Marshal(event.PackWritten{Pack: ref})
	if err != nil {
		t.Fatal(err)
	}
	e := event.Envelope{Body: raw}
	if missing, lacks := Lacks(store, e); lacks {
		t.Errorf("%v is said to be missing", missing)
	}
	path, err := store.Path(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, filepath.Join(t.TempDir(), "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if missing, lacks := Lacks(store, e); !lacks || missing.Digest != ref.Digest {
		t.Errorf("%v is said to be missing (%v), want %v", missing, lacks, ref)
	}
}
