//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels"

	"gorgonia.org/cu"
)

var _ kernels.DryRunner = (*Device)(nil)

// Room is how many bytes are free or held by this device.
func (d *Device) Room() (int, error) {
	release, err := d.current()
	if err != nil {
		return 0, err
	}
	defer release()
	free, _, err := cu.MemInfo()
	if err != nil {
		return 0, fmt.Errorf("CUDA device %d: free memory: %w", d.index, advise(err))
	}
	return int(free) + d.memory.granted, nil
}

// DryRun calls f with a device that has the same kernels and launches none. Its memory has addresses, but does not
// exist.
func (d *Device) DryRun(f func(kernels.Device) error) (bytes int, err error) {
	r := &Device{
		index: d.index, name: d.name, hopper: d.hopper, multiprocessors: d.multiprocessors,
		weightBytes: d.weightBytes,
		context:     d.context, loaded: d.loaded, dryRun: true,
	}
	if err := r.memory.open(r); err != nil {
		return 0, err
	}
	if err := f(r); err != nil {
		return r.memory.granted, err
	}
	return r.memory.granted, r.err
}

// granted is what the driver takes for an allocation: whole pages of 2 MiB for large ones; small ones share pages.
func granted(bytes int) int {
	if bytes < 1<<20 {
		return roundUp(bytes, 512)
	}
	return roundUp(bytes, 2<<20)
}

// imagine returns an address for memory that is never used. The driver gives no such address.
func (m *memory) imagine(bytes int) cu.DevicePtr {
	const first = 1 << 40
	p := cu.DevicePtr(first + m.granted)
	m.take(bytes)
	return p
}

// take counts an allocation.
func (m *memory) take(bytes int) {
	m.bytes += bytes
	m.granted += granted(bytes)
}
