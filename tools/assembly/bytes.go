package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// byteMultiplier multiplies four rows with a panel of 32 columns, of which it passes over some at a time.
type byteMultiplier struct {
	set      string
	size     int // bytes of a register
	columns  int // registers that hold a group of the columns that are passed over together
	register func() VecVirtual
	zero     func(v VecVirtual)
	move     func(from, to Op)
	ones     Mem // of 16 bits
}

func byteProducts() {
	byteMultiplier{
		set: avx2, size: 32, columns: 2,
		register: func() VecVirtual { return YMM() },
		zero:     func(v VecVirtual) { VPXOR(v, v, v) },
		move:     VMOVDQU,
		ones:     quads4("ones16", all[uint64](0x0001000100010001)),
	}.write()
}

func wideByteProducts() {
	byteMultiplier{
		set: avx512, size: 64, columns: 4,
		register: func() VecVirtual { return ZMM() },
		zero:     func(v VecVirtual) { VPXORD(v, v, v) },
		move:     func(from, to Op) { VMOVDQU64(from, to) },
		ones:     quads8("wideOnes16", 0x0001000100010001),
	}.write()
}

// write writes a loop over columns, which keeps the sums of four rows in registers, in 16 bits. After flush groups they
// are added to sums of 32 bits in memory.
func (b byteMultiplier) write() {
	const rows, group = 4, 256 // bytes of a group of all columns, and of a row of sums
	beginOther(b.set, "byteProducts", "func(dst *int32, panel *byte, q *int8, qStride, groups, flush int)",
		"for one group or more.")
	dst, panel, stride := pointer("dst"), pointer("panel"), pointer("qStride")
	groups, flush := pointer("groups"), pointer("flush")
	row := [rows]GPVirtual{pointer("q"), GP64(), GP64(), GP64()}
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: row[r-1], Index: stride, Scale: 1}, row[r])
	}
	ones, passes := b.register(), GP64()
	b.move(b.ones, ones)
	MOVQ(U32(uint64(group/(b.size*b.columns))), passes)
	Label("columns")
	none, from, k, later := b.register(), GP64(), GP64(), GP64()
	b.zero(none)
	b.sums(rows, func(r, i int) { b.move(none, b.sum(dst, group, r, i)) })
	MOVQ(panel, from)
	MOVQ(groups, later)
	XORQ(k, k)
	Label("part")
	var sum [rows][]VecVirtual
	b.sums(rows, func(r, i int) {
		sum[r] = append(sum[r], b.register())
		b.zero(sum[r][i])
	})
	left := GP64()
	MOVQ(later, left)
	CMPQ(left, flush)
	CMOVQGT(flush, left)
	SUBQ(left, later)
	Label("group")
	b.group(from, k, row[:], sum[:])
	ADDQ(Imm(8), k)
	ADDQ(U32(group), from)
	DECQ(left)
	JNZ(LabelRef("group"))
	b.sums(rows, func(r, i int) {
		VPMADDWD(ones, sum[r][i], sum[r][i])
		VPADDD(b.sum(dst, group, r, i), sum[r][i], sum[r][i])
		b.move(sum[r][i], b.sum(dst, group, r, i))
	})
	TESTQ(later, later)
	JNZ(LabelRef("part"))
	ADDQ(U32(uint64(b.size*b.columns)), dst)
	ADDQ(U32(uint64(b.size*b.columns)), panel)
	DECQ(passes)
	JNZ(LabelRef("columns"))
	end()
}

// group adds the products of a group at byte k of the rows.
func (b byteMultiplier) group(from, k GPVirtual, row []GPVirtual, sum [][]VecVirtual) {
	x := make([]VecVirtual, b.columns)
	for i := range x {
		x[i] = b.register()
		b.move(Mem{Base: from, Disp: b.size * i}, x[i])
	}
	for r := range row {
		q := b.register()
		VPBROADCASTQ(Mem{Base: row[r], Index: k, Scale: 1}, q)
		for i := range x {
			pairs := b.register()
			VPMADDUBSW(q, x[i], pairs)
			VPADDW(pairs, sum[r][i], sum[r][i])
		}
	}
}

// sums calls f for each register of each row.
func (b byteMultiplier) sums(rows int, f func(r, i int)) {
	for r := range rows {
		for i := range b.columns {
			f(r, i)
		}
	}
}

// sum is where register i of a row's sums lies.
func (b byteMultiplier) sum(dst GPVirtual, bytesOfRow, r, i int) Mem {
	return Mem{Base: dst, Disp: bytesOfRow*r + b.size*i}
}
