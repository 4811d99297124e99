//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// wgmmaCluster is the number of blocks that share what they load of B.
const wgmmaCluster = 2

// linearForm says how the dot products s of A's and B's rows follow from C = Σ_p weight_p popcount(a_p & w) and the
// rows' weighted popcounts P, over k columns of which padding is zero on both sides:
//
//	±1 planes:  s = 4C - 2 P_a - 2 (2^n-1) P_w + (2^n-1) k     because x·w = k - 2 pop(x) - 2 pop(w) + 4 pop(x & w)
//	signed:     s = 2C - P_a                                   because p·w = 2 pop(p & w) - pop(p)
//
// Both kernels' arguments have its factors.
type linearForm struct {
	product, rowWeight, columnWeight, bias int32
}

func linearFormOf(a, b *planes) (linearForm, error) {
	if a.cols != b.cols || b.bits != 1 || b.signed || a.signed && a.bits < 2 {
		return linearForm{}, fmt.Errorf("product of %v and %v: columns must agree, the second matrix must be one ±1 plane, "+
			"and a signed one must have two", a, b)
	}
	if largest := largestSum(a); largest >= 1<<31 {
		return linearForm{}, fmt.Errorf("product of %v and %v: sums to %d overflow 32 bits: compute less at once",
			a, b, largest)
	}
	if a.signed {
		return linearForm{product: 2, rowWeight: -1}, nil
	}
	levels := int32(1)<<a.bits - 1
	return linearForm{product: 4, rowWeight: -2, columnWeight: -2 * levels, bias: levels * int32(a.cols)}, nil
}

// exactFloat bounds the sums that gemm_wgmma.cu's exact_float converts to floats exactly.
const exactFloat = 1 << 22

func checkExactFloat(a, b *planes) error {
	if largest := largestSum(a); largest >= exactFloat {
		return fmt.Errorf("product of %v and %v: sums to %d are more than the %d that become floats exactly: use fewer "+
			"bits or narrower layers", a, b, largest, exactFloat)
	}
	return nil
}

// largestSum bounds |s| for products with a.
func largestSum(a *planes) int {
	if a.signed {
		return (1<<(a.bits-1) - 1) * a.cols
	}
	return (1<<a.bits - 1) * a.cols
}

// multiplyAdd adds factor * (row i of a · row j of b) to out[i*stride+j], int32.
func (d *Device) multiplyAdd(out cu.DevicePtr, stride int, a, b *planes, factor int) error {
	f, err := linearFormOf(a, b)
	if err != nil {
		return err
	}
	if !d.hopper {
		return d.launch(plainGrid(a, b)).gemmMmaAdd(a.data, b.data, f.plain(a, b), out, stride, factor)
	}
	epilogue := addInt32{out: out, stride: int64(stride), factor: int32(factor)}
	return multiplyHopper(d, launch.gemmWgmmaAdd, d.splits(a, b), f, a, b, epilogue)
}

// multiplyBytes adds Σ_k a_ik (2 b_jk + 1) of two matrices of bytes to out[i*stride+j], int32. It needs Hopper.
func (d *Device) multiplyBytes(out cu.DevicePtr, stride int, a, b *planes) error {
	epilogue := addInt32{out: out, stride: int64(stride), factor: 1}
	f := linearForm{product: 2, rowWeight: 1}
	return multiplyHopper(d, launch.gemmWgmmaBytesAdd, d.splits(a, b), f, a, b, epilogue)
}

// multiplyAffine computes residual + u in float32, or u where residual is 0, with u as affine says. It needs Hopper,
// pointers to multiples of 16 bytes and a stride that is a multiple of 4 (see aligned).
func (d *Device) multiplyAffine(out, residual cu.DevicePtr, stride int, a, b *planes, u affine) error {
	f, err := linearFormOf(a, b)
	if err == nil {
		err = checkExactFloat(a, b)
	}
	if err != nil {
		return err
	}
	epilogue := storeFloat32{affine: u, residual: residual, out: out, stride: int64(stride)}
	return multiplyHopper(d, launch.gemmWgmmaFloat32, 1, f, a, b, epilogue)
}

