package resultsfile

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
)

func made(model string, seed uint64, stream string, bits float64) Run {
	return Run{
		Model: model, Seed: seed, Tokens: 1000, Results: map[string]float64{"validation_bits": bits},
		Parameters: map[string]json.RawMessage{"stream_bits": json.RawMessage(stream), "alibi": json.RawMessage("true")},
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The bytes are frozen: what an older version wrote is read for ever.
func TestLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "results.jsonl")
	r := made("v76", 3, "4", 6.5)
	r.Hardware, r.Dataset, r.Definition, r.Checkpoint, r.Steps, r.Seconds = "one H200", "aa", "bb", "cc", 800, 61.5
	if added, replaced, err := Add(path, r); err != nil || added != 1 || replaced != 0 {
		t.Fatal(added, replaced, err)
	}
	want := `{"model":"v76","seed":3,"hardware":"one H200","parameters":{"alibi":true,"stream_bits":4},"dataset":"aa",` +
		`"definition":"bb","checkpoint":"cc","steps":800,"tokens":1000,"seconds":61.5,` +
		`"results":{"validation_bits":6.5}}` + "\n"
	if got := read(t, path); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if runs, err := Read(path); err != nil || !reflect.DeepEqual(runs, []Run{r}) {
		t.Errorf("%+v, %v", runs, err)
	}
}

// The same run once more replaces the first; another seed, parameter, model, dataset or machine is another run. The
// order of adding leaves no trace.
func TestAdd(t *testing.T) {
	dir := t.TempDir()
	elsewhere, onOther := made("v76", 1, "4", 6.3), made("v76", 1, "4", 6.4)
	elsewhere.Hardware, onOther.Dataset = "two cores", "dd"
	runs := []Run{made("v76", 2, "4", 6.2), made("v76", 1, "4", 6.1), made("v76", 1, "1", 7.1), made("v75", 1, "4", 6.9),
		elsewhere, onOther}
	one, other := filepath.Join(dir, "one.jsonl"), filepath.Join(dir, "other.jsonl")
	if added, replaced, err := Add(one, runs...); err != nil || added != 6 || replaced != 0 {
		t.Errorf("%d added, %d replaced, %v", added, replaced, err)
	}
	for i := range runs {
		if _, _, err := Add(other, runs[len(runs)-1-i]); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, one) != read(t, other) {
		t.Errorf("the order shows:\n%s\n%s", read(t, one), read(t, other))
	}
	again := made("v76", 2, "4", 5.5)
	again.Seconds, again.Checkpoint = 7, "ee"
	if added, replaced, err := Add(one, again); err != nil || added != 0 || replaced != 1 {
		t.Errorf("%d added, %d replaced, %v", added, replaced, err)
	}
	all, err := Read(one)
	if err != nil || len(all) != 6 || strings.Contains(read(t, one), "6.2") || !strings.Contains(read(t, one), "5.5") {
		t.Errorf("%v\n%s", err, read(t, one))
	}
	if all[0].Model != "v75" || strings.Count(read(t, one), "\n") != 6 {
		t.Errorf("not sorted, or not a line each:\n%s", read(t, one))
	}
}

// Where another run did the work, nobody knows how long it took but the line that is replaced.
func TestSecondsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	for _, c := range []struct {
		checkpoint   string
		seconds, was float64
	}{{"aa", 60, 60}, {"aa", 0, 60}, {"aa", 50, 50}, {"bb", 0, 0}} {
		r := made("v76", 1, "4", 6)
		r.Checkpoint, r.Seconds = c.checkpoint, c.seconds
		if _, _, err := Add(path, r); err != nil {
			t.Fatal(err)
		}
		if runs, err := Read(path); err != nil || len(runs) != 1 || runs[0].Seconds != c.was {
			t.Errorf("%+v: %+v, %v", c, runs, err)
		}
	}
}

// Programs that add at the same time lose nothing.
func TestAddTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	var all sync.WaitGroup
	for seed := range uint64(20) {
		all.Go(func() {
			if _, _, err := Add(path, made("v76", seed, "4", 6)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if runs, err := Read(path); err != nil || len(runs) != 20 {
		t.Errorf("%d runs, %v", len(runs), err)
	}
}

// What is no results file is refused with the line, and stays as it is.
func TestReadRefuses(t *testing.T) {
	good := `{"model":"v76","seed":1,"tokens":9,"results":{"validation_bits":6}}`
	for line, want := range map[string]string{
		`{"model":"v76","tokens":9,`:                               "unexpected EOF",
		`{"model":"v76","tokens":9,"results":{"x":1},"secs":2}`:    `unknown field "secs"`,
		`{"tokens":9,"results":{"x":1}}`:                           `"model" is missing`,
		`{"model":"a","results":{"x":1}}`:                          `"tokens" is missing`,
		`{"model":"a","tokens":-1,"results":{"x":1}}`:              "not positive",
		`{"model":"a","tokens":9}`:                                 `"results" is missing`,
		`{"model":"a","tokens":9,"results":{"x":"low"}}`:           "cannot unmarshal string",
		`{"model":"a","tokens":9,"seconds":-1,"results":{"x":1}}`:  "negative",
		`{"model":"a","tokens":9,"seed":-1,"results":{"x":1}}`:     "cannot unmarshal",
		`{"model":"a","tokens":9,"results":{"x":1}} {"model":"b"}`: "more than one object",
		good: "line 3 has the model, parameters and seed of line 1",
	} {
		path := filepath.Join(t.TempDir(), "results.jsonl")
		content := good + "\n\n" + line + "\n"
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{second(Read(path)), third(Add(path, made("v76", 1, "4", 6)))} {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "line 3") ||
				!strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v, want %q and line 3", line, err, want)
			}
		}
		if read(t, path) != content {
			t.Errorf("%s: the file has become\n%s", line, read(t, path))
		}
	}
	if _, _, err := Add(filepath.Join(t.TempDir(), "r.jsonl"), Run{Model: "x", Tokens: 1}); err == nil {
		t.Error("a run without results was added")
	}
}

func second(_ []Run, err error) error { return err }

func third(_, _ int, err error) error { return err }

func TestDiffering(t *testing.T) {
	outside := Run{Model: "dense", Tokens: 9}
	a, b := made("v76", 1, "4", 6), made("v76", 1, "1", 7)
	b.Parameters["optimizer"] = json.RawMessage(`"muon"`)
	if got := Differing([]Run{outside, a, b}); !reflect.DeepEqual(got, []string{"optimizer", "stream_bits"}) {
		t.Errorf("%v", got)
	}
	if got := Differing([]Run{outside, a, made("v77", 2, "4", 5)}); len(got) > 0 {
		t.Errorf("%v differ", got)
	}
}

// The page has a row for each key of a line.
func TestPageOfTheFormat(t *testing.T) {
	page := read(t, filepath.Join("..", "..", "..", "docs", "formats", "results.md"))
	line := reflect.TypeFor[Run]()
	for i := range line.NumField() {
		key, _, _ := strings.Cut(line.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(page, "\n| `"+key+"` |") {
			t.Errorf("docs/formats/results.md lacks the key %s", key)
		}
	}
	if rows := strings.Count(page, "\n| `"); rows != line.NumField() {
		t.Errorf("docs/formats/results.md has %d keys, a line %d", rows, line.NumField())
	}
}
