package main

import (
	"context"
	"errors"
	"fmt"
	"math"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// saving is a checkpoint that is written while training goes on. Nothing of it
// changes until done is closed; then saved is complete, or err says what went
// wrong.
type saving struct {
	step     int
	position int64
	snapshot model.Snapshot

	saved event.CheckpointSaved
	err   error
	done  chan struct{}
}

// save validates and begins to write the checkpoint of the present step, once
// the one before is done.
func (t *trainer) save(ctx context.Context) error {
	if err := t.settle(ctx); err != nil {
		return err
	}
	bits, err := t.validate()
	if err != nil {
		return err
	}
	blend := 1 - t.job.Params.mix(t.step-1)
	s := &saving{step: t.step, position: t.position(), done: make(chan struct{})}
	if s.snapshot, err = t.model.Snapshot(); err != nil {
		return err
	}
	s.saved = event.CheckpointSaved{
		Step: t.step, Manifest: t.manifest, Tokens: t.tokens(), Last: t.step == t.job.Params.Steps,
		TrainBits: t.bitsSum / float64(t.bitsSteps), ValidationBits: bits, Best: blend == 0 && bits < t.bestBits, Blend: blend,
	}
	t.note(s.saved)
	t.validated()
	t.log.hold()
	t.saving = s
	go func() {
		defer close(s.done)
		defer func() {
			if r := recover(); r != nil {
				s.err = fmt.Errorf("checkpoint of step %d: panic: %v", s.step, r)
			}
		}()
		s.err = t.write(s)
	}()
	return nil
}

// write makes the files of a checkpoint. It shares with training what neither
// changes, and the log.
func (t *trainer) write(s *saving) (err error) {
	if s.saved.Model, err = t.writeModel(s); err != nil {
		return err
	}
	offset, err := t.log.release(checkpointLine{
		Event: "checkpoint", Step: s.step, Tokens: s.saved.Tokens, TrainBPC: s.saved.TrainBits,
		ValBPC: finite(s.saved.ValidationBits), Best: s.saved.Best, Model: s.saved.Model.Digest,
	})
	if err != nil {
		return err
	}
	s.saved.State, err = t.writeState(s, offset)
	return err
}

// settle waits for the checkpoint that is being written, if there is one, and
// announces it.
func (t *trainer) settle(ctx context.Context) error {
	s := t.saving
	if s == nil {
		return nil
	}
	<-s.done
	t.saving = nil
	if errors.Is(s.err, checkpoint.ErrNotFinite) {
		return stage.Refusef("step %d: %w: lower learning_rate (now %g); the last checkpoint is kept", s.step, s.err, t.job.Params.LearningRate)
	}
	if s.err != nil {
		return s.err
	}
	if err := t.job.Emit(ctx, s.saved); err != nil {
		return err
	}
	return t.dropPause()
}

// settled is settle without waiting.
func (t *trainer) settled(ctx context.Context) error {
	if t.saving == nil {
		return nil
	}
	select {
	case <-t.saving.done:
		return t.settle(ctx)
	default:
		return nil
	}
}

// note takes a checkpoint, made now or in an earlier attempt, into account.
func (t *trainer) note(saved event.CheckpointSaved) {
	t.checkpoints++
	t.savedStep = saved.Step
	t.bitsSum, t.bitsSteps, t.lastBits = 0, 0, saved.ValidationBits
	if saved.Best {
		t.bestBits, t.bestStep = saved.ValidationBits, saved.Step
	}
}

// finite lets JSON have a loss that was not measured: null.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func (t *trainer) writeModel(s *saving) (artifact.Ref, error) {
	w, err := t.job.Create("checkpoint", "application/vnd.safetensors", fmt.Sprintf("step-%06d.safetensors", s.step))
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	err = checkpoint.Write(w, checkpoint.Model{
		Config: t.model.Config(), Parameters: s.snapshot.Parameters,
		Provenance: checkpoint.Provenance{
			Step: int64(s.step), Tokens: s.saved.Tokens, Tokenizer: t.tokenizer.Name, Dataset: t.manifest.Digest,
			Documents: t.options.Documents,
			Recipe:    t.recipe, Gamma: t.job.Params.gamma(s.step - 1), Mix: t.job.Params.mix(s.step - 1),
		},
	})
	if err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}

func (t *trainer) writeState(s *saving, logOffset int64) (artifact.Ref, error) {
	w, err := t.job.Create("state", "application/vnd.safetensors", fmt.Sprintf("step-%06d.state.safetensors", s.step))
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	state := checkpoint.State{
		Checkpoint: s.saved.Model.Digest, Step: int64(s.step), Position: s.position, LogOffset: logOffset,
		Tensors: checkpoint.OptimizerTensors(s.snapshot.State),
	}
	if err := checkpoint.WriteState(w, state); err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}
