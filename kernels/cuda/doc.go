//go:build cuda

// Package cuda implements the compute operations on NVIDIA devices: binary matrix products on packed bit planes, packing,
// normalise-and-quantize, survivors attention. Kernels are CUDA C++ in src, compiled by compile.sh to the PTX in ptx, which is
// embedded; gorgonia.org/cu drives them. Every kernel has a plain Go oracle in the tests. NOTES.md keeps what was measured.
//
// The package knows nothing of models, training or files. It exists only under the build tag cuda.
package cuda
