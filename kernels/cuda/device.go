//go:build cuda

package cuda

import (
	"embed"
	"errors"
	"fmt"
	"runtime"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/cushim"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// ErrNoDevice is what Count and Open return, wrapped, on a machine without an NVIDIA driver or device.
var ErrNoDevice = errors.New("no CUDA device")

//go:embed ptx/*.ptx
var ptx embed.FS

// Options of a Device. The zero value works.
type Options struct {
	Plain bool // use only what every supported device has, as if it were none with kernels of its own; slow
}

// Device is one GPU with its kernels loaded and one stream on which all operations are queued in order. It serves one
// goroutine at a time.
type Device struct {
	index           int
	name            string
	hopper          bool // has warpgroup matrix units, and is meant to use them
	multiprocessors int
	context         cu.CUContext
	stream          cu.Stream
	side            cu.Stream // for memory that is readied while the other stream records a graph
	aside           aside
	kernels         map[string]cu.Function
	memory          memory
	uploads         uploads
	reader          *reader // the one that NewReader returns
	graphs          []*driver.Graph
	recording       bool
	rehearsing      bool // nothing is launched, copied or allocated
	profile         *profile
	err             error
}

var _ kernels.Device = (*Device)(nil)

// Count is the number of devices of this machine.
func Count() (int, error) {
	if err := cushim.Load(); err != nil {
		return 0, fmt.Errorf("%w: %w: install the NVIDIA driver or use the cpu device", ErrNoDevice, err)
	}
	n, err := cu.NumDevices()
	if err != nil {
		return 0, fmt.Errorf("%w: %w: use the cpu device", ErrNoDevice, err)
	}
	if n == 0 {
		return 0, fmt.Errorf("%w: the driver lists none: use the cpu device", ErrNoDevice)
	}
	return n, nil
}

// Open readies device index (0 <= index < Count). Compiling the kernels takes the driver seconds the first time; it keeps the
// result on disk.
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
	d := &Device{index: index, kernels: map[string]cu.Function{}}
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
	if err := d.aside.open(); err != nil {
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
	d.hopper = major == 9 && !o.Plain // sm_90a code runs on compute capability 9.0 alone
	return nil
}

// The kernels of each PTX file and the dynamic shared memory that a block of them needs.
var modules = []struct {
	file    string
	hopper  bool
	shared  int
	kernels []string
}{
	{"pack", false, 0, []string{"pack_signs", "channel_thresholds", "transpose_bits", "spread_bytes"}},
	{"gemm_mma", false, 0, []string{"gemm_mma_add", "gemm_mma_float32"}},
	{"gemm_wgmma", true, wgmmaShared, []string{"gemm_wgmma_add", "gemm_wgmma_bytes_add", "gemm_wgmma_float32",
		"gemm_wgmma_bfloat16", "gemm_wgmma_int16", "gemm_wgmma_bits"}},
	{"float_products", false, 0, []string{"float_product", "float_product_add"}},
	{"rows", false, 0, append(ofGradients("emit_integers", "normalize_backward", "normalize_backward_16", "normalize_backward_64"),
		"embed", "normalize", "normalize_levels", "normalize_floats", "emit_signs", "emit_add", "emit_bfloats", "expand", "scale_rows", "blend")},
	{"sums", false, 0, append(ofGradients("embed_backward"), "sum_blocks", "add_total", "add_columns", "set_scalars", "adamw", "chain_tokens",
		"chain_jumps")},
	{"gradient", false, roundShared, append(gradientKernels(), "grad_scales", "finish_weights_int32", "finish_weights_float64")},
	{"loss", false, 0, []string{"losses_int16", "losses_float32"}},
	{"attention", false, 0, append(ofDocuments("survivors_1_4", "survivors_2_4", "survivors_4_4", "survivors_8_4", "survivors_8_16",
		"attend_pointer_64", "attend_softmax_64"), "attend_pointer", "attend_softmax")},
	{"attention_dense", false, 0, ofDocuments("dense_queries_64_softmax", "dense_queries_64_pointer", "dense_keys_64_softmax", "dense_keys_64_pointer")},
	{"attention_backward", false, 0, append(ofGradients(append(ofDocuments("survivor_scores_64", "survivor_gather_64"), "survivor_scores_2_4", "survivor_scores_8_4", "survivor_scores_8_16",
		"survivor_gather_2", "survivor_gather_8", "dense_queries", "dense_keys")...), "survivor_lists")},
}

// ofGradients are kernels that there are for each way of keeping gradients.
func ofGradients(kernels ...string) (list []string) {
	for _, kernel := range kernels {
		list = append(list, kernel+"_float32", kernel+"_bfloat16")
	}
	return list
}

// ofDocuments lists kernels that are made for sequences of one document and for those of several.
func ofDocuments(kernels ...string) (list []string) {
	for _, kernel := range kernels {
		list = append(list, kernel, kernel+"_separate")
	}
	return list
}

// gradientKernels are those that gradient.cu has for every source of gradients.
func gradientKernels() (list []string) {
	for _, source := range append(ofGradients("dense", "shifted"), "head_int16", "head_float32") {
		for _, kernel := range []string{"max", "round_planes_4", "round_planes_8", "round_bytes_4", "round_bytes_8", "copy"} {
			list = append(list, "grad_"+kernel+"_"+source)
		}
	}
	return list
}

func (d *Device) loadKernels() error {
	for _, m := range modules {
		if m.hopper && !d.hopper {
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
		for _, name := range m.kernels {
			f, err := module.Function(name)
			if err != nil {
				return fmt.Errorf("kernel %s of %s.ptx: %w: run kernels/cuda/compile.sh", name, m.file, err)
			}
			if m.shared > 0 {
				if err := driver.AllowShared(f, m.shared); err != nil {
					return fmt.Errorf("%d bytes of shared memory for %s: %w", m.shared, name, err)
				}
			}
			d.kernels[name] = f
		}
	}
	return nil
}

// Name is what the driver calls the device.
func (d *Device) Name() string { return d.name }

// current makes the device's context that of the thread, which the goroutine keeps until the returned function is called: the
// driver's current context is a property of threads.
func (d *Device) current() (release func(), err error) { return enter(d.context, d.index) }

func enter(context cu.CUContext, index int) (release func(), err error) {
	runtime.LockOSThread()
	if err := cu.SetCurrentContext(context); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("CUDA device %d: current context: %w", index, advise(err))
	}
	return runtime.UnlockOSThread, nil
}

// run does one operation unless an earlier one failed. An error, or a panic (sizes that do not fit), becomes the device's.
func (d *Device) run(operation string, f func() error) {
	if d.err != nil {
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
	d.run("Sync", d.wait)
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
		return fmt.Errorf("Embed: the token of row %d is outside the vocabulary", row-1)
	}
	return nil
}

// Capture records what enqueue enqueues as a graph.
func (d *Device) Capture(enqueue func()) (replay func(), err error) {
	if d.profile != nil { // events between kernels are not part of a graph
		return enqueue, nil
	}
	if d.rehearsing {
		return enqueue, nil
	}
	var graph *driver.Graph
	d.run("Capture", func() error {
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
	return func() { d.run("replay", func() error { return graph.Launch(d.stream) }) }, nil
}

// Close waits for queued work and frees all memory of the device. A failure that an operation has reported is not reported again.
func (d *Device) Close() error {
	if d.rehearsing {
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
	for _, s := range []*cu.Stream{&d.stream, &d.side, &d.aside.stream} {
		failed = append(failed, s.Destroy())
	}
	for _, err := range failed {
		if err != nil && d.err == nil {
			return fmt.Errorf("CUDA device %d: close: %w", d.index, advise(err))
		}
	}
	return nil
}

func (d *Device) launch(kernel string, g driver.Geometry, arguments ...[]byte) error {
	f, ok := d.kernels[kernel]
	if !ok {
		return fmt.Errorf("kernel %s is not loaded on %s", kernel, d.name)
	}
	return d.timed(kernel, func() error {
		if err := driver.Launch(f, g, d.stream, arguments...); err != nil {
			return fmt.Errorf("kernel %s, grid %v: %w", kernel, g.Grid, err)
		}
		return nil
	})
}

// clear sets memory to zero, in order with the operations.
func (d *Device) clear(p cu.DevicePtr, bytes int) error {
	if bytes == 0 {
		return nil
	}
	return d.timed("clear", func() error {
		if err := cu.MemsetD8Async(p, 0, int64(bytes), d.stream); err != nil {
			return fmt.Errorf("clearing of %d bytes: %w", bytes, err)
		}
		return nil
	})
}

// timed queues work, which a profile measures under the given name and a rehearsal leaves out.
func (d *Device) timed(name string, queue func() error) error {
	if d.rehearsing {
		return nil
	}
	if d.profile == nil {
		return queue()
	}
	if err := d.profile.begin(d.stream, name); err != nil {
		return err
	}
	if err := queue(); err != nil {
		return err
	}
	return d.profile.end(d.stream)
}

// arg is the value of a kernel argument.
func arg[T int32 | int64 | uint32 | float32 | float64 | cu.DevicePtr](v T) []byte {
	return driver.Bytes(&v)
}

// grid is a launch of blocks of the given number of threads.
func grid(threads int, blocks ...int) driver.Geometry {
	g := driver.Geometry{Block: [3]int{threads}}
	copy(g.Grid[:], blocks)
	return g
}

// elementwise is a launch of 256 threads a block whose threads take n elements in strides.
func (d *Device) elementwise(n int) driver.Geometry {
	return grid(256, max(1, min(ceilDiv(n, 256), 16*d.multiprocessors)))
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
func roundUp(a, b int) int { return ceilDiv(a, b) * b }
