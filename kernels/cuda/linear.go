//go:build cuda

package cuda

import (
	"bitnet1/kernels"

	"gorgonia.org/cu"
)

// integers returns the planes of x and of l's weights if their product is one of integers.
func integers(x kernels.Activation, l kernels.Linear) (a, w *planes, ok bool) {
	if x.Floats != nil || l.Mixed != nil {
		return nil, nil, false
	}
	return x.Planes.(*planes), l.Quantized.(*planes), true
}

// unitOf is what 1 of the integer products of x and w is worth.
func unitOf(x, w *planes) float32 { return x.quantization.Unit() * w.quantization.Unit() }

func shiftOf(s kernels.KShift, rows int) shift {
	if s.To <= s.From {
		return shift{seq: 1}
	}
	return shift{
		from: int32(s.From), to: int32(s.To), offset: int32(s.Offset), self: either[int32](s.Self, 1, 0),
		seq: int32(s.Seq), starts: int32s(s.Starts, rows),
	}
}

// LinearQuantize quantizes a linear's output, and writes the derivative of that.
func (d *Device) LinearQuantize(out []kernels.Planes, derivative kernels.Derivative, x kernels.Activation,
	l kernels.Linear, s kernels.KShift) {
	d.run("LinearQuantize", kernels.CheckLinearQuantize(out, derivative, x, l, s), func() error {
		parts := quantizedParts(out, derivative, x.Rows(l.In), l.Out)
		a, w, ok := integers(x, l)
		if ok && d.hopper && s.To <= s.From && inProduct(parts, a, w) {
			return d.quantizeInProduct(parts, a, w, l)
		}
		return d.quantizeFloats(parts, x, l, s)
	})
}

// quantizedPart is one of LinearQuantize's outputs: channels from..from+out.cols-1 of a linear.
type quantizedPart struct {
	from, all int // all: channels of the linear
	out       *planes
	mask      *planes   // of all channels; nil: not wanted
	factors   gradients // the same
}

func quantizedParts(out []kernels.Planes, derivative kernels.Derivative, rows, all int) []quantizedPart {
	parts := make([]quantizedPart, len(out))
	from := 0
	for i, p := range out {
		part := quantizedPart{from: from, all: all, out: p.(*planes)}
		if derivative.Mask != nil {
			part.mask = derivative.Mask.(*planes)
		}
		if derivative.Factors != nil {
			part.factors = gradientsOf(derivative.Factors, rows*all)
		}
		parts[i] = part
		from += p.Cols()
	}
	return parts
}

// inProduct says whether products of a and w can quantize all parts by themselves. They write 64 channels at a time, of
// up to 4 bits, and factors in bfloat16, eight at a time.
func inProduct(parts []quantizedPart, a, w *planes) bool {
	if w.bits > 1 || largestSum(a, w) >= exactFloat {
		return false
	}
	for _, p := range parts {
		f := p.factors
		switch {
		case p.from%64 != 0 || p.out.bits > 4:
			return false
		case p.out.quantization == kernels.Sign() && largestSum(a, w) > largestThreshold:
			return false
		case f.at != 0 && (!f.bfloat16 || f.at%16 != 0 || p.all%8 != 0 || p.out.cols%8 != 0):
			return false
		}
	}
	return true
}

// quantizeInProduct computes each part by a product of its own, whose epilogue quantizes.
func (d *Device) quantizeInProduct(parts []quantizedPart, a, w *planes, l kernels.Linear) error {
	for _, p := range parts {
		channels := w.Slice(p.from, p.from+p.out.cols).(*planes)
		offset := cu.DevicePtr(4 * p.from)
		alpha, theta := float32s(l.Alpha, l.Out)+offset, float32s(l.Theta, l.Out)+offset
		multiply := d.multiplyLevels
		if p.out.quantization == kernels.Sign() {
			multiply = d.multiplyBits
		}
		if err := d.clear(p.out.popcounts, 4*p.out.rows); err != nil {
			return err
		}
		if err := multiply(p, a, channels, alpha, theta); err != nil {
			return err
		}
	}
	return nil
}

