//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"runtime"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/cushim"
	"bitnet1/kernels/cuda/driver"
	"bitnet1/kernels/timing"

	"gorgonia.org/cu"
)

// ErrNoDevice is what Count and Open return, wrapped, on a machine without an NVIDIA driver or device.
var ErrNoDevice = errors.New("no CUDA device")

// Options of a Device. The zero value works.
type Options struct {
	// Plain leaves out the kernels that are written for this device's architecture, and uses those that every supported
	// device can run. Slow; for tests.
	Plain bool
}

// Device is one GPU with its kernels loaded. All operations are queued in order on one stream. A Device serves one
// goroutine at a time.
type Device struct {
	index           int
	name            string
	hopper          bool // has warpgroup matrix units, and is meant to use them
	multiprocessors int
	weightBytes     int // what working memory for weights of pointers may take, unless one head takes more
	context         cu.CUContext
	stream          cu.Stream
	side            cu.Stream // for memory that is readied while the other stream records a graph
	branch          branch
	loaded          map[string]loaded
	memory          memory
	uploads         uploads
	reader          *reader // the one that NewReader returns
	graphs          []*driver.Graph
	recording       bool
	dryRun          bool // nothing is launched, copied or allocated
	profile         *profile
	err             error
}

var _ kernels.Device = (*Device)(nil)

// Count is the number of devices of this machine.
func Count() (int, error) {
	if err := cushim.Load(); err != nil {
		return 0, fmt.Errorf("%w: %w: install the NVIDIA driver", ErrNoDevice, err)
	}
	n, err := cu.NumDevices()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoDevice, err)
	}
	if n == 0 {
		return 0, fmt.Errorf("%w: the driver lists none", ErrNoDevice)
	}
	return n, nil
}

