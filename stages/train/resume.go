package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// Training resumes from the later of two states: the last checkpoint that was announced, or the pause file. A trainer
// that is told to stop writes the pause file into the scratch folder of its job. A trainer that is killed writes none:
// the next attempt takes the steps since the last state again, and they give the same bytes.
const pauseName = "pause.safetensors"

// Keys of the pause file that a checkpoint's state does not have.
const (
	parameterPrefix = "parameter."
	keyLossBits     = "bits_sum" // trainer.lossBits
	keyLossSteps    = "bits_steps"
)

// resume sets the trainer to the state that an earlier attempt left, or to the beginning.
func (t *trainer) resume() error {
	saved, err := stage.Emitted[event.CheckpointSaved](t.job)
	if err != nil {
		return err
	}
	t.steps, t.savedStep = t.batches.start.step, t.batches.start.step
	for _, s := range saved {
		t.countCheckpoint(s)
		t.steps, t.previous = s.Step, &s.Model
	}
	offset, paused, err := t.loadPauseFile()
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
	if t.steps > 0 {
		t.job.Log.Info("resuming", "step", t.steps)
	}
	if t.log, err = openLog(t.job, offset); err != nil {
		return err
	}
	t.times = openTimes(t.job, t.steps, t.tokens())
	return nil
}

// begin sets the parameters, and with InitState the optimizer's state, that training starts from.
func (t *trainer) begin() error {
	p := t.job.Params
	if err := t.model.Init(p.Seed); err != nil || p.Init == "" {
		return err
	}
	if err := t.load(p.Init); err != nil || !p.InitState {
		return err
	}
	state, err := checkpoint.ReadState(p.statePath(), p.InitDigest)
	if err != nil {
		return fmt.Errorf("init_state: %w", err)
	}
	if err := t.restore(state); err != nil {
		return stage.Permanentf("init_state: %w", err)
	}
	return nil
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

// resumeCheckpoint loads the parameters and the optimizer's state of a checkpoint. It returns the length of the log at
// that checkpoint.
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

// nextCheckpoint is the step of the next checkpoint.
func (t *trainer) nextCheckpoint() int {
	every := t.job.Params.CheckpointEvery
	return min((t.steps/every+1)*every, t.job.Params.Steps)
}

func (t *trainer) restore(file checkpoint.State) error {
	state, err := file.Optimizer()
	if err != nil {
		return err
	}
	return t.model.SetState(state)
}

// pause keeps what the next attempt needs to continue from the present step. It first finishes the checkpoint that is
// being written. The event server has ten seconds to take the announcement; if it does not, the next attempt announces.
func (t *trainer) pause(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := t.awaitSave(ctx)
	if errors.Is(err, checkpoint.ErrNotFinite) {
		return err
	}
	return errors.Join(err, t.writePauseFile())
}

// writePauseFile announces nothing: where training was stopped must not show in what it makes.
func (t *trainer) writePauseFile() error {
	snapshot, err := t.model.Snapshot()
	if err != nil {
		return err
	}
	offset, err := t.log.sync()
	if err != nil {
		return err
	}
	state := checkpoint.State{
		Checkpoint: t.job.Key, Step: int64(t.steps), Position: t.position(), LogOffset: offset,
		Extra: map[string]string{
			keyLossBits:  strconv.FormatFloat(t.lossBits, 'x', -1, 64),
			keyLossSteps: strconv.Itoa(t.lossSteps),
		},
		Tensors: append(checkpoint.OptimizerTensors(snapshot.State),
			checkpoint.ParameterTensors(parameterPrefix, snapshot.Parameters)...),
	}
	if _, err := t.job.Keep(pauseName, func(w io.Writer) error { return checkpoint.WriteState(w, state) }); err != nil {
		return fmt.Errorf("keeping step %d to go on from: %w", t.steps, err)
	}
	t.job.Log.Info("paused", "step", t.steps)
	return t.job.Advanced()
}

// loadPauseFile loads the pause file if it is of a later step than the last checkpoint. A damaged pause file is
// ignored: it costs the steps since the last checkpoint.
func (t *trainer) loadPauseFile() (logOffset int64, ok bool, err error) {
	path, err := t.job.Kept(pauseName)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	var state checkpoint.State
	if err == nil {
		state, err = checkpoint.ReadState(path, t.job.Key)
	}
	if err != nil {
		t.job.Log.Warn("going on from the last checkpoint instead of the last step", "error", err)
		return 0, false, nil
	}
	if state.Step <= int64(t.steps) {
		return 0, false, nil
	}
	if next := t.nextCheckpoint(); state.Step > int64(next) { // the checkpoint between is gone: make it again
		t.job.Log.Warn(fmt.Sprintf("going back from step %d to step %d, for the checkpoint of step %d is gone or damaged",
			state.Step, t.steps, next))
		return 0, false, nil
	}
	if t.lossBits, err = strconv.ParseFloat(state.Extra[keyLossBits], 64); err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	if t.lossSteps, err = strconv.Atoi(state.Extra[keyLossSteps]); err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	parameters, err := state.Parameters(parameterPrefix)
	if err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	if err := t.model.Load(model.Each(parameters)); err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	t.steps = int(state.Step)
	return state.LogOffset, true, t.restore(state)
}

// removePauseFile removes the pause file, of which a later checkpoint takes the place.
func (t *trainer) removePauseFile() error { return t.job.Forget(pauseName) }
