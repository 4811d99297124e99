package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"bitnet1/kernels"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/stage"
)

// notes warns of parameters that are valid but may surprise whoever set them. seq is the sequence length of the
// dataset.
func (p Params) notes(seq int) (texts []string) {
	say := func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
	if p.Warmup > p.Steps {
		say("warmup of %d steps is longer than the %d steps of the run: the learning rate ends at %.3g, below its peak of %g",
			p.Warmup, p.Steps, p.update(p.Steps-1).LearningRate, p.LearningRate)
	}
	level := p.Steps - p.schedule().Cooldown
	if p.Schedule == model.Trapezoid && p.Warmup > level && p.Warmup < p.Steps {
		say("warmup of %d steps goes on in the cool-down, which begins after step %d: the learning rate is never level, and "+
			"falls from %g to %.3g after the warm-up", p.Warmup, level, p.LearningRate, p.update(p.Warmup).LearningRate)
	}
	if p.CheckpointEvery > p.Steps {
		say("checkpoint_every is %d: the only checkpoint of the run's %d steps is the one at its end", p.CheckpointEvery,
			p.Steps)
	}
	if p.StopAt > p.Steps {
		say("stop_at is %d: the run ends before, with step %d", p.StopAt, p.Steps)
	}
	if p.ValidationSequences == 0 {
		say("validation_sequences is 0: no checkpoint has a validation loss, so none is the best")
	}
	if mix := p.mix(p.Steps - 1); mix < 1 {
		say("the last step still has %.3g %% of the float weights (binarize_anneal_end_frac is %g), so no checkpoint is ±1 "+
			"and none is the best or packed",
			100*(1-mix), p.BinarizeAnnealEndFrac)
	}
	texts = append(texts, p.idle()...)
	micro, perStep, err := p.sequences(seq)
	switch {
	case err != nil:
	case 2*micro <= min(p.MicroTokens/seq, perStep.first):
		say("%d tokens are computed at once where micro_tokens allows %d: of the %d sequences of a step only %d divide it; "+
			"a batch_tokens with more divisors trains faster",
			micro*seq, p.MicroTokens, perStep.first, micro)
	case 2*micro <= min(p.MicroTokens/seq, perStep.last):
		say("%d tokens are computed at once where micro_tokens allows %d: the first steps have no more; a larger "+
			"batch_start trains faster", micro*seq, p.MicroTokens)
	}
	return texts
}

// idle warns of parameters that change nothing beside the others.
func (p Params) idle() (texts []string) {
	say := func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
	if p.DecaySchedule != constantDecay && p.Decay == 0 && (p.Optimizer != muon || p.MuonDecay == 0) {
		say("weight_decay_schedule is %s, and no weight decays: weight_decay is 0", p.DecaySchedule)
	}
	if given := p.muonGiven(); p.Optimizer != muon && len(given) > 0 {
		say("the optimizer is %s, which has no %s: %s takes them", p.Optimizer, strings.Join(given, ", "),
			stage.Setting("train", "optimizer", muon))
	}
	if p.Cooldown != defaults().Cooldown && p.Schedule != model.Trapezoid && p.MuonSchedule != model.Trapezoid {
		say("cooldown is %g, and the schedule %s has no cool-down: %s has one", p.Cooldown, p.Schedule,
			stage.Setting("train", "schedule", model.Trapezoid))
	}
	if p.WeightGradBits != 0 && p.GradBits == kernels.FloatBits {
		say("weight_grad_bits is %d, and gradients stay floats: grad_bits is %d", p.WeightGradBits, p.GradBits)
	}
	if !p.AnnealBinarize && p.BinarizeAnnealEndFrac != defaults().BinarizeAnnealEndFrac {
		say("binarize_anneal_end_frac is %g, and no float weights are blended: %s begins with them",
			p.BinarizeAnnealEndFrac, stage.Setting("train", "anneal_binarize", "true"))
	}
	if !p.Truebit && p.FlipThreshold != defaults().FlipThreshold {
		say("flip_threshold is %d, and weights have latents in place of counters: %s trains without latents",
			p.FlipThreshold, stage.Setting("train", "truebit", "true"))
	}
	if p.BatchStart == 0 && p.BatchRamp != defaults().BatchRamp {
		say("batch_ramp is %g, and every step has batch_tokens: batch_start says with how many tokens steps begin",
			p.BatchRamp)
	}
	if p.SequenceStart == 0 && p.SequenceRamp != defaults().SequenceRamp {
		say("sequence_ramp is %g, and all sequences are whole: sequence_start says with how many tokens they begin",
			p.SequenceRamp)
	}
	if p.Truebit && p.Decay > 0 {
		say("weight_decay is %g: under truebit there are no latents, and no weight decays", p.Decay)
	}
	return texts
}

// muonGiven lists the parameters of Muon that are not the defaults.
func (p Params) muonGiven() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(param.Overrides(defaults(), p))), func(key string) bool {
		return !strings.HasPrefix(key, "muon_")
	})
}
