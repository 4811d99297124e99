// Package cpu implements kernels.Device on the cores of a little-endian processor: bit planes in 64-bit words, float32
// arrays, and goroutines over a fixed division of the work, so that results do not depend on their number. Where AVX2 is
// present the inner loops are assembly (see instructions), some of them better with AVX-512, and products of integers and signs
// are looked up (lookup.go); the Go loops beside them give the same bits. It never runs anything later: operations are done when they return.
package cpu

import (
	"fmt"
	"runtime"

	"bitnet1/kernels"
)

// Options of a Device. The zero value works.
type Options struct {
	Workers int  // goroutines that compute; default: GOMAXPROCS
	PlainGo bool // no assembly: the same results, slowly
}

// Device computes on the processor.
type Device struct {
	instructions
	others  []*worker     // workers beside the caller
	own     scratch       // the caller's
	shared  sharedScratch // for what all workers of one operation read
	scalars kernels.Scalars
	err     error

	logitsAtOnce int // bounds the logits that exist at a time
}

// logitsAtOnce is 64 MiB of logits.
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

// Name says what computes.
func (d *Device) Name() string { return fmt.Sprintf("cpu, %d workers, %s", d.workers(), d.name) }

type (
	floats []float32
	ints   []int32
)

func (f floats) Len() int                          { return len(f) }
func (f floats) Slice(from, to int) kernels.Floats { return f[from:to] }
func (n ints) Len() int                            { return len(n) }
func (n ints) Slice(from, to int) kernels.Ints     { return n[from:to] }

// values returns the array behind x, or nil.
func values(x kernels.Floats) []float32 {
	if x == nil {
		return nil
	}
	return x.(floats)
}

// maxElements bounds one buffer, so that a wrong size is an error and not the end of the process.
const maxElements = 1 << 38

func checkSize(what string, n int) error {
	if n < 0 || n > maxElements {
		return fmt.Errorf("cpu: cannot allocate %d %s: choose a smaller model, batch or sequence", n, what)
	}
	return nil
}

// NewFloats allocates n zeros.
func (d *Device) NewFloats(n int) (kernels.Floats, error) {
	if err := checkSize("floats", n); err != nil {
		return nil, err
	}
	return make(floats, n), nil
}

// NewBFloats allocates n zeros.
func (d *Device) NewBFloats(n int) (kernels.Floats, error) {
	if err := checkSize("bfloats", n); err != nil {
		return nil, err
	}
	return make(bfloats, n), nil
}

// NewInts allocates n zeros.
func (d *Device) NewInts(n int) (kernels.Ints, error) {
	if err := checkSize("ints", n); err != nil {
		return nil, err
	}
	return make(ints, n), nil
}

// Upload copies src to dst.
func (d *Device) Upload(dst kernels.Floats, src []float32) {
	d.run("Upload", func() {
		d.write(anyFloatsOf(dst), 0, src)
	})
}

// UploadInts copies src to dst.
func (d *Device) UploadInts(dst kernels.Ints, src []int32) {
	d.run("UploadInts", func() { copy(dst.(ints)[:len(src)], src) })
}

// SetScalars replaces the scalars.
func (d *Device) SetScalars(s kernels.Scalars) { d.scalars = s }

// Download copies src to dst.
func (d *Device) Download(dst []float32, src kernels.Floats) error {
	d.run("Download", func() { copy(dst, d.read(dst, anyFloatsOf(src), 0)) })
	return d.err
}

// DownloadInts copies src to dst.
func (d *Device) DownloadInts(dst []int32, src kernels.Ints) error {
	d.run("DownloadInts", func() { copy(dst, src.(ints)[:len(dst)]) })
	return d.err
}

// reader reads at once: whatever was enqueued is done.
type reader struct{}

func (reader) Read(dst []float32, src kernels.Floats) error {
	from, ok := src.(floats)
	if !ok || len(from) < len(dst) {
		return fmt.Errorf("cpu: reading %d floats of %T with %d values", len(dst), src, src.Len())
	}
	copy(dst, from)
	return nil
}

// NewReader reports the first failure, or returns what reads.
func (d *Device) NewReader() (kernels.Reader, error) { return reader{}, d.err }

// Sync reports the first failure.
func (d *Device) Sync() error { return d.err }

// Capture returns enqueue: there is nothing to record.
func (d *Device) Capture(enqueue func()) (func(), error) { return enqueue, nil }

// Close drops the scratch memory; buffers go with their last reference.
func (d *Device) Close() error {
	for _, h := range d.others {
		*h.memory = scratch{}
	}
	d.own, d.shared = scratch{}, sharedScratch{}
	return nil
}

// run does one operation. A panic in it (sizes that do not fit, a token outside the vocabulary) becomes the device's error.
func (d *Device) run(operation string, f func()) {
	if d.err != nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			d.err = fmt.Errorf("cpu %s: %v", operation, r)
		}
	}()
	f()
}
