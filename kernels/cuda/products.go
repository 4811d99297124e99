//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// wgmmaCluster is the number of blocks that share what they load of B.
const wgmmaCluster = 2

// linearForm says how the dot products s of A's and B's rows follow from those of their entries, C, and from the rows'
// popcounts P, over k columns of which padding is zero on both sides, or on that of an encoding without offset:
//
//	s = product C + rowWeight P_a + columnWeight P_b + bias
//
// Let the integers behind entries x of A and y of B be f_a x - o_a and f_b y - o_b. Then s is the sum over k columns of
//
//	(f_a x - o_a) (f_b y - o_b) = f_a f_b x y - f_a o_b x - o_a f_b y + o_a o_b
//
// where Σ x = P_a + k perColumn_a, and likewise Σ y. For planes of ±1 this is x·w = k - 2 pop(x) - 2 pop(w) + 4 pop(x &
// w), and for planes of {0,1} with ±1 it is 2 pop(x & w) - pop(x).
//
// All arithmetic is that of int32, which may overflow on the way to a sum that fits. Both kernels' arguments have the
// form's factors.
type linearForm struct {
	product, rowWeight, columnWeight, bias int32
}

func linearFormOf(a, b *planes) (linearForm, error) {
	if a.cols != b.cols || a.bytes != b.bytes || b.signed {
		return linearForm{}, fmt.Errorf("product of %v and %v: columns must agree, both must be planes or both bytes, and "+
			"the second matrix must not be signed", a, b)
	}
	if largest := largestSum(a, b); largest >= 1<<31 {
		return linearForm{}, fmt.Errorf("product of %v and %v: sums to %d overflow 32 bits: compute less at once",
			a, b, largest)
	}
	x, y, k := a.encoding, b.encoding, a.cols
	rowWeight, columnWeight := -x.factor*y.offset, -x.offset*y.factor
	return linearForm{
		product: int32(x.factor * y.factor), rowWeight: int32(rowWeight), columnWeight: int32(columnWeight),
		bias: int32(k * (x.offset*y.offset + rowWeight*x.perColumn + columnWeight*y.perColumn)),
	}, nil
}

// sides returns a and b as Hopper's matrix units take them: where b has one plane as they are, and otherwise as bytes.
// One product of bytes then is faster than a product for each of b's planes. Other devices take any planes.
func (d *Device) sides(a, b *planes) (left, right *planes, err error) {
	if !d.hopper || a.bytes || b.bits == 1 {
		return a, b, nil
	}
	if left, err = d.spread("left side as bytes", a); err != nil {
		return nil, nil, err
	}
	right, err = d.spread("right side as bytes", b)
	return left, right, err
}

// exactFloat bounds the sums of planes that become floats in gemm_wgmma.cu (Binary::to_float). Sums of bytes have
// another conversion, without bounds.
const exactFloat = 1 << 22

func checkExactFloat(a, b *planes) error {
	if largest := largestSum(a, b); !a.bytes && largest >= exactFloat {
		return fmt.Errorf("product of %v and %v: sums to %d are more than the %d that become floats exactly: use fewer "+
			"bits or narrower layers", a, b, largest, exactFloat)
	}
	return nil
}

// largestSum bounds |s|.
func largestSum(a, b *planes) int { return a.encoding.largest * b.encoding.largest * a.cols }

// formOfSides returns the sides that a product of a and b multiplies, see sides, and their linear form.
func (d *Device) formOfSides(a, b *planes) (_, _ *planes, f linearForm, err error) {
	if a, b, err = d.sides(a, b); err == nil {
		f, err = linearFormOf(a, b)
	}
	return a, b, f, err
}

// multiplyAdd adds row i of a · row j of b to out[i*stride+j], int32.
func (d *Device) multiplyAdd(out cu.DevicePtr, stride int, a, b *planes) error {
	a, b, f, err := d.formOfSides(a, b)
	if err != nil {
		return err
	}
	if !d.hopper {
		return d.launch(plainGrid(a, b)).gemmMmaAdd(a.data, b.data, f.plain(a, b), out, stride)
	}
	kernel := either(a.bytes, launch.gemmWgmmaBytesAdd, launch.gemmWgmmaAdd)
	return multiplyHopper(d, kernel, d.splits(a, b), f, a, b, addInt32{out: out, stride: int64(stride)})
}

// affine is u = alpha * (rowScale * scale * s) - theta, each operation rounded to float32. A rowScale or alpha that is
// 0 counts as 1, a theta that is 0 as 0.
type affine struct {
	rowScale, alpha, theta cu.DevicePtr
	scale                  float32
}

// terms are what epilogues with `run` neighbouring channels a thread want of b's channels.
func (d *Device) terms(f linearForm, alpha, theta cu.DevicePtr, b *planes, run int) (cu.DevicePtr, error) {
	channels := roundUp(b.rows, kTileColumns)
	terms, err := d.scratch("terms of channels", 16*channels)
	if err != nil {
		return 0, err
	}
	return terms, d.launch(grid(channels/256)).channelTerms(alpha, theta, b.rows, b.popcounts, int(f.columnWeight),
		int(f.bias), run, terms)
}

