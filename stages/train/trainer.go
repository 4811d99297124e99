package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"bitnet1/kernels"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/stage"
)

// trainer trains one model: it takes steps, saves checkpoints, and pauses when it is told to stop.
type trainer struct {
	job       *stage.Job[Params]
	dataset   event.DatasetSealed
	tokenizer dataset.TokenizerInfo
	vocab     []byte // the tokenizer.json; nil: the tokenizer is built in
	data      *dataset.Dataset
	config    model.Config
	options   model.Options
	device    kernels.Device
	model     *model.Model
	ranks     *ranks // the other ranks; nil: it trains alone
	batches   prefetcher
	lengths   ramp            // tokens of the sequences of a step
	recipe    json.RawMessage // the parameters, as checkpoints hold them
	log       *trainingLog
	times     *stepTimes
	saving    *pendingSave // nil: no checkpoint is being written

	steps          int           // taken so far
	checkpoints    int           // saved so far
	savedStep      int           // step of the last checkpoint
	previous       *artifact.Ref // model of the last checkpoint that was announced; nil: none was
	lossBits       float64       // sum of the training losses since the last checkpoint, bits per token
	lossSteps      int           // number of losses in that sum
	validationBits float64       // validation loss at the last checkpoint
	bestBits       float64       // lowest validation loss of a checkpoint of ±1 weights
	bestStep       int           // step of that checkpoint

	startTime time.Time // of this attempt
	startStep int
	reported  stage.Progress // the last report
	estimated bool           // whether the time that is left was said
}

func newTrainer(ctx context.Context, job *stage.Job[Params], in event.DatasetSealed, data *dataset.Dataset,
	m *dataset.Manifest) (*trainer, error) {
	c, err := configure(job, m)
	if err != nil {
		return nil, err
	}
	p := job.Params
	if data.Train.Len() == 0 {
		return nil, fmt.Errorf("dataset %s has no training sequences: shard it with more documents",
			digest.Short(in.Manifest.Digest))
	}
	vocab, err := tokenizerFile(job, m.Tokenizer)
	if err != nil {
		return nil, err
	}
	recipe, err := param.Canonical(p)
	if err != nil {
		return nil, err
	}
	micro, perStep, err := p.sequences(c.Seq)
	if err != nil {
		return nil, err
	}
	lengths, err := p.lengths(c.Seq)
	if err != nil {
		return nil, err
	}
	from, err := p.beginning()
	if err != nil {
		return nil, err
	}
	notes, err := p.continues(from.step)
	if err != nil {
		return nil, err
	}
	t := &trainer{
		job: job, dataset: in, tokenizer: m.Tokenizer, vocab: vocab, data: data, recipe: recipe, config: c,
		lengths: lengths,
		options: model.Options{
			Batch: micro, Seq: c.Seq, GradBits: p.GradBits, WeightGradBits: p.WeightGradBits, Bonsai: p.AnnealBinarize,
			Freeze: p.Freeze, FlipThreshold: p.flipThreshold(), Muon: p.Optimizer == muon,
			Documents: p.documents(m.Tokenizer), Snapshots: true, FixedSums: p.GradientSums == fixedSums,
			Abandon: func() bool { return ctx.Err() != nil },
		},
		batches:  prefetcher{batches: newBatches(data.Train, p.Seed, c.Seq, perStep, from), steps: p.Steps},
		bestBits: math.Inf(1),
	}
	t.batches.tell = t.tell
	if err := t.openDevices(); err != nil {
		t.close()
		return nil, err
	}
	job.Log.Info("training", "device", t.device.Name(), "tokens in a step", perStep.last*c.Seq,
		"tokens at once", micro*c.Seq)
	for _, text := range append(notes, p.notes(c.Seq)...) {
		job.Note("%s", text)
	}
	return t, nil
}

