package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/pipelines/experiment/seeds"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/resultsfile"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every cell is run with every seed. The table has means, says which differ from the best by more than chance, and
// leaves out what a seed that failed would have shown; the CSV has every run.
func TestSeeds(t *testing.T) {
	data, programs := t.TempDir(), standIns(t)
	said, err := run(t, "grid", "--name", "s", "--programs", programs, "--data", data, "--seeds", "1,2,3",
		"--grid", "train.alibi=false,true", "--grid", "train.stream_bits=1,4,3", "p.yml")
	if err == nil || !strings.Contains(err.Error(), "alibi=true stream_bits=3 seed=2") {
		t.Errorf("error %v does not name the runs that failed", err)
	}
	out := filepath.Join(data, "experiments", "s")
	markdown := readFile(t, filepath.Join(out, "s.md"))
	for _, want := range []string{
		"| alibi | stream_bits | seeds | bits/token | median | top head | IPMR |",
		"| false | 1 | 3 | **3.520 ± 0.006** | 3.520 | H11 | 25.0 % |",
		"| false | 4 | 3 | 3.540 ± 0.012 | 3.540 | H11 | 25.0 % |", // 0.02 ± 0.01 above, by seed
		"| true | 1 | 3 | 4.020 ± 0.006 * | 4.020 |",
		"| true | 3 | 0 |  |  |  |  |",
		"- `*`: differs from the column's best of several seeds by more than chance",
	} {
		if !strings.Contains(markdown, want) {
			t.Errorf("it lacks %s:\n%s", want, markdown)
		}
	}
	if want := "true   4                3  4.040 ± 0.012 *   4.040  H11       25.0 %\n"; !strings.Contains(said, want) {
		t.Errorf("the screen lacks %s:\n%s", want, said)
	}
	csv := readFile(t, filepath.Join(out, "s.csv"))
	begin := "alibi,stream_bits,seed,run,step,bits/token,top head,IPMR\nfalse,1,1,off-1,20,3.51,H11,0.25\n"
	if !strings.HasPrefix(csv, begin) ||
		strings.Count(csv, "\n") != 1+2*3*3 {
		t.Errorf("CSV:\n%s", csv)
	}
	if info, err := os.Stat(filepath.Join(out, "s.png")); err != nil || info.Size() == 0 {
		t.Errorf("picture: %v", err)
	}
	// Compared with a row of the user's, the others are marked that differ from it, better or worse.
	if _, err := run(t, "grid", "--name", "b", "--programs", programs, "--data", data, "--seeds", "1,2,3", "--baseline",
		"true", "--grid", "train.alibi=true,false", "p.yml"); err != nil {
		t.Fatal(err)
	}
	markdown = readFile(t, filepath.Join(data, "experiments", "b", "b.md"))
	if !strings.Contains(markdown, "| false | 3 | **3.520 ± 0.006** * | 3.520 |") ||
		!strings.Contains(markdown, "| true | 3 | 4.020 ± 0.006 | 4.020 |") ||
		!strings.Contains(markdown, "from the row true by") {
		t.Errorf("against the baseline:\n%s", markdown)
	}
}

// Two seeds have no median of their own, and one has no error.
func TestFewSeeds(t *testing.T) {
	data, programs := t.TempDir(), standIns(t)
	for seeds, want := range map[string]string{
		"1,2": "| alibi | seeds | bits/token | top head | IPMR |\n|---|---:|---:|---|---:|\n| true | 2 | 4.015 ± 0.005 |",
		"7":   "| true | 1 | 4.070 | H9 | 25.0 % |\n\n- `bits/token`: (lower is better)\n- `IPMR`: how often",
	} {
		args := []string{"grid", "--name", "n" + seeds[:1], "--programs", programs, "--data", data, "--seeds", seeds,
			"--grid", "train.alibi=true", "p.yml"}
		if _, err := run(t, args...); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(data, "experiments", "n"+seeds[:1], "n"+seeds[:1]+".md")
		markdown := strings.ReplaceAll(readFile(t, path), "| --- |", "|---|")
		markdown = strings.NewReplacer(" --- ", "---", " ---: ", "---:").Replace(markdown)
		if !strings.Contains(markdown, want) || strings.Contains(markdown, "NaN") {
			t.Errorf("seeds %s: it lacks %s:\n%s", seeds, want, markdown)
		}
	}
	// Further seeds continue the experiment; only pipeline files are named, no parameters.
	for _, seeds := range []string{"1", "2,1"} {
		args := []string{"grid", "--name", "only", "--programs", programs, "--data", data, "--seeds", seeds, "p.yml"}
		if _, err := run(t, args...); err != nil {
			t.Fatal(err)
		}
	}
	markdown := readFile(t, filepath.Join(data, "experiments", "only", "only.md"))
	if !strings.Contains(markdown, "| 2 | 4.015 ±") {
		t.Errorf("without an axis:\n%s", markdown)
	}
}

