package main

import (
	"errors"
	"strconv"

	"bitnet1/kernels"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/stage"
)

// advise turns the failure of an allocation into what to do about it: fewer
// tokens at once, in as many micro-batches as the step then needs.
func (t *trainer) advise(err error) error {
	device, ok := t.device.(kernels.DryRunner)
	if !ok || !errors.Is(err, kernels.ErrMemory) {
		return err
	}
	t.job.Log.Debug("out of memory", "error", err)
	seq, micro := t.options.Seq, t.options.Batch
	fits, planning := model.Fits(t.config, device, t.options, smaller(micro, t.batches.per))
	switch {
	case planning != nil:
		return stage.Refusef("%s has too little memory for %d tokens at once: lower micro_tokens (%w; finding what fits: %w)",
			device.Name(), micro*seq, err, planning)
	case fits == 0:
		return stage.Refusef("%s has too little memory to train this model, even a sequence of %d tokens at a time: use a smaller --preset, shorter sequences or a device with more memory (%w)",
			device.Name(), seq, err)
	}
	return stage.Refusef("%s has too little memory for %d tokens at once: use %s, which fits; a step stays %d tokens",
		device.Name(), micro*seq, stage.Setting("train", "micro_tokens", strconv.Itoa(fits*seq)), t.batches.per*seq)
}

// smaller lists the batches below micro that divide a step of `per` sequences,
// the largest first.
func smaller(micro, per int) []int {
	var list []int
	for n := micro - 1; n > 0; n-- {
		if per%n == 0 {
			list = append(list, n)
		}
	}
	return list
}
