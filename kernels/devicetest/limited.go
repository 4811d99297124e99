package devicetest

import (
	"fmt"
	"math"

	"bitnet1/kernels"
)

// Limited is a device with no more than Limit bytes for buffers. With it a program's behaviour at the limit can be
// tested where memory is plenty. It counts four bytes for a float or an int, eight for a long and whole bytes of
// planes, and no working memory.
type Limited struct {
	kernels.Device
	Limit int
	held  int
}

var _ kernels.DryRunner = (*Limited)(nil)

func (l *Limited) take(bytes int) error {
	if bytes > l.Limit-l.held {
		return fmt.Errorf("allocation of %d bytes with %d left: %w", bytes, l.Limit-l.held, kernels.ErrMemory)
	}
	l.held += bytes
	return nil
}

// NewFloats fails where the limit is passed.
func (l *Limited) NewFloats(n int) (kernels.Floats, error) {
	if err := l.take(4 * n); err != nil {
		return nil, err
	}
	return l.Device.NewFloats(n)
}

// NewBFloats fails where the limit is passed.
func (l *Limited) NewBFloats(n int) (kernels.Floats, error) {
	if err := l.take(2 * n); err != nil {
		return nil, err
	}
	return l.Device.NewBFloats(n)
}

// NewInts fails where the limit is passed.
func (l *Limited) NewInts(n int) (kernels.Ints, error) {
	if err := l.take(4 * n); err != nil {
		return nil, err
	}
	return l.Device.NewInts(n)
}

// NewLongs fails where the limit is passed.
func (l *Limited) NewLongs(n int) (kernels.Longs, error) {
	if err := l.take(8 * n); err != nil {
		return nil, err
	}
	return l.Device.NewLongs(n)
}

// NewPlanes fails where the limit is passed.
func (l *Limited) NewPlanes(rows, cols int, q kernels.Quantization) (kernels.Planes, error) {
	if err := l.take(rows * q.Planes() * ((cols + 7) / 8)); err != nil {
		return nil, err
	}
	return l.Device.NewPlanes(rows, cols, q)
}

// Room is the limit: nobody else has any of it.
func (l *Limited) Room() (int, error) { return l.Limit, nil }

// DryRun counts the memory that f takes without a limit. It is no real dry run: the device inside does the work.
func (l *Limited) DryRun(f func(kernels.Device) error) (bytes int, err error) {
	r := &Limited{Device: l.Device, Limit: math.MaxInt}
	err = f(r)
	return r.held, err
}
