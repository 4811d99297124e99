//go:build cuda

package cuda

import (
	"fmt"
	"strings"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// gradient is the gradient of a linear's plain product, rows × width: where kernels find it, all of it or a part of the rows at a time.
type gradient struct {
	kind        string // of gradient.cuh's sources, as kernels' names end
	rows, width int
	part        int // rows of a part, a multiple of 256 unless it is all
	// source readies rows from..to-1 and returns what describes them to a kernel.
	source func(from, to int) ([]byte, error)
}

func (g *gradient) parts(f func(from, to int, source []byte) error) error {
	for from := 0; from < g.rows; from += g.part {
		to := min(from+g.part, g.rows)
		source, err := g.source(from, to)
		if err != nil {
			return err
		}
		if err := f(from, to, source); err != nil {
			return err
		}
	}
	return nil
}

// LinearBackward turns the gradient of a linear's output into those of its input and its parameters.
func (d *Device) LinearBackward(dx kernels.Floats, dl kernels.LinearGradient, dy kernels.Floats, pass kernels.Planes,
	x kernels.Activation, l kernels.Linear, s kernels.KShift, gradBits int) {
	d.run("LinearBackward", func() error {
		rows := rowsOf(x, l.In)
		from := gradientsOf(dy, rows*l.Out)
		source := struct {
			dy, pass         cu.DevicePtr
			passWords, width int32
			shift
		}{from.at, 0, 0, int32(l.Out), shiftOf(s, rows)}
		if pass != nil {
			p := pass.(*planes)
			if p.rows < rows || p.cols != l.Out || p.bits != 1 {
				return fmt.Errorf("%d × %d outputs pass through %v", rows, l.Out, p)
			}
			source.pass, source.passWords = p.data, int32(p.words())
		}
		kind := "dense_" + from.kind
		if s.To > s.From {
			kind = "shifted_" + from.kind
		}
		g := gradient{kind, rows, l.Out, rows, func(int, int) ([]byte, error) { return driver.Bytes(&source), nil }}
		return d.backward(dx, dl, g, x, l, gradBits)
	})
}

// backward is LinearBackward for any gradient.
func (d *Device) backward(dx kernels.Floats, dl kernels.LinearGradient, g gradient, x kernels.Activation, l kernels.Linear, gradBits int) error {
	if err := kernels.CheckGradBits(gradBits); err != nil {
		return err
	}
	b := backward{Device: d, gradient: g, l: l, x: x, bits: gradBits, to: gradientsOf(dx, g.rows*l.In),
		alpha: float32s(l.Alpha, l.Out), dWeight: float32s(dl.Weight, l.In*l.Out), dAlpha: float32s(dl.Alpha, l.Out)}
	b.rowsRounded = gradBits != kernels.FloatBits && l.Mixed == nil
	b.columnsRounded = dl.Weight != nil && gradBits != kernels.FloatBits && x.Floats == nil
	if b.columnsRounded {
		if err := kernels.CheckSums(g.rows, gradBits, x.Planes.Bits()); err != nil {
			return err
		}
	}
	b.columnsFloat = dl.Weight != nil && !b.columnsRounded
	b.asBytes = b.columnsRounded && d.hopper && x.Planes.Bits() > 1
	if err := b.beside(b.operands); err != nil {
		return err
	}
	if err := b.maxima(float32s(dl.Theta, l.Out)); err != nil {
		return err
	}
	if b.rowsRounded || b.columnsRounded {
		if err := b.round(); err != nil {
			return err
		}
	}
	if !b.rowsRounded || b.columnsFloat {
		if err := b.floatProducts(); err != nil {
			return err
		}
	}
	if err := b.join(); err != nil {
		return err
	}
	if b.rowsRounded {
		if err := b.inputProduct(); err != nil {
			return err
		}
	}
	if b.columnsRounded {
		return b.weightProduct()
	}
	return nil
}

// backward is one linear's backward pass at work.
type backward struct {
	*Device
	gradient
	l                             kernels.Linear
	x                             kernels.Activation
	bits                          int
	to                            gradients // dx
	alpha, dWeight, dAlpha        cu.DevicePtr
	rowsRounded, columnsRounded   bool
	columnsFloat                  bool         // weights' gradients are wanted, but not rounded
	rowScale, columnScale         cu.DevicePtr // max / levels, once the maxima are known
	rowInverse, columnInverse     cu.DevicePtr
	allScales, allInverses        cu.DevicePtr // of rows, then channels
	rowPopcounts, columnPopcounts cu.DevicePtr
	rowPlanes, columns            *planes // rounded gradients: rows × channels, and channels × rows
	asBytes                       bool    // columns are bytes
	weights, inputs               *planes // the products' other sides: In × channels, and In × rows
}

func (b *backward) levels() float32 { return float32(int(1)<<(b.bits-1) - 1) }

// operands readies the other sides of the products with rounded gradients, which do not depend on these.
func (b *backward) operands() (err error) {
	if b.rowsRounded {
		if b.weights, err = b.scratchPlanes("transposed weights", b.l.In, roundUp(b.width, 256), 1, false); err != nil {
			return err
		}
		if err := b.transpose(b.weights, b.l.Signs.(*planes), gradientOrder); err != nil {
			return err
		}
	}
	if !b.columnsRounded {
		return nil
	}
	x, order := b.x.Planes.(*planes), gradientOrder
	if b.asBytes {
		order = neighbours
	}
	if b.inputs, err = b.scratchPlanes("transposed inputs", b.l.In, b.rows, x.bits, false); err != nil {
		return err
	}
	if err := b.transpose(b.inputs, x, order); err != nil || !b.asBytes {
		return err
	}
	b.inputs, err = b.spread(b.inputs)
	return err
}

// blocks is the grid of kernels that take 256 rows × 256 channels a block.
func (b *backward) blocks(rows int) driver.Geometry {
	return grid(256, ceilDiv(b.width, 256), ceilDiv(rows, 256))
}

// maxima finds the scales of rows and channels, and subtracts the gradient's sums from dTheta.
func (b *backward) maxima(dTheta cu.DevicePtr) (err error) {
	blocks := ceilDiv(b.rows, 256)
	theta, err := b.scratch("sums of gradients", 4*blocks*b.width)
	if err != nil {
		return err
	}
	if err := b.scales(); err != nil {
		return err
	}
	err = b.parts(func(from, to int, source []byte) error {
		rowMax := b.rowScale
		if rowMax != 0 {
			rowMax += cu.DevicePtr(4 * from)
		}
		return b.launch("grad_max_"+b.kind, b.blocks(to-from), source, arg(int32(to-from)), arg(int32(b.width)), arg(b.alpha),
			arg(rowMax), arg(b.columnScale), arg(theta+cu.DevicePtr(4*from/256*b.width)))
	})
	if err != nil {
		return err
	}
	if n := b.rows + b.width; b.allScales != 0 {
		if err := b.launch("grad_scales", grid(256, ceilDiv(n, 256)), arg(b.allScales), arg(int32(n)), arg(b.levels()), arg(b.allInverses)); err != nil {
			return err
		}
	}
	if dTheta == 0 {
		return nil
	}
	return b.addColumns(dTheta, theta, blocks, b.width, -1)
}

// scales lays out what rounding needs of rows and of channels, rows first: maxima that become scales, then popcounts, all zero.
func (b *backward) scales() error {
	if !b.rowsRounded && !b.columnsRounded {
		return nil
	}
	n := b.rows + b.width
	at, err := b.scratch("scales of gradients", 2*4*n)
	if err != nil {
		return err
	}
	inverse, err := b.scratch("inverse scales of gradients", 4*n)
	if err != nil {
		return err
	}
	b.allScales, b.allInverses = at, inverse
	channels := cu.DevicePtr(4 * b.rows)
	if b.rowsRounded {
		b.rowScale, b.rowInverse, b.rowPopcounts = at, inverse, at+cu.DevicePtr(4*n)
	}
	if b.columnsRounded {
		b.columnScale, b.columnInverse, b.columnPopcounts = at+channels, inverse+channels, at+cu.DevicePtr(4*n)+channels
	}
	return b.clear(at, 2*4*n)
}

// addColumns adds sign times the sums over rows of partial to dst.
func (d *Device) addColumns(dst, partial cu.DevicePtr, rows, columns int, sign float64) error {
	return d.launch("add_columns", grid(256, ceilDiv(columns, 32)), arg(partial), arg(int32(rows)), arg(int32(columns)), arg(sign), arg(dst))
}

// A block that rounds has roundAhead pieces of rows on their way in shared memory, each of 32 bytes or, of float32, 48. roundShared is the
// most that it needs.
const (
	roundAhead  = 4 * 256
	roundShared = 2*4*256*33 + roundAhead*48
)

// rounding is gradient.cu's Rounding.
type rounding struct {
	rows, width, bits, row0          int32
	alpha, rowInverse, columnInverse cu.DevicePtr
	rowPlanes, rowPopcounts          cu.DevicePtr
	rowPlaneWords                    int64
	rowWords                         int32
	columnStride, columnLeft         int32
	columns, columnPopcounts         cu.DevicePtr
	columnPlaneWords                 int64
	id                               uint32
	scalars                          cu.DevicePtr
}

// round packs the rounded gradients as planes or, for weights whose inputs have several planes too, as bytes.
func (b *backward) round() (err error) {
	kind := "planes"
	if b.rowsRounded {
		if b.rowPlanes, err = b.scratchPlanes("gradients by row", b.rows, roundUp(b.width, 256), b.bits, true); err != nil {
			return err
		}
		b.rowPlanes.popcounts = b.rowPopcounts
	}
	if b.columnsRounded {
		if b.asBytes {
			kind = "bytes"
			b.columns, err = b.scratchBytes("gradients by channel as bytes", b.width, b.rows)
		} else {
			b.columns, err = b.scratchPlanes("gradients by channel", b.width, b.rows, b.bits, true)
		}
		if err != nil {
			return err
		}
		b.columns.popcounts = b.columnPopcounts
	}
	width := 4
	if b.bits > 4 {
		width = 8
	}
	kernel := fmt.Sprintf("grad_round_%s_%d_%s", kind, width, b.kind)
	return b.parts(func(from, to int, source []byte) error {
		r := rounding{rows: int32(to - from), width: int32(b.width), bits: int32(b.bits), row0: int32(from),
			alpha: b.alpha, columnInverse: b.columnInverse, id: uint32(b.l.ID), scalars: b.memory.scalars}
		if p := b.rowPlanes; p != nil {
			r.rowInverse = b.rowInverse + cu.DevicePtr(4*from)
			r.rowPlanes, r.rowPopcounts = p.data+cu.DevicePtr(from*p.rowBytes()), p.popcounts+cu.DevicePtr(4*from)
			r.rowPlaneWords, r.rowWords = int64(p.planeBytes/4), int32(p.words())
		}
		if p := b.columns; p != nil && b.asBytes {
			r.columns, r.columnPopcounts = p.data+cu.DevicePtr(from), p.popcounts
			r.columnStride, r.columnLeft = int32(p.rowBytes()), int32(p.rowBytes()-from)
		} else if p != nil {
			r.columns, r.columnPopcounts = p.data+cu.DevicePtr(from/8), p.popcounts
			r.columnPlaneWords, r.columnStride, r.columnLeft = int64(p.planeBytes/4), int32(p.words()), int32(p.words()-from/32)
		}
		g := b.blocks(to - from)
		g.Shared = 4 * 256 * 33 // words of channels: an eighth of the rows for planes of 4 bits, twice as many otherwise
		if b.asBytes {
			g.Shared = 4 * 256 * 65
		} else if b.bits > 4 {
			g.Shared *= 2
		}
		g.Shared += roundAhead * 32
		if strings.HasSuffix(b.kind, "float32") {
			g.Shared += roundAhead * 16
		}
		return b.launch(kernel, g, source, driver.Bytes(&r))
	})
}

// inputProduct computes dx = scale_t * Σ_c q * sign(W_c).
func (b *backward) inputProduct() error {
	w, in := b.weights, b.l.In
	if b.hopper && largestSum(b.rowPlanes) >= exactFloat {
		return b.wideInputProduct()
	}
	if b.hopper && b.to.kind == "bfloat16" && in%8 == 0 && b.to.at%16 == 0 {
		return b.multiplyBFloats(b.to.at, in, b.rowPlanes, w, b.rowScale)
	}
	y, stride, err := b.floatsOfInput(0, b.rows)
	if err != nil {
		return err
	}
	if err := b.multiplyFloats(y, stride, b.rowPlanes, w, b.rowScale, 1); err != nil {
		return err
	}
	return b.emit(0, b.rows, y, stride)
}

// wideInputProduct is inputProduct for sums that the epilogues of products turn into wrong floats: they become floats by a pass of their own.
func (b *backward) wideInputProduct() error {
	n := b.rows * b.l.In
	sums, err := b.scratch("wide sums", 4*n)
	if err != nil {
		return err
	}
	if err := b.clear(sums, 4*n); err != nil {
		return err
	}
	if err := b.multiplyAdd(sums, b.l.In, b.rowPlanes, b.weights, 1); err != nil {
		return err
	}
	return b.launch("emit_integers_"+b.to.kind, b.elementwise(n), arg(b.to.at), arg(sums), arg(b.rowScale), arg(int64(n)), arg(int32(b.l.In)))
}

// floatsOfInput is where a product may write n rows of dx from row `from` on, as floats: dx itself if it can. emit moves them there.
func (b *backward) floatsOfInput(from, n int) (y cu.DevicePtr, stride int, err error) {
	if b.to.kind == "float32" && (!b.hopper || aligned(b.l.In, b.to.at)) {
		return b.to.at + cu.DevicePtr(4*from*b.l.In), b.l.In, nil
	}
	stride = roundUp(b.l.In, 4)
	y, err = b.scratch("outputs", 4*n*stride)
	return y, stride, err
}

// emit writes rows from..to-1, which a product left in y, to dx.
func (b *backward) emit(from, to int, y cu.DevicePtr, stride int) error {
	n := (to - from) * b.l.In
	at := b.to.at + cu.DevicePtr(b.to.bytes(from*b.l.In))
	if at == y {
		return nil
	}
	if b.to.kind == "bfloat16" {
		return b.launch("emit_bfloats", b.elementwise(n), arg(at), arg(y), arg(int64(stride)), arg(int64(n)), arg(int32(b.l.In)))
	}
	return b.launch("emit_add", b.elementwise(n), arg(at), arg(cu.DevicePtr(0)), arg(y), arg(int64(stride)), arg(cu.DevicePtr(0)),
		arg(cu.DevicePtr(0)), arg(int64(n)), arg(int32(b.l.In)))
}

// weightProduct adds alpha_c * scale_c * Σ_t q * x_t to the weights' gradient, and what follows for alpha.
func (b *backward) weightProduct() error {
	x := b.x.Planes.(*planes)
	sums, err := b.scratch("weight sums", 4*b.width*b.l.In)
	if err != nil {
		return err
	}
	if err := b.clear(sums, 4*b.width*b.l.In); err != nil {
		return err
	}
	if b.asBytes {
		if err := b.multiplyBytes(sums, b.l.In, b.columns, b.inputs); err != nil {
			return err
		}
	} else {
		for p := range x.bits {
			if err := b.multiplyAdd(sums, b.l.In, b.columns, b.inputs.plane(p), 1<<p); err != nil {
				return err
			}
		}
	}
	return b.finish("finish_weights_int32", sums, b.columnScale, unit(x.bits))
}

// finish turns the sums behind weights' gradients into gradients.
func (b *backward) finish(kernel string, sums, scales cu.DevicePtr, unit float32) error {
	signs := b.l.Signs.(*planes)
	return b.launch(kernel, grid(256, b.width), arg(sums), arg(int32(b.l.In)), arg(b.alpha), arg(scales), arg(unit), arg(signs.data),
		arg(int32(signs.words())), arg(float32s(b.l.Mixed, b.l.In*b.l.Out)), arg(b.dWeight), arg(b.dAlpha))
}

// floatProducts computes from floats what is not rounded.
func (b *backward) floatProducts() error {
	in, width := int64(b.l.In), int64(b.width)
	var weights, inputs, sums cu.DevicePtr
	var err error
	if !b.rowsRounded {
		if weights, err = b.effective(b.l, b.l.Alpha); err != nil {
			return err
		}
	}
	if b.columnsFloat {
		if inputs, err = b.activation(b.x, b.l.In); err != nil {
			return err
		}
		if sums, err = b.scratch("weight sums", 8*b.width*b.l.In); err != nil {
			return err
		}
		if err := b.clear(sums, 8*b.width*b.l.In); err != nil {
			return err
		}
	}
	g, err := b.scratch("float gradients", 4*min(b.part, b.rows)*b.width)
	if err != nil {
		return err
	}
	err = b.parts(func(from, to int, source []byte) error {
		n := to - from
		if err := b.launch("grad_copy_"+b.kind, b.blocks(n), source, arg(int32(n)), arg(int32(b.width)), arg(g)); err != nil {
			return err
		}
		if !b.rowsRounded {
			dx, stride, err := b.floatsOfInput(from, n)
			if err != nil {
				return err
			}
			if err := b.multiplyDense(dx, stride, operand{g, width, 1}, operand{weights, 1, in}, n, b.l.In, b.width); err != nil {
				return err
			}
			if err := b.emit(from, to, dx, stride); err != nil {
				return err
			}
		}
		if b.columnsFloat {
			x := inputs + cu.DevicePtr(4*from*b.l.In)
			return b.multiplyDenseAdd(sums, b.l.In, operand{g, 1, width}, operand{x, 1, in}, b.width, b.l.In, n)
		}
		return nil
	})
	if err != nil || !b.columnsFloat {
		return err
	}
	return b.finish("finish_weights_float64", sums, 0, 1)
}
