package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"bitnet1/shared/artifact"
	"bitnet1/shared/checkpoint"
	"bitnet1/shared/event"
	"bitnet1/shared/model"
	"bitnet1/shared/safetensors"
	"bitnet1/shared/stage"
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
	return t.job.Emit(ctx, saved)
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
			Recipe: t.recipe, Gamma: t.job.Params.gamma(t.step - 1), Mix: 1,
		},
	})
	if err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}

// Prefixes of the optimizer's tensors in a state file.
const (
	prefixMean    = "exp_avg."
	prefixSquare  = "exp_avg_sq."
	prefixMasters = "master."
	keyUpdates    = "updates"
)

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
		Checkpoint: digest, Step: int64(t.step), Position: int64(t.step) * int64(t.batches.per), LogOffset: offset,
		Extra: map[string]string{keyUpdates: strconv.Itoa(s.Updates)},
	}
	for _, group := range []struct {
		prefix string
		list   []model.Parameter
	}{{prefixMean, s.ExpAvg}, {prefixSquare, s.ExpAvgSq}, {prefixMasters, s.Masters}} {
		for _, p := range group.list {
			state.Tensors = append(state.Tensors, safetensors.Tensor{Name: group.prefix + p.Name, Shape: p.Shape, Data: p.Data})
		}
	}
	if err := checkpoint.WriteState(w, state); err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}

// resume continues from the last checkpoint that an earlier attempt announced,
// or starts from the beginning.
func (t *trainer) resume() error {
	saved, err := stage.Emitted[event.CheckpointSaved](t.job)
	if err != nil {
		return err
	}
	var offset int64
	if len(saved) == 0 {
		if err := t.model.Init(t.job.Params.Seed); err != nil {
			return err
		}
	} else {
		for _, s := range saved {
			t.note(s)
		}
		last := saved[len(saved)-1]
		if offset, err = t.restore(last); err != nil {
			return fmt.Errorf("resuming from checkpoint %d: %w", last.Step, err)
		}
		t.step = last.Step
		t.job.Log.Info("resuming", "step", last.Step)
	}
	t.log, err = openLog(t.job, offset)
	return err
}

// restore loads the parameters and the optimizer's state of a checkpoint; it
// returns the length that the log had then.
func (t *trainer) restore(saved event.CheckpointSaved) (logOffset int64, err error) {
	path, err := t.job.Path(saved.Model)
	if err != nil {
		return 0, err
	}
	m, err := checkpoint.Read(path)
	if err != nil {
		return 0, err
	}
	if err := t.model.Load(m.Parameters); err != nil {
		return 0, err
	}
	if path, err = t.job.Path(saved.State); err != nil {
		return 0, err
	}
	file, err := checkpoint.ReadState(path, saved.Model.Digest)
	if err != nil {
		return 0, err
	}
	state, err := optimizerState(file)
	if err != nil {
		return 0, err
	}
	return file.LogOffset, t.model.SetState(state)
}

// optimizerState is the inverse of what saveState does to the optimizer's
// tensors.
func optimizerState(file checkpoint.State) (model.State, error) {
	var s model.State
	var err error
	if s.Updates, err = strconv.Atoi(file.Extra[keyUpdates]); err != nil {
		return s, fmt.Errorf("state has no count of updates: %w", err)
	}
	for _, tensor := range file.Tensors {
		data, ok := tensor.Data.([]float32)
		if !ok {
			return s, fmt.Errorf("state tensor %s is not float32", tensor.Name)
		}
		for prefix, list := range map[string]*[]model.Parameter{
			prefixMean: &s.ExpAvg, prefixSquare: &s.ExpAvgSq, prefixMasters: &s.Masters,
		} {
			if name, ok := strings.CutPrefix(tensor.Name, prefix); ok {
				*list = append(*list, model.Parameter{Name: name, Shape: tensor.Shape, Data: data})
			}
		}
	}
	return s, nil
}
