package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// A run makes every artifact, announces every event, learns something, and knows afterwards that it is finished.
func TestRun(t *testing.T) {
	w := newWorld(t)
	all := messages(w.must("pipeline", tiny()...))
	w.sameAsReference()

	kinds := map[string]int{}
	for _, m := range all {
		if m.Type == "event" {
			kinds[m.Event.Kind]++
		}
	}
	want := map[string]int{
		"run.started": 1, "source.added": 3, "tokens.written": 3, "shard.sealed": 2, "dataset.sealed": 1,
		"checkpoint.saved":  4,
		"training.finished": 1, "evaluation.written": 4, "probe.written": 4, "pack.written": 4, "text.written": 4,
		"run.finished": 1, "job.finished": 3 + 3 + 1 + 4*4,
	}
	for _, body := range event.Kinds() {
		if want[body.Kind()] == 0 && body.Kind() != (event.TasksScored{}).Kind() { // of tasks that the user has
			t.Errorf("%s is documented, and this test expects a whole run to announce none", body.Kind())
		}
	}
	// the last event may come too late to be shown
	if delete(kinds, "run.finished"); !maps.Equal(kinds, without(want, "run.finished")) {
		t.Errorf("events shown: %v, want %v", kinds, want)
	}
	if kept := w.history(all[0].Run); !maps.Equal(kept, want) {
		t.Errorf("events kept by the server: %v, want %v", kept, want)
	}
	learns(t, all[len(all)-1].Checkpoints)
	// the times of the data stages lie beside their outputs
	for name, want := range map[string]int{"tokenize": 3, "shard": 1} {
		if found, _ := filepath.Glob(filepath.Join(w.data, "runs", all[0].Run, name, stage.TimesFile("*"))); len(
			found) != want {
			t.Errorf("%d files of times of stage %s, want %d", len(found), name, want)
		}
	}

	again := messages(w.must("pipeline", tiny()...))
	for _, m := range again {
		if m.Type == "event" || m.Type == "progress" {
			t.Fatalf("a finished run does something: %+v", m)
		}
	}
	if !reflect.DeepEqual(again[len(again)-1].Checkpoints, all[len(all)-1].Checkpoints) {
		t.Error("the table of a finished run differs from the one it ended with")
	}
	w.reported(again[len(again)-1].Report)
}

