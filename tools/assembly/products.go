package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func products() {
	andCountsAVX2()
	tileAVX2()
}

// andCountsAVX2 counts the bits of four rows at a time, a nibble's by a shuffle (Muła).
func andCountsAVX2() {
	const rows = 4
	table := bytes32("nibbleCounts", func(i int) byte {
		n := i % 16
		return byte(n&1 + n>>1&1 + n>>2&1 + n>>3)
	})
	beginOther(avx2, "andCounts", "func(dst *int32, x, w *uint64, steps, quads int)", "for 4*quads rows of 4*steps words.")
	dst, x, w, size, quads := pointer("dst"), pointer("x"), pointer("w"), pointer("steps"), pointer("quads")
	SHLQ(Imm(5), size)
	mask, counts, zero := constant(NewDataAddr(Symbol{Name: "nibbles", Static: true}, 0)), constant(table), YMM()
	VPXOR(zero, zero, zero)
	Label("quad")
	row := [rows]GPVirtual{w, GP64(), GP64(), GP64()}
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: row[r-1], Index: size, Scale: 1}, row[r])
	}
	var sum [rows]VecVirtual
	for r := range sum {
		sum[r] = YMM()
		VPXOR(sum[r], sum[r], sum[r])
	}
	at := GP64()
	XORQ(at, at)
	Label("step")
	v := YMM()
	VMOVDQU(Mem{Base: x, Index: at, Scale: 1}, v)
	for r := range sum {
		low, high := YMM(), YMM()
		VPAND(Mem{Base: row[r], Index: at, Scale: 1}, v, low)
		VPSRLW(Imm(4), low, high)
		VPAND(mask, low, low)
		VPAND(mask, high, high)
		VPSHUFB(low, counts, low)
		VPSHUFB(high, counts, high)
		VPADDB(low, high, low)
		VPSADBW(zero, low, low)
		VPADDQ(low, sum[r], sum[r])
	}
	ADDQ(Imm(32), at)
	CMPQ(at, size)
	JLT(LabelRef("step"))
	// Transpose and add: four sums of four to one register of four.
	VPSLLQ(Imm(32), sum[1], sum[1])
	VPSLLQ(Imm(32), sum[3], sum[3])
	VPOR(sum[0], sum[1], sum[0])
	VPOR(sum[2], sum[3], sum[2])
	VPUNPCKLQDQ(sum[2], sum[0], sum[1])
	VPUNPCKHQDQ(sum[2], sum[0], sum[3])
	VPADDD(sum[1], sum[3], sum[0])
	half := XMM()
	VEXTRACTI128(Imm(1), sum[0], half)
	VPADDD(sum[0].AsX(), half, half)
	VMOVDQU(half, Mem{Base: dst})
	ADDQ(Imm(16), dst)
	LEAQ(Mem{Base: row[3], Index: size, Scale: 1}, w)
	DECQ(quads)
	JNZ(LabelRef("quad"))
	end()
}

// tileAVX2 keeps 4 × 8 sums in registers.
func tileAVX2() {
	const rows = 4
	beginOther(avx2, "tile", "func(c *float64, ldc int, a, b *float64, k int)", "with four lanes.")
	c, ldc, a, b, k := pointer("c"), pointer("ldc"), pointer("a"), pointer("b"), pointer("k")
	SHLQ(Imm(3), ldc)
	row := [rows]GPVirtual{c, GP64(), GP64(), GP64()}
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: row[r-1], Index: ldc, Scale: 1}, row[r])
	}
	var sum [rows][2]VecVirtual
	for r := range sum {
		for i := range sum[r] {
			sum[r][i] = YMM()
			VMOVUPD(Mem{Base: row[r], Disp: 32 * i}, sum[r][i])
		}
	}
	Label("k")
	columns := [2]VecVirtual{YMM(), YMM()}
	for i := range columns {
		VMOVUPD(Mem{Base: b, Disp: 32 * i}, columns[i])
	}
	for r := range sum {
		v := YMM()
		VBROADCASTSD(Mem{Base: a, Disp: 8 * r}, v)
		for i := range columns {
			VFMADD231PD(columns[i], v, sum[r][i])
		}
	}
	ADDQ(Imm(64), b)
	ADDQ(Imm(32), a)
	DECQ(k)
	JNZ(LabelRef("k"))
	for r := range sum {
		for i := range sum[r] {
			VMOVUPD(sum[r][i], Mem{Base: row[r], Disp: 32 * i})
		}
	}
	end()
}
