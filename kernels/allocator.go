package kernels

// Allocator makes memory of Device and keeps the first error in Err, so that building a model reads as a list. After an
// error it returns nil.
type Allocator struct {
	Device Device
	Err    error
}

// Floats is NewFloats of the device.
func (a *Allocator) Floats(n int) Floats {
	return allocate(a, func() (Floats, error) { return a.Device.NewFloats(n) })
}

// BFloats is NewBFloats of the device.
func (a *Allocator) BFloats(n int) Floats {
	return allocate(a, func() (Floats, error) { return a.Device.NewBFloats(n) })
}

// Ints is NewInts of the device.
func (a *Allocator) Ints(n int) Ints {
	return allocate(a, func() (Ints, error) { return a.Device.NewInts(n) })
}

// Longs is NewLongs of the device.
func (a *Allocator) Longs(n int) Longs {
	return allocate(a, func() (Longs, error) { return a.Device.NewLongs(n) })
}

// Planes is NewPlanes of the device.
func (a *Allocator) Planes(rows, cols int, q Quantization) Planes {
	return allocate(a, func() (Planes, error) { return a.Device.NewPlanes(rows, cols, q) })
}

// Activation makes what a linear reads, rows × width.
func (a *Allocator) Activation(rows, width int, q Quantization) Activation {
	if q == Unquantized() {
		return Activation{Floats: a.Floats(rows * width)}
	}
	return Activation{Planes: a.Planes(rows, width, q)}
}

func allocate[T any](a *Allocator, f func() (T, error)) (x T) {
	if a.Err == nil {
		x, a.Err = f()
	}
	return x
}
