package stage

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// looked makes a run "r" of two checkpoints of one dataset, and files of another one.
func looked(t *testing.T) (w *harness, in []string, dataset string) {
	t.Helper()
	w = newHarness(t)
	own := w.store("own")
	for step, text := range []string{"first", "second"} {
		w.announce("r", event.Part{}, event.CheckpointSaved{Step: step + 1, Model: w.store(text), Manifest: own})
	}
	dataset = filepath.Join(t.TempDir(), "manifest.json")
	writeFile(t, dataset, "other")
	return w, []string{"--in", dataset}, dataset
}

// Every flag of every stage changes something in the forms that are listed here, and the others refuse it by its name.
func TestEveryFlagIsUsedOrRefused(t *testing.T) {
	w, in, dataset := looked(t)
	used := map[string]struct {
		value string
		forms string
	}{
		"in": {"", "files"}, "out": {"x", "files"}, "run": {"r", "over"}, "data": {w.data, "over"}, "bucket": {"", "over"},
		"dataset": {dataset, "files over"}, "checkpoint": {"all", "over"}, "since": {"1h", "over"}, "every": {"1", "over"},
		"threads": {"1", "files over"}, "device": {"cpu", "files over"}, "deadline": {"1h", "files over"},
		"log-level": {"debug", "files over"}, "json": {"true", "files over"}, "force": {"true", "files over"},
	}
	for _, f := range looks(t) {
		name := f.Names()[0]
		u, known := used[name]
		if !known {
			t.Errorf("--%s: say in this test which form uses it", name)
		}
		for form, args := range map[string][]string{
			"files": append(append([]string{"run"}, in...), "--dataset", dataset, "--out", filepath.Join(t.TempDir(), "out")),
			"over":  {"run", "--run", "r"},
		} {
			if name == "in" || name == "run" || name == "out" && form == "files" {
				continue // what makes the form
			}
			status, _, stderr := w.run("look", append(args, "--"+name+"="+u.value)...)
			if strings.Contains(u.forms, form) {
				if status != command.Done {
					t.Errorf("%s: --%s ended with status %d: %s", form, name, status, stderr)
				}
				continue
			}
			if status != command.Usage || !strings.Contains(stderr, "--"+name) {
				t.Errorf("%s: --%s, which does nothing there, ended with status %d: %s", form, name, status, stderr)
			}
		}
	}
	// shout answers no checkpoints, reads no dataset and computes nothing.
	w.sources("r", "one")
	for _, name := range []string{"dataset", "checkpoint", "threads", "device"} {
		status, _, stderr := w.run("shout", "run", "--run", "r", "--"+name, "x")
		if status != command.Usage || !strings.Contains(stderr, "shout does not take --"+name) {
			t.Errorf("shout --%s ended with status %d: %s", name, status, stderr)
		}
	}
}

// looks are the flags of look's one-shot form but its parameters.
func looks(t *testing.T) (flags []cli.Flag) {
	t.Helper()
	keys := map[string]bool{"trace": true, "mode": true, "times": true, "release": true, "only": true, "layers": true}
	for _, f := range look().runFlags() {
		if !keys[f.Names()[0]] {
			flags = append(flags, f)
		}
	}
	return flags
}

