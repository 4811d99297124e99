package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// weighLevels: the bits of four values are interleaved, so that four bits are an index. The products with powers of two
// are exact, so fused sums are the same.
func weighLevels() {
	beginOther(avx2, "weighLevels", "func(dst *float32, values *uint64, at *[4]int, stride, planes int, "+
		"sums *[16]float32, unit float32, n int)", "for n values, a multiple of 16.")
	dst, values, at := pointer("dst"), pointer("values"), pointer("at")
	stride, planes, sums, n := pointer("stride"), pointer("planes"), pointer("sums"), pointer("n")
	SHLQ(Imm(3), stride)
	low, high, unit := YMM(), YMM(), broadcast("unit")
	VMOVUPS(Mem{Base: sums}, low)
	VMOVUPS(Mem{Base: sums, Disp: 32}, high)
	nibble := constant(words8("nibbleOf", func(i int) uint32 { return uint32(4 * i) }))
	one := constant(words8("float1", all(math.Float32bits(1))))
	var row [4]GPVirtual
	for r := range row {
		row[r] = GP64()
		MOVQ(Mem{Base: at, Disp: 8 * r}, row[r])
		LEAQ(Mem{Base: values, Index: row[r], Scale: 8}, row[r])
	}
	everyFourth := GP64()
	MOVQ(U64(0x1111111111111111), everyFourth)
	Label("values")
	var sum [2]VecVirtual
	for i := range sum {
		sum[i] = YMM()
		VXORPS(sum[i], sum[i], sum[i])
	}
	factor, plane, left := YMM(), GP64(), GP64()
	VMOVAPS(one, factor)
	XORQ(plane, plane)
	MOVQ(planes, left)
	Label("plane")
	index, part := GP64(), GP64()
	for r := 3; r >= 0; r-- {
		to := part
		if r == 3 {
			to = index
		}
		MOVWQZX(Mem{Base: row[r], Index: plane, Scale: 1}, to)
		PDEPQ(everyFourth, to, to)
		if r < 3 {
			LEAQ(Mem{Base: part, Index: index, Scale: 2}, index)
		}
	}
	for i := range sum {
		v, a, b := YMM(), YMM(), YMM()
		if i > 0 {
			SHRQ(Imm(32), index)
		}
		VMOVD(index.As32(), v.AsX())
		VPBROADCASTD(v.AsX(), v)
		VPSRLVD(nibble, v, v)
		VPERMPS(low, v, a)
		VPERMPS(high, v, b)
		VPSLLD(Imm(28), v, v)
		VBLENDVPS(v, b, a, a)
		VFMADD231PS(factor, a, sum[i])
	}
	VADDPS(factor, factor, factor)
	ADDQ(stride, plane)
	DECQ(left)
	JNZ(LabelRef("plane"))
	for i := range sum {
		VMULPS(unit, sum[i], sum[i])
		VMOVUPS(sum[i], Mem{Base: dst, Disp: 32 * i})
	}
	for r := range row {
		ADDQ(Imm(2), row[r])
	}
	ADDQ(Imm(64), dst)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("values"))
	end()
}
