package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"bitnet1/kernels"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/run/stage"
)

// devicesOf lists the devices to train on, one for each rank, and refuses parameters that several cannot train by.
func devicesOf(p Params, host stage.Host) ([]string, error) {
	if host.Devices == "" {
		return []string{host.Device}, nil
	}
	devices, err := compute.Devices(host.Devices)
	if err != nil {
		return nil, err
	}
	if len(devices) > 1 && p.GradientSums != fixedSums {
		return nil, errors.New("devices: several of them train the same as one only where gradients are added up as " +
			"integers: use " + stage.Setting("train", "gradient_sums", fixedSums))
	}
	return devices, nil
}

// checkHost refuses devices and parameters that do not fit together before any stage begins. How many micro-batches a
// step has exactly depends on the dataset: see checkMicroBatches.
func checkHost(p Params, host stage.Host) error {
	devices, err := devicesOf(p, host)
	if err != nil || len(devices) == 1 {
		return err
	}
	first := cmp.Or(p.BatchStart, p.BatchTokens)
	return checkMicroBatches((first+p.MicroTokens-1)/p.MicroTokens, 1, p, len(devices))
}

// checkMicroBatches refuses a training whose first steps have too few micro-batches for the ranks, or whose last have
// too many for integers to add up.
func checkMicroBatches(first, last int, p Params, ranks int) error {
	tokens := cmp.Or(p.BatchStart, p.BatchTokens)
	if first < ranks {
		return fmt.Errorf("devices: a step of %d tokens is %d micro-batches, too few for %d devices: use %s, or larger "+
			"steps; either trains other bits, on any number of devices",
			tokens, first, ranks, stage.Setting("train", "micro_tokens", strconv.Itoa(tokens/ranks)))
	}
	if p.GradientSums == fixedSums && last > kernels.MaxTerms {
		return fmt.Errorf("gradient_sums is %s, for at most %d micro-batches: a step of %d tokens is %d: use a larger "+
			"micro_tokens than %d", fixedSums, kernels.MaxTerms, p.BatchTokens, last, p.MicroTokens)
	}
	return nil
}
