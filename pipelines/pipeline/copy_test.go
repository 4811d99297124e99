package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The copy task is a source like any other: it is made on the spot, and a run over it is evaluated on what counts.
func TestCopyTask(t *testing.T) {
	w := newWorld(t)
	all := messages(w.must("pipeline", "run", "--json", "--source", "copy:symbols=8,length=6,steps=4",
		"--set", "tokenize.tokenizer=symbols-8", "--set", "shard.sequence_length=13", "--set", "shard.counted_targets=7,12",
		"--set", "train.d=16", "--set", "train.heads=2", "--set", "train.layers=1", "--set", "train.ff=16", "--set",
		"train.steps=4", "--set", "train.warmup=0",
		"--set", "train.batch_tokens=416", "--set", "train.micro_tokens=416", "--set", "probe.repeats=4",
		"pipelines/copy.yml"))
	if !slices.ContainsFunc(all, func(m message) bool {
		return m.Type == "note" &&
			strings.HasPrefix(m.Text, "train: checkpoint_every is 1000: the only checkpoint of the run's 4 steps")
	}) {
		t.Error("the launcher does not show what the trainer notes")
	}
	reports, err := filepath.Glob(filepath.Join(w.data, "runs", all[0].Run, "evaluate", "*_evaluation.json"))
	if err != nil || len(reports) != 1 {
		t.Fatalf("%d evaluations, %v", len(reports), err)
	}
	b, err := os.ReadFile(reports[0])
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Sequences int64    `json:"sequences"`
		Tokens    int64    `json:"tokens"`
		Accuracy  *float64 `json:"accuracy"`
	}
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	if report.Accuracy == nil || report.Sequences == 0 || report.Tokens != 5*report.Sequences {
		t.Errorf("the evaluation says %s", b)
	}
	if o := w.run("pipeline", "run", "--source", "copy:symbol=8", "pipelines/copy.yml"); o.status == 0 ||
		!strings.Contains(o.stderr, "the keys are symbols, length and steps") {
		t.Errorf("a mistaken source: %+v", o)
	}
}
