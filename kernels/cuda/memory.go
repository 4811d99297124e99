//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"bitnet1/kernels"
	"bitnet1/kernels/number/bfloat16"

	"gorgonia.org/cu"
)

type (
	floats struct {
		at cu.DevicePtr
		n  int
	}
	bfloats struct {
		at cu.DevicePtr
		n  int
	}
	ints struct {
		at cu.DevicePtr
		n  int
	}
)

func (f floats) Len() int  { return f.n }
func (b bfloats) Len() int { return b.n }

func (f floats) BFloat16() bool  { return false }
func (b bfloats) BFloat16() bool { return true }

func (n ints) Len() int { return n.n }

func (f floats) Slice(from, to int) kernels.Floats {
	checkSlice(from, to, f.n)
	return floats{f.at + cu.DevicePtr(4*from), to - from}
}

func (b bfloats) Slice(from, to int) kernels.Floats {
	checkSlice(from, to, b.n)
	return bfloats{b.at + cu.DevicePtr(2*from), to - from}
}

func (n ints) Slice(from, to int) kernels.Ints {
	checkSlice(from, to, n.n)
	return ints{n.at + cu.DevicePtr(4*from), to - from}
}

// checkSlice panics as Go's own slices do.
func checkSlice(from, to, n int) {
	if from < 0 || to < from || to > n {
		panic(fmt.Sprintf("slice from %d to %d of %d", from, to, n))
	}
}

// float32s is where at least n values of x lie; it is 0 for nil. It panics when there are fewer: run turns that into an
// error.
func float32s(x kernels.Floats, n int) cu.DevicePtr {
	if x == nil {
		return 0
	}
	f := x.(floats)
	if f.n < n {
		panic(fmt.Sprintf("%d floats where %d are needed", f.n, n))
	}
	return f.at
}

// gradients is memory of gradients, float32 or bfloat16.
type gradients struct {
	at       cu.DevicePtr
	bfloat16 bool
}

func gradientsOf(x kernels.Floats, n int) gradients {
	b, ok := x.(bfloats)
	if !ok {
		return gradients{float32s(x, n), false}
	}
	if b.n < n {
		panic(fmt.Sprintf("%d bfloats where %d are needed", b.n, n))
	}
	return gradients{b.at, true}
}

// bytes is the size of n values.
func (g gradients) bytes(n int) int {
	if g.bfloat16 {
		return 2 * n
	}
	return 4 * n
}

func int32s(x kernels.Ints, n int) cu.DevicePtr {
	if x == nil {
		return 0
	}
	i := x.(ints)
	if i.n < n {
		panic(fmt.Sprintf("%d ints where %d are needed", i.n, n))
	}
	return i.at
}

// memory is what a device has allocated.
type memory struct {
	all     []cu.DevicePtr
	bytes   int
	granted int // of the device's pages for them
	scratch map[string]buffer
	tables  map[string]cu.DevicePtr
	scalars cu.DevicePtr
	status  cu.DevicePtr // 1 int32: what a kernel found wrong
}

type buffer struct {
	at   cu.DevicePtr
	size int
}

func (m *memory) open(d *Device) (err error) {
	m.scratch, m.tables = map[string]buffer{}, map[string]cu.DevicePtr{}
	if m.scalars, err = d.alloc(int(unsafe.Sizeof(scalars{}))); err != nil {
		return err
	}
	m.status, err = d.alloc(4)
	return err
}

func (m *memory) close() (err error) {
	for _, p := range m.all {
		if e := cu.MemFree(p); e != nil && err == nil {
			err = e
		}
	}
	*m = memory{}
	return err
}

// failure waits for the stream and returns what kernels wrote to status.
func (m *memory) failure(d *Device) (int32, error) {
	var status int32
	if d.dryRun {
		return 0, nil
	}
	if err := cu.MemcpyDtoHAsync(unsafe.Pointer(&status), m.status, 4, d.stream); err != nil {
		return 0, err
	}
	return status, d.stream.Synchronize()
}

// alloc returns zeroed memory. It clears the memory on the side stream, so it works while a graph is being recorded.
func (d *Device) alloc(bytes int) (cu.DevicePtr, error) {
	if d.dryRun {
		return d.memory.imagine(bytes), nil
	}
	p, err := cu.MemAlloc(int64(max(bytes, 16)))
	if err != nil {
		free, total, _ := cu.MemInfo()
		return 0, fmt.Errorf("allocation of %s: %w: %s of %s are free, %s are this device's: compute less at once",
			size(bytes), err, size(int(free)), size(int(total)), size(d.memory.bytes))
	}
	d.memory.all = append(d.memory.all, p)
	d.memory.take(bytes)
	if err := cu.MemsetD8Async(p, 0, int64(max(bytes, 16)), d.side); err != nil {
		return 0, fmt.Errorf("clearing of %s: %w", size(bytes), err)
	}
	if err := d.side.Synchronize(); err != nil {
		return 0, fmt.Errorf("clearing of %s: %w", size(bytes), err)
	}
	return p, nil
}

// Allocated is how many bytes of device memory are held.
func (d *Device) Allocated() int { return d.memory.bytes }

