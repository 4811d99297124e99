package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// A run is resumed from whichever is later: the last checkpoint that was
// announced, or the pause file, which a run that is asked to stop leaves in its
// scratch directory. A run that is killed has lost the steps since; it takes
// them again, and they give the same bytes.
const pauseName = "pause.safetensors"

// What a pause file holds beyond a checkpoint and its state.
const (
	parameterPrefix = "parameter."
	keyBitsSum      = "bits_sum" // training loss summed since the last checkpoint
	keyBitsSteps    = "bits_steps"
)

// resume continues where an earlier attempt came to, or starts from the
// beginning.
func (t *trainer) resume() error {
	saved, err := stage.Emitted[event.CheckpointSaved](t.job)
	if err != nil {
		return err
	}
	for _, s := range saved {
		t.note(s)
		t.step = s.Step
	}
	offset, paused, err := t.resumePause()
	switch {
	case err != nil:
		return fmt.Errorf("resuming: %w", err)
	case paused:
	case len(saved) == 0:
		err = t.begin()
	default:
		offset, err = t.resumeCheckpoint(saved[len(saved)-1])
	}
	if err != nil {
		return err
	}
	if t.step > 0 {
		t.job.Log.Info("resuming", "step", t.step)
	}
	if t.log, err = openLog(t.job, offset); err != nil {
		return err
	}
	t.times = openTimes(t.job, t.step)
	return nil
}

// begin sets the parameters that training starts from.
func (t *trainer) begin() error {
	p := t.job.Params
	if err := t.model.Init(p.Seed); err != nil || p.Init == "" {
		return err
	}
	return t.load(p.Init)
}

// load sets the parameters to those of a checkpoint.
func (t *trainer) load(path string) error {
	f, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if has, now := f.Documents.String(), t.options.Documents.String(); has != now {
		t.job.Log.Warn("the checkpoint to start from was trained with "+has+" documents", "documents", now)
	}
	return t.model.Load(f.Parameters())
}

// resumeCheckpoint loads the parameters and the optimizer's state of a
// checkpoint; it returns the length that the log had then.
func (t *trainer) resumeCheckpoint(saved event.CheckpointSaved) (logOffset int64, err error) {
	path, err := t.job.Path(saved.Model)
	if err != nil {
		return 0, err
	}
	if err := t.load(path); err != nil {
		return 0, err
	}
	if path, err = t.job.Path(saved.State); err != nil {
		return 0, err
	}
	state, err := checkpoint.ReadState(path, saved.Model.Digest)
	if err != nil {
		return 0, err
	}
	return state.LogOffset, t.restore(state)
}

// nextCheckpoint is the step after which the next checkpoint is due.
func (t *trainer) nextCheckpoint() int {
	every := t.job.Params.CheckpointEvery
	return min((t.step/every+1)*every, t.job.Params.Steps)
}

func (t *trainer) restore(file checkpoint.State) error {
	state, err := file.Optimizer()
	if err != nil {
		return err
	}
	return t.model.SetState(state)
}

// pause keeps what is needed to go on from the present step. It announces
// nothing: what a run makes does not depend on where it was stopped.
func (t *trainer) pause() error {
	path, err := t.pausePath()
	if err != nil {
		return err
	}
	snapshot, err := t.model.Snapshot()
	if err != nil {
		return err
	}
	offset, err := t.log.sync()
	if err != nil {
		return err
	}
	state := checkpoint.State{
		Checkpoint: t.job.Key, Step: int64(t.step), Position: t.position(), LogOffset: offset,
		Extra: map[string]string{
			keyBitsSum:   strconv.FormatFloat(t.bitsSum, 'x', -1, 64),
			keyBitsSteps: strconv.Itoa(t.bitsSteps),
		},
		Tensors: append(checkpoint.OptimizerTensors(snapshot.State), checkpoint.ParameterTensors(parameterPrefix, snapshot.Parameters)...),
	}
	if err := writePause(path, state); err != nil {
		return fmt.Errorf("keeping step %d to go on from: %w", t.step, err)
	}
	t.job.Log.Info("paused", "step", t.step)
	return t.job.Advanced()
}

// writePause replaces the pause file, or leaves the old one as it was.
func writePause(path string, state checkpoint.State) (err error) {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := checkpoint.WriteState(f, state); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// resumePause loads the pause file if there is one from after the last
// checkpoint. A damaged one only costs the steps since that.
func (t *trainer) resumePause() (logOffset int64, ok bool, err error) {
	path, err := t.pausePath()
	if err != nil {
		return 0, false, err
	}
	state, err := checkpoint.ReadState(path, t.job.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		t.job.Log.Warn("going on from the last checkpoint instead of the last step", "error", err)
		return 0, false, nil
	}
	if state.Step <= int64(t.step) {
		return 0, false, nil
	}
	if next := t.nextCheckpoint(); state.Step > int64(next) { // which is gone: it has to be made again
		t.job.Log.Warn(fmt.Sprintf("going back from step %d to step %d, for the checkpoint of step %d is gone or damaged", state.Step, t.step, next))
		return 0, false, nil
	}
	if t.bitsSum, err = strconv.ParseFloat(state.Extra[keyBitsSum], 64); err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	if t.bitsSteps, err = strconv.Atoi(state.Extra[keyBitsSteps]); err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	parameters, err := state.Parameters(parameterPrefix)
	if err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	if err := t.model.Load(model.Each(parameters)); err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	t.step = int(state.Step)
	return state.LogOffset, true, t.restore(state)
}

// dropPause removes a pause file that a checkpoint has overtaken.
func (t *trainer) dropPause() error {
	path, err := t.pausePath()
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (t *trainer) pausePath() (string, error) {
	dir, err := t.job.Scratch()
	return filepath.Join(dir, pauseName), err
}