// tokenizerFile is the tokenizer.json of the dataset's tokens; nil: their tokenizer is built in.
func tokenizerFile(job *stage.Job[Params], t dataset.TokenizerInfo) ([]byte, error) {
	if t.Digest == "" {
		return nil, nil
	}
	path, err := job.Path(event.TokenizerRef(t.Digest, t.Size, t.FileName()))
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// configure returns the configuration of the model. A checkpoint to start from gives it, and also replaces the
// parameters of the job that describe the model, so that the recipe in checkpoints is true.
func configure(job *stage.Job[Params], m *dataset.Manifest) (model.Config, error) {
	initial, err := job.Params.initial(m.Tokenizer)
	if err != nil {
		return model.Config{}, err
	}
	if initial == nil {
		return job.Params.config(m.Tokenizer, m.SequenceLength)
	}
	job.Params = job.Params.adopt(*initial)
	c, err := job.Params.config(m.Tokenizer, m.SequenceLength)
	c.Eps = initial.Eps
	return c, err
}

// openDevices makes the model on the device, and on those of the other ranks.
func (t *trainer) openDevices() error {
	devices, err := devicesOf(t.job.Params, t.job.Host)
	if err != nil {
		return err
	}
	perStep := t.batches.perStep
	if err := checkMicroBatches(perStep.first/t.options.Batch, perStep.last/t.options.Batch, t.job.Params,
		len(devices)); err != nil {
		return err
	}
	host := t.job.Host
	if len(devices) > 1 {
		s := setup{Threads: host.Threads, Config: t.config, Options: t.options}
		s.Options.Abandon, s.Options.Snapshots = nil, false
		if t.ranks, err = startRanks(devices, s); err != nil {
			return err
		}
		for _, p := range t.ranks.peers {
			t.job.Log.Info("rank", "rank", p.rank, "device", p.device, "pid", p.Process.Pid)
		}
		host.Threads = max(1, host.Threads/len(devices))
	}
	device, err := compute.Open(devices[0], host.Threads)
	if err != nil {
		return err
	}
	if t.ranks == nil {
		return t.build(device)
	}
	t.device = device
	if t.options.Communicator, err = t.ranks.join(device); err != nil {
		return err
	}
	if err := t.build(device); err != nil {
		return err
	}
	return t.ranks.answered()
}

// build makes the model on device.
func (t *trainer) build(device kernels.Device) (err error) {
	t.device = device
	t.model, err = model.New(t.config, device, t.options)
	return t.advise(err)
}

// share gives the other ranks the state to go on from.
func (t *trainer) share() error {
	if t.ranks == nil {
		return nil
	}
	updates := t.model.Updates()
	if err := t.ranks.tell(order{Share: &share{Updates: updates}}); err != nil {
		return t.ranks.lost(err)
	}
	if err := t.model.Share(updates); err != nil {
		return t.ranks.lost(err)
	}
	return nil
}

// close waits for the checkpoint and the batch that other goroutines work on, then frees the device.
func (t *trainer) close() {
	if t.saving != nil {
		<-t.saving.done
	}
	if t.log != nil {
		t.log.close()
		t.times.close()
	}
	t.ranks.close() // also where one of them takes no batch any more
	t.batches.wait()
	if t.device == nil {
		return
	}
	if err := t.device.Close(); err != nil {
		t.job.Log.Warn("closing the device", "error", err)
	}
}

// run trains to the last step and announces the end of training. When it is told to stop, it pauses and returns why.
func (t *trainer) run(ctx context.Context) error {
	t.startTime, t.startStep = time.Now(), t.steps
	for t.steps < t.job.Params.Steps || t.checkpointDue() {
		if reason := t.stopReason(ctx); reason != nil {
			return errors.Join(reason, t.pause(ctx))
		}
		err := t.stepAndSave(ctx)
		if errors.Is(err, model.ErrAbandoned) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			// The step, or the checkpoint after it, changed nothing.
			return errors.Join(t.interruption(ctx, err), t.pause(ctx))
		}
		if t.ranks.failed() {
			err = t.ranks.lost(err)
		}
		if err != nil {
			return t.fail(ctx, err)
		}
	}
	if err := t.awaitSave(ctx); err != nil {
		return err
	}
	return t.finish(ctx)
}

// interruption is why a step was abandoned: the trainer is told to stop, or a rank was lost.
func (t *trainer) interruption(ctx context.Context, err error) error {
	if ctx.Err() != nil || t.ranks == nil {
		return ctx.Err()
	}
	return t.ranks.lost(err)
}

// stepAndSave takes a step, and saves a checkpoint if one is due after it. It takes no step if a checkpoint is due
// already: then an earlier attempt was stopped between a step and its checkpoint.
func (t *trainer) stepAndSave(ctx context.Context) error {
	if !t.checkpointDue() {
		if err := t.step(); err != nil {
			return err
		}
	}
	if t.checkpointDue() {
		return t.save(ctx)
	}
	return t.pollSave(ctx)
}

// checkpointDue reports whether a checkpoint of the present step has to be saved.
func (t *trainer) checkpointDue() bool {
	return t.steps > t.savedStep && (t.steps%t.job.Params.CheckpointEvery == 0 || t.steps == t.job.Params.Steps)
}

// update is how a step changes the parameters.
func (t *trainer) update(step int) model.Update {
	u := t.job.Params.update(step)
	if n := t.lengths.at(step); n < t.config.Seq {
		u.Seq = n
	}
	return u
}

// tell has the other ranks take a step.
func (t *trainer) tell(b batch) error {
	return t.ranks.tell(order{Step: &step{Tokens: b.tokens, Targets: b.targets, Update: t.update(b.step)}})
}

