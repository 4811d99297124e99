//go:build cuda

// Package cuda implements kernels.Device on NVIDIA devices: binary matrix products on packed bit planes, products of bytes where both
// sides have several planes, rounding of gradients, normalise-and-quantize, survivors attention, loss and optimizer. Kernels are CUDA
// C++ in src, compiled by compile.sh to the PTX in ptx, which is embedded; gorgonia.org/cu drives them. kernels/devicetest is their
// oracle; NOTES.md keeps what was measured.
//
// The package knows nothing of models, training or files. It exists only under the build tag cuda.
package cuda
