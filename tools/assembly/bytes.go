package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// byteProducts goes through the panel four times, for eight columns each time. It keeps the sums of four rows in eight
// registers, in 16 bits. After flush groups they are added to sums of 32 bits in memory.
func byteProducts() {
	const rows, columns = 4, 2 // registers
	beginOther(avx2, "byteProducts", "func(dst *int32, panel *byte, q *int8, qStride, groups, flush int)",
		"for one group or more.")
	dst, panel, stride := pointer("dst"), pointer("panel"), pointer("qStride")
	groups, flush := pointer("groups"), pointer("flush")
	row := [rows]GPVirtual{pointer("q"), GP64(), GP64(), GP64()}
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: row[r-1], Index: stride, Scale: 1}, row[r])
	}
	at := func(r, i int) Mem { return Mem{Base: dst, Disp: 256*r + 32*i} }
	ones := constant(quads4("ones16", all[uint64](0x0001000100010001)))
	times := GP64()
	MOVQ(U32(4), times)
	Label("columns")
	from, k, later, zero := GP64(), GP64(), GP64(), YMM()
	MOVQ(panel, from)
	MOVQ(groups, later)
	XORQ(k, k)
	VPXOR(zero, zero, zero)
	for r := range rows {
		for i := range columns {
			VMOVDQU(zero, at(r, i))
		}
	}
	Label("part")
	var sum [rows][columns]VecVirtual
	for r := range sum {
		for i := range sum[r] {
			sum[r][i] = YMM()
			VPXOR(sum[r][i], sum[r][i], sum[r][i])
		}
	}
	left := GP64()
	MOVQ(later, left)
	CMPQ(left, flush)
	CMOVQGT(flush, left)
	SUBQ(left, later)
	Label("group")
	var x [columns]VecVirtual
	for i := range x {
		x[i] = YMM()
		VMOVDQU(Mem{Base: from, Disp: 32 * i}, x[i])
	}
	for r := range sum {
		q := YMM()
		VPBROADCASTQ(Mem{Base: row[r], Index: k, Scale: 1}, q)
		for i := range x {
			pairs := YMM()
			VPMADDUBSW(q, x[i], pairs)
			VPADDW(pairs, sum[r][i], sum[r][i])
		}
	}
	ADDQ(Imm(8), k)
	ADDQ(U32(256), from)
	DECQ(left)
	JNZ(LabelRef("group"))
	for r := range sum {
		for i := range sum[r] {
			VPMADDWD(ones, sum[r][i], sum[r][i])
			VPADDD(at(r, i), sum[r][i], sum[r][i])
			VMOVDQU(sum[r][i], at(r, i))
		}
	}
	TESTQ(later, later)
	JNZ(LabelRef("part"))
	ADDQ(Imm(64), dst)
	ADDQ(Imm(64), panel)
	DECQ(times)
	JNZ(LabelRef("columns"))
	end()
}

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
	ones, zero := wideConstant(quads8("wideOnes16", 0x0001000100010001)), wideZero()
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
