package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// spread returns a function that spreads four sums of two integers each, the lower and the upper two of four, over the
// 16 entries of tables: those of the eight integers j of 32.
type spread func() func(j int, lower, upper VecVirtual) (a, b VecVirtual)

func makeTables() {
	tables(avx2, func() func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
		low := constant(bytes32("lowBits", func(n int) byte { return byte(n%4 + n/16*4) }))
		high := constant(bytes32("highBits", func(n int) byte { return byte(n/4%4 + n/16*4) }))
		return func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
			a, b = YMM(), YMM()
			VPERMQ(Imm(uint64(0x55*j)), lower, a)
			VPERMQ(Imm(uint64(0x55*j)), upper, b)
			VPSHUFB(low, a, a)
			VPSHUFB(high, b, b)
			return a, b
		}
	})
}

func wideMakeTables() {
	tables(avx512, func() func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
		return func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
			a = constant(bytes32(fmt.Sprintf("lowBits%d", j), func(n int) byte { return byte(8*j + n%4 + n/16*4) }))
			b = constant(bytes32(fmt.Sprintf("highBits%d", j), func(n int) byte { return byte(8*j + n/4%4 + n/16*4) }))
			VPERMB(lower, a, a)
			VPERMB(upper, b, b)
			return a, b
		}
	})
}

// tables: the sum that four bits choose is one of four sums of the first two integers plus one of four sums of the
// other two. A register holds the tables of eight integers, a lane for each four.
func tables(set string, spread spread) {
	beginOther(set, "makeTables", "func(dst *byte, q *int8, n int) (sum int32)", "for n integers, a multiple of 32.")
	dst, q, n := pointer("dst"), pointer("q"), pointer("n")
	zero, total, one := YMM(), YMM(), constant(bytes32("ones", all[byte](1)))
	lowest := constant(bytes32("first", func(n int) byte { return byte(n % 16 &^ 3) }))
	entries := spread()
	inner := constant(words8("middleBytes", all[uint32](0x00ffff00)))
	VPXOR(zero, zero, zero)
	VPXOR(total, total, total)

	Label("block")
	values, negative, absolute, t := YMM(), YMM(), YMM(), YMM()
	VMOVDQU(Mem{Base: q}, values)
	VPABSB(values, absolute)
	VPSADBW(zero, absolute, absolute)
	VPADDQ(absolute, total, total)
	// The entry that no bits choose, in all bytes of 32 bits.
	VPSUBB(values, zero, negative)
	VPMAXSB(zero, negative, negative)
	VPMADDUBSW(one, negative, negative)
	VPSRLD(Imm(16), negative, t)
	VPADDD(t, negative, negative)
	VPSHUFB(lowest, negative, negative)
	// Bytes 0, q0, q1, q0+q1; and the same of q2 and q3.
	pairs, upper, lower := YMM(), YMM(), YMM()
	VPMADDUBSW(values, one, pairs)
	VPSLLD(Imm(8), values, lower)
	VPAND(inner, lower, lower)
	VPSLLD(Imm(24), pairs, t)
	VPOR(t, lower, lower)
	VPADDB(negative, lower, lower)
	VPSRLD(Imm(8), values, upper)
	VPAND(inner, upper, upper)
	VPSRLD(Imm(16), pairs, pairs)
	VPSLLD(Imm(24), pairs, pairs)
	VPOR(pairs, upper, upper)
	for j := range 4 {
		a, b := entries(j, lower, upper)
		VPADDB(b, a, a)
		VMOVDQU(a, Mem{Base: dst, Disp: lookupRows * tableSize * j})
	}
	ADDQ(Imm(32), q)
	ADDQ(U32(4*lookupRows*tableSize), dst)
	SUBQ(Imm(32), n)
	JNZ(LabelRef("block"))
	half, other, result := XMM(), XMM(), GP32()
	VEXTRACTI128(Imm(1), total, half)
	VPADDQ(half, total.AsX(), half)
	VPSRLDQ(Imm(8), half, other)
	VPADDQ(other, half, half)
	VMOVD(half, result)
	Store(result, ReturnIndex(0))
	end()
}
