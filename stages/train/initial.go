package main

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/stage"
)

// complete sets the digests of the files to start from: a job is known by the bytes of these files, not by their paths.
// It refuses files that are no checkpoint and no state of that checkpoint, and a model that cannot be trained so.
func (p *Params) complete() error {
	if p.Init == "" {
		return nil
	}
	if err := identify(p.Init, "checkpoint", &p.InitDigest); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	m, err := checkpoint.Open(p.Init)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	defer m.Close()
	for _, r := range p.adopt(m.Config).planesRules() {
		if r.wrong {
			return fmt.Errorf("init: the model in %s: %s", p.Init, r.text)
		}
	}
	if !p.InitState {
		return nil
	}
	if err := identify(p.statePath(), "state", &p.InitStateDigest); err != nil {
		return fmt.Errorf("init_state: beside %s has to lie the state that was saved with it: %w", p.Init, err)
	}
	_, err = p.beginning()
	return err
}

// identify sets sum to the digest of a file, or refuses the file if sum is another digest.
func identify(path, what string, sum *string) error {
	is, _, err := digest.File(path)
	if err != nil {
		return err
	}
	if *sum != "" && *sum != is {
		return fmt.Errorf("%s has digest %s, not %s as given: it is another %s", path, digest.Short(is), digest.Short(*sum),
			what)
	}
	*sum = is
	return nil
}

// statePath is the path of the state file beside the checkpoint to start from.
func (p Params) statePath() string {
	return strings.TrimSuffix(p.Init, filepath.Ext(p.Init)) + ".state.safetensors"
}

// start is where training begins: at step 0, or where a checkpoint with InitState was.
type start struct {
	step     int
	position int64 // sequences of the data order that the steps before have read
	tokens   int64 // that the steps before have read
}

// beginning is where training begins.
func (p Params) beginning() (start, error) {
	if !p.InitState {
		return start{}, nil
	}
	m, err := checkpoint.Open(p.Init)
	if err != nil {
		return start{}, fmt.Errorf("init: %w", err)
	}
	defer m.Close()
	state, err := checkpoint.ReadStateHeader(p.statePath(), p.InitDigest)
	if err != nil {
		return start{}, fmt.Errorf("init_state: %w", err)
	}
	if err := p.checkOptimizer(state); err != nil {
		return start{}, fmt.Errorf("init_state: %w", err)
	}
	if state.Step >= int64(p.Steps) {
		return start{}, fmt.Errorf("init_state: %s has taken %d steps, which steps counts too: use more than %d",
			p.Init, state.Step, state.Step)
	}
	return start{step: int(state.Step), position: state.Position, tokens: m.Tokens}, nil
}

// checkOptimizer refuses the state of another optimizer, which lacks what this one goes on from.
func (p Params) checkOptimizer(s checkpoint.State) error {
	was := adamW
	byMuon, flips := s.TrainedBy()
	if byMuon {
		was = muon
	}
	switch {
	case flips != p.Truebit:
		return fmt.Errorf("%s was trained with truebit %t, and goes on with no other", p.Init, flips)
	case was != p.Optimizer:
		return fmt.Errorf("the weights of %s were trained by %s: use %s", p.Init, was,
			stage.Setting("train", "optimizer", was))
	}
	return nil
}

// free are the parameters in which a training may well differ from the one that it continues.
var free = []string{"preset", "steps", "schedule", "cooldown", "cooldown_steps", "final_share", "gamma_steps",
	"batch_ramp", "sequence_ramp", "binarize_anneal_end_frac", "checkpoint_every", "validation_sequences", "log_every",
	"init_digest", "init_state", "init_state_digest"}

