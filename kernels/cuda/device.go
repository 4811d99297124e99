//go:build cuda

package cuda

import (
	"embed"
	"errors"
	"fmt"
	"runtime"

	"bitnet1/kernels/cuda/cushim"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// ErrNoDevice is what Count and Open return, wrapped, on a machine without an NVIDIA driver or device.
var ErrNoDevice = errors.New("no CUDA device")

//go:embed ptx/*.ptx
var ptx embed.FS

// Device is one GPU with its kernels loaded and one stream on which all operations are queued in order.
//
// A Device belongs to the goroutine that opened it, which stays locked to its thread until Close: the driver's current context
// is a property of threads. Operations return when they are queued; Synchronize waits for them, and so do reads.
type Device struct {
	index           int
	name            string
	major           int // compute capability
	multiprocessors int
	context         cu.CUContext
	stream          cu.Stream
	kernels         map[string]cu.Function
}

// Count is the number of devices of this machine.
func Count() (int, error) {
	if err := cushim.Load(); err != nil {
		return 0, fmt.Errorf("%w: %v: install the NVIDIA driver or use the cpu device", ErrNoDevice, err)
	}
	n, err := cu.NumDevices()
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%w: the driver lists none (%v): use the cpu device", ErrNoDevice, err)
	}
	return n, nil
}

// Open readies device index (0 <= index < Count) for the calling goroutine. Compiling the kernels takes the driver a
// fraction of a second the first time; it keeps the result on disk.
func Open(index int) (d *Device, err error) {
	n, err := Count()
	if err != nil {
		return nil, err
	}
	if index < 0 || index >= n {
		return nil, fmt.Errorf("CUDA device %d: this machine has devices 0 to %d", index, n-1)
	}
	runtime.LockOSThread()
	d = &Device{index: index, kernels: map[string]cu.Function{}}
	defer func() {
		if err != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("CUDA device %d: %w", index, err)
		}
	}()
	device, err := cu.GetDevice(index)
	if err != nil {
		return nil, err
	}
	if err := d.describe(device); err != nil {
		return nil, err
	}
	if d.context, err = device.RetainPrimaryCtx(); err != nil {
		return nil, fmt.Errorf("primary context: %w", err)
	}
	if err := cu.SetCurrentContext(d.context); err != nil {
		return nil, fmt.Errorf("current context: %w", err)
	}
	if d.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return d, d.loadKernels()
}

func (d *Device) describe(device cu.Device) (err error) {
	if d.name, err = device.Name(); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if d.major, err = device.Attribute(cu.ComputeCapabilityMajor); err != nil {
		return fmt.Errorf("compute capability: %w", err)
	}
	if d.multiprocessors, err = device.Attribute(cu.MultiprocessorCount); err != nil {
		return fmt.Errorf("multiprocessor count: %w", err)
	}
	if d.major < 8 {
		return fmt.Errorf("%s has compute capability %d: 8.0 (Ampere) or later is needed for binary matrix units", d.name, d.major)
	}
	return nil
}

// The kernels of each PTX file and the dynamic shared memory that a block of them needs.
var modules = []struct {
	file    string
	hopper  bool
	shared  int
	kernels []string
}{
	{"pack", false, 0, []string{"pack_signs", "count_rows", "channel_thresholds"}},
	{"gemm_mma", false, 0, []string{"gemm_mma_int32"}},
	{"gemm_wgmma", true, wgmmaShared, []string{"gemm_wgmma_int32", "gemm_wgmma_float32", "gemm_wgmma_bfloat16", "gemm_wgmma_bits"}},
}

func (d *Device) loadKernels() error {
	for _, m := range modules {
		if m.hopper && d.major != 9 {
			continue // sm_90a code runs on compute capability 9.0 alone
		}
		text, err := ptx.ReadFile("ptx/" + m.file + ".ptx")
		if err != nil {
			return fmt.Errorf("embedded kernels: %w", err)
		}
		module, err := cu.LoadData(string(text) + "\x00")
		if err != nil {
			return fmt.Errorf("compile of embedded %s.ptx on %s: %w: update the NVIDIA driver (CUDA 12.0 or later)", m.file, d.name, err)
		}
		for _, name := range m.kernels {
			f, err := module.Function(name)
			if err != nil {
				return fmt.Errorf("kernel %s of %s.ptx: %w: run kernels/cuda/compile.sh", name, m.file, err)
			}
			if m.shared > 0 {
				if err := driver.AllowShared(f, m.shared); err != nil {
					return fmt.Errorf("%d bytes of shared memory for %s: %w", m.shared, name, err)
				}
			}
			d.kernels[name] = f
		}
	}
	return nil
}

// Name is what the driver calls the device.
func (d *Device) Name() string { return d.name }

// Synchronize waits until everything queued on the device has run, and reports a failure of any of it.
func (d *Device) Synchronize() error {
	if err := d.stream.Synchronize(); err != nil {
		return fmt.Errorf("CUDA device %d: queued work: %w", d.index, err)
	}
	return nil
}

// Close waits for queued work, releases the device and unlocks the goroutine from its thread. Buffers must have been freed before.
func (d *Device) Close() error {
	defer runtime.UnlockOSThread()
	return d.Synchronize()
}

func (d *Device) launch(kernel string, g driver.Geometry, arguments ...[]byte) error {
	f, ok := d.kernels[kernel]
	if !ok {
		return fmt.Errorf("kernel %s: %s (compute capability %d) cannot run it", kernel, d.name, d.major)
	}
	if err := driver.Launch(f, g, d.stream, arguments...); err != nil {
		return fmt.Errorf("kernel %s, grid %v, on CUDA device %d: %w", kernel, g.Grid, d.index, err)
	}
	return nil
}

// arg is the value of a kernel argument.
func arg[T int32 | int64 | uint32 | float32 | cu.DevicePtr](v T) []byte { return driver.Bytes(&v) }

func ceilDiv(a, b int) int { return (a + b - 1) / b }
func roundUp(a, b int) int { return ceilDiv(a, b) * b }
