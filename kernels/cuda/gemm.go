//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// The tile of gemm_wgmma.cu: a stage is 1,024 bits of 128 rows of A and 256 rows of B.
const (
	tileRows, tileColumns = 128, 256
	stageRowBytes         = 128
	wgmmaStages           = 4
	wgmmaShared           = wgmmaStages*(tileRows+tileColumns)*stageRowBytes + 1024
	wgmmaThreads          = 384
)

// product says how the dot products s of A's and B's rows follow from C = Σ_p weight_p popcount(a_p & w) and the rows' weighted
// popcounts P, over k columns of which padding is zero on both sides:
//
//	±1 planes:  s = 4C - 2 P_a - 2 (2^n-1) P_w + (2^n-1) k     because x·w = k - 2 pop(x) - 2 pop(w) + 4 pop(x & w)
//	signed:     s = 2C - P_a                                   because p·w = 2 pop(p & w) - pop(p)
//
// It is the common part of the kernels' Product arguments.
type product struct {
	product, rowWeight, columnWeight, bias int32
}

func productOf(a, b *Bits) (product, error) {
	if a.Columns != b.Columns || b.Planes != 1 || b.Signed {
		return product{}, fmt.Errorf("product of %v and %v: columns must agree and the second matrix be one ±1 plane", a, b)
	}
	if largest := largestSum(a); largest >= 1<<29 {
		return product{}, fmt.Errorf("product of %v and %v: sums to %d overflow 32 bits: split the columns", a, b, largest)
	}
	if a.Signed && a.Planes == 1 { // the kernels turn the sign of the top plane where they double it, which one plane never is
		return product{product: -2, rowWeight: -1}, nil
	}
	if a.Signed {
		return product{product: 2, rowWeight: -1}, nil
	}
	levels := int32(1)<<a.Planes - 1
	return product{product: 4, rowWeight: -2, columnWeight: -2 * levels, bias: levels * int32(a.Columns)}, nil
}

// largestSum bounds |s| for products with a.
func largestSum(a *Bits) int { return (1<<a.Planes - 1) * a.Columns }

// MultiplySimple computes out[i*stride+j] = row i of a · row j of b as int32 with the plainest kernel, on any supported device.
func (d *Device) MultiplySimple(out Buffer, stride int, a, b *Bits) error {
	p, err := productOf(a, b)
	if err != nil {
		return err
	}
	if err := fits("int32 product", out, a.Rows, b.Rows, stride, 4, 1); err != nil {
		return err
	}
	shape := struct {
		m, n, planes, negativeTop, words int32
		product
		planeWords                    int64
		rowPopcounts, columnPopcounts cu.DevicePtr
	}{int32(a.Rows), int32(b.Rows), int32(a.Planes), a.negativeTop(), int32(a.rowBytes() / 4), p,
		int64(a.planeBytes() / 4), a.popcounts.pointer, b.popcounts.pointer}
	g := driver.Geometry{Grid: [3]int{ceilDiv(b.Rows, 32), ceilDiv(a.Rows, 64)}, Block: [3]int{128}}
	return d.launch("gemm_mma_int32", g, arg(a.data.pointer), arg(b.data.pointer), driver.Bytes(&shape), arg(out.pointer), arg(int64(stride)))
}

func fits(what string, out Buffer, rows, columns, stride, element, multiple int) error {
	if stride < columns || stride%multiple != 0 || out.size < element*((rows-1)*stride+columns) {
		return fmt.Errorf("%s of %d x %d into %d bytes with stride %d: the buffer is too small or the stride no multiple of %d",
			what, rows, columns, out.size, stride, multiple)
	}
	return nil
}

// MultiplyInt32 computes out[i*stride+j] = row i of a · row j of b as int32. stride is in elements, a multiple of 4.
func (d *Device) MultiplyInt32(out Buffer, stride int, a, b *Bits) error {
	if err := fits("int32 product", out, a.Rows, b.Rows, stride, 4, 4); err != nil {
		return err
	}
	epilogue := struct {
		out    cu.DevicePtr
		stride int64
	}{out.pointer, int64(stride)}
	return d.multiply("gemm_wgmma_int32", 4, a, b, driver.Bytes(&epilogue))
}

// Affine turns integer dot products into u = RowScale_i * Alpha_j * Scale * s - Theta_j. A zero buffer leaves its factor or term
// out; a zero Scale counts as 1. Tables are float32 and must be readable up to a multiple of 8 channels.
type Affine struct {
	RowScale, Alpha, Theta Buffer
	Scale                  float32
}

