//go:build cuda

// Package cuda implements the compute operations on NVIDIA devices through gorgonia.org/cu.
package cuda

import _ "gorgonia.org/cu"
