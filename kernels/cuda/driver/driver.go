//go:build cuda

// Package driver holds the few CUDA driver calls that gorgonia.org/cu lacks, on its handles: launches with arguments of
// any size and with clusters, tensor maps, more than 48 KB of shared memory, captured graphs, page-locked memory. It
// keeps no state.
package driver

/*
#include <stddef.h>
#include <stdint.h>
#include <string.h>
typedef int Result;
typedef void *Handle;
extern Result cuMemHostAlloc(void **, size_t, unsigned);
extern Result cuFuncSetAttribute(Handle, int, int);
extern Result cuGetErrorString(Result, const char **);
extern Result cuGetErrorName(Result, const char **);
extern Result cuStreamBeginCapture_v2(Handle, int);
extern Result cuStreamEndCapture(Handle, Handle *);
extern Result cuGraphInstantiateWithFlags(Handle *, Handle, unsigned long long);
extern Result cuGraphLaunch(Handle, Handle);
extern Result cuGraphDestroy(Handle);
extern Result cuGraphExecDestroy(Handle);
extern Result cuTensorMapEncodeTiled(void *, int type, uint32_t rank, void *address, const uint64_t *sizes,
  const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int l2, int fill);

// As in CUDA's header: an attribute is an id and 64 bytes.
typedef struct { int id; char pad[4]; union { char bytes[64]; unsigned cluster[3]; } value; } Attribute;
typedef struct { unsigned grid[3], block[3], shared; Handle stream; Attribute *attributes; unsigned count; } Config;
extern Result cuLaunchKernelEx(const Config *, Handle, void **, void **);

enum { maxArguments = 32, clusterDimension = 4 };

// block holds the argument values, offsets where each begins.
static Result launch(Handle f, const unsigned *grid, const unsigned *threads, unsigned shared, unsigned cluster,
                     Handle stream, char *block, const unsigned *offsets, int n) {
  void *arguments[maxArguments];
  for (int i = 0; i < n; i++) arguments[i] = block + offsets[i];
  Attribute attribute;
  memset(&attribute, 0, sizeof attribute);
  attribute.id = clusterDimension;
  attribute.value.cluster[0] = cluster;
  attribute.value.cluster[1] = attribute.value.cluster[2] = 1;
  Config config = {{grid[0], grid[1], grid[2]}, {threads[0], threads[1], threads[2]}, shared, stream, &attribute,
                   cluster > 1};
  return cuLaunchKernelEx(&config, f, arguments, 0);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// handle reads the driver's pointer out of cu.Function, cu.Stream and the like, which are structs of one pointer.
func handle[T cu.Function | cu.Stream](x T) C.Handle { return *(*C.Handle)(unsafe.Pointer(&x)) }

// Result is a driver call's failure: CUresult.
type Result int

// Error is the driver's own name and text for r.
func (r Result) Error() string {
	var name, text *C.char
	C.cuGetErrorName(C.Result(r), &name)
	C.cuGetErrorString(C.Result(r), &text)
	return fmt.Sprintf("%s (%d): %s", C.GoString(name), int(r), C.GoString(text))
}

func check(r C.Result) error {
	if r == 0 {
		return nil
	}
	return Result(r)
}

// AllocHost allocates page-locked memory, for the current context and cu.MemFreeHost.
func AllocHost(bytes int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	err := check(C.cuMemHostAlloc(&p, C.size_t(bytes), 0))
	return p, err
}

// AllowShared raises the dynamic shared memory that a block of f may have to bytes.
func AllowShared(f cu.Function, bytes int) error {
	const maxDynamicSharedSize = 8
	return check(C.cuFuncSetAttribute(handle(f), maxDynamicSharedSize, C.int(bytes)))
}

// Geometry is the shape of a launch. Zero sizes count as 1; Cluster is the number of neighbouring blocks along x that
// share their shared memory, Shared the bytes of dynamic shared memory of a block.
type Geometry struct {
	Grid, Block     [3]int
	Shared, Cluster int
}

// Bytes is the memory of a kernel argument: *v is copied at launch, so v need not outlive the call.
func Bytes[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// Launch queues f on stream with the given argument values, in the order of the kernel's parameters; at most 32.
func Launch(f cu.Function, g Geometry, stream cu.Stream, arguments ...[]byte) error {
	if len(arguments) > C.maxArguments {
		return fmt.Errorf("%d kernel arguments: at most %d are supported", len(arguments), C.maxArguments)
	}
	var offsets [C.maxArguments]C.uint
	block := make([]byte, 0, 1024)
	for i, a := range arguments {
		for len(block)%64 != 0 {
			block = append(block, 0)
		}
		offsets[i] = C.uint(len(block))
		block = append(block, a...)
	}
	grid, threads := atLeastOne(g.Grid), atLeastOne(g.Block)
	return check(C.launch(handle(f), &grid[0], &threads[0], C.uint(g.Shared), C.uint(max(g.Cluster, 1)), handle(stream),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(block))), &offsets[0], C.int(len(arguments))))
}

func atLeastOne(size [3]int) (out [3]C.uint) {
	for i, n := range size {
		out[i] = C.uint(max(n, 1))
	}
	return out
}

// TensorMap describes a tensor of bytes in device memory and the box of it that one bulk copy moves to shared memory.
type TensorMap [128]byte

// NewTensorMap encodes a map of rank len(sizes) <= 5, innermost dimension first. strides are in bytes and leave out the
// innermost dimension, whose stride is 1; they must be multiples of 16, as must address. The innermost box must be 128
// bytes, for rows are written with the 128-byte swizzle. Bytes outside of sizes read as zero.
func NewTensorMap(address cu.DevicePtr, sizes, strides []int, box []int) (*TensorMap, error) {
	const uint8Type, swizzle128, promoteL2To256 = 0, 3, 3
	var size, stride [5]C.uint64_t
	var boxed, step [5]C.uint32_t
	for i := range sizes {
		size[i], boxed[i], step[i] = C.uint64_t(sizes[i]), C.uint32_t(box[i]), 1
		if i > 0 {
			stride[i-1] = C.uint64_t(strides[i-1])
		}
	}
	var room [192]byte // the driver writes to an address that is a multiple of 64
	at := (64 - int(uintptr(unsafe.Pointer(&room))%64)) % 64
	err := check(C.cuTensorMapEncodeTiled(unsafe.Pointer(&room[at]), uint8Type, C.uint32_t(len(sizes)),
		*(*unsafe.Pointer)(unsafe.Pointer(&address)), &size[0], &stride[0], &boxed[0], &step[0], 0, swizzle128,
		promoteL2To256, 0))
	if err != nil {
		return nil, fmt.Errorf("tensor map of sizes %v, strides %v, box %v: %w", sizes, strides, box, err)
	}
	return (*TensorMap)(room[at:]), nil
}

// Graph is a recorded sequence of launches that replays with one call.
type Graph struct{ graph, executable C.Handle }

// BeginCapture makes stream record what is launched on it instead of running it.
func BeginCapture(stream cu.Stream) error {
	const relaxed = 2
	return check(C.cuStreamBeginCapture_v2(handle(stream), relaxed))
}

// EndCapture ends the recording that BeginCapture started.
func EndCapture(stream cu.Stream) (*Graph, error) {
	g := new(Graph)
	if err := check(C.cuStreamEndCapture(handle(stream), &g.graph)); err != nil {
		return nil, fmt.Errorf("end of graph capture: %w", err)
	}
	if err := check(C.cuGraphInstantiateWithFlags(&g.executable, g.graph, 0)); err != nil {
		C.cuGraphDestroy(g.graph)
		return nil, fmt.Errorf("instantiation of a captured graph: %w", err)
	}
	return g, nil
}

// Launch queues the recorded work on stream.
func (g *Graph) Launch(stream cu.Stream) error {
	return check(C.cuGraphLaunch(g.executable, handle(stream)))
}

// Close releases the graph.
func (g *Graph) Close() error {
	err := check(C.cuGraphExecDestroy(g.executable))
	if e := check(C.cuGraphDestroy(g.graph)); err == nil {
		err = e
	}
	return err
}