// reported looks at the report of a run, and makes sure that a run without a report is no less finished.
func (w *world) reported(path string) {
	w.t.Helper()
	page, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(page), "pipeline run --json --preset nano") {
		w.t.Errorf("report %q: %v; it is to have the command that made the run", path, err)
	}
	folder := filepath.Dir(path)
	if err := os.RemoveAll(folder); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(folder, []byte("in the way"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if said := w.must("pipeline", tiny()...); !strings.Contains(said, "no report was written") {
		w.t.Errorf("a report that cannot be written: %s", tail(said))
	}
}

func without(m map[string]int, key string) map[string]int {
	m = maps.Clone(m)
	delete(m, key)
	return m
}

// history counts what the run's event server has on disk, by kind.
func (w *world) history(run string) map[string]int {
	w.t.Helper()
	server, err := bus.StartServer(filepath.Join(w.data, "nats"), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer server.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, err := bus.Connect(ctx, server.Address(), "test")
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	events, bad, err := b.History(ctx, run, "*.*", 0)
	if err != nil || bad > 0 {
		w.t.Fatalf("history: %d undecodable events, error %v", bad, err)
	}
	kinds := map[string]int{}
	for _, e := range events {
		kinds[e.Kind]++
	}
	return kinds
}

// learns checks that the loss falls from checkpoint to checkpoint.
func learns(t *testing.T, checkpoints []row) {
	t.Helper()
	if len(checkpoints) != 4 {
		t.Fatalf("%d checkpoints, want 4", len(checkpoints))
	}
	for i, c := range checkpoints {
		if i > 0 && c.BitsPerToken >= checkpoints[i-1].BitsPerToken {
			t.Errorf("bits per token rise from %g to %g at step %d", checkpoints[i-1].BitsPerToken, c.BitsPerToken, c.Step)
		}
		if c.PackBytes == 0 || c.BestHead == "" || c.UnigramEntropy < 3 || c.UnigramEntropy > 6 {
			t.Errorf("checkpoint %d: %+v lacks something", c.Step, c)
		}
	}
}

// Whichever stage is killed in the middle of its work, the run ends with the same artifacts.
func TestKilledStage(t *testing.T) {
	working := func(stage string, from int64) func(message) bool {
		return func(m message) bool {
			return m.Type == "progress" && m.Progress.Stage == stage && m.Progress.Done >= from
		}
	}
	announced := func(kind string) func(message) bool {
		return func(m message) bool { return m.Event.Kind == kind }
	}
	for stage, moment := range map[string]func(message) bool{
		"tokenize": announced("source.added"), "shard": announced("tokens.written"), "train": working("train", 30),
		"evaluate": working("evaluate", 1), "probe": working("probe", 1), "pack": announced("checkpoint.saved"),
		"generate": announced("pack.written"),
	} {
		t.Run(stage, func(t *testing.T) {
			var w *world
			var l *launched
			for pid := 0; pid == 0; { // unless the run has ended before the test came to it
				w = newWorld(t)
				l = w.start(tiny()...)
				l.until("the moment to kill "+stage, moment)
				w.eventually("the process of "+stage, func() bool {
					pid = l.children()[stage] // the sources may be announced before it has started
					return pid != 0 || l.hasEnded()
				})
				l.signal(pid, syscall.SIGKILL)
			}
			if o := l.wait(); o.status != 0 {
				t.Fatalf("status %d: %s", o.status, o.stderr)
			}
			w.sameAsReference()
		})
	}
}

// A launcher that is asked to end, or killed, takes all of its stages with it, and the next one continues.
func TestStoppedLauncher(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"interrupted": syscall.SIGINT, "terminated": syscall.SIGTERM,
		"killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			var children map[string]int
			var stopped time.Time
			w, l, _ := midTraining(t, newWorld, func(l *launched) {
				children, stopped = l.children(), time.Now()
				l.signal(l.cmd.Process.Pid, signal)
			})
			if len(children) != 7 {
				t.Fatalf("stages that run: %v, want seven", children)
			}
			o := l.wait()
			if signal != syscall.SIGKILL && (o.status != 1 || !strings.Contains(o.stderr, "the same command continues")) {
				t.Errorf("status %d and %q, want 1 and how to continue", o.status, o.stderr)
			}
			w.eventually("the end of all stages", func() bool { return len(alive(children)) == 0 })
			state := map[bool]string{false: `"state":"paused"`, true: `"state":"crashed"`}[signal == syscall.SIGKILL]
			if list := w.must("pipeline", "runs", "--json"); !strings.Contains(list, state) {
				t.Errorf("want %s of\n%s", state, list)
			}
			t.Logf("everything had ended after %s", time.Since(stopped).Round(10*time.Millisecond))
			w.must("pipeline", tiny()...)
			w.sameAsReference()
			if list := w.must("pipeline", "runs", "--json"); !strings.Contains(list, `"state":"finished"`) {
				t.Errorf("a run that went on to its end is not finished:\n%s", list)
			}
		})
	}
}

// After the run has ended its stages work on the old checkpoints again, with no event server and no training.
func TestRerun(t *testing.T) {
	w := newWorld(t)
	all := messages(w.must("pipeline", tiny()...))
	run := all[0].Run
	for _, stage := range []string{"probe", "evaluate", "pack"} {
		recorded := w.must(stage, "run", "--run", run, "--checkpoint", "all")
		if n := strings.Count(recorded, "made before"); n != 4 {
			t.Errorf("%s: %d answers from the record, want 4:\n%s", stage, n, recorded)
		}
		forced := w.must(stage, "run", "--run", run, "--checkpoint", "best", "--force")
		if strings.Contains(forced, "made before") || strings.Count(forced, "step-000080") == 0 {
			t.Errorf("%s --force: %s", stage, forced)
		}
	}
	w.sameAsReference()
	w.otherParameters(run)
	if o := w.run("probe", "run", "--run", run, "--checkpoint", "21"); o.status != 1 ||
		!strings.Contains(o.stderr, "[20 40 60 80]") {
		t.Errorf("a checkpoint that is not there: status %d, %s", o.status, o.stderr)
	}
	if o := w.run("probe", "run", "--run", run[:len(run)-1]); o.status != 1 || !strings.Contains(o.stderr, run) {
		t.Errorf("a run that is not there: status %d, %s", o.status, o.stderr)
	}
}

