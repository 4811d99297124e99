package main

import (
	"cmp"
	"fmt"
	"math/bits"

	"bitnet1/kernels"
	"bitnet1/shared/lm/model"
)

// What changes from step to step is a function of the parameters and the step, which is counted from 0. So a run that
// was stopped, or that begins with the state of a checkpoint, takes the same steps as one that was not.

// update holds the scheduled values of a step of whole sequences.
func (p Params) update(step int) model.Update {
	return model.Update{
		Settings: model.Settings{
			Gamma: p.gamma(step), Tau: p.Tau, Mix: p.mix(step),
			Gumbel: p.attentionRule().Noise, Seed: p.Seed, Step: uint64(step),
		},
		LearningRate: p.schedule().Rate(step, p.LearningRate),
		Muon: model.Muon{
			LearningRate: p.muonSchedule().Rate(step, p.MuonRate), Beta: p.MuonMomentum, Steps: p.MuonSteps,
			Decay: p.decay(step, p.muonSchedule(), p.MuonDecay),
		},
		Beta1: p.Beta1, Beta2: p.Beta2, Decay: p.decay(step, p.schedule(), p.Decay), MaxNorm: p.Clip,
	}
}

// attentionRule is that of a kind that config has checked.
func (p Params) attentionRule() kernels.AttentionRule {
	kind, _ := kernels.ParseAttentionKind(p.Attention)
	return kind.Rule()
}

// schedules are the courses that a learning rate may take.
var schedules = []string{model.Cosine, model.Linear, model.Trapezoid}

// sameSchedule is the course of Muon's learning rate that is the course of the other.
const sameSchedule = "same"

// schedule is the course of the learning rate.
func (p Params) schedule() model.Schedule {
	return model.Schedule{
		Decay: p.Schedule, Total: p.Steps, Warmup: p.Warmup, Final: p.FinalShare,
		Cooldown: cmp.Or(p.CooldownSteps, model.StepsOf(p.Cooldown, p.Steps)),
	}
}

// muonSchedule is the course of Muon's learning rate. Warm-up and cool-down take as long as those of the other.
func (p Params) muonSchedule() model.Schedule {
	s := p.schedule()
	if p.MuonSchedule != sameSchedule {
		s.Decay, s.Final = p.MuonSchedule, p.MuonFinal
	}
	return s
}

// The courses of weight decay.
const (
	constantDecay = "constant"
	decayAsRate   = "rate"
	linearDecay   = "linear"
)

// decay is the weight decay of a step, which the step multiplies with the learning rate, whose course is rate.
func (p Params) decay(step int, rate model.Schedule, first float64) float64 {
	switch p.DecaySchedule {
	case decayAsRate:
		return rate.Rate(step, first)
	case linearDecay:
		return model.Schedule{Decay: model.Linear, Total: p.Steps}.Rate(step, first)
	}
	return first
}

// gamma is RWSP's weight of a survivor over the weight of the one before.
func (p Params) gamma(step int) float64 {
	return model.Geometric(step, p.gammaSteps(), p.GammaStart, p.GammaEnd)
}

func (p Params) gammaSteps() int { return cmp.Or(p.GammaSteps, p.Steps) }

// mix is the share of sign(W) in the effective weights at a step: less than 1 with bonsai alone.
func (p Params) mix(step int) float64 {
	if !p.AnnealBinarize {
		return 1
	}
	return model.MixAt(step, p.Steps, p.BinarizeAnnealEndFrac)
}

// lengths is the course of the number of tokens of a sequence. seq is that of the dataset.
func (p Params) lengths(seq int) (ramp, error) {
	r := newRamp(p.SequenceStart, seq, model.StepsOf(p.SequenceRamp, p.Steps))
	if !r.doubles() {
		return r, fmt.Errorf("sequence_start is %d, and a sequence of the dataset has %d tokens: use one of %s, by which it "+
			"is cut into 2, 4, 8 … parts", p.SequenceStart, seq, halves(seq))
	}
	return r, nil
}

// ramp is a number that doubles from first to last. Between two doublings lie equally many of the given steps, after
// which the number is last.
type ramp struct{ first, last, steps int }

// newRamp is the ramp from first to last, or last from the beginning where first is 0.
func newRamp(first, last, steps int) ramp {
	return ramp{cmp.Or(first, last), last, steps}
}

// doubles reports whether last is a power of two times first.
func (r ramp) doubles() bool {
	return r.first > 0 && r.last%r.first == 0 && bits.OnesCount(uint(r.last/r.first)) == 1
}

// doublings is the number of times that first has to double.
func (r ramp) doublings() int { return bits.TrailingZeros(uint(r.last / r.first)) }

// at is the number at a step.
func (r ramp) at(step int) int {
	if step >= r.steps {
		return r.last
	}
	return r.first << (step * r.doublings() / r.steps)
}

// sum is the sum of the numbers of steps from..to-1.
func (r ramp) sum(from, to int) (sum int64) {
	for ; from < to && from < r.steps; from++ {
		sum += int64(r.at(from))
	}
	return sum + int64(max(0, to-from))*int64(r.last)
}

// halves lists n/2, n/4 … as far as they are whole numbers.
func halves(n int) string {
	var list []int
	for n%2 == 0 && n > 0 {
		n /= 2
		list = append(list, n)
	}
	return fmt.Sprint(list)
}