// Every run gets its line, with all parameters of its training, and keeps one line however often it is asked for.
func TestGridKeepsResults(t *testing.T) {
	data, programs := t.TempDir(), standIns(t)
	file := filepath.Join(data, "of all", "results.jsonl")
	grid := func(name string, args ...string) {
		t.Helper()
		args = append([]string{"grid", "--name", name, "--programs", programs, "--data", data, "--results", file,
			"--hardware", "two cores"}, args...)
		if _, err := run(t, append(args, "p.yml")...); err != nil {
			t.Fatal(err)
		}
	}
	grid("a", "--seeds", "1,2", "--grid", "train.alibi=true,false")
	grid("b", "--seeds", "2,3", "--grid", "train.alibi=true", "--grid", "shard.sequence_length=64")
	grid("a", "--seeds", "1,2", "--grid", "train.alibi=true,false")
	runs, err := resultsfile.Read(file)
	if err != nil || len(runs) != 6 {
		t.Fatalf("%d runs, %v:\n%s", len(runs), err, readFile(t, file))
	}
	b, _ := json.Marshal(runs[0])
	for _, want := range []string{
		`{"model":"fake","seed":1,"hardware":"two cores","parameters":{"alibi":false,"stream_bits":1},"dataset":"`,
		`"steps":20,"tokens":20000,"seconds":10,"results":{"bits":3.51,"ipmr":0.25}}`, `"definition":"`, `"checkpoint":"`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("it lacks %s:\n%s", want, b)
		}
	}
	if runs[2].Parameters["shard.sequence_length"] == nil && runs[4].Parameters["shard.sequence_length"] == nil {
		t.Errorf("what another stage was given is lost:\n%s", readFile(t, file))
	}
	if _, err := os.Stat(filepath.Join(data, "experiments", "a", "a.jsonl")); err == nil {
		t.Error("there is a second file")
	}
}

// What matters most is what a stage measured of the checkpoint, before the trainer's own sample.
func TestMedianIsOfTheMainColumn(t *testing.T) {
	data := t.TempDir()
	args := []string{"grid", "--name", "g", "--programs", standIns(t), "--data", data, "--seeds", "1", "p.yml"}
	if _, err := run(t, args...); err != nil {
		t.Fatal(err)
	}
	declared := fakeDeclarations()
	declared[0].Results[0].Columns = []results.Column{
		{Key: "validation_bits", Name: "validation", Value: "{validation_bits:.3}", Better: results.Lower},
	}
	tables, err := results.Read(journal.Open(data), "on-1", declared)
	if err != nil {
		t.Fatal(err)
	}
	e := &experiment{axes: []axis{{seedKey, []string{"1", "2", "3"}}}}
	for _, seed := range e.axes[0].values {
		e.cells = append(e.cells, cell{values: []string{seed}, results: tables[0]})
	}
	summary, err := e.summary()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range summary.columns {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, ","); got != "seeds,validation,bits/token,median,top head,IPMR" {
		t.Errorf("the columns are %s", got)
	}
}

// Where higher values are better, the best is the highest. A value without a spread needs no error. A difference that
// the digits do not show is not marked.
func TestHigherIsBetter(t *testing.T) {
	o := overSeeds{labels: []column{{Name: "model"}}, columns: []column{
		{Key: "copied", Name: "copied", Value: "{copied:.0%}", Better: results.Higher}, medianColumn, differenceColumn,
		{Key: "size", Name: "size", Value: "{size:bytes}", Better: results.Lower},
	}}
	for model, copied := range map[string]float64{"a": 0.25, "b": 0.75} {
		values := map[string]seeds.Sample{"copied": {1: copied - 0.01, 2: copied, 3: copied + 0.01}}
		if model == "b" {
			values["copied"] = seeds.Sample{1: copied, 2: copied, 3: copied}
		}
		size := 8700 + copied
		values["size"] = seeds.Sample{1: size, 2: size, 3: size}
		o.rows = append(o.rows, seedRow{labels: []string{model}, seeds: 3, values: values})
	}
	table, err := o.table()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := table.writeMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| a | 25 ± 1 % * | 25 % | -50 ± 1 % | **8.7 kB** |", "| b | **75 %** | 75 % |  | 8.7 kB |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it lacks %s:\n%s", want, &b)
		}
	}
}

// The launcher would take 010 for 8.
func TestSeedsAreDecimal(t *testing.T) {
	a, err := parseSeeds("1, 010,18446744073709551615")
	if want := []string{"1", "10", "18446744073709551615"}; err != nil || !slices.Equal(a.values, want) {
		t.Errorf("%v, %v, want %v", a.values, err, want)
	}
}

func TestSeedsRefuseMistakes(t *testing.T) {
	data, programs := t.TempDir(), standIns(t)
	for want, args := range map[string][]string{
		`--seeds 1,two: "two" is no whole`:    {"--seeds", "1,two"},
		`--seeds 1,2,1: 1 stands there twice`: {"--seeds", "1,2,1"},
		`--seeds 1,01: 1 stands there twice`:  {"--seeds", "1,01"},
		`"-1" is no whole`:                    {"--seeds", "-1"},
		"give an axis":                        {},
		"give --seeds, too":                   {"--grid", "train.alibi=true", "--baseline", "true"},
		"no row is called that; the rows are": {"--seeds", "1", "--grid", "train.alibi=true", "--baseline", "alibi=false"},
		"say more": {"--seeds", "1", "--grid", "train.alibi=true,false", "--grid", "train.stream_bits=1", "--baseline",
			"stream_bits=1"},
		"which --seeds does not change": {"--seeds", "1", "--grid", "train.alibi=true", "--set", "train.seed=5"},
	} {
		args = append(append([]string{"grid", "--programs", programs, "--data", data}, args...), "p.yml")
		if _, err := run(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q in it", args, err, want)
		}
	}
}
