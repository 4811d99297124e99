package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCleanRemovesWhatTheProjectMade(t *testing.T) {
	w := newWorld(t)
	own := filepath.Join(w.data, "books", "mine.txt")
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.must("pipeline", "sample")
	if said := w.must("pipeline", "clean"); !strings.Contains(said, "would be removed") ||
		!strings.Contains(said, "stay: books") {
		t.Errorf("it says %q", said)
	}
	if _, err := os.Stat(filepath.Join(w.data, "sample")); err != nil {
		t.Errorf("removed without --yes: %v", err)
	}
	w.must("pipeline", "clean", "--yes")
	if left, err := filepath.Glob(filepath.Join(w.data, "*")); err != nil || len(left) != 1 ||
		left[0] != filepath.Dir(own) {
		t.Errorf("left: %v, %v", left, err)
	}

	if err := os.RemoveAll(w.data); err != nil {
		t.Fatal(err)
	}
	w.must("pipeline", "sample")
	w.must("pipeline", "clean", "--yes")
	if _, err := os.Stat(w.data); err == nil {
		t.Error("the directory is still there")
	}
}

func TestCleanLeavesOtherDirectoriesAlone(t *testing.T) {
	w := newWorld(t)
	pack := filepath.Join(w.data, "objects", "pack", "pack-1.idx")
	if err := os.MkdirAll(filepath.Dir(pack), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pack, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"sample"}, {"clean", "--yes"}} {
		if o := w.run("pipeline", args...); o.status == 0 || !strings.Contains(o.stderr, w.data) {
			t.Errorf("%v ended with status %d: %s", args, o.status, o.stderr)
		}
	}
	if _, err := os.Stat(pack); err != nil {
		t.Error(err)
	}
}

func TestCleanWaitsForAOneShot(t *testing.T) {
	w := newWorld(t)
	w.must("pipeline", "sample")
	books, err := filepath.Glob(filepath.Join(w.data, "sample", "*.parquet"))
	if err != nil || len(books) == 0 {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	w.must("tokenize", append(append([]string{"run", "--in"}, books...), "--out", out)...)
	batches, err := filepath.Glob(filepath.Join(out, "*.tokens.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	dataset := filepath.Join(w.data, "dataset")
	w.must("shard", append(append([]string{"run", "--in"}, batches...), "--out", dataset, "--sequence-length", "64")...)
	training := w.command("train", "run", "--in", filepath.Join(dataset, "manifest.json"), "--out", out, "--steps",
		"100000")
	log, err := training.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := training.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = training.Process.Kill(); _ = training.Wait() }()
	if _, err := log.Read(make([]byte, 1)); err != nil { // it has its inputs, and begins
		t.Fatal(err)
	}
	if o := w.run("pipeline", "clean", "--yes"); o.status != 1 || !strings.Contains(o.stderr, "in use") {
		t.Errorf("status %d: %s", o.status, o.stderr)
	}
	if _, err := os.Stat(books[0]); err != nil {
		t.Error(err)
	}
}
