//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels"

	"gorgonia.org/cu"
)

// logitBytes bounds the memory of the logits that exist at a time as int16. All of 65,536 rows of 50,304 channels fit,
// so they are computed once for the loss and for every pass over the gradient. Where weights have several planes,
// logits are too large for int16, and take twice that memory as float32.
const (
	logitBytes      = 7 << 30
	floatLogitBytes = 1 << 30
)

// CrossEntropy computes losses in nats.
func (d *Device) CrossEntropy(losses kernels.Floats, x kernels.Activation, l kernels.Linear, targets kernels.Ints) {
	d.run("CrossEntropy", kernels.CheckCrossEntropy(losses, x, l, targets), func() error {
		h, err := d.newLMHead(losses, x, l, targets, false)
		if err != nil {
			return err
		}
		g := h.gradient()
		return g.parts(func(int, int, logitsGradient) error { return nil })
	})
}

// CrossEntropyBackward computes losses and the gradients that follow from them.
func (d *Device) CrossEntropyBackward(losses, dx kernels.Floats, dl kernels.LinearGradient, x kernels.Activation,
	l kernels.Linear, targets kernels.Ints, gradBits int) {
	refusal := kernels.CheckCrossEntropyBackward(losses, dx, dl, x, l, targets, gradBits)
	d.run("CrossEntropyBackward", refusal, func() error {
		h, err := d.newLMHead(losses, x, l, targets, gradBits == kernels.FloatBits || l.Mixed != nil || x.Floats != nil)
		if err != nil {
			return err
		}
		return linearBackward(d, dx, dl, h.gradient(), x, l, gradBits)
	})
}

// lmHead is the language-model head in one call of CrossEntropy: the linear whose outputs are logits.
type lmHead struct {
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

func (d *Device) newLMHead(losses kernels.Floats, x kernels.Activation, l kernels.Linear, targets kernels.Ints,
	floatGradients bool) (*lmHead, error) {
	rows := x.Rows(l.In)
	h := &lmHead{Device: d, x: x, l: l, rows: rows, losses: float32s(losses, rows), targets: int32s(targets, rows)}
	a, w, ok := integers(x, l)
	h.integers = ok && d.hopper && w.bits == 1 && largestSum(a, w) < 1<<15 && w.popcounts%16 == 0
	bytes, limit := either(h.integers, 2, 4), floatLogitBytes
	h.stride = roundUp(l.Out, 8)
	if ok && d.hopper && !floatGradients {
		limit = logitBytes / 2 * bytes
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

func (h *lmHead) gradient() gradient[logitsGradient] {
	family := either(h.integers, gradientKernelsLogitsInt16, gradientKernelsLogitsFloat32)
	return gradient[logitsGradient]{family, h.rows, h.l.Out, h.part, h.source}
}

// source computes the products of rows from..to-1, unless they are there, and their losses.
func (h *lmHead) source(from, to int) (s logitsGradient, err error) {
	there := h.ready == from+1
	if !there {
		if err := h.multiply(from, to); err != nil {
			return s, err
		}
	}
	s = logitsGradient{
		logits: logits{
			data: h.products, stride: int64(h.stride), width: int32(h.l.Out), unit: 1,
			alpha: float32s(h.l.Alpha, h.l.Out), theta: float32s(h.l.Theta, h.l.Out),
		},
		rowStats: h.stats + cu.DevicePtr(8*from), targets: h.targets + cu.DevicePtr(4*from), scalars: h.memory.scalars,
	}
	if h.integers {
		s.logits.unit = h.x.Planes.Quantization().Unit()
	}
	if !there {
		kernel, g := either(h.integers, launch.lossesInt16, launch.lossesFloat32), grid(ceilDiv(to-from, kLossRows))
		err := kernel(h.launch(g), s.logits, to-from, s.targets, s.scalars, h.losses+cu.DevicePtr(4*from), s.rowStats)
		if err != nil {
			return s, fmt.Errorf("losses: %w", err)
		}
	}
	h.ready = from + 1
	return s, nil
}

func (h *lmHead) multiply(from, to int) (err error) {
	if h.integers {
		a := h.x.Planes.Slice(from, to).(*planes)
		return h.multiplyInt16(h.products, h.stride, a, h.l.Quantized.(*planes))
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
