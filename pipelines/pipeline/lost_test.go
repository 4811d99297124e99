package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/bus/bustest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// loses removes messages from the run's event server.
func (w *world) loses(which func(event.Envelope) bool) {
	w.t.Helper()
	server, err := bus.StartServer(filepath.Join(w.data, "nats"), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer server.Stop()
	a := server.Address()
	b, err := bus.Connect(context.Background(), a, "test")
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	all, _, err := b.History(context.Background(), "*", "*.*", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	stream, err := bustest.Connect(w.t, a.URL, a.User, a.Password).Stream(context.Background(), bus.EventStream)
	if err != nil {
		w.t.Fatal(err)
	}
	lost := 0
	for _, k := range all {
		if which(k.Envelope) {
			lost++
			if err := stream.DeleteMsg(context.Background(), k.Sequence); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	if lost == 0 {
		w.t.Fatal("nothing was there to lose")
	}
}

// unkept removes events from the journal.
func (w *world) unkept(run string, which func(event.Envelope) bool) {
	w.t.Helper()
	j := journal.Open(w.data)
	all, err := j.All(run)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range all {
		if which(e) {
			if err := os.Remove(filepath.Join(j.RunDir(run), "events", e.Kind, e.ID+".msgpack")); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// The files of a run say whether it is finished, whatever its server has.
func TestWhatTheEventServerLostIsDone(t *testing.T) {
	w := newWorld(t)
	run := messages(w.must("pipeline", tiny()...))[0].Run
	second := func(e event.Envelope) bool {
		c, err := event.Into[event.CheckpointSaved](e)
		return err == nil && c.Step == 40
	}
	saved, err := journal.Open(w.data).Read(run, event.CheckpointSaved{}.Kind())
	if err != nil || len(saved) != 4 {
		t.Fatalf("%d checkpoints, %v", len(saved), err)
	}
	// What is removed: the answer of evaluate to the second checkpoint, and the end of the run.
	after := func(e event.Envelope) bool {
		if v, err := event.Into[event.EvaluationWritten](e); err == nil {
			return v.Step == 40
		}
		f, err := event.Into[event.JobFinished](e)
		return err == nil && f.Listener == "evaluate" && f.Input == saved[1].ID || e.Kind == event.RunFinished{}.Kind()
	}
	w.loses(func(e event.Envelope) bool { return second(e) || after(e) })
	w.unkept(run, after)
	out := w.must("pipeline", tiny()...)
	if !strings.Contains(out, "lacked 1 event") {
		t.Errorf("it does not say what was lost:\n%s", tail(out))
	}
	w.sameAsReference()
	if n := len(w.evaluations(run)); n != 4 {
		t.Errorf("%d evaluations, want 4", n)
	}

	// The journal lacks an output of a run that is finished: the next launcher goes on with the run.
	w.unkept(run, func(e event.Envelope) bool { return e.Kind == event.EvaluationWritten{}.Kind() })
	out = w.must("pipeline", tiny()...)
	if !strings.Contains(out, "evaluation.written") || len(w.evaluations(run)) != 4 {
		t.Errorf("%d evaluations, want 4:\n%s", len(w.evaluations(run)), tail(out))
	}
	if out := w.must("pipeline", tiny()...); !strings.Contains(out, "nothing is left to do") {
		t.Errorf("it is not finished:\n%s", tail(out))
	}
}

func (w *world) evaluations(run string) []event.EvaluationWritten {
	w.t.Helper()
	all, err := journal.Bodies[event.EvaluationWritten](journal.Open(w.data), run)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// Two data directories may use one server, but not for runs of the same name. A finished run leaves no consumers on the
// server.
func TestTwoDataDirectoriesOnOneServer(t *testing.T) {
	server, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	first, second := newWorld(t), newWorld(t)
	first.env, second.env = server.Address().Environ(), server.Address().Environ()
	run := messages(first.must("pipeline", tiny()...))[0].Run
	if n := consumers(t, server); n != 0 {
		t.Errorf("%d consumers are left after the run", n)
	}
	second.refuses(1, []string{run, artifact.DirectoryName(first.data), artifact.DirectoryName(second.data), "--data",
		"--run"}, "pipeline", tiny()...)
	second.must("pipeline", tiny("--run", "mine")...)
	second.sameAsReference()

	// A data directory that was moved goes on with its run. An emptied directory does not.
	moved := newWorld(t)
	moved.env = first.env
	if err := os.Rename(first.data, moved.data); err != nil {
		t.Fatal(err)
	}
	moved.unkept(run, func(e event.Envelope) bool { return e.Kind == event.RunFinished{}.Kind() })
	moved.must("pipeline", tiny()...)
	moved.sameAsReference()
	first.refuses(1, []string{run, "was it removed", "--run"}, "pipeline", tiny()...)
}

func consumers(t *testing.T, server *bus.Server) int {
	t.Helper()
	a := server.Address()
	stream, err := bustest.Connect(t, a.URL, a.User, a.Password).Stream(t.Context(), bus.EventStream)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Consumers
}

// The launcher waits a while for a server that has gone away. Then it ends and says why.
func TestAServerThatStaysAway(t *testing.T) {
	var dir string
	var server *bus.Server
	var err error
	w, l, _ := midTraining(t, func(t *testing.T) *world {
		dir = t.TempDir()
		if server, err = bus.StartServer(dir, 0); err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		w.env = server.Address().Environ()
		return w
	}, func(*launched) { server.Stop() }, "--outage", "2s")
	o := l.wait()
	if o.status != 1 || !strings.Contains(o.stderr, "event server cannot be used") ||
		!strings.Contains(o.stderr, "same command again") {
		t.Errorf("status %d: %s", o.status, o.stderr)
	}
	server, err = bus.StartServer(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	w.env = server.Address().Environ()
	w.must("pipeline", tiny()...)
	w.sameAsReference()
}

// The files of the launcher's event server are damaged between two commands. The second one says so, announces the
// events of all runs again, and goes on.
func TestADamagedEventServerIsRebuilt(t *testing.T) {
	w, _, _ := midTraining(t, newWorld, (*launched).interrupt, "--run", "first")
	streams := filepath.Join(w.data, "nats", "jetstream", "$G", "streams")
	flip := func(path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	goesOn := func(path string, words ...string) {
		t.Helper()
		o := w.run("pipeline", tiny("--run", "first")...)
		for _, word := range append(words, path) {
			if !strings.Contains(o.stdout+o.stderr, word) {
				t.Errorf("it does not say %q:\n%s", word, tail(o.stdout)+o.stderr)
			}
		}
		if o.status != 0 {
			t.Fatalf("status %d: %s", o.status, o.stderr)
		}
		w.sameAsReference()
	}
	block := filepath.Join(streams, bus.EventStream, "msgs", "1.blk")
	flip(block)
	goesOn(block, "a new stream takes its place", "events of this run: announced again")

	meta := filepath.Join(streams, bus.EventStream, "meta.inf")
	flip(meta)
	o := w.run("pipeline", tiny("--run", "second")...)
	if said := o.stdout + o.stderr; o.status != 0 || !strings.Contains(said, meta) ||
		!strings.Contains(said, "events of other runs: announced again") {
		t.Errorf("status %d:\n%s", o.status, said)
	}
	want, err := journal.Open(w.data).All("first")
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	w.loses(func(e event.Envelope) bool {
		if e.Run == "first" {
			lost++
		}
		return true
	})
	if lost != len(want) || lost == 0 {
		t.Errorf("the server has %d events of the first run, and its journal %d", lost, len(want))
	}
}

// A run is removed, and the same command makes it again at once on the same server: what the server still knows of the
// first one is in nobody's way.
func TestARunThatWasRemovedIsMadeAgain(t *testing.T) {
	w := onServer(t)
	file := w.write("sources: [" + texts + "]\nstages:\n  tokenize: {}\n  shard: {sequence_length: 64}\n")
	command := []string{"run", "--preset", "nano", "--run", "r", file}
	w.must("pipeline", command...)
	before := w.manifest("r")
	for range 2 {
		w.must("pipeline", "runs", "rm", "--yes", "r")
		w.must("pipeline", command...)
		if after := w.manifest("r"); after != before {
			t.Errorf("made again, the run's manifest is %s, and was %s", after, before)
		}
	}
}
