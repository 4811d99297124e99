//go:build !cuda

package compute

import (
	"fmt"

	"bitnet1/kernels"
)

func openCUDA(int) (kernels.Device, error) {
	return nil, fmt.Errorf("%w: this binary was built without CUDA: build it with `task build:cuda`, or use the cpu device", errNoGPU)
}