// quantizeFloats computes all products as floats, and quantizes these.
func (d *Device) quantizeFloats(parts []quantizedPart, x kernels.Activation, l kernels.Linear, s kernels.KShift) error {
	rows, alpha, theta := x.Rows(l.In), float32s(l.Alpha, l.Out), float32s(l.Theta, l.Out)
	y, stride, err := d.outputs(x, l, rows)
	if err != nil {
		return err
	}
	shift := shiftOf(s, rows)
	for _, p := range parts {
		to, g := p.out.levels(p.from), d.launch(warpPerRow(rows))
		switch {
		case !p.out.quantization.PlusMinus():
			kernel := either(p.factors.bfloat16, launch.emitSquaresBfloat16, launch.emitSquaresFloat32)
			err = kernel(g, y, stride, alpha, theta, rows, shift, to, p.factors.at, p.all)
		case p.mask == nil:
			err = g.emitLevels(y, stride, alpha, theta, rows, shift, to, 0, 0)
		default:
			err = g.emitLevels(y, stride, alpha, theta, rows, shift, to, p.mask.data, p.mask.words())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// LinearAdd adds a linear's output to the residual stream.
func (d *Device) LinearAdd(out, residual kernels.Floats, x kernels.Activation, l kernels.Linear) {
	d.run("LinearAdd", kernels.CheckLinearAdd(out, residual, x, l), func() error {
		rows := x.Rows(l.In)
		to, base := float32s(out, rows*l.Out), float32s(residual, rows*l.Out)
		alpha, theta := float32s(l.Alpha, l.Out), float32s(l.Theta, l.Out)
		if a, w, ok := integers(x, l); ok && d.hopper && aligned(l.Out, to, base) {
			u := affine{alpha: alpha, theta: theta, scale: unitOf(a, w)}
			return d.multiplyAffine(to, base, l.Out, a, w, u)
		}
		y, stride, err := d.outputs(x, l, rows)
		if err != nil {
			return err
		}
		n := rows * l.Out
		return d.launch(d.elementwise(n)).emitAdd(to, base, y, stride, alpha, theta, n, l.Out)
	})
}

// outputs returns the products y, before scale and threshold, as floats in working memory.
func (d *Device) outputs(x kernels.Activation, l kernels.Linear, rows int) (y cu.DevicePtr, stride int, err error) {
	stride = roundUp(l.Out, 8)
	if y, err = d.scratch("outputs", 4*rows*stride); err != nil {
		return 0, 0, err
	}
	if a, w, ok := integers(x, l); ok {
		return y, stride, d.multiplyFloats(y, stride, a, w, 0, unitOf(a, w))
	}
	values, err := d.activation(x, l.In)
	if err != nil {
		return 0, 0, err
	}
	w, err := d.effective(l, nil)
	if err != nil {
		return 0, 0, err
	}
	return y, stride, d.multiplyDense(y, stride, rowMajor(values, l.In), rowMajor(w, l.In), rows, l.Out, l.In)
}

// activation returns x as floats, rows × in.
func (d *Device) activation(x kernels.Activation, in int) (cu.DevicePtr, error) {
	if x.Floats != nil {
		return float32s(x.Floats, 0), nil
	}
	return d.expand("activation", x.Planes.(*planes), 0)
}

// effective returns the weight that products see as floats, out × in, with rows scaled by factor if there is one.
func (d *Device) effective(l kernels.Linear, factor kernels.Floats) (cu.DevicePtr, error) {
	scale := float32s(factor, l.Out)
	if l.Mixed == nil {
		return d.expand("weights", l.Quantized.(*planes), scale)
	}
	mixed := float32s(l.Mixed, l.In*l.Out)
	if scale == 0 {
		return mixed, nil
	}
	to, err := d.scratch("weights", 4*l.In*l.Out)
	if err != nil {
		return 0, err
	}
	return to, d.launch(grid(l.Out)).scaleRows(mixed, l.In, scale, to)
}

// expand writes the values of p, times rows' factors unless that is 0, to working memory.
func (d *Device) expand(name string, p *planes, factor cu.DevicePtr) (cu.DevicePtr, error) {
	to, err := d.scratch(name, 4*p.rows*p.cols)
	if err != nil {
		return 0, err
	}
	return to, d.launch(grid(p.rows)).expand(p.values(), p.cols, factor, to)
}
