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
		return nil, fmt.Errorf("%w: %w, or compute on device %s", errNoGPU, err, CPU)
	}
	if err != nil {
		return nil, fmt.Errorf("%w, or compute on device %s", err, CPU)
	}
	return d, nil
}

// GPUs is how many GPUs there are, or why none can be used.
func GPUs() (int, error) { return cuda.Count() }

// checkExchange says why several GPUs cannot exchange gradients, or nothing.
func checkExchange() error { return cuda.HasNCCL() }

func newCUDAID() ([]byte, error) { return cuda.NewID() }

func joinCUDA(dev kernels.Device, p Place) (kernels.Communicator, error) {
	c, err := dev.(*cuda.Device).NewCommunicator(p.ID, p.Rank, p.Ranks)
	if err != nil {
		return nil, err // and no communicator, not even one that is nil
	}
	return c, nil
}
