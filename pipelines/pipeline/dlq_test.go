package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// A source is gone while its job is done, and a message is no event. Both become dead letters. The source comes back,
// its letter is sent again, and the job is done.
func TestDeadLetters(t *testing.T) {
	w := newWorld(t)
	store, err := artifact.Open(w.data)
	if err != nil {
		t.Fatal(err)
	}
	streams := filepath.Join(w.data, "nats")
	server, err := bus.StartServer(streams, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { server.Stop() }()
	w.env = server.Address().Environ()
	if said := w.must("pipeline", "dlq", "list"); said != "no dead letters\n" {
		t.Errorf("before any: %q", said)
	}
	b, err := bus.Connect(t.Context(), server.Address(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	stage := w.command("tokenize", "serve", "--attempts", "1")
	if err := stage.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stage.Process.Kill()
		_ = stage.Wait()
	}()

	text := []byte(`{"text": "It was a dark night."}` + "\n")
	source := filepath.Join(t.TempDir(), "texts.jsonl")
	added, err := event.New("r", "test", "", event.Part{}, event.SourceAdded{Name: "texts.jsonl", Path: source,
		Digest: digest.Bytes(text), Size: int64(len(text))})
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.NewAnnouncer(journal.Open(store.Dir()), b).Announce(t.Context(), added); err != nil {
		t.Fatal(err)
	}
	var letters []message
	list := func() []message {
		letters = messages(w.must("pipeline", "dlq", "list", "--json"))
		return letters
	}
	w.eventually("a dead letter", func() bool { return len(list()) == 1 })
	number := strconv.FormatUint(letters[0].Number, 10)
	shown := w.must("pipeline", "dlq", "show", number)
	for _, want := range []string{"stage  tokenize", "run    r", "kind   source.added", "cause  ", source, added.ID,
		`"name": "texts.jsonl"`} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is missing:\n%s", want, shown)
		}
	}
	if err := b.Bury(t.Context(), "tokenize", &bus.Delivery{Subject: added.Subject(), Data: []byte("garbage")},
		"not an event"); err != nil {
		t.Fatal(err)
	}
	if table := w.must("pipeline", "dlq", "list"); !strings.Contains(table, "source.added") ||
		!strings.Contains(table, "not an event") {
		t.Errorf("table:\n%s", table)
	}

	if err := os.WriteFile(source, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if sent := w.run("pipeline", "dlq", "send", "--run", "r"); sent.status != 1 ||
		!strings.Contains(sent.stdout, "1 event sent again") || !strings.Contains(sent.stderr, "it is no event") {
		t.Errorf("%+v", sent)
	}
	w.eventually("the answer", func() bool {
		done, err := journal.Bodies[event.JobFinished](journal.Open(store.Dir()), "r")
		return err == nil && slices.ContainsFunc(done, func(f event.JobFinished) bool { return f.Outcome == event.Done })
	})
	if left := list(); len(left) != 1 || left[0].Number == 0 {
		t.Errorf("left: %+v", left)
	}

	// What the server keeps is read without it, too.
	b.Close()
	server.Stop()
	w.env = nil
	garbage := strconv.FormatUint(letters[0].Number, 10)
	if shown := w.must("pipeline", "dlq", "show", garbage); !strings.Contains(shown, `"garbage"`) {
		t.Errorf("shown:\n%s", shown)
	}
	w.refuses(1, []string{"dead letter 99: there is no such message: pipeline dlq list shows"}, "pipeline", "dlq", "show",
		"99")
	w.refuses(2, []string{"five is not the number of a dead letter"}, "pipeline", "dlq", "show", "five")
	w.refuses(2, []string{"NUMBERs, --run RUN or --all to send"}, "pipeline", "dlq", "send")
	w.refuses(2, []string{"NUMBERs, --run RUN or --all to send"}, "pipeline", "dlq", "send", "--all", "1")
	lock, err := lockData(w.data)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	w.refuses(1, []string{"in use by another launcher"}, "pipeline", "dlq", "list")
}
