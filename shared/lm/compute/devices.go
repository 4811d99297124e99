package compute

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// MaxRanks is how many devices may compute together.
const MaxRanks = 64

// Devices returns the names, for Open, of the devices that a list names, one for each rank: 0,1 or cuda:0,cuda:1 are
// GPUs, each of another number, and cpu,cpu divides the processor. It refuses what cannot compute together.
func Devices(list string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		index, err := strconv.Atoi(strings.TrimPrefix(name, CUDA+":"))
		if name == CUDA {
			index, err = 0, nil
		}
		switch {
		case name == CPU:
		case err != nil || index < 0:
			return nil, fmt.Errorf("devices %q: %q is no device: want numbers of GPUs as in 0,1, or %s,%s", list, name, CPU, CPU)
		default:
			name = fmt.Sprintf("%s:%d", CUDA, index)
			if slices.Contains(names, name) {
				return nil, fmt.Errorf("devices %q: GPU %d is named twice: want another one for each rank", list, index)
			}
			if err := checkGPU(index); err != nil {
				return nil, fmt.Errorf("devices %q: %w", list, err)
			}
		}
		names = append(names, name)
	}
	if len(names) > MaxRanks {
		return nil, fmt.Errorf("devices %q: %d of them: want at most %d", list, len(names), MaxRanks)
	}
	if slices.Contains(names, CPU) && slices.ContainsFunc(names, func(n string) bool { return n != CPU }) {
		return nil, fmt.Errorf("devices %q: processor and GPU round floats differently and cannot train together: "+
			"want GPUs alone or %s alone", list, CPU)
	}
	if len(names) > 1 && names[0] != CPU {
		if err := checkExchange(); err != nil {
			return nil, fmt.Errorf("devices %q: %w", list, err)
		}
	}
	return names, nil
}

func checkGPU(index int) error {
	n, err := GPUs()
	if err != nil {
		return err
	}
	if index >= n {
		return fmt.Errorf("GPU %d: this machine has GPUs 0 to %d", index, n-1)
	}
	return nil
}

// Place is a rank among others.
type Place struct {
	Rank, Ranks int
	Next, Prior io.ReadWriteCloser // to the next rank, and to the one before
	ID          []byte             // as NewID has made it on one of the ranks
}

// NewID returns what all ranks have to be given to find one another.
func NewID(dev kernels.Device) ([]byte, error) {
	if _, ok := dev.(*cpu.Device); ok {
		return nil, nil
	}
	return newCUDAID()
}

// Communicator joins a device with those of the other ranks. It waits until all ranks have called it.
func Communicator(dev kernels.Device, p Place) (kernels.Communicator, error) {
	if _, ok := dev.(*cpu.Device); ok {
		return cpu.NewCommunicator(p.Rank, p.Ranks, p.Next, p.Prior), nil
	}
	return joinCUDA(dev, p)
}
