package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"bitnet1/kernels"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/stage"
)

// trainer is one training run at work.
type trainer struct {
	job       *stage.Job[Params]
	manifest  artifact.Ref
	tokenizer dataset.TokenizerInfo
	data      *dataset.Dataset
	config    model.Config
	options   model.Options
	device    kernels.Device
	model     *model.Model
	batches   ahead
	recipe    json.RawMessage
	log       *trainingLog
	times     *stepTimes
	saving    *saving // nil: no checkpoint is being written

	step        int // steps done
	savedStep   int // of the last checkpoint
	bestBits    float64
	bestStep    int
	checkpoints int
	bitsSum     float64 // training loss summed since the last checkpoint
	bitsSteps   int
	lastBits    float64 // validation loss at the last checkpoint
	started     time.Time
	said        stage.Progress // last
	estimated   bool           // the time that is left was said
	startStep   int
}

func newTrainer(ctx context.Context, job *stage.Job[Params], ref artifact.Ref, data *dataset.Dataset, m *dataset.Manifest) (*trainer, error) {
	initial, err := job.Params.initial(m.Tokenizer)
	if err != nil {
		return nil, err
	}
	if initial != nil {
		job.Params = job.Params.adopt(*initial)
	}
	p := job.Params
	c, err := p.config(m.Tokenizer, m.SequenceLength)
	if err != nil {
		return nil, err
	}
	if initial != nil {
		c.Eps = initial.Eps
	}
	if data.Train.Len() == 0 {
		return nil, fmt.Errorf("dataset %s has no training sequences: shard it with more documents", digest.Short(ref.Digest))
	}
	recipe, err := param.Canonical(p)
	if err != nil {
		return nil, err
	}
	micro, per, err := p.sequences(c.Seq)
	if err != nil {
		return nil, err
	}
	t := &trainer{
		job: job, manifest: ref, tokenizer: m.Tokenizer, data: data, recipe: recipe, config: c,
		options: model.Options{
			Batch: micro, Seq: c.Seq, GradBits: p.GradBits, Bonsai: p.AnnealBinarize, Freeze: p.Freeze, FlipThreshold: p.flipThreshold(),
			Documents: p.documents(m.Tokenizer), Snapshots: true, Abandon: func() bool { return ctx.Err() != nil },
		},
		batches: ahead{batches: newBatches(data.Train, p.Seed, c.Seq, per), steps: p.Steps}, bestBits: math.Inf(1),
	}
	device, err := compute.Open(job.Host.Device, job.Host.Threads)
	if err != nil {
		return nil, err
	}
	if err := t.build(device); err != nil {
		t.close()
		return nil, err
	}
	job.Log.Info("training", "device", device.Name(), "tokens in a step", per*c.Seq, "tokens at once", micro*c.Seq)
	for _, text := range p.notes(c.Seq) {
		job.Note("%s", text)
	}
	return t, nil
}

// build makes the model on device.
func (t *trainer) build(device kernels.Device) (err error) {
	t.device = device
	t.model, err = model.New(t.config, device, t.options)
	return t.advise(err)
}

// close ends what works beside the training, then frees the device.
func (t *trainer) close() {
	if t.saving != nil {
		<-t.saving.done
	}
	t.batches.wait()
	if t.log != nil {
		t.log.close()
		t.times.close()
	}
	if err := t.device.Close(); err != nil {
		t.job.Log.Warn("closing the device", "error", err)
	}
}

// run trains from the present step to the last.
func (t *trainer) run(ctx context.Context) error {
	t.started, t.startStep = time.Now(), t.step
	for t.step < t.job.Params.Steps || t.due() {
		if stop := t.stop(ctx); stop != nil {
			return errors.Join(stop, t.leave(ctx))
		}
		err := t.advance(ctx)
		if errors.Is(err, model.ErrAbandoned) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return errors.Join(ctx.Err(), t.leave(ctx)) // as before the step, or before what follows it
		}
		if err != nil {
			return t.abandon(ctx, err)
		}
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	return t.finish(ctx)
}

// advance takes a step, and begins a checkpoint where one is due. It was due already where an earlier attempt ended
// between the two.
func (t *trainer) advance(ctx context.Context) error {
	if !t.due() {
		if err := t.once(); err != nil {
			return err
		}
	}
	if t.due() {
		return t.save(ctx)
	}
	return t.settled(ctx)
}

// due reports whether the present step has still to be saved as a checkpoint.
func (t *trainer) due() bool {
	return t.step > t.savedStep && (t.step%t.job.Params.CheckpointEvery == 0 || t.step == t.job.Params.Steps)
}

// leave keeps what is needed to go on another time. A checkpoint that is being
// written is announced all the same, unless that takes long: where it is not, it
// is when training goes on.
func (t *trainer) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := t.settle(ctx)
	if errors.Is(err, checkpoint.ErrNotFinite) {
		return err
	}
	return errors.Join(err, t.pause())
}

// abandon ends a run that failed. A checkpoint that was being written is
// finished first; if it cannot be, for what it holds, that came first.
func (t *trainer) abandon(ctx context.Context, err error) error {
	saving := t.settle(ctx)
	if errors.Is(saving, checkpoint.ErrNotFinite) {
		return saving
	}
	if saving != nil {
		t.job.Log.Warn("a checkpoint was not finished", "error", saving)
	}
	return err
}

