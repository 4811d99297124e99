package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bitnet1/shared/plot"
)

// Training logs of other machines and of dense.py are drawn without a run.
func TestCurvesOfLogs(t *testing.T) {
	dir := t.TempDir()
	ours, dense := filepath.Join(dir, "train.jsonl"), filepath.Join(dir, "dense.jsonl")
	write(t, ours, `{"event":"step","step":10,"tokens":1000,"train_bpc":8}
{"event":"step","step":20,"tokens":2000,"train_bpc":7}
{"event":"checkpoint","step":20,"tokens":2000,"train_bpc":7.5,"val_bpc":7.25}
`)
	write(t, dense, `{"event":"step","step":10,"tokens":1000,"seconds":3,"train_bpc":6}
{"event":"validation","step":10,"tokens":1000,"seconds":3,"train_bpc":6,"val_bpc":6.5}
{"model":"dense","tokens":1000,"seconds":3,"results":{"bits_per_token":6.5}}
`)
	logs := []string{"curves", "--data", dir, "--log", "ours=" + ours, "--log", "dense=" + dense}
	with := func(more ...string) (string, error) { return run(t, append(append([]string{}, logs...), more...)...) }
	said, err := with("--name", "a", "--out", dir)
	if err != nil || !strings.Contains(said, "ours   20") || !strings.Contains(said, "dense  10") {
		t.Errorf("%v:\n%s", err, said)
	}
	csv := readFile(t, filepath.Join(dir, "a.csv"))
	if !strings.HasSuffix(csv, "\nours,20,2000,7,7.5,7.25\ndense,10,1000,6,6,6.5\n") {
		t.Errorf("CSV:\n%s", csv)
	}
	if _, err := with("--name", "few", "--out", dir, "--points", "1"); err != nil {
		t.Error(err)
	}
	if readFile(t, filepath.Join(dir, "few.png")) == readFile(t, filepath.Join(dir, "a.png")) {
		t.Error("a line of one point is drawn as one of two")
	}
	if _, err := with("--name", "a", "--out", dir, "--over", "seconds", "--speed", "ours=500"); err != nil {
		t.Error(err)
	}
	for want, args := range map[string][]string{
		"the label ours is given before":              {"--log", "ours=" + dense},
		"write LABEL=FILE":                            {"--log", ours},
		"no such file":                                {"--log", "b=" + ours + ".absent"},
		"--over hours: use tokens or seconds":         {"--over", "hours"},
		"--speed 'ours=TOKENS' gives tokens a second": {"--over", "seconds"},
		"--speed ours=fast: write LABEL=TOKENS":       {"--over", "seconds", "--speed", "ours=fast"},
		"--points 0: use 1 or more":                   {"--points", "0"},
		"no --run and no --log has this label":        {"--over", "seconds", "--speed", "ours=5", "--speed", "v75=5"},
	} {
		if _, err := with(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q in it", args, err, want)
		}
	}
	if _, err := run(t, "curves", "--data", dir); err == nil || !strings.Contains(err.Error(), "--run RUN or --log") {
		t.Errorf("nothing to draw: %v", err)
	}
}

// The seconds of steps come from a speed, from the log, or from the times beside it.
func TestPointsOverSeconds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "train.jsonl")
	plain := `{"event":"step","step":10,"tokens":1000,"train_bpc":8}
{"event":"checkpoint","step":10,"tokens":1000,"train_bpc":8,"val_bpc":7}
{"event":"step","step":15,"tokens":1500,"train_bpc":6}
`
	timed := strings.Replace(plain, `"tokens":1000,`, `"tokens":1000,"seconds":7,`, 1) +
		`{"event":"validation","step":13,"tokens":1300,"seconds":9,"train_bpc":6,"val_bpc":5}` + "\n"
	read := func(log, times string, speeds ...string) curve {
		t.Helper()
		write(t, path, log)
		if err := os.RemoveAll(filepath.Join(dir, "times")); err != nil {
			t.Fatal(err)
		}
		if times != "" {
			write(t, filepath.Join(dir, "times", "train.jsonl"), times)
		}
		all, err := withLogs(nil, []string{"a=" + path})
		if err == nil {
			err = setClocks(all, speeds)
		}
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	check := func(name string, c curve, drawn int, wantTraining, wantValidation []plot.Point) {
		t.Helper()
		training, validation := c.points(drawn)
		if !reflect.DeepEqual(training, wantTraining) || !reflect.DeepEqual(validation, wantValidation) {
			t.Errorf("%s: %v, %v, want %v, %v", name, training, validation, wantTraining, wantValidation)
		}
	}
	const times = `{"step":10,"seconds":0.5}` + "\n" + `{"step":15,"seconds":0.25}` + "\n"
	check("speed", read(plain, times, "a=500"), 200, []plot.Point{{X: 2, Y: 8}, {X: 3, Y: 6}}, []plot.Point{{X: 2, Y: 7}})
	check("times", read(plain, times), 200, []plot.Point{{X: 5, Y: 8}, {X: 6.25, Y: 6}}, []plot.Point{{X: 5, Y: 7}})
	// Two steps become one point, of their means.
	check("one point", read(plain, times), 1, []plot.Point{{X: 5.625, Y: 7}}, []plot.Point{{X: 5, Y: 7}})
	// The log's own times; a step without a time has no point.
	check("log", read(timed, times), 200, []plot.Point{{X: 7, Y: 8}}, []plot.Point{{X: 7, Y: 7}, {X: 9, Y: 5}})
}
