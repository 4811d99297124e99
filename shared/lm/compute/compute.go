// Package compute opens the device that a stage computes on. It is the one place that knows which devices there are: a
// build without the tag cuda knows the processor alone.
package compute

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// The names of devices. A number behind cuda, as in cuda:1, picks one of several.
const (
	Auto = "auto" // a GPU if this build and this machine have one, else the processor
	CPU  = "cpu"
	CUDA = "cuda"
)

// errNoGPU is what openCUDA returns, wrapped, where there is nothing to open.
var errNoGPU = errors.New("no GPU")

// Open readies the named device; threads is for the processor. The caller closes it.
func Open(name string, threads int) (kernels.Device, error) {
	kind, number, numbered := strings.Cut(name, ":")
	index := 0
	if numbered {
		var err error
		if index, err = strconv.Atoi(number); err != nil || kind != CUDA {
			return nil, fmt.Errorf("device %q: want %s, %s, %s or %s:1", name, Auto, CPU, CUDA, CUDA)
		}
	}
	switch kind {
	case CPU:
		return cpu.New(cpu.Options{Workers: threads}), nil
	case CUDA:
		return openCUDA(index)
	case Auto, "":
		d, err := openCUDA(index)
		if errors.Is(err, errNoGPU) {
			return cpu.New(cpu.Options{Workers: threads}), nil
		}
		return d, err
	}
	return nil, fmt.Errorf("device %q: want %s, %s, %s or %s:1", name, Auto, CPU, CUDA, CUDA)
}
