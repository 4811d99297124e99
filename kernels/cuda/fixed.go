//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

type longs struct {
	at cu.DevicePtr
	n  int
}

func (l longs) Len() int { return l.n }

func (l longs) Slice(from, to int) kernels.Longs {
	checkSlice(from, to, l.n)
	return longs{l.at + cu.DevicePtr(8*from), to - from}
}

// int64s is where at least n values of x lie. It panics when there are fewer: run turns that into an error.
func int64s(x kernels.Longs, n int) cu.DevicePtr {
	l := x.(longs)
	if l.n < n {
		panic(fmt.Sprintf("%d longs where %d are needed", l.n, n))
	}
	return l.at
}

// NewLongs allocates n zeros.
func (d *Device) NewLongs(n int) (kernels.Longs, error) {
	p, err := d.allocate("longs", n, 8*n)
	if err != nil {
		return nil, err
	}
	return longs{p, n}, nil
}

// ZeroLongs clears x.
func (d *Device) ZeroLongs(x kernels.Longs) {
	d.run("ZeroLongs", kernels.CheckZeroLongs(x), func() error { return d.clear(int64s(x, 0), 8*x.Len()) })
}

// fixedGrid is the grid of kernels whose blocks take 1024 values.
func fixedGrid(n int) driver.Geometry { return grid(max(1, ceilDiv(n, 1024))) }

// AddFixed adds x to sums.
func (d *Device) AddFixed(sums kernels.FixedSums, x kernels.Floats) {
	d.run("AddFixed", kernels.CheckFixed(sums, x), func() error { return d.addTerms(launch.addFixed, sums, x) })
}

// SetFixed replaces sums by x.
func (d *Device) SetFixed(sums kernels.FixedSums, x kernels.Floats) {
	d.run("SetFixed", kernels.CheckFixed(sums, x), func() error { return d.addTerms(launch.setFixed, sums, x) })
}

func (d *Device) addTerms(
	kernel func(l launch, sums, overflow, x cu.DevicePtr, n int, limit, units float64) error,
	sums kernels.FixedSums, x kernels.Floats,
) error {
	n := x.Len()
	return kernel(d.launch(fixedGrid(n)), int64s(sums.Sums, n), int64s(sums.Overflow, 1), float32s(x, n), n, sums.Limit(),
		1/sums.Unit())
}

// ReadFixed writes sums to x.
func (d *Device) ReadFixed(x kernels.Floats, sums kernels.FixedSums) {
	d.run("ReadFixed", kernels.CheckFixed(sums, x), func() error {
		n := x.Len()
		return d.launch(fixedGrid(n)).readFixed(float32s(x, n), n, int64s(sums.Sums, n), int64s(sums.Overflow, 1),
			float32(sums.Unit()))
	})
}
