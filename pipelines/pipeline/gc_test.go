package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
)

// kept makes files of a data directory by hand: objects, events and records.
type kept struct {
	*world
	journal.Journal
}

func newKept(t *testing.T) *kept {
	w := newWorld(t)
	return &kept{w, journal.Open(w.data)}
}

func (k *kept) file(path, content string) {
	k.t.Helper()
	path = filepath.Join(k.data, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		k.t.Fatal(err)
	}
}

// object makes an artifact.
func (k *kept) object(content string) artifact.Ref {
	k.t.Helper()
	ref := artifact.Ref{Digest: digest.Bytes([]byte(content)), Kind: "thing", Name: "thing", Size: int64(len(content))}
	k.file(filepath.Join("objects", ref.Digest[:2], ref.Digest), content)
	return ref
}

func (k *kept) has(ref artifact.Ref) bool {
	_, err := os.Stat(artifact.ObjectPath(k.data, ref.Digest))
	return err == nil
}

// found announces what the job with a key found.
func (k *kept) found(run, key string, body event.Body) {
	k.t.Helper()
	e, err := event.New(run, "test", key, event.Part{}, body)
	if err == nil {
		_, err = k.Write(e)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// begin begins a run with parameters of train.
func (k *kept) begin(run, train string) {
	k.t.Helper()
	d := definition.Definition{Name: "p", Preset: "nano", Seed: 1,
		Stages: map[string]json.RawMessage{"train": json.RawMessage(train)}}
	b, err := d.Encode()
	if err != nil {
		k.t.Fatal(err)
	}
	k.found(run, "", event.RunStarted{Pipeline: "p", Definition: k.object(string(b)), Stages: []string{"train"}})
}

// runs rm removes a run, unless a program uses the data directory. Then gc frees the artifacts that no other run names,
// and no others.
func TestRemovedRunsAndWhatIsFreed(t *testing.T) {
	k := newKept(t)
	k.begin("a", `{"steps":600,"seed":1}`)
	k.begin("b", `{"steps":900,"seed":1,"alibi":false}`)
	shard, base, orphan := k.object("a shard"), k.object("a base"), k.object("nobody's")
	both, only, unfinished := k.object("both runs'"), k.object("only b's"), k.object("of an unfinished job")
	manifest := k.object(`{"shards":["` + shard.Digest + `"]}`)
	job := digest.Bytes([]byte("job"))
	k.file(filepath.Join("jobs", job[:2], job, "record.msgpack"), "params init_digest "+base.Digest)
	k.file(filepath.Join("jobs", "00", "0000", "partial", "000000.msgpack"), "output "+unfinished.Digest)
	k.found("a", job, event.CheckpointSaved{Step: 1, Model: both, Manifest: manifest})
	k.found("b", job, event.CheckpointSaved{Step: 1, Model: both, State: only, Manifest: manifest})

	gc := func(flags ...string) string {
		return k.must("pipeline", append([]string{"gc", "--data", k.data}, flags...)...)
	}
	if said := gc(); !strings.HasPrefix(said, "1 artifact, 8 bytes that no run names") || !k.has(orphan) {
		t.Errorf("without --yes: %s", said)
	}
	if said := gc("--yes"); !strings.Contains(said, "1 artifact, ") || k.has(orphan) {
		t.Errorf("with --yes: %s", said)
	}
	k.refuses(1, []string{"--yes"}, "pipeline", "runs", "rm", "--data", k.data, "b")
	k.refuses(1, []string{"did you mean b"}, "pipeline", "runs", "rm", "--data", k.data, "--yes", "b1")
	k.inUse(func() {
		k.refuses(1, []string{"in use"}, "pipeline", "runs", "rm", "--data", k.data, "--yes", "b")
		k.refuses(1, []string{"in use"}, "pipeline", "gc", "--data", k.data, "--yes")
	})
	if runs, err := k.Runs(); err != nil || len(runs) != 2 {
		t.Fatalf("%v, %v", runs, err)
	}
	k.must("pipeline", "runs", "--data", k.data, "rm", "--yes", "b")
	if runs, err := k.Runs(); err != nil || len(runs) != 1 || runs[0] != "a" {
		t.Errorf("%v, %v", runs, err)
	}
	if said := gc("--yes", "--json"); !strings.Contains(said, `"artifacts":2`) { // its definition and its state
		t.Errorf("after run b is removed: %s", said)
	}
	for name, ref := range map[string]artifact.Ref{"shard": shard, "base": base, "both": both, "unfinished": unfinished,
		"manifest": manifest} {
		if !k.has(ref) {
			t.Errorf("%s is gone", name)
		}
	}
	if k.has(only) {
		t.Error("what only run b had made is still there")
	}
}

// gc --keep-checkpoints frees the checkpoints of finished runs, except for the last, the best and those that other runs
// need.
func TestCheckpointsThatAreFreed(t *testing.T) {
	k := newKept(t)
	k.begin("fin", `{"steps":4}`)
	var models, states []artifact.Ref
	for i, bits := range []float64{3, 2, 4, 5, 6} {
		models = append(models, k.object(fmt.Sprint("model ", i)))
		states = append(states, k.object(fmt.Sprint("state ", i)))
		saved := event.CheckpointSaved{Step: i, Model: models[i], State: states[i], ValidationBits: bits}
		if i == 0 {
			saved.ValidationBits, saved.Blend = 1, 0.5 // the lowest, and not of ±1
		}
		k.found("fin", "", saved)
		k.found("fin", "", event.PackWritten{Step: i, Model: models[i]})
	}
	k.found("fin", "", event.RunFinished{})
	links := t.TempDir() // as in the folder of a run
	for name, ref := range map[string]artifact.Ref{"step-000000.safetensors": models[0],
		"step-000000.state.safetensors": states[0]} {
		if err := os.Symlink(artifact.ObjectPath(k.data, ref.Digest), filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	k.begin("open", `{"steps":9}`)
	k.file(filepath.Join("runs", "open", "launcher", "definition.json"), fmt.Sprintf(
		`{"init_state":true,"init":%q}`, filepath.Join(links, "step-000000.safetensors")))
	tuning := digest.Bytes([]byte("tuning"))
	k.begin("tuned", `{"steps":7}`)
	k.found("tuned", tuning, event.TrainingFinished{Steps: 7})
	k.found("tuned", "", event.RunFinished{})
	k.file(filepath.Join("jobs", tuning[:2], tuning, "record.msgpack"), fmt.Sprintf(
		`params {"init_digest":%q,"init_state":true,"init_state_digest":%q}`, models[2].Digest, states[2].Digest))

	if said := k.must("pipeline", "gc", "--data", k.data, "--yes"); said != "0 artifacts, 0 bytes: nothing to remove\n" {
		t.Errorf("without --keep-checkpoints: %s", said)
	}
	k.must("pipeline", "gc", "--data", k.data, "--yes", "--keep-checkpoints", "1")
	for i, want := range []struct{ model, state bool }{{true, true}, {true, true}, {true, true}, {false, false},
		{true, true}} {
		if k.has(models[i]) != want.model || k.has(states[i]) != want.state {
			t.Errorf("checkpoint %d: model %v, state %v, want %+v", i, k.has(models[i]), k.has(states[i]), want)
		}
	}
	k.refuses(1, []string{"step 3", "choose another"}, "pack", "run", "--data", k.data, "--run", "fin", "--checkpoint",
		"3")
	k.refuses(2, []string{"--keep-checkpoints"}, "pipeline", "gc", "--data", k.data, "--keep-checkpoints", "-1")
}

// inUse does something while a program uses the data directory.
func (k *kept) inUse(do func()) {
	k.t.Helper()
	f, err := os.Open(filepath.Join(k.data, ".bitnet1-data"))
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		k.t.Fatal(err)
	}
	do()
}

// The list says in what state runs are and in what they differ; two of them can be compared.
func TestListOfRuns(t *testing.T) {
	k := newKept(t)
	if said := k.must("pipeline", "runs"); !strings.Contains(said, "no runs in") {
		t.Errorf("%s", said)
	}
	k.begin("done", `{"steps":600,"seed":1,"kshift_layers":[0,2]}`)
	k.begin("paused", `{"steps":900,"seed":1}`)
	k.begin("failed", `{"steps":600,"seed":5}`)
	k.begin("mended", `{"steps":600,"seed":5}`)
	k.begin("working", `{"steps":600,"seed":5}`)
	k.found("done", "", event.RunFinished{})
	k.found("failed", "", event.JobFinished{Listener: "train", Input: "i", Outcome: event.Failed, At: 1, Cause: "no room"})
	k.found("mended", "", event.JobFinished{Listener: "train", Input: "i", Outcome: event.Failed, At: 1})
	k.found("mended", "", event.JobFinished{Listener: "train", Input: "i", Outcome: event.Done})
	for i, run := range []string{"done", "paused"} {
		k.found(run, "", event.CheckpointSaved{Step: 10, ValidationBits: 5})
		k.found(run, "", event.CheckpointSaved{Step: 20, ValidationBits: 4 - float64(i)})
	}
	k.file(overview.LockName, "working\n")
	lock, err := os.Open(filepath.Join(k.data, overview.LockName))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	said := k.must("pipeline", "runs")
	states := map[string]string{"done": "finished", "paused": "paused", "failed": "failed", "mended": "paused",
		"working": "running"}
	for line := range strings.Lines(said) {
		if words := strings.Fields(line); states[words[0]] != "" {
			if words[1] != states[words[0]] {
				t.Errorf("run %s is %s", words[0], words[1])
			}
			delete(states, words[0])
		}
	}
	if len(states) > 0 {
		t.Errorf("the list lacks %v:\n%s", states, said)
	}
	for _, want := range []string{"kshift_layers  seed  steps\n", "  4.000 validation at 20", "  3.000 validation at 20",
		" 0,2 "} {
		if !strings.Contains(said, want) {
			t.Errorf("the list lacks %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "preset") {
		t.Errorf("the list shows what is the same in all runs:\n%s", said)
	}
	said = k.must("pipeline", "runs", "--diff", "done", "paused")
	for _, want := range []string{"train.steps           600     900", "validation", "4.000   3.000"} {
		if !strings.Contains(said, want) {
			t.Errorf("the comparison lacks %q:\n%s", want, said)
		}
	}
	if said := k.must("pipeline", "runs", "failed"); !strings.Contains(said, "1 job failed:\n  train: no room\n") {
		t.Errorf("a run does not say why it failed:\n%s", said)
	}
	if said := k.must("pipeline", "runs", "mended"); strings.Contains(said, "failed") {
		t.Errorf("a run speaks of a failure that is mended:\n%s", said)
	}
	k.refuses(2, []string{"--diff A B"}, "pipeline", "runs", "--diff", "done")
	k.refuses(1, []string{"there is no run nix"}, "pipeline", "runs", "--diff", "done", "nix")
}
