//go:build cuda

package cuda

import (
	"bitnet1/kernels"

	"gorgonia.org/cu"
)

// rowsOf is the number of rows of x.
func rowsOf(x kernels.Activation, in int) int {
	if x.Floats != nil {
		return x.Floats.Len() / in
	}
	return x.Planes.Rows()
}

// integers returns the planes of x and of l's weights if their product is one of integers.
func integers(x kernels.Activation, l kernels.Linear) (a, w *planes, ok bool) {
	if x.Floats != nil || l.Mixed != nil {
		return nil, nil, false
	}
	return x.Planes.(*planes), l.Quantized.(*planes), true
}

func shiftOf(s kernels.KShift, rows int) shift {
	if s.To <= s.From {
		return shift{seq: 1}
	}
	return shift{
		from: int32(s.From), to: int32(s.To), offset: int32(s.Offset), self: either[int32](s.Self, 1, 0),
		seq: int32(s.Seq), starts: int32s(s.Starts, rows),
	}
}

// LinearQuantize writes the signs of a linear's output, and where its gradient passes.
func (d *Device) LinearQuantize(out, mask kernels.Planes, x kernels.Activation, l kernels.Linear, s kernels.KShift) {
	d.run("LinearQuantize", kernels.CheckLinearQuantize(out, mask, x, l, s), func() error {
		rows, sign := rowsOf(x, l.In), out.(*planes)
		alpha, theta := float32s(l.Alpha, l.Out), float32s(l.Theta, l.Out)
		var inside *planes
		if mask != nil {
			inside = mask.(*planes)
		}
		a, w, ok := integers(x, l)
		if ok && d.hopper && s.To <= s.From && largestSum(a) <= largestThreshold {
			t, err := d.thresholds(alpha, theta, a.quantization.Unit(), a, w)
			if err != nil {
				return err
			}
			return d.multiplyBits(sign, inside, a, w, t)
		}
		y, stride, err := d.outputs(x, l, rows)
		if err != nil {
			return err
		}
		maskBits := cu.DevicePtr(0)
		if inside != nil {
			maskBits = inside.data
		}
		return d.launch(warpPerRow(rows)).emitSigns(y, stride, alpha, theta, rows, l.Out, shiftOf(s, rows),
			sign.data, maskBits, sign.words(), sign.popcounts)
	})
}

// LinearAdd adds a linear's output to the residual stream.
func (d *Device) LinearAdd(out, residual kernels.Floats, x kernels.Activation, l kernels.Linear) {
	d.run("LinearAdd", kernels.CheckLinearAdd(out, residual, x, l), func() error {
		rows := rowsOf(x, l.In)
		to, base := float32s(out, rows*l.Out), float32s(residual, rows*l.Out)
		alpha, theta := float32s(l.Alpha, l.Out), float32s(l.Theta, l.Out)
		if a, w, ok := integers(x, l); ok && d.hopper && aligned(l.Out, to, base, alpha, theta) {
			u := affine{alpha: alpha, theta: theta, scale: a.quantization.Unit()}
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
		return y, stride, d.multiplyFloats(y, stride, a, w, 0, a.quantization.Unit())
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
	p := x.Planes.(*planes)
	return d.expand("activation", p, p.quantization.Unit(), 0)
}

// effective returns the weight that products see as floats, out × in, with rows scaled by factor if there is one.
func (d *Device) effective(l kernels.Linear, factor kernels.Floats) (cu.DevicePtr, error) {
	scale := float32s(factor, l.Out)
	if l.Mixed == nil {
		return d.expand("weights", l.Quantized.(*planes), 1, scale)
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
func (d *Device) expand(name string, p *planes, unit float32, factor cu.DevicePtr) (cu.DevicePtr, error) {
	to, err := d.scratch(name, 4*p.rows*p.cols)
	if err != nil {
		return 0, err
	}
	return to, d.launch(grid(p.rows)).expand(p.data, p.rows, p.cols, p.bits, p.words(), p.planeBytes/4,
		unit, factor, to)
}
