//go:build cuda

package cuda

import (
	"errors"
	"fmt"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// What this package needs of a machine.
const (
	leastCapability = 8     // 8.0, Ampere
	leastDriver     = 12000 // as cuDriverGetVersion counts: CUDA 12.0, the PTX version of the embedded kernels
)

// supports says why a device or its driver cannot run the kernels.
func supports(name string, major, minor, driverVersion int) error {
	switch {
	case driverVersion < leastDriver:
		return fmt.Errorf("the NVIDIA driver knows CUDA %d.%d: the kernels need CUDA %d.%d or later: update the driver",
			driverVersion/1000, driverVersion%1000/10, leastDriver/1000, leastDriver%1000/10)
	case major < leastCapability:
		return fmt.Errorf("%s has compute capability %d.%d: %d.0 (Ampere) or later is needed for binary matrix units: "+
			"use another device", name, major, minor, leastCapability)
	}
	return nil
}

// What the driver's codes mean to whoever runs the program.
const (
	lost = "the device is lost to this process: start the program again; if it happens again, `nvidia-smi` and " +
		"the system log (Xid) say what is wrong with the device"
	defect = "a kernel did something it must not: please report this with the command, then start the program again"
	tooOld = "update the NVIDIA driver to one for CUDA 12.0 or later"
	inUse  = "another process has the device to itself, or it is not ready: see `nvidia-smi`"
)

// advice is by code, as https://docs.nvidia.com/cuda/cuda-driver-api lists them.
var advice = map[int]string{
	3: lost, 4: lost, 46: inUse, 101: "see `nvidia-smi -L` for the devices there are",
	209: tooOld, 214: lost, 218: tooOld, 220: lost, 221: tooOld, 222: tooOld, 700: defect, 702: lost, 709: lost,
	710: defect, 714: defect, 715: defect, 716: defect, 717: defect, 718: defect, 719: lost, 802: inUse, 803: tooOld,
	804: tooOld, 999: lost,
}

const outOfMemory = 2

// advise adds to a driver's error what to do about it. An error that has advice already stays as it is, and so does one
// that is not the driver's.
func advise(err error) error {
	if err == nil || errors.As(err, new(advised)) {
		return err
	}
	code, ok := codeOf(cu.Success, err)
	if !ok {
		code, _ = codeOf(driver.Result(0), err)
	}
	if code == outOfMemory {
		return fmt.Errorf("%w: %w", kernels.ErrMemory, err)
	}
	if text := advice[code]; text != "" {
		return advised{fmt.Errorf("%w: %s", err, text), text == lost || text == defect}
	}
	return err
}

// advised marks an error that says what to do.
type advised struct {
	error
	lost bool // the context is: every later call of this process fails as well
}

func (a advised) Unwrap() error { return a.error }

// Unfit says whether the process has to start again before it can compute.
func (a advised) Unfit() bool { return a.lost }

// codeOf finds an error of the type of its first argument: gorgonia.org/cu keeps the name of its type to itself.
func codeOf[E interface {
	~int
	error
}](_ E, err error) (code int, ok bool) {
	var found E
	ok = errors.As(err, &found)
	return int(found), ok
}