// continues says in what a training that goes on from a checkpoint differs from the training that saved the checkpoint,
// as far as its recipe says.
func (p Params) continues(step int) (notes []string, err error) {
	if !p.InitState {
		return nil, nil
	}
	m, err := checkpoint.Open(p.Init)
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	defer m.Close()
	if len(m.Recipe) == 0 { // another program trained it
		return nil, nil
	}
	was := defaults()
	if err := param.Decode(m.Recipe, &was); err != nil {
		return nil, fmt.Errorf("init_state: the recipe of %s: %w", p.Init, err)
	}
	was = was.adopt(m.Config)
	before, now := param.Overrides(p, was), param.Overrides(was, p)
	var changed []string
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if !slices.Contains(free, key) {
			changed = append(changed, fmt.Sprintf("%s %s instead of %s", key, now[key], before[key]))
		}
	}
	if changed != nil {
		notes = append(notes, "init_state: the training goes on otherwise than it began: "+strings.Join(changed, ", "))
	}
	notes = append(notes, p.rateJumps(was, step)...)
	if next := p.gamma(step - 1); p.attentionRule().MaxSurvivors > 1 && math.Abs(next-m.Gamma) > 1e-9 {
		notes = append(notes, fmt.Sprintf("gamma jumps from %.3g to %.3g after step %d, for its course depends on steps: "+
			"with %s it goes on as it was",
			m.Gamma, next, step, stage.Setting("train", "gamma_steps", strconv.Itoa(was.gammaSteps()))))
	}
	if next := p.mix(step - 1); math.Abs(next-m.Mix) > 1e-9 {
		notes = append(notes, fmt.Sprintf("the share of signs in the weights jumps from %.3g to %.3g after step %d: it goes "+
			"on as it was where binarize_anneal_end_frac times steps is %.4g",
			m.Mix, next, step, was.BinarizeAnnealEndFrac*float64(was.Steps)))
	}
	return notes, nil
}

// rateJumps says where a learning rate has another share of its peak after a step than in the training that saved the
// checkpoint. A warm-up that is still going on, or another one, is the user's own choice.
func (p Params) rateJumps(was Params, step int) (notes []string) {
	if step <= max(p.Warmup, was.Warmup) {
		return nil
	}
	say := func(key string, before, after model.Schedule, peakBefore, peak float64) {
		last, next := before.Rate(step-1, 1), after.Rate(step-1, 1)
		if math.Abs(next-last) < 1e-9 {
			return
		}
		advice := "it had begun to fall, and goes on as it was only from a checkpoint of the level part of a trapezoid"
		if last == 1 {
			advice = fmt.Sprintf("%s and %s let it fall from here on", stage.Setting("train", "schedule", model.Trapezoid),
				stage.Setting("train", "cooldown_steps", strconv.Itoa(p.Steps-step)))
		}
		notes = append(notes, fmt.Sprintf("%s jumps from %.3g to %.3g after step %d: %s", key, last*peakBefore, next*peak,
			step, advice))
	}
	say("learning_rate", was.schedule(), p.schedule(), was.LearningRate, p.LearningRate)
	if p.Optimizer == muon && (p.MuonSchedule != sameSchedule || was.MuonSchedule != sameSchedule) {
		say("muon_learning_rate", was.muonSchedule(), p.muonSchedule(), was.MuonRate, p.MuonRate)
	}
	return notes
}

// initial is the configuration of the checkpoint to start from, nil without one.
func (p Params) initial(t dataset.TokenizerInfo) (*model.Config, error) {
	if p.Init == "" {
		return nil, nil
	}
	m, err := checkpoint.Open(p.Init)
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	defer m.Close()
	if m.Tokenizer != "" && m.Tokenizer != t.Name {
		return nil, fmt.Errorf("init: %w", measure.OtherTokenizer(m.Provenance, t.Name))
	}
	return &m.Config, nil
}

// adopt replaces the parameters of the model by those of the checkpoint to start from.
func (p Params) adopt(c model.Config) Params {
	p.D, p.Layers, p.Heads, p.FF, p.Vocab = c.D, c.Layers, c.Heads, c.FF, c.Vocab
	p.Attention, p.RWSPK, p.Alibi, p.StreamBits = c.Attention, c.RWSPK, c.Alibi, c.StreamBits
	p.KShiftLayers, p.KShiftOffset, p.KShiftSelf = c.KShiftLayers, c.KShiftOffset, c.KShiftSelf
	p.HiddenBits, p.QueryBits, p.ValueBits = max(c.HiddenBits, 1), max(c.QueryBits, 1), max(c.ValueBits, 1)
	p.ReadBits, p.CodebookBits, p.Hadamard = max(c.ReadBits, 1), max(c.CodebookBits, 1), c.Hadamard
	return p
}