// step takes one optimizer step, reports it, and logs every LogEvery-th.
func (t *trainer) step() error {
	tokens, targets, err := t.batches.of(t.steps)
	if err != nil {
		return err
	}
	update := t.update(t.steps)
	if err := t.model.Step(tokens, targets, update); err != nil {
		return err
	}
	result, err := t.model.Result()
	if err != nil {
		return err
	}
	t.steps++
	bits := result.Loss / math.Ln2
	if !finite(bits) || !finite(result.Norm) {
		return t.diverged(bits, result.Norm)
	}
	t.lossBits += bits
	t.lossSteps++
	t.reportStep(bits, update.LearningRate)
	if t.steps%t.job.Params.LogEvery != 0 && t.steps != t.job.Params.Steps {
		return nil
	}
	t.times.took(t.steps, t.tokens())
	return t.log.write(trainlog.Step{
		Event: trainlog.EventStep, Step: t.steps, Tokens: t.tokens(), TrainBPC: bits,
		LearningRate: update.LearningRate, Gamma: update.Gamma, GradientNorm: result.Norm, Flipped: result.Flipped,
		Sequence: update.Seq,
	})
}

// diverged is the error of a step whose loss or gradient is not finite. It names the first tensor that is not.
func (t *trainer) diverged(bits, norm float64) error {
	where, err := t.model.NotFinite()
	if err != nil {
		return err
	}
	if where == "" {
		where = "no gradient or parameter is, so their squares are too large to be added up"
	}
	return stage.Permanentf("step %d: the loss is %g bits and the gradient's norm %g; first among what is not finite: "+
		"%s: lower learning_rate (now %g) or warm up for longer; the last checkpoint is kept",
		t.steps, bits, norm, where, t.job.Params.LearningRate)
}

// stopReason is why to stop before the next step, or nil.
func (t *trainer) stopReason(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch at := t.job.Params.StopAt; {
	case at > 0 && t.steps > at:
		return stage.Permanentf("nothing is trained, as stop_at asks: it is %d, and %d steps have been taken; without "+
			"stop_at, or with a later one, the same command goes on from here", at, t.steps)
	case at > 0 && t.steps == at:
		return stage.Permanentf("stopped after step %d, as stop_at asks: without stop_at, or with a later one, the same "+
			"command goes on from here", t.steps)
	}
	return nil
}

// fail ends a run after an error. It first finishes the checkpoint that is being written. If the parameters of that
// checkpoint are not finite, they are the cause of the error and fail says so instead.
func (t *trainer) fail(ctx context.Context, err error) error {
	saving := t.awaitSave(ctx)
	if errors.Is(saving, checkpoint.ErrNotFinite) {
		return saving
	}
	if saving != nil {
		t.job.Log.Warn("a checkpoint was not finished", "error", saving)
	}
	return err
}

// position is the number of sequences of the data order that the steps have read.
func (t *trainer) position() int64 { return t.batches.position(t.steps) }

// tokens is the number of training tokens that the steps have read.
func (t *trainer) tokens() int64 { return t.batches.tokens(t.steps) }

// validate returns the loss on the validation sample in bits per token, NaN if the sample is empty.
func (t *trainer) validate() (float64, error) {
	n := min(t.job.Params.ValidationSequences, t.data.Validation.Len())
	settings := model.Settings{Gamma: t.job.Params.gamma(t.steps - 1), Tau: t.job.Params.Tau,
		Mix: t.job.Params.mix(t.steps - 1)}
	var sum float64
	var count int
	for from := 0; from < n; from += t.options.Batch {
		var tokens, targets []int32
		var err error
		for i := from; i < min(from+t.options.Batch, n); i++ {
			if tokens, targets, err = t.data.Validation.AppendTargets(i, tokens, targets); err != nil {
				return 0, stage.Permanent(err)
			}
		}
		losses, err := t.model.Losses(tokens, targets, settings)
		if err != nil {
			return 0, err
		}
		for i, loss := range losses {
			if targets[i] >= 0 {
				sum += float64(loss)
				count++
			}
		}
	}
	return sum / float64(count) / math.Ln2, nil
}

// finish makes an artifact of the log and announces the end of training.
func (t *trainer) finish(ctx context.Context) error {
	log, err := t.log.artifact(t.job)
	if err != nil {
		return err
	}
	if err := t.job.KeepTimes(trainlog.TimesFileName); err != nil {
		t.job.Log.Warn("no times of steps are kept", "error", err)
	}
	return t.job.Emit(ctx, event.TrainingFinished{
		Steps: t.steps, Tokens: t.tokens(), Checkpoints: t.checkpoints, BestStep: t.bestStep, Log: log,
	})
}