// The one-shot forms make of files what the run made of events.
func TestOneShot(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	sources, err := filepath.Glob(texts)
	if err != nil || len(sources) != 3 {
		t.Fatalf("sources %v, error %v", sources, err)
	}
	at := func(path ...string) string { return filepath.Join(append([]string{dir}, path...)...) }
	w.must("tokenize", append(append([]string{"run", "--preset", "nano", "--in"}, sources...), "--out", at("tokens"))...)
	batches, _ := filepath.Glob(at("tokens", "*.arrow"))
	w.must("shard", append(append([]string{"run", "--preset", "nano", "--sequence-length", "64", "--in"}, batches...),
		"--out", at("dataset"))...)
	w.must("train", "run", "--in", at("dataset", "manifest.json"), "--out", at("model"),
		"--d", "32", "--layers", "2", "--heads", "2", "--ff", "64", "--steps", "80", "--warmup", "5", "--batch-tokens",
		"1024", "--micro-tokens", "512",
		"--checkpoint-every", "20", "--preset", "nano")
	last := at("model", "step-000080.safetensors")
	for _, stage := range []string{"evaluate", "probe"} {
		w.must(stage, "run", "--in", last, "--dataset", at("dataset", "manifest.json"), "--out", at(stage))
	}
	w.must("pack", "run", "--in", last, "--out", at("packed"))
	for _, path := range []string{
		"evaluate/step-000080_evaluation.json", "probe/step-000080_pointer_health.json", "probe/step-000080_induction.json",
		"packed/step-000080.bit2",
	} {
		if _, err := os.Stat(at(path)); err != nil {
			t.Error(err)
		}
	}
	piped := newWorld(t)
	piped.must("pipeline", tiny()...)
	one, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	matches, _ := filepath.Glob(filepath.Join(piped.data, "runs", "*", "train", "step-000080.safetensors"))
	other, err := os.ReadFile(matches[0])
	if err != nil {
		t.Fatal(err)
	}
	if string(one) != string(other) {
		t.Error("one-shot training and the pipeline's end with different checkpoints")
	}
}

// A user's own stage takes part in a run, and works on old runs as well.
func TestOwnStage(t *testing.T) {
	w := newWorld(t)
	args := tiny()
	args[len(args)-1] = "docs/examples/v76-continue.yml"
	all := messages(w.must("pipeline", args...))
	written := 0
	for _, m := range all {
		if m.Event.Kind == "continuation.written" {
			written++
		}
	}
	for _, c := range all[len(all)-1].Checkpoints {
		if c.Continued == nil || *c.Continued < 0 || *c.Continued > 1 {
			t.Errorf("checkpoint %d: the stage's own column is not in the table", c.Step)
		}
	}
	if written != 4 {
		t.Errorf("%d texts are announced, want one for each checkpoint", written)
	}
	made, _ := filepath.Glob(filepath.Join(w.data, "runs", "*", "continue", "step-*_text.json"))
	if len(made) != 4 {
		t.Errorf("texts: %v", made)
	}

	old := newWorld(t)
	run := messages(old.must("pipeline", tiny()...))[0].Run
	if out := old.must("continue", "run", "--run", run, "--prompt", "60"); !strings.Contains(out,
		"step-000080_text.json") {
		t.Errorf("over an old run: %s", out)
	}
	if other := old.table(run).Others; len(other) != 1 || other[0].Step != 80 || other[0].Continued == nil {
		t.Errorf("its number with another prompt stands nowhere in the old run's table: %+v", other)
	}
}