// Open readies device index (0 <= index < Count). The first time the driver compiles the kernels, which takes seconds;
// it keeps the result on disk.
func Open(index int, o Options) (*Device, error) {
	n, err := Count()
	if err != nil {
		return nil, err
	}
	if index < 0 || index >= n {
		return nil, fmt.Errorf("CUDA device %d: this machine has devices 0 to %d", index, n-1)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d := &Device{index: index, loaded: map[string]loaded{}}
	if err := d.open(o); err != nil {
		return nil, fmt.Errorf("CUDA device %d: %w", index, advise(err))
	}
	return d, nil
}

func (d *Device) open(o Options) error {
	device, err := cu.GetDevice(d.index)
	if err != nil {
		return err
	}
	if err := d.describe(device, o); err != nil {
		return err
	}
	if d.context, err = device.RetainPrimaryCtx(); err != nil {
		return fmt.Errorf("primary context: %w", err)
	}
	if err := cu.SetCurrentContext(d.context); err != nil {
		return fmt.Errorf("current context: %w", err)
	}
	for _, s := range []*cu.Stream{&d.stream, &d.side} {
		if *s, err = cu.MakeStream(cu.NonBlocking); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
	if err := d.branch.open(); err != nil {
		return fmt.Errorf("second stream: %w", err)
	}
	if err := d.loadKernels(); err != nil {
		return err
	}
	return d.memory.open(d)
}

func (d *Device) describe(device cu.Device, o Options) (err error) {
	if d.name, err = device.Name(); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	major, err := device.Attribute(cu.ComputeCapabilityMajor)
	if err != nil {
		return fmt.Errorf("compute capability: %w", err)
	}
	if d.multiprocessors, err = device.Attribute(cu.MultiprocessorCount); err != nil {
		return fmt.Errorf("multiprocessor count: %w", err)
	}
	minor, err := device.Attribute(cu.ComputeCapabilityMinor)
	if err != nil {
		return fmt.Errorf("compute capability: %w", err)
	}
	if err := supports(d.name, major, minor, cu.Version()); err != nil {
		return err
	}
	d.weightBytes = 2 << 30
	d.hopper = major == 9 && !o.Plain // sm_90a code runs on compute capability 9.0 alone
	return nil
}

// Name is what the driver calls the device.
func (d *Device) Name() string { return d.name }

// current makes the device's context that of the thread, and keeps the goroutine on the thread until the returned
// function is called: the driver's current context belongs to the thread.
func (d *Device) current() (release func(), err error) { return enter(d.context, d.index) }

func enter(context cu.CUContext, index int) (release func(), err error) {
	runtime.LockOSThread()
	if err := cu.SetCurrentContext(context); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("CUDA device %d: current context: %w", index, advise(err))
	}
	return runtime.UnlockOSThread, nil
}

// run does one operation, unless the contract refuses its arguments or an earlier operation failed. A refusal, an error
// of f and a panic in f become the device's error.
func (d *Device) run(operation string, refusal error, f func() error) {
	if d.err != nil {
		return
	}
	if refusal != nil {
		d.err = fmt.Errorf("CUDA device %d: %s: %w", d.index, operation, refusal)
		return
	}
	release, err := d.current()
	if err != nil {
		d.err = err
		return
	}
	defer release()
	defer func() {
		if r := recover(); r != nil && d.err == nil {
			d.err = fmt.Errorf("CUDA device %d: %s: %v", d.index, operation, r)
		}
	}()
	if err := f(); err != nil && d.err == nil { // an operation within Capture may have failed first
		d.err = fmt.Errorf("CUDA device %d: %s: %w", d.index, operation, advise(err))
	}
}

// Sync waits for everything enqueued and reports the first failure since the device was made.
func (d *Device) Sync() error {
	d.run("Sync", nil, d.wait)
	return d.err
}

// wait waits for the stream and reads what kernels report.
func (d *Device) wait() error {
	if d.recording {
		return errors.New("a graph is being recorded: nothing can be waited for")
	}
	row, err := d.memory.failure(d)
	if err != nil {
		return fmt.Errorf("queued work: %w", err)
	}
	if row != 0 {
		return fmt.Errorf("Embed: %w", kernels.OutsideVocabulary(int(row-1)))
	}
	return nil
}

// Capture records what enqueue enqueues as a graph.
func (d *Device) Capture(enqueue func()) (replay func(), err error) {
	if d.profile != nil { // events between kernels are not part of a graph
		return enqueue, nil
	}
	if d.dryRun {
		return enqueue, nil
	}
	var graph *driver.Graph
	d.run("Capture", nil, func() error {
		if err := driver.BeginCapture(d.stream); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		d.recording = true
		enqueue()
		d.recording = false
		g, err := driver.EndCapture(d.stream)
		switch {
		case d.err != nil: // whatever the graph lacks, it lacks because of that
			if err == nil {
				err = g.Close()
			}
			return err
		case err == nil:
			d.graphs = append(d.graphs, g)
			graph = g
		}
		return err
	})
	if d.err != nil {
		return nil, d.err
	}
	return func() { d.run("replay", nil, func() error { return graph.Launch(d.stream) }) }, nil
}

// Close waits for queued work and frees the device's memory. It does not report a failure again that an operation has
// reported.
func (d *Device) Close() error {
	if d.dryRun {
		return nil
	}
	release, err := d.current()
	if err != nil {
		return err
	}
	defer release()
	failed := []error{d.stream.Synchronize()}
	for _, g := range d.graphs {
		failed = append(failed, g.Close())
	}
	d.graphs = nil
	failed = append(failed, d.memory.close(), d.uploads.close(), d.reader.close())
	for _, s := range []*cu.Stream{&d.stream, &d.side, &d.branch.stream} {
		failed = append(failed, s.Destroy())
	}
	for _, err := range failed {
		if err != nil && d.err == nil {
			return fmt.Errorf("CUDA device %d: close: %w", d.index, advise(err))
		}
	}
	return nil
}

// clear sets memory to zero, in order with the operations.
func (d *Device) clear(p cu.DevicePtr, bytes int) error {
	if bytes == 0 {
		return nil
	}
	return d.timed(timing.Operation{Name: "clear", Category: timing.Copies}, func() error {
		if err := cu.MemsetD8Async(p, 0, int64(bytes), d.stream); err != nil {
			return fmt.Errorf("clearing of %d bytes: %w", bytes, err)
		}
		return nil
	})
}

// timed queues work. A profile measures the work as the given operation; a dry run leaves it out.
func (d *Device) timed(operation timing.Operation, queue func() error) error {
	if d.dryRun {
		return nil
	}
	if d.profile == nil {
		return queue()
	}
	if err := d.profile.begin(d.stream, operation); err != nil {
		return err
	}
	if err := queue(); err != nil {
		return err
	}
	return d.profile.end(d.stream)
}