// aligned says whether float32 rows of the given stride can be read and written 16 bytes at a time.
func aligned(stride int, pointers ...cu.DevicePtr) bool {
	for _, p := range pointers {
		if p%16 != 0 {
			return false
		}
	}
	return stride%4 == 0
}

// multiplyFloats writes rowScale_i * scale * s to out, rows `stride` floats apart. rowScale may be 0.
func (d *Device) multiplyFloats(out cu.DevicePtr, stride int, a, b *planes, rowScale cu.DevicePtr,
	scale float32) error {
	if !d.hopper {
		f, err := linearFormOf(a, b)
		if err != nil {
			return err
		}
		return d.launch(plainGrid(a, b)).gemmMmaFloat32(a.data, b.data, f.plain(a, b), rowScale, scale, out, stride)
	}
	return d.multiplyAffine(out, 0, stride, a, b, affine{rowScale: rowScale, scale: scale})
}

// multiplyBFloats writes rowScale_i * s to out in bfloat16, rows `stride` apart, for rounded gradients a. It needs
// Hopper, and rows and an out at multiples of 16 bytes.
func (d *Device) multiplyBFloats(out cu.DevicePtr, stride int, a, b *planes, rowScale cu.DevicePtr) error {
	f, err := linearFormOf(a, b)
	if err != nil {
		return err
	}
	if err := checkExactFloat(a, b); err != nil {
		return err
	}
	if f.columnWeight != 0 || f.bias != 0 {
		return fmt.Errorf("product of %v and %v in bfloat16: it has terms of columns", a, b)
	}
	epilogue := storeBFloat16{rowScale: rowScale, out: out, stride: int64(stride)}
	return multiplyHopper(d, launch.gemmWgmmaBfloat16, 1, f, a, b, epilogue)
}

// multiplyInt16 writes s to out; s must fit. stride is a multiple of 8. It needs Hopper, and b's popcounts at a
// multiple of 16 bytes.
func (d *Device) multiplyInt16(out cu.DevicePtr, stride int, a, b *planes) error {
	f, err := linearFormOf(a, b)
	if err != nil {
		return err
	}
	return multiplyHopper(d, launch.gemmWgmmaInt16, 1, f, a, b, storeInt16{out: out, stride: int64(stride)})
}

// multiplyBits writes every channel's sign bits to sign, with popcounts, and |u| <= 1 to mask unless mask is nil. It
// needs Hopper.
func (d *Device) multiplyBits(sign, mask, a, b *planes, t thresholds) error {
	f, err := linearFormOf(a, b)
	if err != nil {
		return err
	}
	if err := d.clear(sign.popcounts, 4*sign.rows); err != nil {
		return err
	}
	epilogue := storeBits{
		thresholds: t.centreRadius, negative: t.negative, sign: sign.data, signPopcounts: sign.popcounts,
		stride: int64(sign.rowBytes() / 8),
	}
	if mask != nil {
		epilogue.mask = mask.data
	}
	return multiplyHopper(d, launch.gemmWgmmaBits, 1, f, a, b, epilogue)
}

// plain is f as gemm_mma.cu's kernels take it.
func (f linearForm) plain(a, b *planes) plainProduct {
	return plainProduct{
		m: int32(a.rows), n: int32(b.rows), planes: int32(a.bits), negativeTop: either[int32](a.signed, 1, 0),
		words: int32(a.words()), product: f.product, rowWeight: f.rowWeight, columnWeight: f.columnWeight, bias: f.bias,
		planeWords: int64(a.planeBytes / 4), rowPopcounts: a.popcounts, columnPopcounts: b.popcounts,
	}
}

// plainGrid is the grid of gemm_mma.cu's kernels.
func plainGrid(a, b *planes) driver.Geometry {
	return grid(ceilDiv(b.rows, 8*kTiles), ceilDiv(a.rows, 64))
}

