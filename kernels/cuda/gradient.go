//go:build cuda

package cuda

import (
	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// gradient describes the gradient of a linear's plain product, rows × width. Kernels compute it from a source of type
// S, all rows at once or a part of them at a time.
type gradient[S any] struct {
	kernels     gradientKernels[S]
	rows, width int
	part        int // rows of a part, a multiple of 256 unless it is all
	// source readies rows from..to-1.
	source func(from, to int) (S, error)
}

func (g *gradient[S]) parts(f func(from, to int, source S) error) error {
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
func (d *Device) LinearBackward(dx kernels.Floats, dl kernels.LinearGradient, dy kernels.Floats,
	derivative kernels.Derivative, x kernels.Activation, l kernels.Linear, s kernels.KShift,
	gradBits kernels.GradBits) {
	d.run("LinearBackward", kernels.CheckLinearBackward(dx, dl, dy, derivative, x, l, s, gradBits), func() error {
		rows := x.Rows(l.In)
		from := gradientsOf(dy, rows*l.Out)
		if derivative.Factors != nil {
			factors := gradientsOf(derivative.Factors, rows*l.Out)
			if s.To <= s.From && from.bfloat16 && factors.bfloat16 && l.Out%8 == 0 && (from.at|factors.at)%16 == 0 {
				source := factoredGradient{dy: from.at, factors: factors.at, width: int32(l.Out)}
				all := func(int, int) (factoredGradient, error) { return source, nil }
				g := gradient[factoredGradient]{gradientKernelsFactoredBfloat16, rows, l.Out, rows, all}
				return linearBackward(d, dx, dl, g, x, l, gradBits)
			}
			var err error
			if from, err = d.factored(from, factors, rows*l.Out); err != nil {
				return err
			}
		}
		source := denseGradient{dy: from.at, width: int32(l.Out), shift: shiftOf(s, rows)}
		if derivative.Mask != nil {
			p := derivative.Mask.(*planes)
			source.mask, source.maskWords = p.data, int32(p.words())
		}
		family := either(from.bfloat16, gradientKernelsDenseBfloat16, gradientKernelsDenseFloat32)
		if s.To > s.From {
			family = either(from.bfloat16, gradientKernelsShiftedBfloat16, gradientKernelsShiftedFloat32)
		}
		all := func(int, int) (denseGradient, error) { return source, nil }
		g := gradient[denseGradient]{family, rows, l.Out, rows, all}
		return linearBackward(d, dx, dl, g, x, l, gradBits)
	})
}

// factored returns the products of n gradients and their factors, as float32.
func (d *Device) factored(dy, factors gradients, n int) (gradients, error) {
	to, err := d.scratch("factored gradients", 4*n)
	if err != nil {
		return gradients{}, err
	}
	family := either(dy.bfloat16, multiplyFactorsKernelsBfloat16, multiplyFactorsKernelsFloat32)
	kernel := either(factors.bfloat16, family.multiplyByBfloat16, family.multiplyByFloat32)
	return gradients{at: to}, kernel(d.launch(d.elementwise(n)), dy.at, factors.at, n, to)
}

// linearBackward is LinearBackward for any gradient.
func linearBackward[S any](d *Device, dx kernels.Floats, dl kernels.LinearGradient, g gradient[S],
	x kernels.Activation, l kernels.Linear, gradBits kernels.GradBits) error {
	b := backward[S]{Device: d, gradient: g, l: l, x: x, bits: gradBits, to: gradientsOf(dx, g.rows*l.In),
		alpha: float32s(l.Alpha, l.Out), dWeight: float32s(dl.Weight, l.In*l.Out), dAlpha: float32s(dl.Alpha, l.Out)}
	b.rowsRounded = gradBits.Rounded() && l.Mixed == nil
	b.columnsRounded = dl.Weight != nil && gradBits.Rounded() && x.Floats == nil
	b.columnsFloat = dl.Weight != nil && !b.columnsRounded
	b.asBytes = b.columnsRounded && d.hopper && x.Planes.(*planes).bits > 1
	if err := b.fork(b.operands); err != nil {
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
type backward[S any] struct {
	*Device
	gradient[S]
	l                             kernels.Linear
	x                             kernels.Activation
	bits                          kernels.GradBits
	to                            gradients // dx
	alpha, dWeight, dAlpha        cu.DevicePtr
	rowsRounded, columnsRounded   bool
	columnsFloat                  bool         // weights' gradients are wanted, but not rounded
	rowScale, columnScale         cu.DevicePtr // max / levels, once the maxima are known
	rowInverse, columnInverse     cu.DevicePtr
	allScales, allInverses        cu.DevicePtr // of rows, then channels
	rowPopcounts, columnPopcounts cu.DevicePtr
	rowPlanes, columns            *planes // rounded gradients: rows × channels, and channels × rows; either may be bytes
	asBytes                       bool    // columns are bytes
	weights, inputs               *planes // the products' other sides: In × channels, and In × rows
}

// allBytes says whether gradients become bytes for dx as well: where they do for weights, and weights have several
// planes.
func (b *backward[S]) allBytes() bool {
	return b.asBytes && b.rowsRounded && b.l.Quantized.Quantization().Planes() > 1
}

// gradientLevels is the largest integer of so many bits.
func gradientLevels(bits int) float32 { return float32(encodingOfGradients(bits).largest) }

// planeBits is the number of planes of the rounded gradients, by row or by channel, that has more of them. Bytes are no
// planes.
func (b *backward[S]) planeBits() (most int) {
	if b.rowsRounded && !b.allBytes() {
		most = b.bits.Input
	}
	if b.columnsRounded && !b.asBytes {
		most = max(most, b.bits.Weight)
	}
	return most
}

// operands transposes the other sides of the products with rounded gradients. They do not depend on the gradients.
func (b *backward[S]) operands() (err error) {
	if b.rowsRounded {
		w := b.l.Quantized.(*planes)
		if width := roundUp(b.width, 256); b.allBytes() {
			b.weights, err = b.transposeBytes("weights as bytes", w, width)
		} else {
			b.weights, err = b.transpose("transposed weights", w, width, kGradientOrder)
		}
		if err != nil {
			return err
		}
	}
	if !b.columnsRounded {
		return nil
	}
	if x := b.x.Planes.(*planes); b.asBytes {
		b.inputs, err = b.transposeBytes("inputs as bytes", x, b.rows)
	} else {
		b.inputs, err = b.transpose("transposed inputs", x, b.rows, kGradientOrder)
	}
	return err
}

// blocks is the grid of kernels that take 256 rows × 256 channels a block.
func (b *backward[S]) blocks(rows int) driver.Geometry {
	return grid(ceilDiv(b.width, 256), ceilDiv(rows, 256))
}

// roundingBlocks is the grid of kernels that round: each of a row of blocks takes 256 channels, and of n rows of blocks
// each takes every n-th piece of 256 rows. n minimises the time that rounds of two blocks a multiprocessor take. It is
// counted in tenths of a piece: a block takes one to start, and rounds end a tenth of a block apart.
func (b *backward[S]) roundingBlocks(rows int) driver.Geometry {
	across, pieces, best, least := ceilDiv(b.width, 256), ceilDiv(rows, kPiece), 1, 0
	for n := 1; n <= pieces; n++ {
		each := ceilDiv(pieces, n)
		cost := ceilDiv(across*n, 2*b.multiprocessors)*(10*each+1) + each
		if n == 1 || cost < least {
			best, least = n, cost
		}
	}
	return grid(across, best)
}

// maxima finds the scales of rows and channels, and subtracts the gradient's sums from dTheta.
func (b *backward[S]) maxima(dTheta cu.DevicePtr) (err error) {
	blocks := ceilDiv(b.rows, 256)
	theta, err := b.scratch("sums of gradients", 4*blocks*b.width)
	if err != nil {
		return err
	}
	if err := b.scales(); err != nil {
		return err
	}
	err = b.parts(func(from, to int, source S) error {
		rowMax := b.rowScale
		if rowMax != 0 {
			rowMax += cu.DevicePtr(4 * from)
		}
		return b.kernels.gradMax(b.launch(b.blocks(to-from)), source, to-from, b.width, b.alpha, rowMax, b.columnScale,
			theta+cu.DevicePtr(4*from/256*b.width))
	})
	if err != nil {
		return err
	}
	if n := b.rows + b.width; b.allScales != 0 {
		err := b.launch(grid(ceilDiv(n, 256))).gradScales(b.allScales, b.rows, n, gradientLevels(b.bits.Input),
			gradientLevels(b.bits.Weight), b.allInverses)
		if err != nil {
			return err
		}
	}
	if dTheta == 0 {
		return nil
	}
	return b.addColumns(dTheta, theta, blocks, b.width, -1)
}

// scales clears memory for the maxima of rows and channels, which become scales, and for the popcounts. Rows come
// first.
func (b *backward[S]) scales() error {
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
	return d.launch(grid(ceilDiv(columns, 32))).addColumns(partial, rows, columns, sign, dst)
}

// round packs the rounded gradients: as bytes for weights whose inputs have several planes on Hopper, else as planes.
func (b *backward[S]) round() (err error) {
	rounded := func(name string, p planes, bits int) (*planes, error) {
		p.bits, p.encoding, p.signed = bits, encodingOfGradients(bits), true
		if p.bytes {
			p.bits = 1
		}
		return p.scratch(b.Device, name)
	}
	if b.rowsRounded {
		p, name := planes{rows: b.rows, cols: roundUp(b.width, 256)}, "gradients by row"
		p.popcounts = b.rowPopcounts
		if b.allBytes() {
			p.bytes, name = true, "gradients by row as bytes"
		}
		if b.rowPlanes, err = rounded(name, p, b.bits.Input); err != nil {
			return err
		}
	}
	if b.columnsRounded {
		p, name := planes{rows: b.width, cols: b.rows, popcounts: b.columnPopcounts}, "gradients by channel"
		if b.asBytes {
			p.bytes, name = true, "gradients by channel as bytes"
		}
		if b.columns, err = rounded(name, p, b.bits.Weight); err != nil {
			return err
		}
	}
	kernel := either(b.planeBits() > 4, b.kernels.gradRoundPlanes8, b.kernels.gradRoundPlanes4)
	if b.asBytes {
		kernel = either(b.planeBits() > 4, b.kernels.gradRoundBytes8, b.kernels.gradRoundBytes4)
	}
	if b.allBytes() {
		kernel = b.kernels.gradRoundAllBytes
	}
	return b.parts(func(from, to int, source S) error {
		r := rounding{rows: int32(to - from), width: int32(b.width), rowBits: int32(b.bits.Input), row0: int32(from),
			alpha: b.alpha, columnBits: int32(b.bits.Weight), columnInverse: b.columnInverse, id: uint32(b.l.ID),
			scalars: b.memory.scalars}
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
			r.columnPlaneWords = int64(p.planeBytes / 4)
			r.columnStride, r.columnLeft = int32(p.words()), int32(p.words()-from/32)
		}
		return kernel(b.launch(b.roundingBlocks(to-from)), source, r)
	})
}

// inputProduct computes dx = scale_t * Σ_c q * Q(W_c).
func (b *backward[S]) inputProduct() error {
	in, unit := b.l.In, b.l.Quantized.Quantization().Unit()
	q, w, err := b.sides(b.rowPlanes, b.weights)
	if err != nil {
		return err
	}
	if b.hopper && !q.bytes && largestSum(q, w) >= exactFloat {
		return b.wideInputProduct(q, w, unit)
	}
	if b.hopper && b.to.bfloat16 && in%8 == 0 && b.to.at%16 == 0 {
		return b.multiplyBFloats(b.to.at, in, q, w, b.rowScale, unit)
	}
	y, stride, err := b.floatsOfInput(0, b.rows)
	if err != nil {
		return err
	}
	if err := b.multiplyFloats(y, stride, q, w, b.rowScale, unit); err != nil {
		return err
	}
	return b.emit(0, b.rows, y, stride)
}

// wideInputProduct is inputProduct for sums of 2^22 or more: the products' epilogues do not turn these into floats
// exactly, so another kernel does.
func (b *backward[S]) wideInputProduct(q, w *planes, unit float32) error {
	n := b.rows * b.l.In
	sums, err := b.scratch("wide sums", 4*n)
	if err != nil {
		return err
	}
	if err := b.clear(sums, 4*n); err != nil {
		return err
	}
	if err := b.multiplyAdd(sums, b.l.In, q, w); err != nil {
		return err
	}
	kernel := either(b.to.bfloat16, launch.emitIntegersBfloat16, launch.emitIntegersFloat32)
	return kernel(b.launch(b.elementwise(n)), b.to.at, sums, b.rowScale, unit, n, b.l.In)
}

// floatsOfInput is where a product writes rows from..from+n-1 of dx as float32: dx itself where possible, else working
// memory, from which emit copies them.
func (b *backward[S]) floatsOfInput(from, n int) (y cu.DevicePtr, stride int, err error) {
	if !b.to.bfloat16 && (!b.hopper || aligned(b.l.In, b.to.at)) {
		return b.to.at + cu.DevicePtr(4*from*b.l.In), b.l.In, nil
	}
	stride = roundUp(b.l.In, 4)
	y, err = b.scratch("outputs", 4*n*stride)
	return y, stride, err
}

// emit writes rows from..to-1 of dx from y, where a product left them.
func (b *backward[S]) emit(from, to int, y cu.DevicePtr, stride int) error {
	n := (to - from) * b.l.In
	at := b.to.at + cu.DevicePtr(b.to.bytes(from*b.l.In))
	if at == y {
		return nil
	}
	if b.to.bfloat16 {
		return b.launch(b.elementwise(n)).emitBfloats(at, y, stride, n, b.l.In)
	}
	return b.launch(b.elementwise(n)).emitAdd(at, 0, y, stride, 0, 0, n, b.l.In)
}

// weightProduct adds alpha_c * scale_c * Σ_t q * x_t to the weights' gradient, and what follows for alpha.
func (b *backward[S]) weightProduct() error {
	x := b.x.Planes.(*planes)
	sums, err := b.scratch("weight sums", 4*b.width*b.l.In)
	if err != nil {
		return err
	}
	if err := b.clear(sums, 4*b.width*b.l.In); err != nil {
		return err
	}
	if err := b.multiplyAdd(sums, b.l.In, b.columns, b.inputs); err != nil {
		return err
	}
	return b.finish(launch.finishWeightsInt32, sums, b.columnScale, x.quantization.Unit())
}

// finish computes the gradients of the weights and of alpha from the products' sums.
func (b *backward[S]) finish(kernel finishWeights, sums, scales cu.DevicePtr, unit float32) error {
	return kernel(b.launch(grid(b.width)), sums, b.l.In, b.alpha, scales, unit, b.l.Quantized.(*planes).values(),
		float32s(b.l.Mixed, b.l.In*b.l.Out), b.dWeight, b.dAlpha)
}

type finishWeights = func(l launch, sums cu.DevicePtr, width int, alpha, scales cu.DevicePtr, unit float32,
	weights quantized, mixed, dWeight, dAlpha cu.DevicePtr) error

// floatProducts computes in floats the gradients that are not rounded.
func (b *backward[S]) floatProducts() error {
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
	err = b.parts(func(from, to int, source S) error {
		n := to - from
		if err := b.kernels.gradCopy(b.launch(b.blocks(n)), source, n, b.width, g); err != nil {
			return err
		}
		if !b.rowsRounded {
			dx, stride, err := b.floatsOfInput(from, n)
			if err != nil {
				return err
			}
			left, right := rowMajor(g, b.width), columnMajor(weights, b.l.In)
			if err := b.multiplyDense(dx, stride, left, right, n, b.l.In, b.width); err != nil {
				return err
			}
			if err := b.emit(from, to, dx, stride); err != nil {
				return err
			}
		}
		if b.columnsFloat {
			x := inputs + cu.DevicePtr(4*from*b.l.In)
			return b.multiplyDenseAdd(sums, b.l.In, columnMajor(g, b.width), columnMajor(x, b.l.In), b.width, b.l.In, n)
		}
		return nil
	})
	if err != nil || !b.columnsFloat {
		return err
	}
	return b.finish(launch.finishWeightsFloat64, sums, 0, 1)
}
