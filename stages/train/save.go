package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// pendingSave is a checkpoint that a goroutine writes while training continues. The trainer reads saved and err only
// after done is closed: then saved is complete, or err says why it is not.
type pendingSave struct {
	step     int
	position int64
	snapshot model.Snapshot

	saved event.CheckpointSaved
	err   error
	done  chan struct{}
}

// save validates the model and starts to write a checkpoint of the present step. It first waits for the checkpoint
// before.
func (t *trainer) save(ctx context.Context) error {
	began := time.Now()
	defer func() { t.times.leaveOut(time.Since(began)) }()
	if err := t.awaitSave(ctx); err != nil {
		return err
	}
	bits, err := t.validate()
	if err != nil {
		return err
	}
	blend := 1 - t.job.Params.mix(t.steps-1)
	s := &pendingSave{step: t.steps, position: t.position(), done: make(chan struct{})}
	if s.snapshot, err = t.model.Snapshot(); err != nil {
		return err
	}
	s.saved = event.CheckpointSaved{
		Step: t.steps, Manifest: t.dataset.Manifest, Tokens: t.tokens(), Last: t.steps == t.job.Params.Steps,
		TrainBits: t.lossBits / float64(t.lossSteps), ValidationBits: bits, Best: blend == 0 && bits < t.bestBits,
		Blend: blend, Tokenizer: t.dataset.Tokenizer, Previous: t.previous,
	}
	t.countCheckpoint(s.saved)
	t.reportValidation()
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

// write writes the two files of a checkpoint and its line in the log. Training continues meanwhile: of the trainer,
// write uses the log, which is locked, and fields that training does not change.
func (t *trainer) write(s *pendingSave) (err error) {
	if s.saved.Model, err = t.writeModel(s); err != nil {
		return err
	}
	offset, err := t.log.release(trainlog.Checkpoint{
		Event: trainlog.EventCheckpoint, Step: s.step, Tokens: s.saved.Tokens, TrainBPC: s.saved.TrainBits,
		ValBPC: nullable(s.saved.ValidationBits), Best: s.saved.Best, Model: s.saved.Model.Digest,
	})
	if err != nil {
		return err
	}
	s.saved.State, err = t.writeState(s, offset)
	return err
}

// awaitSave waits until the checkpoint that is being written, if any, is complete, and announces it.
func (t *trainer) awaitSave(ctx context.Context) error {
	s := t.saving
	if s == nil {
		return nil
	}
	<-s.done
	t.saving = nil
	if errors.Is(s.err, checkpoint.ErrNotFinite) {
		return stage.Permanentf("step %d: %w: lower learning_rate (now %g); the last checkpoint is kept", s.step, s.err,
			t.job.Params.LearningRate)
	}
	if s.err != nil {
		return s.err
	}
	if err := t.job.Emit(ctx, s.saved); err != nil {
		return err
	}
	model := s.saved.Model // a copy: s has the snapshot of all parameters
	t.previous = &model
	return t.removePauseFile()
}

// pollSave announces the checkpoint that was being written if it is complete. It does not wait.
func (t *trainer) pollSave(ctx context.Context) error {
	if t.saving == nil {
		return nil
	}
	select {
	case <-t.saving.done:
		return t.awaitSave(ctx)
	default:
		return nil
	}
}

// countCheckpoint takes a checkpoint of this attempt or of an earlier one into account.
func (t *trainer) countCheckpoint(saved event.CheckpointSaved) {
	t.checkpoints++
	t.savedStep = saved.Step
	t.lossBits, t.lossSteps, t.validationBits = 0, 0, saved.ValidationBits
	if saved.Best {
		t.bestBits, t.bestStep = saved.ValidationBits, saved.Step
	}
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// nullable points to v; it is nil, which JSON writes as null, for a loss that was not measured.
func nullable(v float64) *float64 {
	if !finite(v) {
		return nil
	}
	return &v
}

func (t *trainer) writeModel(s *pendingSave) (artifact.Ref, error) {
	w, err := t.job.Create("checkpoint", "application/vnd.safetensors", fmt.Sprintf("step-%06d.safetensors", s.step))
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	err = checkpoint.Write(w, checkpoint.Model{
		Config: t.model.Config(), Parameters: s.snapshot.Parameters,
		Provenance: checkpoint.Provenance{
			Step: int64(s.step), Tokens: s.saved.Tokens, Tokenizer: t.tokenizer.Name, TokenizerFile: t.vocab,
			Dataset:   t.dataset.Manifest.Digest,
			Documents: t.options.Documents, Recipe: t.recipe,
			Gamma: t.job.Params.gamma(s.step - 1), Mix: t.job.Params.mix(s.step - 1),
		},
	})
	if err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}

func (t *trainer) writeState(s *pendingSave, logOffset int64) (artifact.Ref, error) {
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
