//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// logitBytes bounds the products that exist at a time. As int16 all of 65,536 rows of 50,304 channels fit, so that they are computed
// once for the loss and all passes over the gradient.
const (
	logitBytes      = 7 << 30
	floatLogitBytes = 1 << 30
)

// CrossEntropy computes losses in nats.
func (d *Device) CrossEntropy(losses kernels.Floats, x kernels.Activation, l kernels.Linear, targets kernels.Ints) {
	d.run("CrossEntropy", func() error {
		h, err := d.newHead(losses, x, l, targets, false)
		if err != nil {
			return err
		}
		g := h.gradient()
		return g.parts(func(int, int, []byte) error { return nil })
	})
}

// CrossEntropyBackward computes losses and the gradients that follow from them.
func (d *Device) CrossEntropyBackward(losses, dx kernels.Floats, dl kernels.LinearGradient, x kernels.Activation, l kernels.Linear,
	targets kernels.Ints, gradBits int) {
	d.run("CrossEntropyBackward", func() error {
		h, err := d.newHead(losses, x, l, targets, gradBits == kernels.FloatBits || l.Mixed != nil || x.Floats != nil)
		if err != nil {
			return err
		}
		return d.backward(dx, dl, h.gradient(), x, l, gradBits)
	})
}

// lossRows is loss.cu's kRows.
const lossRows = 4

// head is a linear whose outputs are logits, at work.
type head struct {
	*Device
	x               kernels.Activation
	l               kernels.Linear
	rows, part      int
	losses, targets cu.DevicePtr
	stats           cu.DevicePtr // two floats a row
	integers        bool         // products are kept as int16
	stride          int          // of products, in elements
	products        cu.DevicePtr
	ready           int // 1 + the first row of the part whose products are there
}

// logits is gradient.cuh's Logits.
type logits struct {
	data         cu.DevicePtr
	stride       int64
	width        int32
	unit         float32
	alpha, theta cu.DevicePtr
}

func (d *Device) newHead(losses kernels.Floats, x kernels.Activation, l kernels.Linear, targets kernels.Ints, floatGradients bool) (*head, error) {
	rows := rowsOf(x, l.In)
	h := &head{Device: d, x: x, l: l, rows: rows, losses: float32s(losses, rows), targets: int32s(targets, rows)}
	a, w, ok := integers(x, l)
	h.integers = ok && d.hopper && largestSum(a) < 1<<15 && w.popcounts%16 == 0
	bytes, limit := 4, floatLogitBytes
	h.stride = roundUp(l.Out, 8)
	if h.integers {
		bytes = 2
		if !floatGradients {
			limit = logitBytes
		}
	}
	h.part = rows
	if most := max(256, limit/(bytes*h.stride)/256*256); most < rows {
		h.part = most
	}
	var err error
	if h.stats, err = d.scratch("row statistics", 8*rows); err != nil {
		return nil, err
	}
	if h.integers {
		h.products, err = d.scratch("logits", bytes*h.part*h.stride)
	}
	return h, err
}

func (h *head) kind() string {
	if h.integers {
		return "int16"
	}
	return "float32"
}

func (h *head) gradient() gradient {
	return gradient{"head_" + h.kind(), h.rows, h.l.Out, h.part, h.source}
}

// source computes the products of rows from..to-1, unless they are there, and their losses.
func (h *head) source(from, to int) ([]byte, error) {
	u := float32(1)
	if h.integers {
		u = unit(h.x.Planes.Bits())
	}
	if h.ready != from+1 {
		if err := h.multiply(from, to); err != nil {
			return nil, err
		}
	}
	s := struct {
		logits
		stats, targets, scalars cu.DevicePtr
		state                   [9]float32
	}{
		logits: logits{h.products, int64(h.stride), int32(h.l.Out), u, float32s(h.l.Alpha, h.l.Out), float32s(h.l.Theta, h.l.Out)},
		stats:  h.stats + cu.DevicePtr(8*from), targets: h.targets + cu.DevicePtr(4*from), scalars: h.memory.scalars,
	}
	if h.ready != from+1 {
		err := h.launch("losses_"+h.kind(), grid(256, ceilDiv(to-from, lossRows)), driver.Bytes(&s.logits), arg(int32(to-from)), arg(s.targets),
			arg(s.scalars), arg(h.losses+cu.DevicePtr(4*from)), arg(s.stats))
		if err != nil {
			return nil, fmt.Errorf("losses: %w", err)
		}
	}
	h.ready = from + 1
	return driver.Bytes(&s), nil
}

func (h *head) multiply(from, to int) (err error) {
	if h.integers {
		a := h.x.Planes.Slice(from, to).(*planes)
		return h.multiplyInt16(h.products, h.stride, a, h.l.Signs.(*planes))
	}
	x := kernels.Activation{}
	if h.x.Floats != nil {
		x.Floats = h.x.Floats.Slice(from*h.l.In, to*h.l.In)
	} else {
		x.Planes = h.x.Planes.Slice(from, to)
	}
	h.products, h.stride, err = h.outputs(x, h.l, to-from)
	return err
}
