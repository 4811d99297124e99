// Package timing measures how long each operation of a device takes. Its Device wraps another device and waits after
// every operation. So it works for devices that compute later, but overlapping work then takes longer. Its Communicator
// measures exchanges, which go on beside the operations of a device as without it.
//
// It does not look inside operations: a CPU profile does.
package timing

import (
	"cmp"
	"slices"
	"time"

	"bitnet1/kernels"
)

// Device times the operations of the device inside.
type Device struct {
	kernels.Device
	total totals
}

// Category is a kind of work that operations, and kernels, belong to.
type Category string

// The categories of a training step.
const (
	BinaryProducts Category = "binary products"
	ByteProducts   Category = "byte products" // of integers on both sides
	Packing        Category = "packing and transposing"
	Rounding       Category = "rounding of gradients"
	Attention      Category = "attention"
	Elementwise    Category = "float elementwise"
	Loss           Category = "loss"
	Optimizer      Category = "optimizer"
	Copies         Category = "copies and clearing"
)

// Operation is what one kind of operation, or one kernel, has taken so far.
type Operation struct {
	Name     string
	Category Category
	Float    bool // its arithmetic is that of floats
	Calls    int
	Bytes    int64 // of exchanges: the memory of one rank
	Time     time.Duration
}

// totals are the sums of operations, by name.
type totals map[string]*Operation

func (t totals) add(o Operation) {
	sum := t[o.Name]
	if sum == nil {
		t[o.Name] = &o
		return
	}
	sum.Calls += o.Calls
	sum.Bytes += o.Bytes
	sum.Time += o.Time
}