// multiplyHopper launches one of the kernels of gemm_wgmma.cu. E is its epilogue.
func multiplyHopper[E interface{ kRun() int }](d *Device,
	kernel func(l launch, mapA, mapB driver.TensorMap, p product, epilogue E) error, splits int, f linearForm, a,
	b *planes, epilogue E) error {
	mapA, err := rowMap(a)
	if err != nil {
		return err
	}
	mapB, err := columnMap(b, epilogue.kRun())
	if err != nil {
		return err
	}
	p := product{
		m: int32(a.rows), n: int32(b.rows), planes: int32(a.bits), negativeTop: either[int32](a.signed, 1, 0),
		blocks: int32(ceilDiv(a.rowBytes(), kStageBytesOfRow)), splits: int32(splits),
		product: f.product, rowWeight: f.rowWeight, columnWeight: f.columnWeight, bias: f.bias,
		rowPopcounts: a.popcounts, columnPopcounts: b.popcounts,
	}
	g := grid(wgmmaCluster * min(tiles(a, b)*splits, d.multiprocessors/wgmmaCluster))
	g.Cluster = wgmmaCluster
	return kernel(d.launch(g), *mapA, *mapB, p, epilogue)
}

// tiles is the number of pieces of C that clusters compute.
func tiles(a, b *planes) int {
	return ceilDiv(a.rows, wgmmaCluster*kTileRows) * ceilDiv(b.rows, kTileColumns)
}

// splits divides the sum over k so that all multiprocessors are busy: it minimises the rounds of work. A round is
// counted in stages; an epilogue takes as long as six.
func (d *Device) splits(a, b *planes) int {
	const epilogue = 6
	clusters, blocks, best, least := d.multiprocessors/wgmmaCluster, ceilDiv(a.rowBytes(), kStageBytesOfRow), 1, 0
	for s := 1; s <= min(blocks, 128); s++ {
		each := ceilDiv(blocks, s)
		if (s-1)*each >= blocks {
			continue // the last piece would be empty
		}
		cost := ceilDiv(tiles(a, b)*s, clusters) * (each*a.bits + epilogue)
		if s == 1 || cost < least {
			best, least = s, cost
		}
	}
	return best
}

// rowMap describes 128 rows of 1,024 bits of one plane of a.
func rowMap(a *planes) (*driver.TensorMap, error) {
	return driver.NewTensorMap(a.data, []int{a.rowBytes(), a.rows, a.bits},
		[]int{a.rowBytes(), a.planeBytes}, []int{kStageBytesOfRow, kTileRows, 1})
}

// columnMap describes half a tile of b: 128 rows of 1,024 bits, in an order that gives each thread `run` neighbouring
// columns of C. The matrix unit gives thread t of four columns 8j + 2t + e of the tile in shared memory (e = 0, 1; j =
// 0 … 31). So row e + 2t + 8i of a group of 4 run rows in shared memory must be row e + run t + 2i of the group in b:
// three dimensions, of strides 1, run and 2 rows.
func columnMap(b *planes, run int) (*driver.TensorMap, error) {
	row, group := b.rowBytes(), 4*run
	return driver.NewTensorMap(b.data,
		[]int{row, 2, 4, run / 2, ceilDiv(b.rows, group)},
		[]int{row, run * row, 2 * row, group * row},
		[]int{kStageBytesOfRow, 2, 4, min(run/2, 16), max(1, kTileColumns/2/group)})
}

// rowMajor is a matrix of floats as a side of a product over its columns.
func rowMajor(data cu.DevicePtr, columns int) operand {
	return operand{data: data, row: int64(columns), k: 1}
}

// columnMajor is the same as a side of a product over its rows.
func columnMajor(data cu.DevicePtr, columns int) operand {
	return operand{data: data, row: 1, k: int64(columns)}
}

// multiplyDense computes out[i*stride+j] = Σ_k a(i,k) b(j,k), summed in float64.
func (d *Device) multiplyDense(out cu.DevicePtr, stride int, a, b operand, m, n, k int) error {
	return d.launch(denseGrid(m, n)).floatProduct(a, b, m, n, k, out, stride)
}

// multiplyDenseAdd adds the same to out, float64.
func (d *Device) multiplyDenseAdd(out cu.DevicePtr, stride int, a, b operand, m, n, k int) error {
	return d.launch(denseGrid(m, n)).floatProductAdd(a, b, m, n, k, out, stride)
}

// denseGrid is the grid of float_products.cu's kernels.
func denseGrid(m, n int) driver.Geometry { return grid(ceilDiv(n, kSide), ceilDiv(m, kSide)) }
