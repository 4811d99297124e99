package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// batch writes texts as a token batch of a source.
func batch(t testing.TB, dir, source string, texts ...string) string {
	t.Helper()
	tok, err := tokenizer.New("gpt2")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := dataset.NewBatchWriter(&b,
		dataset.TokenizerInfo{Name: tok.Name(), Vocab: tok.Vocab(), EndOfText: tok.EndOfText()})
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		d := dataset.BatchDocument{ID: source + "#" + string(rune('a'+i)), Source: source, Row: int64(i),
			Bytes: int64(len(text))}
		if err := w.Append(d, tok.Encode(nil, []byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, source+".tokens.arrow")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(args ...string) int { return stage.Main(spec(), append([]string{"shard", "run"}, args...)) }

// TestDatasetWithReport seals two sources, one of which repeats the other, and reads the report.
func TestDatasetWithReport(t *testing.T) {
	dir := t.TempDir()
	a := batch(t, dir, "a", "It rains in Spain.", "It does not rain here, it pours.", "A third document | with a bar.")
	b := batch(t, dir, "b", "it  RAINS in spain.", "Something else altogether.")
	out := filepath.Join(dir, "out")
	if status := run("--in", a, b, "--out", out, "--sequence-length", "8", "--duplicates", "exact", "--validation-share",
		"0.3"); status != 0 {
		t.Fatal(status)
	}
	var facts report
	data, err := os.ReadFile(filepath.Join(out, "dataset.json"))
	if err == nil {
		err = json.Unmarshal(data, &facts)
	}
	if err != nil {
		t.Fatal(err)
	}
	if facts.Documents != 4 || facts.Duplicates.Exact != 1 || len(facts.Examples) != 1 ||
		facts.Examples[0].OfDocument != "a#a" {
		t.Errorf("%+v", facts)
	}
	if facts.Rows != 5 || len(facts.Sources) != 2 || facts.Sources[1].Name != "b" || facts.Sources[1].Documents != 2 ||
		facts.Sources[1].Tokens == 0 {
		t.Errorf("rows and sources: %+v", facts)
	}
	text, err := os.ReadFile(filepath.Join(out, "dataset.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"4 documents of 2 files", "| exact duplicates | 1 |",
		"| b#a | a#a | 1.00 | it RAINS in spain. |"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	for _, bad := range [][]string{{"--duplicates", "some"}, {"--mixture", "a"}, {"--similarity", "2"}} {
		if status := run(append(bad, "--in", a, "--out", out)...); status != 2 {
			t.Errorf("%v: exit status %d", bad, status)
		}
	}
}

func TestReportOfRefusedFiles(t *testing.T) {
	r := newReport([]event.TokensWritten{
		{Source: "good", Rows: 11, Documents: 7, Nulls: 2, Filtered: 1, Counted: 5, Miscounted: 1, Odd: 1,
			OddRows: []string{"line 3: not | JSON"}},
		{Source: "bad", Refused: "row group 3: the <file> is corrupt | truncated"},
	})
	text := string(r.markdown())
	for _, want := range []string{"| bad | row group 3: the &lt;file> is corrupt \\| truncated |", "| rows read | 11 |",
		"| that cannot be understood | 1 |", "| good | 1 | line 3: not \\| JSON |", "of 5 documents", "for 1 it is another"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

// TestKnownTexts: a dataset leaves out what an earlier one holds, says so, and depends on what that one's list holds
// and not on where it lies.
func TestKnownTexts(t *testing.T) {
	dir := t.TempDir()
	earlier, later, again := filepath.Join(dir, "earlier"), filepath.Join(dir, "later"), filepath.Join(dir, "again")
	a := batch(t, dir, "a", "It rains in Spain.", "It pours.")
	b := batch(t, dir, "b", "it  RAINS in spain.", "Something else altogether.", "And more.")
	if run("--in", a, "--out", earlier, "--duplicates", "exact") != 0 {
		t.Fatal("failed")
	}
	texts := filepath.Join(earlier, seal.TextsName)
	if run("--in", b, "--out", later, "--duplicates", "exact", "--known", texts) != 0 {
		t.Fatal("failed")
	}
	data, err := os.ReadFile(texts)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(dir, "moved")
	if err := os.WriteFile(moved, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if run("--in", b, "--out", again, "--duplicates", "exact", "--known", moved) != 0 {
		t.Fatal("failed")
	}
	for _, name := range []string{"manifest.json", "dataset.md", "dataset.json", "texts.digests"} {
		one, err1 := os.ReadFile(filepath.Join(later, name))
		two, err2 := os.ReadFile(filepath.Join(again, name))
		if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
			t.Errorf("%s differs where the list lies elsewhere (%v, %v)", name, err1, err2)
		}
	}
	report, err := os.ReadFile(filepath.Join(later, "dataset.md"))
	if err != nil {
		t.Fatal(err)
	}
	sum, _, err := digest.File(texts)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 documents of 1 files", "| texts of 1 earlier datasets | 1 |",
		"| b#a | texts " + digest.Short(sum) + " | 1.00 |"} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	for _, bad := range [][]string{
		{"--known", texts}, {"--duplicates", "exact", "--known", b},
		{"--duplicates", "exact", "--known", filepath.Join(dir, "none")},
		{"--duplicates", "exact", "--known", texts, "--known-digests", strings.Repeat("0", 64)}, {"--known-digests", sum},
	} {
		if run(append(bad, "--in", a, "--out", filepath.Join(dir, "bad"))...) == 0 {
			t.Errorf("%v works", bad)
		}
	}
}

// TestTimes: the times of the steps lie beside the dataset, and no part of the dataset changes with them.
func TestTimes(t *testing.T) {
	dir := t.TempDir()
	a := batch(t, dir, "a", "It rains in Spain.", "It pours.")
	var manifests [2][]byte
	for i := range manifests {
		out := filepath.Join(dir, string(rune('0'+i)))
		if run("--in", a, "--out", out, "--duplicates", "near") != 0 {
			t.Fatal("failed")
		}
		var times stage.JobTimes
		data, err := os.ReadFile(filepath.Join(out, stage.TimesFile("dataset")))
		if err == nil {
			err = json.Unmarshal(data, &times)
		}
		if err != nil {
			t.Fatal(err)
		}
		var steps []string
		for _, s := range times.Steps {
			steps = append(steps, s.Step)
			if s.Wall <= 0 || s.CPU < 0 {
				t.Errorf("%+v", s)
			}
		}
		if got := strings.Join(steps, " "); got != "index deduplicate mix write" || times.Stage != "shard" ||
			times.Bytes != 27 {
			t.Errorf("%+v", times)
		}
		if manifests[i], err = os.ReadFile(filepath.Join(out, "manifest.json")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(manifests[0], manifests[1]) {
		t.Error("the manifests differ")
	}
}
