// Package cpu implements kernels.Device on the cores of a little-endian processor. Bit planes are 64-bit words, floats
// are float32 slices. Every operation divides its work in the same way whatever the number of goroutines, so the
// results do not depend on that number. Operations are done when they return.
//
// The inner loops are Go functions, with assembly for AVX2, AVX-512 and NEON that gives the same bits: see
// instructions.
// There are four ways to multiply:
//
//   - integers by planes: sums of four integers are looked up in tables, plane by plane (lookup.go);
//   - few rows of planes by planes, and where it is faster signs by signs: bits are counted (popcount.go);
//   - integers by several planes, where that is faster: bytes are multiplied (bytes.go);
//   - floats by floats or signs: tiles of float64 sums (gemm.go).
//
// An operation's memory is scratch that later operations use again: see scratch.go. Its goroutines are in workers.go.
package cpu

import (
	"fmt"
	"runtime"

	"bitnet1/kernels"
)

// Options of a Device. The zero value is a device on all cores.
type Options struct {
	Workers int  // goroutines that compute; default: GOMAXPROCS
	PlainGo bool // no assembly: the same results, slowly
}

// Device computes on the processor.
type Device struct {
	instructions
	others  []*worker // workers beside the caller
	own     scratch   // of the caller, which works too
	shared  sharedScratch
	scalars kernels.Scalars
	err     error

	logitsAtOnce int // the largest number of logits in memory
}

// logitsAtOnce takes 64 MiB.
const logitsAtOnce = 1 << 24

// New returns a device.
func New(o Options) *Device {
	if o.Workers < 1 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	sets := instructionSets()
	if o.PlainGo {
		sets = sets[:1]
	}
	d := &Device{instructions: sets[len(sets)-1], others: make([]*worker, o.Workers-1), logitsAtOnce: logitsAtOnce}
	for i := range d.others {
		d.others[i] = &worker{memory: new(scratch)}
	}
	return d
}

var _ kernels.Device = (*Device)(nil)

func (d *Device) workers() int { return 1 + len(d.others) }

// Name is the device's name with its number of workers and its instruction set.
func (d *Device) Name() string { return fmt.Sprintf("cpu, %d workers, %s", d.workers(), d.name) }

type (
	floats []float32
	ints   []int32
	longs  []int64
)

func (f floats) Len() int                          { return len(f) }
func (f floats) BFloat16() bool                    { return false }
func (f floats) Slice(from, to int) kernels.Floats { return f[from:to] }
func (n ints) Len() int                            { return len(n) }
func (n ints) Slice(from, to int) kernels.Ints     { return n[from:to] }
func (n longs) Len() int                           { return len(n) }
func (n longs) Slice(from, to int) kernels.Longs   { return n[from:to] }

// values returns the slice behind x, or nil if x is nil.
func values(x kernels.Floats) []float32 {
	if x == nil {
		return nil
	}
	return x.(floats)
}

// NewFloats allocates n zeros.
func (d *Device) NewFloats(n int) (kernels.Floats, error) {
	if err := kernels.CheckSize("floats", n); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	return make(floats, n), nil
}

// NewBFloats allocates n zeros.
func (d *Device) NewBFloats(n int) (kernels.Floats, error) {
	if err := kernels.CheckSize("bfloats", n); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	return make(bfloats, n), nil
}

// NewInts allocates n zeros.
func (d *Device) NewInts(n int) (kernels.Ints, error) {
	if err := kernels.CheckSize("ints", n); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	return make(ints, n), nil
}

// NewLongs allocates n zeros.
func (d *Device) NewLongs(n int) (kernels.Longs, error) {
	if err := kernels.CheckSize("longs", n); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	return make(longs, n), nil
}

// Upload copies src to dst.
func (d *Device) Upload(dst kernels.Floats, src []float32) {
	d.run("Upload", kernels.CheckUpload(dst, len(src)), func() {
		d.write(anyFloatsOf(dst), 0, src)
	})
}

// UploadInts copies src to dst.
func (d *Device) UploadInts(dst kernels.Ints, src []int32) {
	d.run("UploadInts", kernels.CheckUploadInts(dst, len(src)), func() { copy(dst.(ints)[:len(src)], src) })
}

// SetScalars replaces the scalars.
func (d *Device) SetScalars(s kernels.Scalars) { d.scalars = s }

// Download copies src to dst.
func (d *Device) Download(dst []float32, src kernels.Floats) error {
	d.run("Download", kernels.CheckDownload(len(dst), src), func() { copy(dst, d.read(dst, anyFloatsOf(src), 0)) })
	return d.err
}

// DownloadInts copies src to dst.
func (d *Device) DownloadInts(dst []int32, src kernels.Ints) error {
	d.run("DownloadInts", kernels.CheckDownloadInts(len(dst), src), func() { copy(dst, src.(ints)[:len(dst)]) })
	return d.err
}

// reader reads without waiting: all operations are done.
type reader struct{}

func (reader) Read(dst []float32, src kernels.Floats) error {
	if err := kernels.CheckRead(len(dst), src); err != nil {
		return fmt.Errorf("cpu Read: %w", err)
	}
	copy(dst, values(src))
	return nil
}

// NewReader returns a reader, or the device's first failure.
func (d *Device) NewReader() (kernels.Reader, error) { return reader{}, d.err }

// Sync returns the device's first failure.
func (d *Device) Sync() error { return d.err }

// Capture returns enqueue: there is nothing to record.
func (d *Device) Capture(enqueue func()) (func(), error) { return enqueue, nil }

// Close drops the scratch memory. The garbage collector frees the buffers.
func (d *Device) Close() error {
	for _, w := range d.others {
		*w.memory = scratch{}
	}
	d.own, d.shared = scratch{}, sharedScratch{}
	return nil
}

// run does one operation, unless the contract refuses its arguments or an earlier operation failed. A refusal, and a
// panic in f because of a token outside the vocabulary, become the device's error.
func (d *Device) run(operation string, refusal error, f func()) {
	if d.err != nil {
		return
	}
	if refusal != nil {
		d.err = fmt.Errorf("cpu %s: %w", operation, refusal)
		return
	}
	defer func() {
		if r := recover(); r != nil {
			d.err = fmt.Errorf("cpu %s: %v", operation, r)
		}
	}()
	f()
}
