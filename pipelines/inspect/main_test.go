package main

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/run/stage"
)

// sealed makes a dataset of texts and returns its manifest's path.
func sealed(t *testing.T, texts ...string) string {
	t.Helper()
	tok, info := datasettest.Tokenizer(t, "gpt2")
	batch := datasettest.Batch(t, info, datasettest.Texts(tok, "s", texts...))
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 16}, batch)
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(path, encoded, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInspect(t *testing.T) {
	manifest := sealed(t, "One text of some words.", "Two texts of other words, a longer one this time.", "Six")
	plots := t.TempDir()
	for want, args := range map[string][]string{
		"2 documents":           {manifest},
		"sequence 0 of":         {"-sequence", "0", manifest},
		"(row":                  {"-sequence", "0", "-split", "validation", manifest},
		"lengths.png":           {"-plots", plots, manifest},
		"source      s: 3 docu": {manifest},
	} {
		var out bytes.Buffer
		if err := run(args, &out); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v: %v, lacks %q:\n%s", args, err, want, out.String())
		}
	}
	for _, name := range []string{"lengths.png", "tokens.png"} {
		f, err := os.Open(filepath.Join(plots, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
	for _, bad := range [][]string{
		{}, {"nothing"}, {"-split", "test", manifest}, {"-sequence", "1000", manifest}, {"-sequence", "-7", manifest},
	} {
		if err := run(bad, new(bytes.Buffer)); err == nil {
			t.Errorf("%v works", bad)
		}
	}
}

// TestTimes: the times of all jobs that a dataset was made by are summed, and no others.
func TestTimes(t *testing.T) {
	manifest := sealed(t, "One text of some words.", "Two texts of other words.")
	dir := filepath.Dir(manifest)
	tokens := filepath.Join(filepath.Dir(dir), "tokens-of-"+filepath.Base(dir))
	if err := os.Mkdir(tokens, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, times := range map[string]stage.JobTimes{
		filepath.Join(dir, stage.TimesFile("dataset")): {Stage: "shard", Of: "dataset", Bytes: 9e6,
			Steps: []stage.StepTime{{Step: "write", CPU: 3, Wall: 4}}},
		filepath.Join(tokens, stage.TimesFile("s")): {Stage: "tokenize", Of: "s", Bytes: 5e6,
			Steps: []stage.StepTime{{Step: "decode", CPU: 1, Wall: 2}}},
		filepath.Join(tokens, "again.times.json"): {Stage: "tokenize", Of: "s", Bytes: 5e6,
			Steps: []stage.StepTime{{Step: "decode", CPU: 1, Wall: 2}}},
		filepath.Join(tokens, stage.TimesFile("other")): {Stage: "tokenize", Of: "other",
			Steps: []stage.StepTime{{Step: "decode", CPU: 100, Wall: 2}}},
	} {
		b, err := json.Marshal(times)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o755)
		}
		if err == nil {
			err = os.WriteFile(path, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := run([]string{manifest}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tokenize   decode              2.000        4.000            5.0\n",
		"shard      write               3.000        4.000            3.0\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, stage.TimesFile("dataset")), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{manifest}, &out); err == nil {
		t.Error("a damaged file of times is no error")
	}
}

// TestCounts: every document is counted once with its length, every target once.
func TestCounts(t *testing.T) {
	d, err := open(sealed(t, "One text of some words.", "Two texts of other words, a longer one this time.", "Six",
		strings.Repeat("Ten ", 40)))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	documents, tokens := 0, 0
	for _, s := range []*dataset.Split{d.Train, d.Validation} {
		c, err := count(d.Manifest, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range c.lengths {
			documents += n
		}
		for _, n := range c.tokens {
			tokens += n
		}
	}
	if want := int(d.Manifest.Splits.Train.Tokens + d.Manifest.Splits.Validation.Tokens); documents != 4 ||
		tokens != want {
		t.Errorf("%d documents and %d tokens, want 4 and %d", documents, tokens, want)
	}
}
