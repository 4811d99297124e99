//go:build cuda

// Package cuda implements kernels.Device on NVIDIA devices: binary matrix products on packed bit planes, products of
// bytes where both sides have several planes, rounding of gradients, normalise-and-quantize, survivors attention, loss
// and optimizer.
//
// # Kernels
//
// A kernel is declared once, where it is written: in src, CUDA C++, as KERNEL(category, threads) void name(…). The
// script compile.sh makes the PTX in ptx, which is embedded, and then the file kernels_generated.go: the list of
// kernels, a typed launcher for each, and the Go structs of its parameters (see ptx2go). An operation of the device
// launches a kernel with d.launch(grid(blocks)).name(…). To add a kernel, write it, run compile.sh, and call its
// launcher. kernels/devicetest then says whether the device still computes what every device has to.
//
// gorgonia.org/cu drives the devices; package driver adds the calls that it lacks. NOTES.md keeps what was measured.
//
// The package knows nothing of models, training or files. It exists only under the build tag cuda.
package cuda
