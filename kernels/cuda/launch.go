//go:build cuda

package cuda

import (
	"embed"
	"fmt"
	"math"

	"bitnet1/kernels/cuda/driver"
	"bitnet1/kernels/timing"

	"gorgonia.org/cu"
)

//go:embed ptx/*.ptx
var ptx embed.FS

// module is a PTX file and its kernels. ptx2go writes the list.
type module struct {
	file    string
	target  string // the architecture that it is compiled for
	kernels []kernel
}

// hopperTarget is the target of kernels for warpgroup matrix units: it runs on compute capability 9.0 alone.
const hopperTarget = "sm_90a"

// kernel is an entry of a PTX file.
type kernel struct {
	timing.Operation     // its name and category
	threads          int // of a block; 0: the launch says how many
	shared           int // bytes of dynamic shared memory of a block
}

// loaded is a kernel on a device.
type loaded struct {
	kernel
	function cu.Function
}

func (d *Device) loadKernels() error {
	for _, m := range modules {
		if m.target == hopperTarget && !d.hopper {
			continue
		}
		text, err := ptx.ReadFile("ptx/" + m.file + ".ptx")
		if err != nil {
			return fmt.Errorf("embedded kernels: %w", err)
		}
		module, err := cu.LoadData(string(text) + "\x00")
		if err != nil {
			return fmt.Errorf("compile of embedded %s.ptx on %s: %w", m.file, d.name, err)
		}
		for _, k := range m.kernels {
			f, err := module.Function(k.Name)
			if err != nil {
				return fmt.Errorf("kernel %s of %s.ptx: %w: run kernels/cuda/compile.sh", k.Name, m.file, err)
			}
			if k.shared > 0 {
				if err := driver.AllowShared(f, k.shared); err != nil {
					return fmt.Errorf("%d bytes of shared memory for %s: %w", k.shared, k.Name, err)
				}
			}
			d.loaded[k.Name] = loaded{k, f}
		}
	}
	return nil
}

// launch is a launch that lacks its kernel: d.launch(grid(n)).embed(…) is what CUDA C++ writes as embed<<<n,
// threads>>>(…). It has a method for each kernel, which ptx2go writes. Kernels with the same parameters are chosen as
// method expressions:
//
//	kernel := launch.lossesFloat32
//	if integers { kernel = launch.lossesInt16 }
//	kernel(d.launch(grid(n)), …)
type launch struct {
	d        *Device
	geometry driver.Geometry
}

func (d *Device) launch(g driver.Geometry) launch { return launch{d, g} }

// queue launches a kernel on the device's stream. The kernel's declaration fills in what the geometry leaves out.
func (l launch) queue(name string, arguments ...[]byte) error {
	k, ok := l.d.loaded[name]
	if !ok {
		return fmt.Errorf("kernel %s is not loaded on %s", name, l.d.name)
	}
	g := l.geometry
	if g.Block == [3]int{} {
		g.Block[0] = k.threads
	}
	if g.Shared == 0 {
		g.Shared = k.shared
	}
	return l.d.timed(k.Operation, func() error {
		if err := driver.Launch(k.function, g, l.d.stream, arguments...); err != nil {
			return fmt.Errorf("kernel %s, grid %v: %w", name, g.Grid, err)
		}
		return nil
	})
}

// argument is the memory of a kernel's argument.
func argument[T any](v T) []byte { return driver.Bytes(&v) }

// int32Of is n as a C int. It panics where n does not fit: run turns that into an error.
func int32Of(n int) int32 {
	if n < math.MinInt32 || n > math.MaxInt32 {
		panic(fmt.Sprintf("%d does not fit in 32 bits: compute less at once", n))
	}
	return int32(n)
}

func int64Of(n int) int64 { return int64(n) }

// either is yes where the condition holds, and no elsewhere. Kernels that are made for two cases are chosen with it.
func either[T any](condition bool, yes, no T) T {
	if condition {
		return yes
	}
	return no
}

// grid is a launch of that many blocks along x, y and z.
func grid(blocks ...int) driver.Geometry {
	var g driver.Geometry
	copy(g.Grid[:], blocks)
	return g
}

// elementwise is the grid of kernels whose blocks of 256 threads take n elements in strides.
func (d *Device) elementwise(n int) driver.Geometry {
	return grid(max(1, min(ceilDiv(n, 256), 16*d.multiprocessors)))
}

// warpPerRow is the grid of kernels whose blocks of 256 threads take a row with each warp.
func warpPerRow(rows int) driver.Geometry { return grid(ceilDiv(rows, 8)) }

func ceilDiv(a, b int) int { return (a + b - 1) / b }
func roundUp(a, b int) int { return ceilDiv(a, b) * b }
