package history_test

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/measure/history/historytest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

func read(t *testing.T, data, run string) *history.Run {
	t.Helper()
	r, err := history.Read(data, run)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A run gives every number that it has left.
func TestRead(t *testing.T) {
	data, o := t.TempDir(), historytest.Options{Muon: true}
	historytest.Make(t, data, "r", o)
	rerun(t, data, "r")
	r := read(t, data, "r")
	if len(r.Missing) > 0 {
		t.Errorf("missing: %q", r.Missing)
	}
	if r.State != "finished" || r.Started != historytest.Started || r.Definition.Seed != 7 ||
		r.Machine["train"] != "cpu, 2 workers, made up" || !slices.Equal(r.Commands,
		[]string{"pipeline run --preset nano pipelines/v76.yml"}) {
		t.Errorf("%s, started %d, %+v, machine %v, commands %q", r.State, r.Started, r.Definition, r.Machine, r.Commands)
	}
	if len(r.Training.Steps) != historytest.Steps || len(r.Training.Checkpoints) != historytest.Steps/3 {
		t.Fatalf("%d steps, %d checkpoints", len(r.Training.Steps), len(r.Training.Checkpoints))
	}
	fifth := r.Training.Steps[4]
	if fifth.TrainBPC != o.Loss(5) || fifth.Tokens != 5*historytest.Tokens || fifth.Elapsed != 5*historytest.Seconds {
		t.Errorf("the fifth step: %+v", fifth)
	}
	if c := r.Training.Checkpoints[1]; c.Step != 6 || c.Elapsed != 6*historytest.Seconds {
		t.Errorf("the second checkpoint: %+v", c)
	}
	if r.Training.Recipe["optimizer"] != "muon" || r.Training.Model["layers"] == nil || r.Training.Weights < 1000 {
		t.Errorf("recipe %v, model %v, %d weights", r.Training.Recipe, r.Training.Model, r.Training.Weights)
	}
	if len(r.Probes) != historytest.Steps/3 || r.Probes[1].Step != 6 || r.Probes[1].Measures["random_ipmr"] != 0.0625 {
		t.Fatalf("probes %+v", r.Probes)
	}
	want := [][]float64{{0.06, 0.12}, {0.18, 0.24}}
	if got := r.Probes[1].Map("ipmr"); !reflect.DeepEqual(got, want) {
		t.Errorf("IPMR over layers and heads: %v, want %v", got, want)
	}
	// Another report has the same key: it is another measure.
	if p := r.Probes[1]; p.Measures["induction.random_ipmr"] != 0.03125 || p.Heads[0].Measures["induction.ipmr"] != 0.25 ||
		p.Heads[0].Measures["prefix_matching"] != 0.75 {
		t.Errorf("measures of two reports: %+v", p)
	}
	if got := r.Probes[1].Map("m4"); got != nil {
		t.Errorf("a measure that no head has: %v", got)
	}
	if got := r.Probes[0].Heads[3].Distances; !slices.Equal(got, []float64{1, 2, 20}) {
		t.Errorf("distances %v", got)
	}
	if s := r.Data.Sources; len(s) != 1 || s[0].Tokens == nil || s[0].Tokens.Documents != 17 || r.Data.Manifest == nil {
		t.Errorf("data %+v", r.Data)
	}
	if len(r.Jobs) != 1 || r.Jobs[0].Steps[0].Wall != 2.5 {
		t.Errorf("jobs %+v", r.Jobs)
	}
	if last := r.Tables[0].Last(); last.Name != "12" || last.Cells["bits_per_token"].Number() != o.Bits(12) ||
		len(r.Tables[0].Others) != 1 {
		t.Errorf("the last checkpoint: %+v, others %+v", last, r.Tables[0].Others)
	}
}

// rerun announces what a probe with other parameters found, which is no measure of the run itself.
func rerun(t *testing.T, data, run string) {
	t.Helper()
	e, err := event.New(run, "probe", "", event.Part{}, event.ProbeWritten{Step: 7, TopIPMR: 0.9})
	if err == nil {
		e.Overrides = map[string]string{"probe.sequences": "1"}
		e.Time = historytest.Started + 1
		_, err = journal.Open(data).Write(e)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What is missing or damaged is said, and the rest is there.
func TestReadSaysWhatIsMissing(t *testing.T) {
	for file, want := range map[string]string{
		"train/train.jsonl":                     "has not trained yet, or the file is lost",
		"train/times/train.jsonl":               "no figure is drawn over seconds",
		"logs/train.log":                        "no log says what device",
		"events/dataset.sealed":                 "has no dataset yet",
		"events/checkpoint.saved":               "has no checkpoint yet",
		"events/probe.written":                  "no checkpoint was probed",
		"tokenize/times/books.json!{":           "times of a job",
		"train/train.jsonl!{\"event\":\"step\"": "train.jsonl, line 1",
	} {
		data := t.TempDir()
		historytest.Make(t, data, "r", historytest.Options{})
		name, content, damage := strings.Cut(file, "!")
		path := filepath.Join(data, "runs", "r", name)
		err := os.RemoveAll(path)
		if damage {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		r := read(t, data, "r")
		if len(r.Missing) == 0 || !strings.Contains(strings.Join(r.Missing, "\n"), want) {
			t.Errorf("without %s: %q is missing, want %q", name, r.Missing, want)
		}
		if r.Definition == nil || len(r.Data.Sources) != 1 {
			t.Errorf("without %s the rest is not there: %+v", name, r)
		}
		if strings.HasPrefix(name, "train/times") && !math.IsNaN(r.Training.Steps[0].Elapsed) {
			t.Errorf("the first step took %v seconds without a file of times", r.Training.Steps[0].Elapsed)
		}
	}
	if _, err := history.Read(t.TempDir(), "r"); err == nil || !strings.Contains(err.Error(), "there is no run r") {
		t.Errorf("a run that is not there: %v", err)
	}
}
