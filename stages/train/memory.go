package main

import (
	"errors"
	"strconv"

	"bitnet1/kernels"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/stage"
)

// advise adds to an error of too little memory the largest micro_tokens with which the model fits. It returns other
// errors as they are.
func (t *trainer) advise(err error) error {
	device, ok := t.device.(kernels.DryRunner)
	if !ok || !errors.Is(err, kernels.ErrMemory) {
		return err
	}
	t.job.Log.Debug("out of memory", "error", err)
	seq, micro := t.options.Seq, t.options.Batch
	fits, planning := model.Fits(t.config, device, t.options, smaller(micro, t.batches.perStep.first))
	switch {
	case planning != nil:
		return stage.Permanentf("%s has too little memory for %d tokens at once: lower micro_tokens "+
			"(%w; finding what fits: %w)",
			device.Name(), micro*seq, err, planning)
	case fits == 0:
		return stage.Permanentf("%s has too little memory to train this model, even a sequence of %d tokens at a time: use "+
			"a smaller --preset, shorter sequences or a device with more memory (%w)",
			device.Name(), seq, err)
	}
	return stage.Permanentf("%s has too little memory for %d tokens at once: use %s, which fits; a step stays %d tokens",
		device.Name(), micro*seq, stage.Setting("train", "micro_tokens", strconv.Itoa(fits*seq)), t.batches.perStep.last*seq)
}

// smaller lists the numbers of sequences below micro that divide a step, the largest first.
func smaller(micro, perStep int) []int {
	var list []int
	for n := micro - 1; n > 0; n-- {
		if perStep%n == 0 {
			list = append(list, n)
		}
	}
	return list
}
