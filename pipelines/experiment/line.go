package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/resultsfile"
	"bitnet1/shared/run/stage"
)

// line is the line of a cell's run in the results file.
func (e *experiment) line(c cell) (r resultsfile.Run, err error) {
	store, err := artifact.Open(e.data)
	if err != nil {
		return r, err
	}
	j := journal.Open(store.Dir())
	last, err := lastCheckpoint(j, c.run)
	if err != nil {
		return r, err
	}
	started, err := journal.Bodies[event.RunStarted](j, c.run)
	if err != nil || len(started) == 0 {
		return r, fmt.Errorf("run %s: how it was started is missing: %w", c.run, err)
	}
	r = resultsfile.Run{
		Model: started[0].Pipeline, Hardware: e.hardware, Definition: started[0].Definition.Digest,
		Dataset: last.Manifest.Digest, Checkpoint: last.Model.Digest, Steps: last.Step, Tokens: last.Tokens,
		Results: map[string]float64{},
	}
	for key, value := range c.results.Last().Cells {
		if n := value.Number(); !math.IsNaN(n) {
			r.Results[key] = n
		}
	}
	parameters, err := parametersOf(j, store, c.run, last)
	if err == nil {
		err = setParameters(&r, parameters)
	}
	if err != nil {
		return r, fmt.Errorf("parameters of run %s: %w", c.run, err)
	}
	for i, a := range e.axes {
		switch stage := a.key[:len(a.key)-len(a.name())]; {
		case a.key == seedKey && fmt.Sprint(r.Seed) != c.values[i]:
			return r, fmt.Errorf("run %s was trained with seed %d: the pipeline file or --set gives %s a seed of its own, "+
				"which --seeds does not change", c.run, r.Seed, last.stage)
		case a.key != seedKey && stage != last.stage+".": // of what the checkpoint does not know
			r.Parameters[a.key], _ = json.Marshal(c.values[i])
		}
	}
	r.Seconds, err = secondsOf(filepath.Join(j.RunDir(c.run), last.stage))
	return r, err
}

// parametersOf are those with which a checkpoint was trained: from the record of its job or, where the stage keeps no
// records, those that the run's definition gives.
func parametersOf(j journal.Journal, store *artifact.Store, run string, last trained) ([]byte, error) {
	if done, err := record.Find(record.Root(store), last.job); err == nil {
		return []byte(done.Params), nil
	}
	d, err := definition.OfRun(j, store, run)
	if err != nil || d == nil {
		return nil, errors.Join(err, errors.New("the run has no definition"))
	}
	return d.Stages[last.stage], nil
}

// setParameters gives a run the parameters of its training. The seed among them is the run's own.
func setParameters(r *resultsfile.Run, parameters []byte) error {
	if err := json.Unmarshal(parameters, &r.Parameters); err != nil {
		return err
	}
	if seed, ok := r.Parameters["seed"]; ok {
		delete(r.Parameters, "seed")
		return json.Unmarshal(seed, &r.Seed)
	}
	return nil
}

