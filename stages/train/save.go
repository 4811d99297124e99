package main

import (
	"context"
	"fmt"
	"math"

	"bitnet1/shared/artifact"
	"bitnet1/shared/checkpoint"
	"bitnet1/shared/event"
)

// save validates, writes the checkpoint and the state beside it, and announces
// them.
func (t *trainer) save(ctx context.Context) error {
	bits, err := t.validate()
	if err != nil {
		return err
	}
	saved := event.CheckpointSaved{
		Step: t.step, Manifest: t.manifest, Tokens: t.tokens(), Last: t.step == t.job.Params.Steps,
		TrainBits: t.bitsSum / float64(t.bitsSteps), ValidationBits: bits, Best: bits < t.bestBits,
	}
	if saved.Model, err = t.saveModel(); err != nil {
		return err
	}
	if err := t.log.write(checkpointLine{
		Event: "checkpoint", Step: t.step, Tokens: saved.Tokens, TrainBPC: saved.TrainBits,
		ValBPC: finite(bits), Best: saved.Best, Model: saved.Model.Digest,
	}); err != nil {
		return err
	}
	if saved.State, err = t.saveState(saved.Model.Digest); err != nil {
		return err
	}
	t.note(saved)
	if err := t.job.Emit(ctx, saved); err != nil {
		return err
	}
	return t.dropPause()
}

// note takes a checkpoint, made now or in an earlier attempt, into account.
func (t *trainer) note(saved event.CheckpointSaved) {
	t.checkpoints++
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

func (t *trainer) saveModel() (artifact.Ref, error) {
	parameters, err := t.model.Parameters()
	if err != nil {
		return artifact.Ref{}, err
	}
	w, err := t.job.Create("checkpoint", "application/vnd.safetensors", fmt.Sprintf("step-%06d.safetensors", t.step))
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	err = checkpoint.Write(w, checkpoint.Model{
		Config: t.model.Config(), Parameters: parameters,
		Provenance: checkpoint.Provenance{
			Step: int64(t.step), Tokens: t.tokens(), Tokenizer: t.tokenizer.Name, Dataset: t.manifest.Digest,
			Recipe: t.recipe, Gamma: t.job.Params.gamma(t.step - 1), Mix: t.job.Params.mix(t.step - 1),
		},
	})
	if err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}

func (t *trainer) saveState(digest string) (artifact.Ref, error) {
	s, err := t.model.State()
	if err != nil {
		return artifact.Ref{}, err
	}
	offset, err := t.log.sync()
	if err != nil {
		return artifact.Ref{}, err
	}
	w, err := t.job.Create("state", "application/vnd.safetensors", fmt.Sprintf("step-%06d.state.safetensors", t.step))
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	state := checkpoint.State{
		Checkpoint: digest, Step: int64(t.step), Position: t.position(), LogOffset: offset, Tensors: checkpoint.OptimizerTensors(s),
	}
	if err := checkpoint.WriteState(w, state); err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}
