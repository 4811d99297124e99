//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// Buffer is a piece of device memory. Free it with Device.Free.
type Buffer struct {
	pointer cu.DevicePtr
	size    int // bytes
}

// Alloc returns size bytes of device memory, all zero.
func (d *Device) Alloc(size int) (Buffer, error) {
	p, err := cu.MemAlloc(int64(max(size, 16)))
	if err != nil {
		return Buffer{}, fmt.Errorf("allocation of %d bytes on CUDA device %d: %w", size, d.index, err)
	}
	b := Buffer{p, size}
	return b, d.fill(b, 0)
}

// fill sets every byte of b.
func (d *Device) fill(b Buffer, value byte) error {
	if err := cu.MemsetD8Async(b.pointer, value, int64(b.size), d.stream); err != nil {
		return fmt.Errorf("fill of %d bytes on CUDA device %d: %w", b.size, d.index, err)
	}
	return nil
}

// Free gives buffers back once queued work is done. Freeing the zero Buffer does nothing.
func (d *Device) Free(buffers ...Buffer) error {
	err := d.Synchronize()
	for _, b := range buffers {
		if b.pointer == 0 {
			continue
		}
		if e := cu.MemFree(b.pointer); e != nil && err == nil {
			err = fmt.Errorf("free of %d bytes on CUDA device %d: %w", b.size, d.index, e)
		}
	}
	return err
}

// Number is an element that can be copied between host and device.
type Number interface {
	~int32 | ~uint32 | ~uint64 | ~int64 | ~float32 | ~uint16 | ~byte
}

// Write copies from to the beginning of b and waits for the copy.
func Write[T Number](d *Device, b Buffer, from []T) error {
	size := len(from) * int(unsafe.Sizeof(*new(T)))
	if size > b.size {
		return fmt.Errorf("write of %d bytes to a buffer of %d on CUDA device %d", size, b.size, d.index)
	}
	if size == 0 {
		return nil
	}
	if err := cu.MemcpyHtoDAsync(b.pointer, unsafe.Pointer(unsafe.SliceData(from)), int64(size), d.stream); err != nil {
		return fmt.Errorf("write of %d bytes to CUDA device %d: %w", size, d.index, err)
	}
	return d.Synchronize()
}

// Read copies the beginning of b to into, after all queued work.
func Read[T Number](d *Device, into []T, b Buffer) error {
	size := len(into) * int(unsafe.Sizeof(*new(T)))
	if size > b.size {
		return fmt.Errorf("read of %d bytes from a buffer of %d on CUDA device %d", size, b.size, d.index)
	}
	if size == 0 {
		return nil
	}
	if err := cu.MemcpyDtoHAsync(unsafe.Pointer(unsafe.SliceData(into)), b.pointer, int64(size), d.stream); err != nil {
		return fmt.Errorf("read of %d bytes from CUDA device %d: %w", size, d.index, err)
	}
	return d.Synchronize()
}
