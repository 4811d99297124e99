//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels"

	"gorgonia.org/cu"
)

// logitBytes bounds the memory of the logits that exist at a time as int16. All of 65,536 rows of 50,304 channels fit,
// so they are computed once for the loss and for every pass over the gradient. As many exist where logits are wider,
// because weights have several planes: they take half as much memory again in 24 bits, and twice that memory as
// float32.
const (
	logitBytes      = 7 << 30
	floatLogitBytes = 1 << 30
)

// logitFormats are the ways to keep the sums of the head's product, by their bits.
var logitFormats = map[int]logitFormat{
	16: {launch.lossesInt16, gradientKernelsLogitsInt16},
	24: {launch.lossesInt24, gradientKernelsLogitsInt24},
	32: {launch.lossesFloat32, gradientKernelsLogitsFloat32},
}

type logitFormat struct {
	losses   func(l launch, logits logits, rows int, targets, scalars, to, rowStats cu.DevicePtr) error
	gradient gradientKernels[logitsGradient]
}

// logitBits is the number of bits that sums of x and l's weights are kept in: 16 or 24 as integers, 32 as float32.
func (d *Device) logitBits(x kernels.Activation, l kernels.Linear) int {
	a, w, ok := integers(x, l)
	switch {
	case !ok || !d.hopper || w.popcounts%16 != 0:
		return 32
	case w.bits == 1 && largestSum(a, w) < 1<<15:
		return 16
	case largestSum(a, w) < 1<<23:
		return 24
	}
	return 32
}

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
	l kernels.Linear, targets kernels.Ints, gradBits kernels.GradBits) {
	refusal := kernels.CheckCrossEntropyBackward(losses, dx, dl, x, l, targets, gradBits)
	d.run("CrossEntropyBackward", refusal, func() error {
		h, err := d.newLMHead(losses, x, l, targets, !gradBits.Rounded() || l.Mixed != nil || x.Floats != nil)
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
	bits            int          // of a product in memory: see logitBits
	stride          int          // of products, in elements
	products        cu.DevicePtr
	ready           int // 1 + the first row of the part whose products are there
}

func (d *Device) newLMHead(losses kernels.Floats, x kernels.Activation, l kernels.Linear, targets kernels.Ints,
	floatGradients bool) (*lmHead, error) {
	rows := x.Rows(l.In)
	h := &lmHead{Device: d, x: x, l: l, rows: rows, losses: float32s(losses, rows), targets: int32s(targets, rows)}
	h.bits, h.stride = d.logitBits(x, l), roundUp(l.Out, 8)
	logits := floatLogitBytes / either(h.bits == 16, 2, 4)
	if _, _, ok := integers(x, l); ok && d.hopper && !floatGradients {
		logits = logitBytes / 2
	}
	h.part = rows
	if most := max(256, logits/h.stride/256*256); most < rows {
		h.part = most
	}
	var err error
	if h.stats, err = d.scratch("row statistics", 8*rows); err != nil {
		return nil, err
	}
	if h.bits < 32 {
		h.products, err = d.scratch("logits", h.bits/8*h.part*h.stride)
	}
	return h, err
}

func (h *lmHead) gradient() gradient[logitsGradient] {
	return gradient[logitsGradient]{logitFormats[h.bits].gradient, h.rows, h.l.Out, h.part, h.source}
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
			data: h.products, high: h.upperBits(), stride: int64(h.stride), width: int32(h.l.Out), unit: 1,
			alpha: float32s(h.l.Alpha, h.l.Out), theta: float32s(h.l.Theta, h.l.Out),
		},
		rowStats: h.stats + cu.DevicePtr(8*from), targets: h.targets + cu.DevicePtr(4*from), scalars: h.memory.scalars,
	}
	if h.bits < 32 {
		s.logits.unit = unitOf(h.x.Planes.(*planes), h.l.Quantized.(*planes))
	}
	if !there {
		losses, l := logitFormats[h.bits].losses, h.launch(grid(ceilDiv(to-from, kLossRows)))
		err := losses(l, s.logits, to-from, s.targets, s.scalars, h.losses+cu.DevicePtr(4*from), s.rowStats)
		if err != nil {
			return s, fmt.Errorf("losses: %w", err)
		}
	}
	h.ready = from + 1
	return s, nil
}

// upperBits is where the upper 8 of 24 bits are, behind the lower 16 of all rows of a part.
func (h *lmHead) upperBits() cu.DevicePtr {
	return either(h.bits == 24, h.products+cu.DevicePtr(2*h.part*h.stride), 0)
}

func (h *lmHead) multiply(from, to int) (err error) {
	x := h.x.Slice(h.l.In, from, to)
	switch a, w, _ := integers(x, h.l); h.bits {
	case 16:
		err = h.multiplyInt16(h.products, h.stride, a, w)
	case 24:
		err = h.multiplyInt24(h.products, h.upperBits(), h.stride, a, w)
	default:
		h.products, h.stride, err = h.outputs(x, h.l, to-from)
	}
	return err
}
