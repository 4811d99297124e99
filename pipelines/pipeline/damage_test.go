package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// Every kind of damage to a run is named in an error, and the command or flag that the error advises mends it.
func TestDamageIsNamedSkippedAndMended(t *testing.T) {
	w := newWorld(t)
	w.must("pipeline", tiny("--run", "r")...)
	before := w.must("pipeline", "runs", "r")
	damage := func(pattern string) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(w.data, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		path, err := filepath.EvalSymlinks(found[len(found)-1])
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	step := func(what string, args []string, status int, words ...string) {
		t.Helper()
		o := w.run(args[0], args[1:]...)
		if o.status != status {
			t.Fatalf("%s: %v ended with status %d, want %d: %s", what, args, o.status, status, o.stdout+o.stderr)
		}
		for _, word := range words {
			if !strings.Contains(o.stdout+o.stderr, word) {
				t.Errorf("%s: %v does not say %q: %s", what, args, word, o.stdout+o.stderr)
			}
		}
	}
	again := append([]string{"pipeline"}, tiny("--run", "r")...)
	evaluate := []string{"evaluate", "run", "--run", "r"}

	damage("runs/r/launcher/definition.json")
	step("definition", evaluate, 1, "definition of run r is lost or damaged", "pipeline run")
	step("definition", again, 0)
	step("definition", evaluate, 0)

	path := damage("runs/r/events/run.started/*")
	step("run.started", []string{"pipeline", "runs"}, 0, path)
	step("run.started", evaluate, 0)
	step("run.started", again, 0, "finished before")
	step("run.started", []string{"pipeline", "runs"}, 0, "\nr    finished")

	path = damage("runs/r/events/evaluation.written/*")
	step("event", []string{"pipeline", "runs", "r"}, 0, path, "is left out")
	step("event", append(evaluate, "--checkpoint", "all"), 0)

	damage("runs/r/train/step-000080.safetensors")
	step("checkpoint", append(evaluate, "--force"), 1, "digest differs", "rerun the stage that made it with --force")
	step("checkpoint", []string{"train", "run", "--run", "r", "--force"}, 0)
	step("checkpoint", append(evaluate, "--force"), 0)

	// A finished run whose events run.finished are damaged is finished again.
	damage("runs/r/events/run.finished/*")
	damage("runs/r/events/job.finished/*")
	step("end", again, 0)
	if after := w.must("pipeline", "runs", "r"); after != before {
		t.Errorf("the table was\n%sand is\n%s", before, after)
	}
	// An event with a wrong shape does not disturb stages that do not read it.
	raw, err := event.Marshal(map[string]any{"step": "eighty"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Wrap("r", "colour", "", event.Part{}, event.EvaluationWritten{}.Kind(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(w.data).Write(e); err != nil {
		t.Fatal(err)
	}
	step("wrong field", []string{"pipeline", "runs"}, 0, "\nr    finished")
}
