//go:build cuda

// Package cuda implements the compute operations on NVIDIA devices: binary matrix products on packed bit planes, packing,
// bytes, rounding of gradients, normalise-and-quantize, survivors attention, loss and optimizer. Kernels are CUDA C++ in src, compiled by
// compile.sh to the PTX in ptx, which is
// embedded; gorgonia.org/cu drives them. kernels/devicetest is their oracle; NOTES.md keeps what was measured.
//
// The package knows nothing of models, training or files. It exists only under the build tag cuda.
package cuda
