//go:build !cuda

package compute

import (
	"fmt"

	"bitnet1/kernels"
)

var errNotBuilt = fmt.Errorf("%w: this program was built without CUDA (task build:cuda builds it)", errNoGPU)

func openCUDA(int) (kernels.Device, error) { return nil, errNotBuilt }

// GPUs is how many GPUs there are, or why none can be used.
func GPUs() (int, error) { return 0, errNotBuilt }

func checkExchange() error { return errNotBuilt }

func newCUDAID() ([]byte, error) { return nil, errNotBuilt }

func joinCUDA(kernels.Device, Place) (kernels.Communicator, error) { return nil, errNotBuilt }
