//go:build cuda

package compute

import (
	"errors"
	"fmt"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda"
)

func openCUDA(index int) (kernels.Device, error) {
	d, err := cuda.Open(index, cuda.Options{})
	if errors.Is(err, cuda.ErrNoDevice) {
		return nil, fmt.Errorf("%w: %w", errNoGPU, err)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}