// multiplyAffine computes residual + u in float32, or u where residual is 0, with u as affine says. It needs Hopper, an
// out and a residual at multiples of 16 bytes and a stride that is a multiple of 4 (see aligned).
func (d *Device) multiplyAffine(out, residual cu.DevicePtr, stride int, a, b *planes, u affine) error {
	a, b, f, err := d.formOfSides(a, b)
	if err == nil {
		err = checkExactFloat(a, b)
	}
	if err != nil {
		return err
	}
	epilogue := storeFloat32{
		rowScale: u.rowScale, scale: u.scale, residual: residual, out: out, stride: int64(stride),
	}
	if epilogue.terms, err = d.terms(f, u.alpha, u.theta, b, epilogue.kRun()); err != nil {
		return err
	}
	return multiplyHopper(d, either(a.bytes, launch.gemmWgmmaBytesFloat32, launch.gemmWgmmaFloat32), 1, f, a, b, epilogue)
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

// multiplyBFloats writes rowScale_i * unit * s to out in bfloat16, rows `stride` apart, for rounded gradients a. It
// needs Hopper, and rows and an out at multiples of 16 bytes.
func (d *Device) multiplyBFloats(out cu.DevicePtr, stride int, a, b *planes, rowScale cu.DevicePtr,
	unit float32) error {
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
	epilogue := storeBFloat16{rowScale: rowScale, scale: unit, out: out, stride: int64(stride)}
	kernel := either(a.bytes, launch.gemmWgmmaBytesBfloat16, launch.gemmWgmmaBfloat16)
	return multiplyHopper(d, kernel, 1, f, a, b, epilogue)
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

// multiplyInt24 writes the lower 16 bits of s to low and the upper 8 to high; s must fit. It needs what multiplyInt16
// needs.
func (d *Device) multiplyInt24(low, high cu.DevicePtr, stride int, a, b *planes) error {
	a, b, f, err := d.formOfSides(a, b)
	if err != nil {
		return err
	}
	kernel := either(a.bytes, launch.gemmWgmmaBytesInt24, launch.gemmWgmmaInt24)
	return multiplyHopper(d, kernel, 1, f, a, b, storeInt24{low: low, high: high, stride: int64(stride)})
}

// multiplyBits writes the sign bits of a part's channels, whose weights are b, and the part's mask, and adds to the
// popcounts. It needs Hopper, and a part that begins at a multiple of 64 channels.
func (d *Device) multiplyBits(to quantizedPart, a, b *planes, alpha, theta cu.DevicePtr) error {
	f, err := linearFormOf(a, b)
	if err != nil {
		return err
	}
	t, err := d.thresholds(alpha, theta, unitOf(a, b), a, b)
	if err != nil {
		return err
	}
	epilogue := storeBits{
		thresholds: t.centreRadius, negative: t.negative, sign: to.out.data, signPopcounts: to.out.popcounts,
		stride: int64(to.out.rowBytes() / 8),
	}
	if m := to.mask; m != nil {
		epilogue.mask, epilogue.maskStride = m.data+cu.DevicePtr(to.from/8), int64(m.rowBytes()/8)
	}
	return multiplyHopper(d, launch.gemmWgmmaBits, 1, f, a, b, epilogue)
}

// multiplyLevels is multiplyBits for levels of up to 4 bits, with the part's mask or factors (see inProduct).
func (d *Device) multiplyLevels(to quantizedPart, a, b *planes, alpha, theta cu.DevicePtr) error {
	f, err := linearFormOf(a, b)
	if err == nil {
		err = checkExactFloat(a, b)
	}
	if err != nil {
		return err
	}
	terms, err := d.terms(f, alpha, theta, b, storeSquares{}.kRun())
	if err != nil {
		return err
	}
	levels, unit := to.out.levels(0), unitOf(a, b)
	if !to.out.quantization.PlusMinus() {
		epilogue := storeSquares{terms: terms, to: levels, unit: unit, factorStride: int64(to.all)}
		if to.factors.at != 0 {
			epilogue.factors = to.factors.at + cu.DevicePtr(2*to.from)
		}
		return multiplyHopper(d, launch.gemmWgmmaSquares, 1, f, a, b, epilogue)
	}
	epilogue := storeMidRise{terms: terms, to: levels, unit: unit}
	if m := to.mask; m != nil {
		epilogue.mask, epilogue.maskWords = m.data+cu.DevicePtr(to.from/8), int64(m.words())
	}
	return multiplyHopper(d, launch.gemmWgmmaMidRise, 1, f, a, b, epilogue)
}

// plain is f as gemm_mma.cu's kernels take it.
func (f linearForm) plain(a, b *planes) plainProduct {
	return plainProduct{
		m: int32(a.rows), n: int32(b.rows), planes: int32(a.bits), negativeTop: either[int32](a.signed, 1, 0),
		columnPlanes: int32(b.bits), words: int32(a.words()),
		product: f.product, rowWeight: f.rowWeight, columnWeight: f.columnWeight, bias: f.bias,
		planeWords: int64(a.planeBytes / 4), columnPlaneWords: int64(b.planeBytes / 4),
		rowPopcounts: a.popcounts, columnPopcounts: b.popcounts,
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
