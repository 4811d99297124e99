package stage

import (
	"bytes"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"testing"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The best checkpoint has the lowest validation loss of all checkpoints whose weights are ±1 and that have such a loss.
func TestBestCheckpoint(t *testing.T) {
	t.Parallel()
	none := math.NaN()
	for what, c := range map[string]struct {
		bits, blend []float64 // of the checkpoints at steps 10, 20, …
		want        int       // 0: none
		refusal     string
	}{
		"lowest":                {[]float64{5, 3, 4}, []float64{0, 0, 0}, 20, ""},
		"first of equal ones":   {[]float64{5, 3, 3}, []float64{0, 0, 0}, 20, ""},
		"some without a sample": {[]float64{none, 5, 0, 4}, []float64{0, 0, 0, 0}, 40, ""},
		"bonsai":                {[]float64{1, 2, 4, 3}, []float64{1, 0.5, 0, 0}, 40, ""},
		"no sample at all":      {[]float64{none, none}, []float64{0, 0}, 0, "no checkpoint with a validation loss"},
		"still annealing": {[]float64{2, 1}, []float64{0.5, 0.1}, 0,
			"2 of 2 are from before the end of the annealing"},
		"annealing, then no sample": {[]float64{2, none}, []float64{0.5, 0}, 0, "1 of 2 are from before"},
	} {
		var events []event.Envelope
		for i, bits := range c.bits {
			saved := event.CheckpointSaved{Step: 10 * (i + 1), ValidationBits: bits, Blend: c.blend[i],
				Model: artifact.Ref{Name: "m"}}
			events = append(events, newEvent(t, "r", "train", saved))
		}
		found, err := ByStep().choose(events, events, "r", "best", span{})
		if c.want == 0 {
			if err == nil || !strings.Contains(err.Error(), c.refusal) ||
				!strings.Contains(err.Error(), "use --checkpoint last") {
				t.Errorf("%s: %v, want %q", what, err, c.refusal)
			}
			continue
		}
		if err != nil || len(found) != 1 {
			t.Errorf("%s: %v, %v", what, found, err)
			continue
		}
		if got, err := event.Into[event.CheckpointSaved](found[0]); err != nil || got.Step != c.want {
			t.Errorf("%s: step %d (%v), want %d", what, got.Step, err, c.want)
		}
	}
}

// Checkpoints are found by their steps, in any order of their events. If two have the same step, the later one counts.
func TestWhichCheckpoints(t *testing.T) {
	t.Parallel()
	var events []event.Envelope
	for _, c := range []struct {
		step int
		name string
	}{{30, "a"}, {10, "b"}, {20, "c"}, {10, "d"}} {
		saved := event.CheckpointSaved{Step: c.step, Model: artifact.Ref{Name: c.name}}
		events = append(events, newEvent(t, "r", "train", saved))
	}
	for which, want := range map[string]string{"all": "d c a", "last": "a", "10": "d", "20": "c"} {
		found, err := ByStep().choose(events, events, "r", which, span{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range found {
			saved, err := event.Into[event.CheckpointSaved](e)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, saved.Model.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", which, got, want)
		}
	}
	for which, want := range map[string]string{"15": "no checkpoint at step 15; its steps are [10 20 30]",
		"first": "use last, best, all or a step"} {
		if _, err := ByStep().choose(events, events, "r", which, span{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", which, err, want)
		}
	}
}

// A rerun takes the checkpoints of the run's own parameters. It takes others if a step names one, or if there are no
// others.
func TestWhoseCheckpoints(t *testing.T) {
	t.Parallel()
	j := journal.Open(t.TempDir())
	write := func(run string, step int, overrides map[string]string) {
		e := newEvent(t, run, "train",
			event.CheckpointSaved{Step: step, ValidationBits: 9 - float64(step)/10, Model: artifact.Ref{Name: "m"}})
		e.Overrides = overrides
		if _, err := j.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	longer := map[string]string{"train.steps": "30"}
	write("mixed", 10, nil)
	write("mixed", 20, nil)
	write("mixed", 30, longer)
	write("others", 40, longer)
	for _, c := range []struct{ run, which, want string }{
		{"mixed", "last", "20"}, {"mixed", "best", "20"}, {"mixed", "all", "10 20"}, {"mixed", "30", "30"},
		{"mixed", "10", "10"}, {"others", "last", "40"},
	} {
		events, own, err := eventsOver[event.CheckpointSaved](slog.New(slog.DiscardHandler), j, c.run, "checkpoint.saved")
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		found, err := ByStep().choose(events, own, c.run, c.which, span{})
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		var steps []string
		for _, e := range found {
			saved, err := event.Into[event.CheckpointSaved](e)
			if err != nil {
				t.Fatal(err)
			}
			steps = append(steps, strconv.Itoa(saved.Step))
		}
		if got := strings.Join(steps, " "); got != c.want {
			t.Errorf("%+v: steps %s", c, got)
		}
	}
}

// Checkpoints that were freed are left out, and a warning names them. If no checkpoint is left, the error names them.
func TestCheckpointsThatWereFreed(t *testing.T) {
	t.Parallel()
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	left, err := artifact.Put(store, "checkpoint", "", "m", []byte("weights"))
	if err != nil {
		t.Fatal(err)
	}
	freed := artifact.Ref{Digest: strings.Repeat("0", 64), Kind: "checkpoint", Name: "m"}
	saved := func(step int, model artifact.Ref) event.Envelope {
		return newEvent(t, "r", "train", event.CheckpointSaved{Step: step, Model: model})
	}
	for _, c := range []struct {
		events     []event.Envelope
		left       int
		said, fail string
	}{
		{[]event.Envelope{saved(10, left)}, 1, "", ""},
		{[]event.Envelope{saved(10, freed), saved(20, left), saved(30, freed)}, 1, `steps="10, 30"`, ""},
		{[]event.Envelope{saved(10, freed), saved(20, freed)}, 0, "", "the checkpoint of step 10, 20 is no longer"},
	} {
		var said bytes.Buffer
		got, err := ByStep().there(slog.New(slog.NewTextHandler(&said, nil)), store, "r", c.events)
		if len(got) != c.left || (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%d of %d are left, %v; want %d, %q", len(got), len(c.events), err, c.left, c.fail)
		}
		if (said.Len() == 0) != (c.said == "") || !strings.Contains(said.String(), c.said) {
			t.Errorf("said %q, want %q", &said, c.said)
		}
	}
}