// MultiplyAffine computes u (+ residual) in float32, or in bfloat16 when half is set, into out. residual may be the zero buffer
// or out itself; both have rows `stride` elements apart, a multiple of 4 (float32) or 8 (bfloat16).
func (d *Device) MultiplyAffine(out, residual Buffer, stride int, half bool, a, b *Bits, affine Affine) error {
	kernel, run, element, multiple := "gemm_wgmma_float32", 4, 4, 4
	if half {
		kernel, run, element, multiple = "gemm_wgmma_bfloat16", 8, 2, 8
	}
	if err := fits("affine product", out, a.Rows, roundUp(b.Rows, multiple), stride, element, multiple); err != nil {
		return err
	}
	if affine.Scale == 0 {
		affine.Scale = 1
	}
	epilogue := struct {
		rowScale, alpha, theta cu.DevicePtr
		scale                  float32
		residual, out          cu.DevicePtr
		stride                 int64
	}{affine.RowScale.pointer, affine.Alpha.pointer, affine.Theta.pointer, affine.Scale, residual.pointer, out.pointer, int64(stride)}
	return d.multiply(kernel, run, a, b, driver.Bytes(&epilogue))
}

// MultiplyBits computes the output bits of every channel into sign [a.Rows, b.Rows] and its popcounts and, unless clip is nil, whether
// |u| <= 1 into clip, whose popcounts are left alone. thresholds must have been set for a and b.
func (d *Device) MultiplyBits(sign, clip *Bits, a, b *Bits, thresholds *Thresholds) error {
	for _, out := range []*Bits{sign, clip} {
		if out != nil && (out.Rows != a.Rows || out.Columns != b.Rows || out.Planes != 1 || out.Signed) {
			return fmt.Errorf("bits of the product of %v and %v into %v: it takes %d x %d in one ±1 plane", a, b, out, a.Rows, b.Rows)
		}
	}
	if a.Signed || largestSum(a) > largestThreshold {
		return fmt.Errorf("bits of the product of %v and %v: takes ±1 planes and sums up to %d: use MultiplyAffine", a, b, largestThreshold)
	}
	if err := d.fill(sign.popcounts, 0); err != nil {
		return err
	}
	epilogue := struct {
		thresholds, negative, sign, clip, popcounts cu.DevicePtr
		stride                                      int64
	}{thresholds.centreRadius.pointer, thresholds.negative.pointer, sign.data.pointer, 0, sign.popcounts.pointer, int64(sign.rowBytes() / 8)}
	if clip != nil {
		epilogue.clip = clip.data.pointer
	}
	return d.multiply("gemm_wgmma_bits", 64, a, b, driver.Bytes(&epilogue))
}

// multiply launches one of the Hopper kernels; run is the kRun of its epilogue.
func (d *Device) multiply(kernel string, run int, a, b *Bits, epilogue []byte) error {
	p, err := productOf(a, b)
	if err != nil {
		return err
	}
	mapA, err := rowMap(a)
	if err != nil {
		return err
	}
	mapB, err := columnMap(b, run)
	if err != nil {
		return err
	}
	shape := struct {
		m, n, planes, negativeTop, blocks int32
		product
		rowPopcounts, columnPopcounts cu.DevicePtr
	}{int32(a.Rows), int32(b.Rows), int32(a.Planes), a.negativeTop(), int32(ceilDiv(a.rowBytes(), stageRowBytes)), p,
		a.popcounts.pointer, b.popcounts.pointer}
	const cluster = 2
	work := ceilDiv(a.Rows, cluster*tileRows) * ceilDiv(b.Rows, tileColumns)
	g := driver.Geometry{Grid: [3]int{cluster * min(work, d.multiprocessors/cluster)}, Block: [3]int{wgmmaThreads}, Shared: wgmmaShared, Cluster: cluster}
	return d.launch(kernel, g, mapA[:], mapB[:], driver.Bytes(&shape), epilogue)
}

// rowMap describes 128 rows of 1,024 bits of one plane of a.
func rowMap(a *Bits) (*driver.TensorMap, error) {
	return driver.NewTensorMap(a.data.pointer, []int{a.rowBytes(), a.Rows, a.Planes},
		[]int{a.rowBytes(), a.planeBytes()}, []int{stageRowBytes, tileRows, 1})
}

// columnMap describes half a tile of b, 128 rows of 1,024 bits, in an order that gives each thread `run` neighbouring columns of C.
// A thread t of four gets columns 8j + 2t + e of what lies in shared memory (e = 0, 1; j = 0 … 31). Row e + 2t + 8b of a group of
// 4 run rows in shared memory is therefore row e + run t + 2b of the group in b: three dimensions of strides 1, run and 2 rows.
func columnMap(b *Bits, run int) (*driver.TensorMap, error) {
	row, group := b.rowBytes(), 4*run
	return driver.NewTensorMap(b.data.pointer,
		[]int{row, 2, 4, run / 2, ceilDiv(b.Rows, group)},
		[]int{row, run * row, 2 * row, group * row},
		[]int{stageRowBytes, 2, 4, min(run/2, 16), max(1, tileColumns/2/group)})
}