// once takes one optimizer step.
func (t *trainer) once() error {
	tokens, targets, err := t.batches.of(t.step)
	if err != nil {
		return stage.Refuse(err)
	}
	u := t.job.Params.update(t.step)
	if err := t.model.Step(tokens, targets, u); err != nil {
		return err
	}
	result, err := t.model.Result()
	if err != nil {
		return err
	}
	t.step++
	bits := result.Loss / math.Ln2
	if finite(bits) == nil || finite(result.Norm) == nil {
		return t.diverged(bits, result.Norm)
	}
	t.bitsSum += bits
	t.bitsSteps++
	t.progress(bits, u.LearningRate)
	if t.step%t.job.Params.LogEvery == 0 || t.step == t.job.Params.Steps {
		t.times.took(t.step, t.batches.per*t.batches.seq)
		return t.log.write(stepLine{
			Event: "step", Step: t.step, Tokens: t.tokens(), TrainBPC: bits,
			LearningRate: u.LearningRate, Gamma: u.Gamma, GradientNorm: result.Norm, Flipped: result.Flipped,
		})
	}
	return nil
}

// diverged says where the step that was taken last went wrong.
func (t *trainer) diverged(bits, norm float64) error {
	where, err := t.model.NotFinite()
	if err != nil {
		return err
	}
	if where == "" {
		where = "no gradient or parameter is, so their squares are too large to be added up"
	}
	return stage.Refusef("step %d: the loss is %g bits and the gradient's norm %g; first among what is not finite: %s: lower learning_rate (now %g) or warm up for longer; the last checkpoint is kept",
		t.step, bits, norm, where, t.job.Params.LearningRate)
}

// stop says why to stop before the next step; nil to go on.
func (t *trainer) stop(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch at := t.job.Params.StopAt; {
	case at > 0 && t.step > at:
		return stage.Refusef("nothing is trained, as stop_at asks: it is %d, and %d steps have been taken; without stop_at, or with a later one, the same command goes on from here", at, t.step)
	case at > 0 && t.step == at:
		return stage.Refusef("stopped after step %d, as stop_at asks: without stop_at, or with a later one, the same command goes on from here", t.step)
	}
	return nil
}

// position is how many sequences of the data order were consumed.
func (t *trainer) position() int64 { return int64(t.step) * int64(t.batches.per) }

// tokens is how many training tokens were seen.
func (t *trainer) tokens() int64 { return t.position() * int64(t.batches.seq) }

// progress says what the step that was taken last measured.
func (t *trainer) progress(bits, rate float64) {
	spent := time.Since(t.started)
	values := t.measured(spent, bits, rate)
	t.estimate(spent, values["tokens_per_second"], values["seconds_left"])
	t.said = stage.Progress{Done: int64(t.step), Total: int64(t.job.Params.Steps), Unit: "steps", Values: values}
	t.job.Progress(t.said)
}

// measured are the figures of the step that was taken last. The rate and the time that is left are those of the steps that
// this attempt took in the time spent: what an earlier attempt took says nothing of this machine.
func (t *trainer) measured(spent time.Duration, bits, rate float64) map[string]float64 {
	perStep := spent.Seconds() / float64(t.step-t.startStep)
	values := map[string]float64{
		"step": float64(t.step), "loss": bits, "learning_rate": rate,
		"tokens_per_second": float64(t.batches.per*t.batches.seq) / perStep,
		"seconds_left":      perStep * float64(t.job.Params.Steps-t.step),
	}
	if t.checkpoints > 0 {
		values["val_bpc"] = t.lastBits
	}
	return values
}

// validated says what the checkpoint of the present step is worth, beside what was said of the step.
func (t *trainer) validated() {
	if finite(t.lastBits) == nil || t.said.Values == nil {
		return
	}
	t.said.Values = maps.Clone(t.said.Values)
	t.said.Values["val_bpc"] = t.lastBits
	t.job.Progress(t.said)
}

// validate returns the loss on the validation sample in bits per token, or NaN
// when there is no validation split.
func (t *trainer) validate() (float64, error) {
	n := min(t.job.Params.ValidationSequences, t.data.Validation.Len())
	settings := model.Settings{Gamma: t.job.Params.gamma(t.step - 1), Tau: t.job.Params.Tau, Mix: t.job.Params.mix(t.step - 1)}
	var sum float64
	var count int
	for from := 0; from < n; from += t.options.Batch {
		var tokens, targets []int32
		var err error
		for i := from; i < min(from+t.options.Batch, n); i++ {
			if tokens, targets, err = t.data.Validation.AppendTargets(i, tokens, targets); err != nil {
				return 0, stage.Refuse(err)
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

// finish says that training has ended and makes an artifact of the log.
func (t *trainer) finish(ctx context.Context) error {
	log, err := t.log.artifact(t.job)
	if err != nil {
		return err
	}
	if err := t.job.KeepTimes(timesName); err != nil {
		t.job.Log.Warn("no times of steps are kept", "error", err)
	}
	return t.job.Emit(ctx, event.TrainingFinished{
		Steps: t.step, Tokens: t.tokens(), Checkpoints: t.checkpoints, BestStep: t.bestStep, Log: log,
	})
}
