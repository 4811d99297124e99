package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vmihailenco/msgpack/v5"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/stage"
)

// Training is the training log with its times.
type Training struct {
	Steps       []Step
	Checkpoints []Checkpoint
	Recipe      map[string]any // all parameters of the training, defaults too, as the last checkpoint has them
	Model       map[string]any // the model's configuration
	Weights     int64          // numbers that were trained
}

// Step is a step that was logged.
type Step struct {
	trainlog.Step
	Elapsed float64 // seconds of training until then, without loading, validations and checkpoints; NaN: not known
}

// Checkpoint is a checkpoint that was logged.
type Checkpoint struct {
	trainlog.Checkpoint
	Elapsed float64 // as a Step has it
}

func (r *Run) readTraining(j journal.Journal, store *artifact.Store) error {
	saved, by, err := lastCheckpoint(j, r.ID)
	if err != nil {
		return err
	}
	dir := filepath.Join(j.RunDir(r.ID), by)
	lines, err := trainlog.Read(filepath.Join(dir, trainlog.FileName))
	if err != nil {
		return missing(err, "it is written as training goes on: the run has not trained yet, or the file is lost")
	}
	elapsed, err := trainlog.Elapsed(filepath.Join(dir, stage.TimesFolder, trainlog.TimesFileName))
	if err != nil {
		r.Missing = append(r.Missing, missing(err, "so no figure is drawn over seconds").Error())
	}
	at := func(step int) float64 {
		if s, ok := elapsed[step]; ok {
			return s
		}
		return math.NaN()
	}
	for _, line := range lines {
		switch l := line.(type) {
		case trainlog.Step:
			r.Training.Steps = append(r.Training.Steps, Step{l, at(l.Step)})
		case trainlog.Checkpoint:
			r.Training.Checkpoints = append(r.Training.Checkpoints, Checkpoint{l, at(l.Step)})
		}
	}
	if saved.Model.IsZero() {
		return nil
	}
	return r.readConfiguration(store, saved.Model)
}

// lastCheckpoint is the last one that the run trained with its own parameters, and the stage that did. Before the first
// checkpoint it is empty, of the stage train.
func lastCheckpoint(j journal.Journal, run string) (last event.CheckpointSaved, by string, err error) {
	events, err := j.Read(run, last.Kind())
	if err != nil {
		return last, "", err
	}
	by = "train"
	for _, e := range events {
		saved, err := event.Into[event.CheckpointSaved](e)
		if err == nil && len(e.Overrides) == 0 && saved.Step >= last.Step {
			last, by = saved, e.Stage
		}
	}
	return last, by, nil
}

// readConfiguration reads what a checkpoint says of its model and its training.
func (r *Run) readConfiguration(store *artifact.Store, model artifact.Ref) error {
	path, err := store.Path(model)
	if err != nil {
		return fmt.Errorf("all parameters of the training: %w", err)
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Config.Parameters() {
		r.Training.Weights += int64(p.Size())
	}
	text, err := json.Marshal(f.Config)
	if err == nil {
		err = json.Unmarshal(text, &r.Training.Model)
	}
	if err == nil && len(f.Provenance.Recipe) > 0 {
		err = json.Unmarshal(f.Provenance.Recipe, &r.Training.Recipe)
	}
	return err
}

// report is a JSON file that an event names, under a key of the event's body.
type report struct {
	key string
	artifact.Ref
}

// reports are those of an event. Those that each version of the stage writes come first.
func reports(e event.Envelope) (all []report) {
	var body map[string]msgpack.RawMessage
	if event.Unmarshal(e.Body, &body) != nil {
		return nil
	}
	first := []string{"health", "induction"}
	isFirst := func(key string) bool { return slices.Contains(first, key) }
	for _, key := range append(first, slices.DeleteFunc(slices.Sorted(maps.Keys(body)), isFirst)...) {
		var ref artifact.Ref
		if event.Unmarshal(body[key], &ref) == nil && !ref.IsZero() && strings.HasSuffix(ref.Name, ".json") {
			all = append(all, report{key, ref})
		}
	}
	return all
}

// Probe is what a checkpoint's heads look at: measures of the stage probe by the keys of its reports
// (docs/formats/reports.md). Where two reports have the same key, the second one's begins with the report's name:
// heads.prefix_matching.
type Probe struct {
	Step     int
	Measures map[string]float64 // of the whole model
	Heads    []Head
}

// Head is an attention head.
type Head struct {
	Layer, Head int
	Measures    map[string]float64
	Distances   []float64 // how often it points how far; empty where its report does not say
}

func (r *Run) readProbes(j journal.Journal, store *artifact.Store) error {
	events, err := j.Read(r.ID, event.ProbeWritten{}.Kind())
	if err != nil {
		return err
	}
	var problems []error
	for _, e := range events {
		written, err := event.Into[event.ProbeWritten](e)
		if err != nil || len(e.Overrides) > 0 {
			continue
		}
		p := Probe{Step: written.Step, Measures: map[string]float64{}}
		for _, r := range reports(e) {
			problems = append(problems, p.add(store, r))
		}
		r.Probes = slices.DeleteFunc(r.Probes, func(other Probe) bool { return other.Step == p.Step }) // the last counts
		r.Probes = append(r.Probes, p)
	}
	slices.SortFunc(r.Probes, func(a, b Probe) int { return a.Step - b.Step })
	if len(events) == 0 {
		return errors.New("no checkpoint was probed: nothing says what the heads look at")
	}
	return errors.Join(problems...)
}
