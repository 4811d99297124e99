package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/measure/runtest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
)

var load = flag.Bool("load", false, "measure what a large data directory takes, and print it as Markdown")

// TestManyRuns lists and searches a data directory of many runs, and asserts nothing about time. With -load there are
// 1,000 runs with 10 checkpoints each, and what it measures is printed for docs/scale.md. The view has its own.
func TestManyRuns(t *testing.T) {
	runs, checkpoints := 30, 2
	if *load {
		runs, checkpoints = 1000, 10
	}
	w := newWorld(t)
	name := func(i int) string { return fmt.Sprintf("run-%04d", i) }
	for i := range runs {
		runtest.Write(t, w.data, runtest.Run{Name: name(i), Points: 50, Checkpoints: checkpoints, Finished: true,
			Seed: uint64(i), Rate: float64(1+i%7) / 1000, Started: int64(i+1) * 1e6})
		for c := range checkpoints {
			w.recorded(name(i), c)
		}
	}
	last := name(runs - 1)
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"runs"}, []string{name(0), last, "finished", "learning_rate"}},
		{[]string{"runs", last}, []string{"bits/token"}},
		{[]string{"runs", "--diff", name(0), last}, []string{"learning_rate"}},
		{[]string{"lineage", digest.Bytes([]byte(last + " 1"))}, []string{"train"}},
		{[]string{"gc"}, []string{"0 artifacts"}},
	} {
		begun := time.Now()
		said := w.must("pipeline", c.args...)
		w.took("pipeline "+c.args[0], begun)
		for _, text := range c.says {
			if !strings.Contains(said, text) {
				t.Errorf("pipeline %s does not say %q:\n%s", strings.Join(c.args, " "), text, tail(said))
			}
		}
	}
}

func (w *world) took(what string, since time.Time) {
	if *load {
		fmt.Printf("| %s | %.2f |\n", what, time.Since(since).Seconds())
	}
}

// recorded writes the record of a job that made an artifact of a run, as a stage leaves it, and the artifact.
func (w *world) recorded(run string, i int) {
	w.t.Helper()
	content := fmt.Sprintf("%s %d", run, i)
	ref := artifact.Ref{Digest: digest.Bytes([]byte(content)), Kind: "checkpoint", Name: fmt.Sprint("model-", i),
		Size: int64(len(content))}
	body, err := event.Marshal(event.CheckpointSaved{Step: i, Model: ref})
	if err != nil {
		w.t.Fatal(err)
	}
	key := digest.Bytes([]byte("job of " + content))
	b, err := event.Marshal(record.Record{Stage: "train", Key: key, Params: "{}", Inputs: []string{digest.Bytes(nil)},
		Outputs: []record.Output{{Kind: event.CheckpointSaved{}.Kind(), Body: body}}})
	if err != nil {
		w.t.Fatal(err)
	}
	announced, err := event.Wrap(run, "train", key, event.Part{}, event.CheckpointSaved{}.Kind(), body)
	if err != nil {
		w.t.Fatal(err)
	}
	said, err := announced.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	for path, content := range map[string][]byte{
		artifact.ObjectPath(w.data, ref.Digest):                                               []byte(content),
		filepath.Join(w.data, "jobs", key[:2], key, "record.msgpack"):                         b,
		filepath.Join(w.data, "runs", run, "events", announced.Kind, announced.ID+".msgpack"): said,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil { // not synced: thousands would take minutes
			w.t.Fatal(err)
		}
	}
}