func size(bytes int) string { return fmt.Sprintf("%.2f GiB", float64(bytes)/(1<<30)) }

// scratch returns working memory of undefined content. Each name is one buffer, which grows. A buffer that a recorded
// graph uses is never freed.
func (d *Device) scratch(name string, bytes int) (cu.DevicePtr, error) {
	b := d.memory.scratch[name]
	if b.size >= bytes && b.at != 0 {
		return b.at, nil
	}
	p, err := d.alloc(bytes)
	if err != nil {
		return 0, fmt.Errorf("working memory for %s: %w", name, err)
	}
	d.memory.scratch[name] = buffer{p, bytes}
	return p, nil
}

// table returns constants in device memory, computed once for each key.
func (d *Device) table(key string, values func() []float64) (cu.DevicePtr, error) {
	if p, ok := d.memory.tables[key]; ok {
		return p, nil
	}
	v := values()
	p, err := d.alloc(8 * len(v))
	if err != nil {
		return 0, err
	}
	d.memory.tables[key] = p
	if d.dryRun {
		return p, nil
	}
	if err := cu.MemcpyHtoDAsync(p, unsafe.Pointer(unsafe.SliceData(v)), int64(8*len(v)), d.side); err != nil {
		return 0, fmt.Errorf("table %s: %w", key, err)
	}
	return p, d.side.Synchronize()
}

// allocate is alloc for the interface's constructors.
func (d *Device) allocate(what string, n, bytes int) (p cu.DevicePtr, err error) {
	if err := kernels.CheckSize(what, n); err != nil {
		return 0, fmt.Errorf("CUDA device %d: %w", d.index, err)
	}
	release, err := d.current()
	if err != nil {
		return 0, err
	}
	defer release()
	if p, err = d.alloc(bytes); err != nil {
		return 0, fmt.Errorf("CUDA device %d: %d %s: %w", d.index, n, what, advise(err))
	}
	return p, nil
}

// NewFloats allocates n zeros.
func (d *Device) NewFloats(n int) (kernels.Floats, error) {
	p, err := d.allocate("floats", n, 4*n)
	if err != nil {
		return nil, err
	}
	return floats{p, n}, nil
}

// NewBFloats allocates n zeros.
func (d *Device) NewBFloats(n int) (kernels.Floats, error) {
	p, err := d.allocate("bfloats", n, 2*n)
	if err != nil {
		return nil, err
	}
	return bfloats{p, n}, nil
}

// NewInts allocates n zeros.
func (d *Device) NewInts(n int) (kernels.Ints, error) {
	p, err := d.allocate("ints", n, 4*n)
	if err != nil {
		return nil, err
	}
	return ints{p, n}, nil
}

// Upload copies src to dst.
func (d *Device) Upload(dst kernels.Floats, src []float32) {
	d.run("Upload", kernels.CheckUpload(dst, len(src)), func() error {
		to := gradientsOf(dst, len(src))
		if to.bfloat16 {
			rounded := make([]uint16, len(src))
			for i, v := range src {
				rounded[i] = bfloat16.FromFloat32(v)
			}
			return d.send(to.at, unsafe.Pointer(unsafe.SliceData(rounded)), 2*len(rounded))
		}
		return d.send(to.at, unsafe.Pointer(unsafe.SliceData(src)), 4*len(src))
	})
}

// UploadInts copies src to dst.
func (d *Device) UploadInts(dst kernels.Ints, src []int32) {
	d.run("UploadInts", kernels.CheckUploadInts(dst, len(src)), func() error {
		return d.send(int32s(dst, len(src)), unsafe.Pointer(unsafe.SliceData(src)), 4*len(src))
	})
}

// receive waits, then copies.
func (d *Device) receive(to unsafe.Pointer, from cu.DevicePtr, bytes int) error {
	if err := d.wait(); err != nil {
		return err
	}
	if bytes == 0 || d.dryRun {
		return nil
	}
	if err := cu.MemcpyDtoHAsync(to, from, int64(bytes), d.stream); err != nil {
		return err
	}
	return d.stream.Synchronize()
}

// Download copies src to dst.
func (d *Device) Download(dst []float32, src kernels.Floats) error {
	d.run("Download", kernels.CheckDownload(len(dst), src), func() error {
		from := gradientsOf(src, len(dst))
		if from.bfloat16 {
			rounded := make([]uint16, len(dst))
			err := d.receive(unsafe.Pointer(unsafe.SliceData(rounded)), from.at, 2*len(dst))
			for i, b := range rounded {
				dst[i] = bfloat16.ToFloat32(b)
			}
			return err
		}
		return d.receive(unsafe.Pointer(unsafe.SliceData(dst)), from.at, 4*len(dst))
	})
	return d.err
}

// DownloadInts copies src to dst.
func (d *Device) DownloadInts(dst []int32, src kernels.Ints) error {
	d.run("DownloadInts", kernels.CheckDownloadInts(len(dst), src), func() error {
		return d.receive(unsafe.Pointer(unsafe.SliceData(dst)), int32s(src, len(dst)), 4*len(dst))
	})
	return d.err
}