// A rerun over a run's checkpoints on another dataset is a result of its own, and does not take the run's place.
func TestAnotherDatasetStandsBesideTheRunsOwn(t *testing.T) {
	w, _, dataset := looked(t)
	for _, args := range [][]string{{}, {"--dataset", dataset}, {"--dataset", dataset, "--checkpoint", "1"}} {
		if status, _, stderr := w.run("look", append([]string{"run", "--run", "r"}, args...)...); status != command.Done {
			t.Fatalf("%v: status %d: %s", args, status, stderr)
		}
	}
	if got := w.text("r", "look", "seen.txt"); got != "seen: own" {
		t.Errorf("the run's own result is %q", got)
	}
	events, err := journal.Open(w.data).Read("r", event.PackWritten{}.Kind())
	if err != nil {
		t.Fatal(err)
	}
	var own, other int
	for _, e := range events {
		switch e.Overrides["look.dataset"] {
		case "":
			own++
		case digest.Short(digest.Bytes([]byte("other"))):
			other++
		}
	}
	if own != 1 || other != 2 {
		t.Errorf("%d results on the run's own dataset and %d on the other, want 1 and 2", own, other)
	}
	// The run's own manifest is no other dataset.
	path := filepath.Join(t.TempDir(), "manifest.json")
	writeFile(t, path, "own")
	status, stdout, stderr := w.run("look", "run", "--run", "r", "--dataset", path)
	if status != command.Done || !strings.Contains(stdout, "made before") {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
	status, _, stderr = w.run("look", "run", "--run", "r", "--dataset", "/no/such/file")
	if status != command.Failed || !strings.Contains(stderr, "/no/such/file") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

// Several datasets have results each: over a run beside its own, and of files in a folder for each dataset, which has
// the name of the manifest's folder.
func TestSeveralDatasets(t *testing.T) {
	w, _, _ := looked(t)
	dir := t.TempDir()
	manifests := map[string]string{"books": filepath.Join(dir, "books", "data", "manifest.json"),
		"law": filepath.Join(dir, "law", "data", "manifest.json")}
	in := []string{"run", "--in", filepath.Join(dir, "model"), "--out", filepath.Join(dir, "out")}
	writeFile(t, filepath.Join(dir, "model"), "model")
	over := []string{"run", "--run", "r"}
	for _, name := range []string{"books", "law", "books"} { // the same one twice is one
		if err := os.MkdirAll(filepath.Dir(manifests[name]), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, manifests[name], name)
		in, over = append(in, "--dataset", manifests[name]), append(over, "--dataset", manifests[name])
	}
	for _, args := range [][]string{in, over} {
		if status, _, stderr := w.run("look", args...); status != command.Done {
			t.Fatalf("%v: status %d: %s", args, status, stderr)
		}
	}
	for name := range manifests {
		b, err := os.ReadFile(filepath.Join(dir, "out", name, "seen.txt"))
		if err != nil || string(b) != "seen: "+name {
			t.Errorf("on %s: %q, %v", name, b, err)
		}
	}
	events, err := journal.Open(w.data).Read("r", event.PackWritten{}.Kind())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range events {
		seen[e.Overrides["look.dataset"]]++
	}
	if len(events) != 2 || len(seen) != 2 || seen[digest.Short(digest.Bytes([]byte("law")))] != 1 {
		t.Errorf("%d results over the run: %v", len(events), seen)
	}
}

func TestFoldersOfDatasets(t *testing.T) {
	for _, c := range []struct{ manifests, want []string }{
		{[]string{"a/manifest.json"}, []string{"a"}},
		{[]string{"/x/a/manifest.json", "/y/b/manifest.json"}, []string{"a", "b"}},
		{[]string{"/runs/A/shard/manifest.json", "/runs/B/shard/manifest.json"}, []string{"A", "B"}},
		{[]string{"/x/a/manifest.json", "/y/a/manifest.json", "/z/b/manifest.json"}, []string{"x", "y", "z"}},
		{[]string{"/x/one.json", "/x/two.json"}, []string{"1", "2"}},
	} {
		if got := foldersOf(c.manifests); !slices.Equal(got, c.want) {
			t.Errorf("%v have the folders %v, want %v", c.manifests, got, c.want)
		}
	}
}

// A slip of the keyboard in --threads is refused before anything is computed, and 0 is one a processor.
func TestThreads(t *testing.T) {
	w, in, dataset := looked(t)
	for given, want := range map[string]int{
		"-1": command.Usage, "100000": command.Usage, "0": command.Done, "3": command.Done,
	} {
		args := append(append([]string{"run"}, in...), "--dataset", dataset, "--out", t.TempDir(), "--threads", given)
		status, _, stderr := w.run("look", args...)
		if status != want || want == command.Usage && !strings.Contains(stderr, "--threads "+given+": use 1 to ") {
			t.Errorf("--threads %s ended with status %d: %s", given, status, stderr)
		}
	}
}

// A job is told the flags of its host. A stage without these flags has the whole machine.
func TestHost(t *testing.T) {
	all, none := runtime.NumCPU(), Spec[testParams, event.SourceAdded]{}
	heeds := none
	heeds.Threads, heeds.Device, heeds.Devices = true, true, true
	for _, c := range []struct {
		spec  Spec[testParams, event.SourceAdded]
		flags string
		want  Host
	}{
		{none, "", Host{Threads: all, Device: "auto"}}, {heeds, "", Host{Threads: all, Device: "auto"}},
		{heeds, "--threads 0 --device cuda:1", Host{Threads: all, Device: "cuda:1"}},
		{heeds, "--threads 7 --devices cpu,cpu", Host{Threads: 7, Device: "auto", Devices: "cpu,cpu"}},
	} {
		var got Host
		app := &cli.App{Flags: c.spec.flags(), Action: func(c *cli.Context) error { got = hostOf(c); return nil }}
		if err := app.Run(append([]string{"stage"}, strings.Fields(c.flags)...)); err != nil || got != c.want {
			t.Errorf("%q: %+v, want %+v (%v)", c.flags, got, c.want, err)
		}
	}
}
