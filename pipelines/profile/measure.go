package main

import (
	"errors"
	"math"
	"slices"
	"time"

	"bitnet1/kernels"
	"bitnet1/kernels/timing"
	"bitnet1/shared/lm/model"
)

// measurement is what was measured of a step of one device.
type measurement struct {
	settings
	name       string        // of the device
	memory     int           // bytes of the device that training takes; 0 of a processor
	median     time.Duration // of whole steps
	operations []timing.Operation
	looked     int       // steps that operations are of
	together   *together // what several devices, of which this is one, do in the same sitting
}

// warmUp is how many steps come before the measurement: the first steps allocate all memory and record CUDA graphs.
const warmUp = 2

// measure times whole steps as training takes them. It then measures the kernels of other steps, on a device of their
// own, because measured kernels cannot overlap.
func (s settings) measure(pprofFile string) (measurement, error) {
	if len(s.devices) > 1 {
		return s.measureTogether(pprofFile)
	}
	m := measurement{settings: s, looked: s.measuredInto}
	var err error
	if m.median, m.name, err = s.timeAlone(pprofFile); err != nil {
		return m, err
	}
	var profiler timing.Profiler
	var dryRun error
	dev, net, err := s.open(func(d kernels.Device) kernels.Device {
		m.memory, dryRun = s.memory(d)
		profiler = timing.Of(d)
		profiler.StartProfile()
		return profiler
	})
	if err != nil {
		return m, err
	}
	m.operations, err = s.look(net, profiler)
	return m, errors.Join(dryRun, err, dev.Close())
}

// memory is how many bytes of dev training takes, with the copy that checkpoints are written from. It is 0 where
// dev has no memory of its own.
func (s settings) memory(dev kernels.Device) (bytes int, err error) {
	limited, ok := dev.(kernels.DryRunner)
	if !ok {
		return 0, nil
	}
	o := s.options()
	o.Snapshots = true
	return model.Memory(s.config, limited, o)
}

// timeAlone times whole steps of one device.
func (s settings) timeAlone(pprofFile string) (median time.Duration, name string, err error) {
	dev, net, err := s.open(func(d kernels.Device) kernels.Device { return d })
	if err != nil {
		return 0, "", err
	}
	median, err = s.time(pprofFile, func(step int, tokens, targets []int32) error {
		return s.take(net, tokens, targets, step)
	})
	return median, dev.Name(), errors.Join(err, dev.Close())
}

// time is the median time of whole steps.
func (s settings) time(pprofFile string, take func(step int, tokens, targets []int32) error) (time.Duration, error) {
	var times []time.Duration
	stop := func() error { return nil }
	for step := range warmUp + s.steps {
		if step == warmUp {
			var err error
			if stop, err = startProfile(pprofFile); err != nil {
				return 0, err
			}
		}
		tokens, targets := s.text(uint64(step))
		start := time.Now()
		if err := take(step, tokens, targets); err != nil {
			return 0, errors.Join(err, stop())
		}
		if step >= warmUp {
			times = append(times, time.Since(start))
		}
	}
	slices.Sort(times)
	return times[len(times)/2], stop()
}

func (s settings) look(net *model.Model, profiler timing.Profiler) ([]timing.Operation, error) {
	for step := range warmUp + s.measuredInto {
		if step == warmUp {
			if _, err := profiler.Profile(); err != nil {
				return nil, err
			}
		}
		tokens, targets := s.text(uint64(step))
		if err := s.take(net, tokens, targets, step); err != nil {
			return nil, err
		}
	}
	return profiler.Profile()
}

// take is one step, to its end.
func (s settings) take(net *model.Model, tokens, targets []int32, step int) error {
	u := model.Update{
		Settings: model.Settings{Gamma: 0.6, Mix: 1, Gumbel: net.Config().AttentionRule().Noise, Seed: 9,
			Step: uint64(step)},
		LearningRate: 6e-4, Beta1: 0.9, Beta2: 0.95, MaxNorm: 1,
		Muon: model.Muon{LearningRate: 0.06, Beta: 0.95, Steps: s.muonSteps},
	}
	if err := net.Step(tokens, targets, u); err != nil {
		return err
	}
	_, err := net.Result()
	return err
}

// text draws the tokens of a step. The token of rank r has a frequency proportional to 1/r, as in language. Separate
// documents have random lengths.
func (s settings) text(seed uint64) (tokens, targets []int32) {
	vocab := s.config.Vocab
	x := seed*2862933555777941757 + 3037000493
	next := func() float64 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		return float64(x>>11) / (1 << 53)
	}
	for range s.tokens + 1 {
		id := int32(min(math.Exp(next()*math.Log(float64(vocab)))-1, float64(vocab-1)))
		if s.documents.Separate && next()*float64(s.length) < 1 {
			id = s.documents.EndOfText
		}
		tokens = append(tokens, id)
	}
	return tokens[:s.tokens], tokens[1:]
}
