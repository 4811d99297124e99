package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wideByteProducts keeps the sums of four rows and 32 columns in 16 registers, in 16 bits. After flush groups they are
// added to sums of 32 bits in memory.
func wideByteProducts() {
	const rows, columns = 4, 4 // registers
	beginOther(avx512, "byteProducts", "func(dst *int32, panel *byte, q *int8, qStride, groups, flush int)",
		"for one group or more.")
	dst, panel, stride := pointer("dst"), pointer("panel"), pointer("qStride")
	groups, flush := pointer("groups"), pointer("flush")
	row := [rows]GPVirtual{pointer("q"), GP64(), GP64(), GP64()}
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: row[r-1], Index: stride, Scale: 1}, row[r])
	}
	at := func(r, i int) Mem { return Mem{Base: dst, Disp: 64 * (r*columns + i)} }
	ones, zero := wideConstant(quads8("ones16", 0x0001000100010001)), wideZero()
	for r := range rows {
		for i := range columns {
			VMOVDQU64(zero, at(r, i))
		}
	}
	Label("part")
	var sum [rows][columns]VecVirtual
	for r := range sum {
		for i := range sum[r] {
			sum[r][i] = ZMM()
			VPXORD(sum[r][i], sum[r][i], sum[r][i])
		}
	}
	left := GP64()
	MOVQ(groups, left)
	CMPQ(left, flush)
	CMOVQGT(flush, left)
	SUBQ(left, groups)
	Label("group")
	var x [columns]VecVirtual
	for i := range x {
		x[i] = ZMM()
		VMOVDQU64(Mem{Base: panel, Disp: 64 * i}, x[i])
	}
	for r := range sum {
		q := ZMM()
		VPBROADCASTQ(Mem{Base: row[r]}, q)
		for i := range x {
			pairs := ZMM()
			VPMADDUBSW(q, x[i], pairs)
			VPADDW(pairs, sum[r][i], sum[r][i])
		}
		ADDQ(Imm(8), row[r])
	}
	ADDQ(U32(256), panel)
	DECQ(left)
	JNZ(LabelRef("group"))
	for r := range sum {
		for i := range sum[r] {
			VPMADDWD(ones, sum[r][i], sum[r][i])
			VPADDD(at(r, i), sum[r][i], sum[r][i])
			VMOVDQU64(sum[r][i], at(r, i))
		}
	}
	TESTQ(groups, groups)
	JNZ(LabelRef("part"))
	end()
}
