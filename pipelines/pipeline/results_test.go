package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// table is what `runs RUN` shows, for programs.
func (w *world) table(run string) message {
	w.t.Helper()
	all := messages(w.must("pipeline", "runs", "--json", run))
	if len(all) != 1 {
		w.t.Fatalf("%d lines instead of a table", len(all))
	}
	return all[0]
}

// otherParameters measures a finished run again with other parameters. The new results stand beside the run's own
// results, which do not change, in whatever order and however often the commands are given.
func (w *world) otherParameters(run string) {
	w.t.Helper()
	before := w.table(run)
	if len(before.Others) != 0 {
		w.t.Fatalf("before any measurement of one's own: %+v", before.Others)
	}
	same := func(when string) []row {
		w.t.Helper()
		now := w.table(run)
		for i, c := range now.Checkpoints {
			if c.BitsPerToken != before.Checkpoints[i].BitsPerToken || c.CopyAccuracy != before.Checkpoints[i].CopyAccuracy ||
				c.Best != before.Checkpoints[i].Best {
				w.t.Errorf("%s checkpoint %d is %+v, and was %+v", when, c.Step, c, before.Checkpoints[i])
			}
		}
		return now.Others
	}
	w.must("evaluate", "run", "--run", run, "--checkpoint", "20", "--sequences", "1")
	others := same("after an evaluation of one sequence")
	if len(others) != 1 || others[0].Step != 20 || others[0].Overrides["evaluate.sequences"] != "1" ||
		others[0].BitsPerToken == 0 || others[0].BitsPerToken == before.Checkpoints[0].BitsPerToken {
		w.t.Errorf("an evaluation of one sequence is shown as %+v", others)
	}
	shown := w.must("pipeline", "runs", run)
	if !strings.Contains(shown, "20  sequences=1") {
		w.t.Errorf("the table does not say what differs:\n%s", shown)
	}
	w.must("evaluate", "run", "--run", run, "--checkpoint", "20")
	same("after the default rerun")
	w.must("evaluate", "run", "--run", run, "--checkpoint", "20", "--force")
	same("after --force")
	// A result of other parameters is a row of its own, even if its numbers are equal.
	w.must("evaluate", "run", "--run", run, "--checkpoint", "20", "--sequences", "100000")
	w.must("probe", "run", "--run", run, "--checkpoint", "20", "--sequences", "8")
	others = same("after more sequences than there are")
	if len(others) != 3 || others[0].Overrides["evaluate.sequences"] == others[1].Overrides["evaluate.sequences"] ||
		others[2].BestHead == "" {
		w.t.Errorf("three measurements of one's own are shown as %+v", others)
	}
	// The files of the run's own results do not change, either.
	for path, want := range map[string]float64{"": 0, "sequences=1": 1} {
		b, err := os.ReadFile(filepath.Join(w.data, "runs", run, "evaluate", path, "step-000020_evaluation.json"))
		if err != nil {
			w.t.Fatal(err)
		}
		var report struct {
			Sequences float64 `json:"sequences"`
		}
		if err := json.Unmarshal(b, &report); err != nil || want == 1 && report.Sequences != 1 ||
			want == 0 && report.Sequences < 2 {
			w.t.Errorf("%q: an evaluation of %g sequences", path, report.Sequences)
		}
	}
	w.bestRun(run, before)
}

// bestRun checks that the list of runs names the best of the run's own results, although a measurement of one sequence
// has fewer bits.
func (w *world) bestRun(run string, before message) {
	w.t.Helper()
	for _, n := range []string{"1", "2", "3"} { // some of them are better than the mean
		w.must("evaluate", "run", "--run", run, "--checkpoint", "all", "--sequences", n)
	}
	last := before.Checkpoints[len(before.Checkpoints)-1]
	list := w.must("pipeline", "runs")
	want := decimals(last.BitsPerToken) + " bits/token at 80"
	if !strings.Contains(list, want) {
		w.t.Errorf("the list of runs does not say %q:\n%s", want, list)
	}
}

func decimals(v float64) string {
	b, _ := json.Marshal(float64(int64(v*1000+0.5)) / 1000)
	return (string(b) + "000")[:5]
}
