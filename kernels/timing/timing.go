// Package timing measures what each operation of a device takes. Its Device stands around another and waits after every
// operation, so it works for devices that compute later, and costs them that overlap.
//
// It does not look inside operations: a processor's profile does.
package timing

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"bitnet1/kernels"
)

// Device times the operations of the device inside.
type Device struct {
	kernels.Device
	total map[string]*Operation
}

// Operation is what one kind of operation has taken so far.
type Operation struct {
	Name    string
	Product bool // of matrices, rounding and scaling included; everything else is float work
	Calls   int
	Time    time.Duration
}

// New returns a device around d.
func New(d kernels.Device) *Device { return &Device{Device: d, total: map[string]*Operation{}} }

// Reset forgets what was measured.
func (d *Device) Reset() { clear(d.total) }

// Operations lists what was measured, the longest first.
func (d *Device) Operations() []Operation {
	var list []Operation
	for _, o := range d.total {
		list = append(list, *o)
	}
	slices.SortFunc(list, func(a, b Operation) int {
		return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// WriteTable writes a Markdown table of operations: calls and time of one of steps equal steps, the share of the time, and
// in the end the share of float work.
func WriteTable(w io.Writer, list []Operation, steps int) error {
	var all, floats time.Duration
	for _, o := range list {
		all += o.Time
		if !o.Product {
			floats += o.Time
		}
	}
	share := func(t time.Duration) float64 { return 100 * float64(t) / float64(max(all, 1)) }
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(t, "| operation\t| calls\t| ms\t| %\t|\n|---\t|---\t|---\t|---\t|\n")
	for _, o := range list {
		fmt.Fprintf(t, "| %s\t| %d\t| %.2f\t| %.1f\t|\n", o.Name, o.Calls/steps, milliseconds(o.Time, steps), share(o.Time))
	}
	fmt.Fprintf(t, "| all\t| \t| %.2f\t| 100\t|\n", milliseconds(all, steps))
	fmt.Fprintf(t, "| float work: all but products\t| \t| %.2f\t| %.1f\t|\n", milliseconds(floats, steps), share(floats))
	return t.Flush()
}

func milliseconds(t time.Duration, steps int) float64 {
	return t.Seconds() * 1000 / float64(steps)
}

// measure runs one operation to its end. Its failure stays for the next Sync or download to report.
func (d *Device) measure(name string, product bool, f func()) {
	start := time.Now()
	f()
	_ = d.Device.Sync()
	took := time.Since(start)
	o := d.total[name]
	if o == nil {
		o = &Operation{Name: name, Product: product}
		d.total[name] = o
	}
	o.Calls++
	o.Time += took
}

// Capture returns enqueue: operations inside a graph could not be told apart.
func (d *Device) Capture(enqueue func()) (func(), error) { return enqueue, nil }

// The operations of kernels.Device.

// Zero times the operation of that name.
func (d *Device) Zero(x kernels.Floats) {
	d.measure("Zero", false, func() { d.Device.Zero(x) })
}

// Copy times the operation of that name.
func (d *Device) Copy(dst, src kernels.Floats) {
	d.measure("Copy", false, func() { d.Device.Copy(dst, src) })
}

// AddSum times the operation of that name.
func (d *Device) AddSum(dst, x kernels.Floats) {
	d.measure("AddSum", false, func() { d.Device.AddSum(dst, x) })
}

// AddSumSquares times the operation of that name.
func (d *Device) AddSumSquares(dst, x kernels.Floats) {
	d.measure("AddSumSquares", false, func() { d.Device.AddSumSquares(dst, x) })
}

// Binarize times the operation of that name.
func (d *Device) Binarize(l kernels.Linear) {
	d.measure("Binarize", false, func() { d.Device.Binarize(l) })
}

// Embed times the operation of that name.
func (d *Device) Embed(x kernels.Floats, tokens kernels.Ints, codebook kernels.Linear) {
	d.measure("Embed", false, func() { d.Device.Embed(x, tokens, codebook) })
}

// EmbedBackward times the operation of that name.
func (d *Device) EmbedBackward(dWeight, dx kernels.Floats, tokens kernels.Ints, width int) {
	d.measure("EmbedBackward", false, func() { d.Device.EmbedBackward(dWeight, dx, tokens, width) })
}

// Normalize times the operation of that name.
func (d *Device) Normalize(out kernels.Activation, x, gain kernels.Floats, eps float64) {
	d.measure("Normalize", false, func() { d.Device.Normalize(out, x, gain, eps) })
}

// NormalizeBackward times the operation of that name.
func (d *Device) NormalizeBackward(dx, dGain, dOut, x, gain kernels.Floats, eps float64, bits int) {
	d.measure("NormalizeBackward", false, func() { d.Device.NormalizeBackward(dx, dGain, dOut, x, gain, eps, bits) })
}

// LinearSigns times the operation of that name.
func (d *Device) LinearSigns(out, pass kernels.Planes, x kernels.Activation, l kernels.Linear, shift kernels.KShift) {
	d.measure("LinearSigns", true, func() { d.Device.LinearSigns(out, pass, x, l, shift) })
}

// LinearAdd times the operation of that name.
func (d *Device) LinearAdd(out, residual kernels.Floats, x kernels.Activation, l kernels.Linear) {
	d.measure("LinearAdd", true, func() { d.Device.LinearAdd(out, residual, x, l) })
}

// LinearBackward times the operation of that name.
func (d *Device) LinearBackward(dx kernels.Floats, dl kernels.LinearGradient, dy kernels.Floats, pass kernels.Planes,
	x kernels.Activation, l kernels.Linear, shift kernels.KShift, gradBits int) {
	d.measure("LinearBackward", true, func() { d.Device.LinearBackward(dx, dl, dy, pass, x, l, shift, gradBits) })
}

// Attend times the operation of that name.
func (d *Device) Attend(out kernels.Planes, pointers kernels.Ints, qkv kernels.Planes, a kernels.Attention) {
	d.measure("Attend", false, func() { d.Device.Attend(out, pointers, qkv, a) })
}

// AttendBackward times the operation of that name.
func (d *Device) AttendBackward(dqkv, dOut kernels.Floats, qkv kernels.Planes, pointers kernels.Ints, a kernels.Attention) {
	d.measure("AttendBackward", false, func() { d.Device.AttendBackward(dqkv, dOut, qkv, pointers, a) })
}

// CrossEntropy times the operation of that name.
func (d *Device) CrossEntropy(losses kernels.Floats, x kernels.Activation, head kernels.Linear, targets kernels.Ints) {
	d.measure("CrossEntropy", true, func() { d.Device.CrossEntropy(losses, x, head, targets) })
}

// CrossEntropyBackward times the operation of that name.
func (d *Device) CrossEntropyBackward(losses, dx kernels.Floats, dl kernels.LinearGradient, x kernels.Activation,
	head kernels.Linear, targets kernels.Ints, gradBits int) {
	d.measure("CrossEntropyBackward", true, func() { d.Device.CrossEntropyBackward(losses, dx, dl, x, head, targets, gradBits) })
}

// AdamW times the operation of that name.
func (d *Device) AdamW(a kernels.Adam) {
	d.measure("AdamW", false, func() { d.Device.AdamW(a) })
}