// take returns the sums, the longest first, and forgets them.
func (t totals) take() (list []Operation) {
	for _, o := range t {
		list = append(list, *o)
	}
	clear(t)
	slices.SortFunc(list, func(a, b Operation) int {
		return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// Sum adds up the operations of each name, the longest first.
func Sum(operations []Operation) []Operation {
	t := totals{}
	for _, o := range operations {
		t.add(o)
	}
	return t.take()
}

// Profiler is a device that measures what it runs.
type Profiler interface {
	kernels.Device
	// StartProfile begins to measure. What was captured before goes unmeasured.
	StartProfile()
	// Profile returns what was measured since StartProfile or the last call, the longest first.
	Profile() ([]Operation, error)
}

// Of returns d itself if d measures its kernels, and otherwise a Device around d, which measures operations.
func Of(d kernels.Device) Profiler {
	if p, ok := d.(Profiler); ok {
		return p
	}
	return New(d)
}

// New returns a device around d.
func New(d kernels.Device) *Device { return &Device{Device: d, total: totals{}} }

// StartProfile forgets what was measured.
func (d *Device) StartProfile() { clear(d.total) }

// Profile lists what was measured, the longest first, and the first failure of the device.
func (d *Device) Profile() ([]Operation, error) { return d.total.take(), d.Sync() }

// measure runs one operation to its end. A failure is reported by the next Sync or download.
func (d *Device) measure(name string, category Category, f func()) {
	start := time.Now()
	f()
	_ = d.Device.Sync()
	d.total.add(Operation{Name: name, Category: category, Float: floats[category] || name == "AttendBackward", Calls: 1,
		Time: time.Since(start)})
}

// floats are the categories of float arithmetic. Attention is not among them: its forward pass computes with integers,
// its backward pass with floats.
var floats = map[Category]bool{Elementwise: true, Loss: true, Optimizer: true}

// Capture returns enqueue: operations inside a graph could not be told apart.
func (d *Device) Capture(enqueue func()) (func(), error) { return enqueue, nil }

// The operations of kernels.Device.

// Zero times the operation of that name.
func (d *Device) Zero(x kernels.Floats) {
	d.measure("Zero", Copies, func() { d.Device.Zero(x) })
}

// Copy times the operation of that name.
func (d *Device) Copy(dst, src kernels.Floats) {
	d.measure("Copy", Copies, func() { d.Device.Copy(dst, src) })
}

// AddSum times the operation of that name.
func (d *Device) AddSum(dst, x kernels.Floats) {
	d.measure("AddSum", Optimizer, func() { d.Device.AddSum(dst, x) })
}

// AddSumSquares times the operation of that name.
func (d *Device) AddSumSquares(dst, x kernels.Floats) {
	d.measure("AddSumSquares", Optimizer, func() { d.Device.AddSumSquares(dst, x) })
}

// ZeroLongs times the operation of that name.
func (d *Device) ZeroLongs(x kernels.Longs) {
	d.measure("ZeroLongs", Copies, func() { d.Device.ZeroLongs(x) })
}

// AddFixed times the operation of that name.
func (d *Device) AddFixed(sums kernels.FixedSums, x kernels.Floats) {
	d.measure("AddFixed", Rounding, func() { d.Device.AddFixed(sums, x) })
}

// SetFixed times the operation of that name.
func (d *Device) SetFixed(sums kernels.FixedSums, x kernels.Floats) {
	d.measure("SetFixed", Rounding, func() { d.Device.SetFixed(sums, x) })
}

// ReadFixed times the operation of that name.
func (d *Device) ReadFixed(x kernels.Floats, sums kernels.FixedSums) {
	d.measure("ReadFixed", Rounding, func() { d.Device.ReadFixed(x, sums) })
}

// Quantize times the operation of that name.
func (d *Device) Quantize(l kernels.Linear) {
	d.measure("Quantize", Packing, func() { d.Device.Quantize(l) })
}

// Embed times the operation of that name.
func (d *Device) Embed(x kernels.Floats, tokens kernels.Ints, codebook kernels.Linear) {
	d.measure("Embed", Elementwise, func() { d.Device.Embed(x, tokens, codebook) })
}

// EmbedBackward times the operation of that name.
func (d *Device) EmbedBackward(dWeight, dx kernels.Floats, tokens kernels.Ints, width int) {
	d.measure("EmbedBackward", Elementwise, func() { d.Device.EmbedBackward(dWeight, dx, tokens, width) })
}

// Normalize times the operation of that name.
func (d *Device) Normalize(out kernels.Activation, x kernels.Floats, n kernels.RMSNorm) {
	d.measure("Normalize", Elementwise, func() { d.Device.Normalize(out, x, n) })
}

// NormalizeBackward times the operation of that name.
func (d *Device) NormalizeBackward(dx, dGain, dOut, x kernels.Floats, n kernels.RMSNorm, q kernels.Quantization) {
	d.measure("NormalizeBackward", Elementwise, func() { d.Device.NormalizeBackward(dx, dGain, dOut, x, n, q) })
}

// LinearQuantize times the operation of that name.
func (d *Device) LinearQuantize(out []kernels.Planes, derivative kernels.Derivative, x kernels.Activation,
	l kernels.Linear, shift kernels.KShift) {
	d.measure("LinearQuantize", BinaryProducts, func() { d.Device.LinearQuantize(out, derivative, x, l, shift) })
}

// LinearAdd times the operation of that name.
func (d *Device) LinearAdd(out, residual kernels.Floats, x kernels.Activation, l kernels.Linear) {
	d.measure("LinearAdd", BinaryProducts, func() { d.Device.LinearAdd(out, residual, x, l) })
}

// LinearBackward times the operation of that name.
func (d *Device) LinearBackward(dx kernels.Floats, dl kernels.LinearGradient, dy kernels.Floats,
	derivative kernels.Derivative, x kernels.Activation, l kernels.Linear, shift kernels.KShift,
	gradBits kernels.GradBits) {
	d.measure("LinearBackward", BinaryProducts,
		func() { d.Device.LinearBackward(dx, dl, dy, derivative, x, l, shift, gradBits) })
}

// Attend times the operation of that name.
func (d *Device) Attend(out kernels.Planes, pointers kernels.Ints, queries, keys, values kernels.Planes,
	a kernels.Attention) {
	d.measure("Attend", Attention, func() { d.Device.Attend(out, pointers, queries, keys, values, a) })
}

// AttendBackward times the operation of that name.
func (d *Device) AttendBackward(dqkv, dOut kernels.Floats, queries, keys, values kernels.Planes, pointers kernels.Ints,
	a kernels.Attention) {
	d.measure("AttendBackward", Attention,
		func() { d.Device.AttendBackward(dqkv, dOut, queries, keys, values, pointers, a) })
}

// CrossEntropy times the operation of that name.
func (d *Device) CrossEntropy(losses kernels.Floats, x kernels.Activation, lmHead kernels.Linear,
	targets kernels.Ints) {
	d.measure("CrossEntropy", Loss, func() { d.Device.CrossEntropy(losses, x, lmHead, targets) })
}

// CrossEntropyBackward times the operation of that name.
func (d *Device) CrossEntropyBackward(losses, dx kernels.Floats, dl kernels.LinearGradient, x kernels.Activation,
	lmHead kernels.Linear, targets kernels.Ints, gradBits kernels.GradBits) {
	d.measure("CrossEntropyBackward", Loss, func() {
		d.Device.CrossEntropyBackward(losses, dx, dl, x, lmHead, targets, gradBits)
	})
}

// AdamW times the operation of that name.
func (d *Device) AdamW(a kernels.Adam) {
	d.measure("AdamW", Optimizer, func() { d.Device.AdamW(a) })
}

// Muon times the operation of that name.
func (d *Device) Muon(u kernels.Muon) {
	d.measure("Muon", Optimizer, func() { d.Device.Muon(u) })
}
