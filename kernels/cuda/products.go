//go:build cuda

package cuda

import (
	"fmt"

	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// The tile of gemm_wgmma.cu: a stage is 1,024 bits of 128 rows of A or of 256 rows of B.
const (
	tileRows, tileColumns = 128, 256
	stageRowBytes         = 128
	wgmmaStagesA          = 5
	wgmmaStagesB          = 4
	wgmmaColumnBytes      = 4 * 8 * tileColumns // what epilogues have of four tiles' columns
	wgmmaShared           = (wgmmaStagesA*tileRows+wgmmaStagesB*tileColumns)*stageRowBytes + wgmmaColumnBytes + 1024
	wgmmaThreads          = 384
	wgmmaCluster          = 2
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

func productOf(a, b *planes) (product, error) {
	if a.cols != b.cols || b.bits != 1 || b.signed || a.signed && a.bits < 2 {
		return product{}, fmt.Errorf("product of %v and %v: columns must agree, the second matrix be one ±1 plane and a signed one have two", a, b)
	}
	if largest := largestSum(a); largest >= 1<<31 {
		return product{}, fmt.Errorf("product of %v and %v: sums to %d overflow 32 bits: use a smaller batch", a, b, largest)
	}
	if a.signed {
		return product{product: 2, rowWeight: -1}, nil
	}
	levels := int32(1)<<a.bits - 1
	return product{product: 4, rowWeight: -2, columnWeight: -2 * levels, bias: levels * int32(a.cols)}, nil
}

// exactFloat bounds the sums that gemm_wgmma.cu's exact_float turns into floats.
const exactFloat = 1 << 22

func checkExactFloat(a, b *planes) error {
	if largest := largestSum(a); largest >= exactFloat {
		return fmt.Errorf("product of %v and %v: sums to %d are more than the %d that become floats exactly: use fewer bits or narrower layers", a, b, largest, exactFloat)
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

func negativeTop(a *planes) int32 {
	if a.signed {
		return 1
	}
	return 0
}

// multiplyAdd adds factor * (row i of a · row j of b) to out[i*stride+j], int32.
func (d *Device) multiplyAdd(out cu.DevicePtr, stride int, a, b *planes, factor int) error {
	if !d.hopper {
		return d.multiplyPlain("gemm_mma_add", a, b, arg(out), arg(int64(stride)), arg(int32(factor)))
	}
	p, err := productOf(a, b)
	if err != nil {
		return err
	}
	epilogue := addInt32{out, int64(stride), int32(factor)}
	return d.multiplyHopper("gemm_wgmma_add", 4, d.splits(a, b), p, a, b, driver.Bytes(&epilogue))
}

// multiplyBytes adds Σ_k a_ik (2 b_jk + 1) of two matrices of bytes to out[i*stride+j], int32. It needs Hopper.
func (d *Device) multiplyBytes(out cu.DevicePtr, stride int, a, b *planes) error {
	epilogue := addInt32{out, int64(stride), 1}
	return d.multiplyHopper("gemm_wgmma_bytes_add", 4, d.splits(a, b), product{product: 2, rowWeight: 1}, a, b, driver.Bytes(&epilogue))
}

// addInt32 is gemm_wgmma.cu's AddInt32.
type addInt32 struct {
	out    cu.DevicePtr
	stride int64
	factor int32
}

// affine turns integer dot products into u = Alpha_j * (RowScale_i * Scale * s) - Theta_j, one rounding each. A zero pointer leaves
// its factor or term out.
type affine struct {
	rowScale, alpha, theta cu.DevicePtr
	scale                  float32
}

// multiplyAffine computes residual + u, or u where residual is 0, in float32. It needs Hopper, pointers to multiples of 16 bytes and a
// stride that is a multiple of 4: see aligned.
func (d *Device) multiplyAffine(out, residual cu.DevicePtr, stride int, a, b *planes, f affine) error {
	p, err := productOf(a, b)
	if err == nil {
		err = checkExactFloat(a, b)
	}
	if err != nil {
		return err
	}
	epilogue := struct {
		affine
		residual, out cu.DevicePtr
		stride        int64
	}{f, residual, out, int64(stride)}
	return d.multiplyHopper("gemm_wgmma_float32", 4, 1, p, a, b, driver.Bytes(&epilogue))
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
func (d *Device) multiplyFloats(out cu.DevicePtr, stride int, a, b *planes, rowScale cu.DevicePtr, scale float32) error {
	if !d.hopper {
		return d.multiplyPlain("gemm_mma_float32", a, b, arg(rowScale), arg(scale), arg(out), arg(int64(stride)))
	}
	return d.multiplyAffine(out, 0, stride, a, b, affine{rowScale: rowScale, scale: scale})
}

// multiplyBFloats writes rowScale_i * s to out in bfloat16, rows `stride` apart, for rounded gradients a. It needs Hopper, rows and an
// out that are multiples of 16 bytes.
func (d *Device) multiplyBFloats(out cu.DevicePtr, stride int, a, b *planes, rowScale cu.DevicePtr) error {
	p, err := productOf(a, b)
	if err != nil {
		return err
	}
	if err := checkExactFloat(a, b); err != nil {
		return err
	}
	if p.columnWeight != 0 || p.bias != 0 {
		return fmt.Errorf("product of %v and %v in bfloat16: it has terms of columns", a, b)
	}
	epilogue := struct {
		rowScale, out cu.DevicePtr
		stride        int64
	}{rowScale, out, int64(stride)}
	return d.multiplyHopper("gemm_wgmma_bfloat16", 8, 1, p, a, b, driver.Bytes(&epilogue))
}

// multiplyInt16 writes s, which must fit, to out; stride is a multiple of 8. It needs Hopper, and b's popcounts at a multiple of 16 bytes.
func (d *Device) multiplyInt16(out cu.DevicePtr, stride int, a, b *planes) error {
	p, err := productOf(a, b)
	if err != nil {
		return err
	}
	epilogue := struct {
		out    cu.DevicePtr
		stride int64
	}{out, int64(stride)}
	return d.multiplyHopper("gemm_wgmma_int16", 8, 1, p, a, b, driver.Bytes(&epilogue))
}

// multiplyBits writes the output bits of every channel to sign, with popcounts, and, unless pass is nil, whether |u| <= 1 to pass. It
// needs Hopper.
func (d *Device) multiplyBits(sign, pass, a, b *planes, t thresholds) error {
	p, err := productOf(a, b)
	if err != nil {
		return err
	}
	if err := d.clear(sign.popcounts, 4*sign.rows); err != nil {
		return err
	}
	epilogue := struct {
		thresholds
		sign, pass, popcounts cu.DevicePtr
		stride                int64
	}{t, sign.data, 0, sign.popcounts, int64(sign.rowBytes() / 8)}
	if pass != nil {
		epilogue.pass = pass.data
	}
	return d.multiplyHopper("gemm_wgmma_bits", 64, 1, p, a, b, driver.Bytes(&epilogue))
}

func (d *Device) multiplyPlain(kernel string, a, b *planes, rest ...[]byte) error {
	p, err := productOf(a, b)
	if err != nil {
		return err
	}
	shape := struct {
		m, n, planes, negativeTop, words int32
		product
		planeWords                    int64
		rowPopcounts, columnPopcounts cu.DevicePtr
	}{int32(a.rows), int32(b.rows), int32(a.bits), negativeTop(a), int32(a.words()), p, int64(a.planeBytes / 4), a.popcounts, b.popcounts}
	return d.launch(kernel, grid(128, ceilDiv(b.rows, 32), ceilDiv(a.rows, 64)),
		append([][]byte{arg(a.data), arg(b.data), driver.Bytes(&shape)}, rest...)...)
}

// multiplyHopper launches one of the kernels of gemm_wgmma.cu; run is the kRun of its epilogue.
func (d *Device) multiplyHopper(kernel string, run, splits int, p product, a, b *planes, epilogue []byte) error {
	mapA, err := rowMap(a)
	if err != nil {
		return err
	}
	mapB, err := columnMap(b, run)
	if err != nil {
		return err
	}
	shape := struct {
		m, n, planes, negativeTop, blocks, splits int32
		product
		rowPopcounts, columnPopcounts cu.DevicePtr
	}{int32(a.rows), int32(b.rows), int32(a.bits), negativeTop(a), int32(ceilDiv(a.rowBytes(), stageRowBytes)), int32(splits), p,
		a.popcounts, b.popcounts}
	g := grid(wgmmaThreads, wgmmaCluster*min(tiles(a, b)*splits, d.multiprocessors/wgmmaCluster))
	g.Shared, g.Cluster = wgmmaShared, wgmmaCluster
	return d.launch(kernel, g, mapA[:], mapB[:], driver.Bytes(&shape), epilogue)
}

// tiles is the number of pieces of C that clusters compute.
func tiles(a, b *planes) int {
	return ceilDiv(a.rows, wgmmaCluster*tileRows) * ceilDiv(b.rows, tileColumns)
}

// splits divides the sum over k such that all multiprocessors are busy: it minimises the rounds of work, counted in stages, with what
// an epilogue takes in the same unit.
func (d *Device) splits(a, b *planes) int {
	const epilogue = 6
	clusters, blocks, best, least := d.multiprocessors/wgmmaCluster, ceilDiv(a.rowBytes(), stageRowBytes), 1, 0
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
		[]int{a.rowBytes(), a.planeBytes}, []int{stageRowBytes, tileRows, 1})
}

// columnMap describes half a tile of b, 128 rows of 1,024 bits, in an order that gives each thread `run` neighbouring columns of C.
// A thread t of four gets columns 8j + 2t + e of what lies in shared memory (e = 0, 1; j = 0 … 31). Row e + 2t + 8b of a group of
// 4 run rows in shared memory is therefore row e + run t + 2b of the group in b: three dimensions of strides 1, run and 2 rows.
func columnMap(b *planes, run int) (*driver.TensorMap, error) {
	row, group := b.rowBytes(), 4*run
	return driver.NewTensorMap(b.data,
		[]int{row, 2, 4, run / 2, ceilDiv(b.rows, group)},
		[]int{row, run * row, 2 * row, group * row},
		[]int{stageRowBytes, 2, 4, min(run/2, 16), max(1, tileColumns/2/group)})
}

// operand is one side of a product of floats: element (i, k) lies at i*row + k*k.
type operand struct {
	data   cu.DevicePtr
	row, k int64
}

// multiplyDense computes out[i*stride+j] = Σ_k a(i,k) b(j,k), summed in float64.
func (d *Device) multiplyDense(out cu.DevicePtr, stride int, a, b operand, m, n, k int) error {
	return d.launchDense("float_product", out, stride, a, b, m, n, k)
}

// multiplyDenseAdd adds the same to out, float64.
func (d *Device) multiplyDenseAdd(out cu.DevicePtr, stride int, a, b operand, m, n, k int) error {
	return d.launchDense("float_product_add", out, stride, a, b, m, n, k)
}

func (d *Device) launchDense(kernel string, out cu.DevicePtr, stride int, a, b operand, m, n, k int) error {
	return d.launch(kernel, grid(256, ceilDiv(n, 64), ceilDiv(m, 64)), driver.Bytes(&a), driver.Bytes(&b),
		arg(int32(m)), arg(int32(n)), arg(int32(k)), arg(out), arg(int64(stride)))
}