// secondsOf is how long the training took whose outputs are in a folder; 0 where its times were not kept, which is so
// where another run did the same work.
func secondsOf(dir string) (float64, error) {
	seconds, err := trainlog.Seconds(filepath.Join(dir, stage.TimesFolder, trainlog.TimesFileName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return math.Round(1000*seconds) / 1000, err
}

// lineOfFolder is the line of a training whose outputs `train run --out` has written into a folder, on this machine or
// another one: the last checkpoint of its log, and of that checkpoint its evaluation, its probe and its packed model if
// they lie there, too.
func lineOfFolder(model, dir string) (r resultsfile.Run, err error) {
	log, err := trainlog.Read(filepath.Join(dir, trainlog.FileName))
	if err != nil {
		return r, err
	}
	var last trainlog.Checkpoint
	for _, line := range log {
		if saved, ok := line.(trainlog.Checkpoint); ok {
			last = saved
		}
	}
	if last.Model == "" {
		return r, fmt.Errorf("the training log in %s has no checkpoint: training has not come to the first one", dir)
	}
	r = resultsfile.Run{
		Model: model, Checkpoint: last.Model, Steps: last.Step, Tokens: last.Tokens,
		Results: map[string]float64{"train_bits": last.TrainBPC},
	}
	if last.ValBPC != nil {
		r.Results["validation_bits"] = *last.ValBPC
	}
	var parameters []byte
	if parameters, r.Dataset, err = configuration(dir, last); err != nil {
		return r, err
	}
	if err := setParameters(&r, parameters); err != nil {
		return r, fmt.Errorf("parameters of the training in %s: %w", dir, err)
	}
	if err := addReports(&r, dir); err != nil {
		return r, err
	}
	if packed, err := os.Stat(filepath.Join(dir, fmt.Sprintf("step-%06d.bit2", r.Steps))); err == nil {
		r.Results["pack_bytes"] = float64(packed.Size())
	}
	r.Seconds, err = secondsOf(dir)
	return r, err
}

// configuration finds the parameters and the dataset of a training in the record of its job, which is small and may
// have come from another machine without the checkpoints, or in the checkpoint.
func configuration(dir string, last trainlog.Checkpoint) (parameters []byte, dataset string, err error) {
	jobs, err := record.Finished(filepath.Join(dir, record.OneShot))
	if err != nil {
		return nil, "", err
	}
	for _, job := range jobs {
		for _, out := range job.Outputs {
			var saved event.CheckpointSaved
			if out.Kind == saved.Kind() && event.Unmarshal(out.Body, &saved) == nil && saved.Model.Digest == last.Model {
				return []byte(job.Params), saved.Manifest.Digest, nil
			}
		}
	}
	path := filepath.Join(dir, fmt.Sprintf("step-%06d.safetensors", last.Step))
	sum, _, err := digest.File(path)
	if err != nil {
		return nil, "", fmt.Errorf("%s has neither the record of the training (%s) nor its last checkpoint: copy one of "+
			"them, too: %w", dir, record.OneShot, err)
	}
	if sum != last.Model {
		return nil, "", fmt.Errorf("%s is not the checkpoint of which the training log says step %d", path, last.Step)
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	return f.Recipe, f.Dataset, nil
}

// reported are the numbers of reports that a line takes, by the ending of the report's name: the key in the report, or
// the key of an object and that of a number in the object, and the key in the line. These are the keys that a grid's
// lines have.
var reported = map[string][]struct{ object, key, as string }{
	"_evaluation.json":     {{"", "bits_per_token", "bits_per_token"}, {"", "accuracy", "accuracy"}},
	"_pointer_health.json": {{"top", "ipmr", "ipmr"}, {"", "random_ipmr", "random_ipmr"}},
	"_induction.json": {{"", "copy_accuracy", "copy_accuracy"},
		{"", "random_copy_accuracy", "random_copy_accuracy"}},
}

// addReports adds what reports say of the run's checkpoint, as far as they lie in the folder.
func addReports(r *resultsfile.Run, dir string) error {
	for ending := range reported {
		reports, err := filepath.Glob(filepath.Join(dir, "*"+ending))
		if err != nil {
			return err
		}
		for _, path := range reports {
			if err := addReport(r, path, ending); err != nil {
				return fmt.Errorf("report %s: %w", path, err)
			}
		}
	}
	return nil
}

func addReport(r *resultsfile.Run, path, ending string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var report map[string]any
	if err := json.Unmarshal(b, &report); err != nil || report["checkpoint"] != r.Checkpoint {
		return err
	}
	for _, n := range reported[ending] {
		from := report
		if n.object != "" {
			from, _ = report[n.object].(map[string]any)
		}
		if value, ok := from[n.key].(float64); ok {
			r.Results[n.as] = value
		}
	}
	return nil
}
