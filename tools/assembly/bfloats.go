package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// toBFloat rounds floats to bfloat16, to nearest, ties to even.
type toBFloat struct{ belowHalf, lastBit, quiet Mem }

func newToBFloat() toBFloat {
	return toBFloat{
		words8("belowHalf", all[uint32](0x7fff)), words8("lastBit", all[uint32](1)), words8("quiet", all[uint32](1<<22)),
	}
}

// number rounds values that are not NaN. The results are the lower 16 bits of the lanes.
func (b toBFloat) number(v VecVirtual) VecVirtual {
	up := YMM()
	VPSRLD(Imm(16), v, up)
	VPAND(b.lastBit, up, up)
	VPADDD(b.belowHalf, up, up)
	VPADDD(v, up, up)
	VPSRLD(Imm(16), up, up)
	return up
}

// store16 stores the lower 16 bits of the lanes of a, then of b.
func store16(to Mem, a, b VecVirtual) {
	v := YMM()
	VPACKUSDW(b, a, v)
	VPERMQ(Imm(0xd8), v, v)
	VMOVDQU(v, to)
}

// widened are eight bfloat16 as floats.
func widened(from Mem) VecVirtual {
	v := YMM()
	VPMOVZXWD(from, v)
	VPSLLD(Imm(16), v, v)
	return v
}

func roundBFloats() {
	begin(avx2, "roundBFloats", 16)
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	round := newToBFloat()
	matrixLoop(dst, 1, src, 2, n, 16, func(i GPVirtual) {
		var rounded [2]VecVirtual
		for j := range rounded {
			v, nan, isNaN := YMM(), YMM(), YMM()
			VMOVUPS(at4(src, i, 32*j), v)
			VCMPPS(unordered, v, v, isNaN)
			VPOR(round.quiet, v, nan)
			VPSRLD(Imm(16), nan, nan)
			VBLENDVPS(isNaN, nan, round.number(v), v)
			rounded[j] = v
		}
		store16(at2(dst, i), rounded[0], rounded[1])
	})
	end()
}

func widenBFloats() {
	begin(avx2, "widenBFloats", 8)
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	matrixLoop(dst, 2, src, 1, n, 8, func(i GPVirtual) { VMOVUPS(widened(at2(src, i)), at4(dst, i, 0)) })
	end()
}

func scaleToBFloats() {
	begin(avx2, "scaleToBFloats", 16, finite("unit"))
	dst, sums, n := pointer("dst"), pointer("sums"), pointer("n")
	offset, unit, round := broadcast("offset"), broadcast("unit"), newToBFloat()
	loop(n, 16, func(i GPVirtual) {
		a, b := scaled(sums, i, 0, offset, unit), scaled(sums, i, 32, offset, unit)
		store16(at2(dst, i), round.number(a), round.number(b))
	})
	end()
}

// wideToBFloat rounds 32 floats. A permutation takes the upper 16 bits of two registers of results.
type wideToBFloat struct{ belowHalf, lastBit, unit, upper VecVirtual }

func newWideToBFloat() wideToBFloat {
	var odd [8]uint64
	for i := range 32 {
		odd[i/4] |= uint64(2*i+1) << (i % 4 * 16)
	}
	return wideToBFloat{
		wideConstant(quads8("belowHalf16", 0x7fff00007fff)), wideConstant(quads8("lastBit16", 0x1000000010000)),
		wideConstant(quads8("unit16", 0x100000001)), wideConstant(quads8("upperHalves", odd[:]...)),
	}
}

// number rounds values that are not NaN in place, to the upper 16 bits of the lanes.
func (b wideToBFloat) number(v VecVirtual) {
	odd := K()
	VPTESTMD(b.lastBit, v, odd)
	VPADDD(b.belowHalf, v, v)
	VPADDD(b.unit, v, odd, v)
}

func (b wideToBFloat) store(first, second VecVirtual, to Mem) {
	v := ZMM()
	VMOVDQA64(b.upper, v)
	VPERMI2W(second, first, v)
	VMOVDQU64(v, to)
}

func wideRoundBFloats() {
	begin(avx512, "roundBFloats", 32)
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	round, quiet := newWideToBFloat(), wideConstant(quads8("quiet16", 0x40000000400000))
	matrixLoop(dst, 1, src, 2, n, 32, func(i GPVirtual) {
		var rounded [2]VecVirtual
		for j := range rounded {
			v, r, isNaN := ZMM(), ZMM(), K()
			VMOVUPS(at4(src, i, 64*j), v)
			VCMPPS(unordered, v, v, isNaN)
			VMOVDQA64(v, r)
			round.number(r)
			VPORD(quiet, v, isNaN, r)
			rounded[j] = r
		}
		round.store(rounded[0], rounded[1], at2(dst, i))
	})
	end()
}

func wideScaleToBFloats() {
	begin(avx512, "scaleToBFloats", 32, finite("unit"))
	dst, sums, n := pointer("dst"), pointer("sums"), pointer("n")
	offset, unit := wideBroadcast("offset"), wideBroadcast("unit")
	round := newWideToBFloat()
	loop(n, 32, func(i GPVirtual) {
		var rounded [2]VecVirtual
		for j := range rounded {
			rounded[j] = wideScaled(sums, i, 64*j, offset, unit)
			round.number(rounded[j])
		}
		round.store(rounded[0], rounded[1], at2(dst, i))
	})
	end()
}
