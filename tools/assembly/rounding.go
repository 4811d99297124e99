package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func roundRow() {
	begin(avx2, "roundRow", 32)
	alpha, inverse := pointer("alpha"), broadcast("inverse")
	round32(func(g, i GPVirtual, j int) VecVirtual {
		v := YMM()
		VMOVUPS(at4(g, i, 32*j), v)
		VMULPS(at4(alpha, i, 32*j), v, v)
		VMULPS(inverse, v, v)
		return v
	})
}

func roundColumns() {
	begin(avx2, "roundColumns", 32)
	inverses := pointer("inverse")
	round32(func(g, i GPVirtual, j int) VecVirtual {
		v := YMM()
		VMOVUPS(at4(g, i, 32*j), v)
		VMULPS(at4(inverses, i, 32*j), v, v)
		return v
	})
}

// round32 writes floor(v + r) within ±limit, 32 values at a time. It adds the lower 16 bits of r first, then the upper
// ones, and rounds both sums downwards. What is rounded away decides nothing: a multiple of 2^-16 below the limit is a
// float32, so a sum that reaches such a multiple still reaches it after rounding downwards. The products before are
// rounded to nearest, so the rounding mode changes twice.
func round32(next func(gradient, i GPVirtual, j int) VecVirtual) {
	dst, g, random, n := pointer("dst"), pointer("gradient"), pointer("random"), pointer("n")
	limit, lowest := broadcast("limit"), YMM()
	high := constant(words8("upperBits", all(math.Float32bits(1./(1<<16)))))
	low := constant(words8("lowerBits", all(math.Float32bits(1./(1<<32)))))
	VXORPS(lowest, lowest, lowest)
	VSUBPS(limit, lowest, lowest)
	modes, mode := AllocLocal(8), GP32()
	nearest, downwards := modes, modes.Offset(4)
	STMXCSR(nearest)
	MOVL(nearest, mode)
	ORL(U32(1<<13), mode)
	MOVL(mode, downwards)
	loop(n, 32, func(i GPVirtual) {
		var q [4]VecVirtual
		for j := range q {
			q[j] = next(g, i, j)
		}
		LDMXCSR(downwards)
		for j, v := range q {
			r, other := YMM(), YMM()
			VPMOVZXWD(Mem{Base: random, Index: i, Scale: 2, Disp: 16 * j}, r)
			VCVTDQ2PS(r, r)
			VPERMILPS(Imm(0xb1), r, other)
			VFMADD231PS(low, other, v)
			VFMADD231PS(high, r, v)
			VROUNDPS(Imm(1), v, v)
			VMAXPS(lowest, v, v)
			VMINPS(limit, v, v)
			VCVTPS2DQ(v, v)
		}
		LDMXCSR(nearest)
		VPACKSSDW(q[1], q[0], q[0])
		VPACKSSDW(q[3], q[2], q[2])
		VPACKSSWB(q[2], q[0], q[0])
		order := YMM()
		VMOVDQU(words8("interleave", func(i int) uint32 { return uint32(i/2 + i%2*4) }), order)
		VPERMD(q[0], order, q[0])
		VMOVDQU(q[0], Mem{Base: dst, Index: i, Scale: 1})
	})
	end()
}

func wideRoundRow() {
	begin(avx512, "roundRow", 64)
	inverse := wideBroadcast("inverse")
	round64("alpha", func(v VecVirtual) { VMULPS(inverse, v, v) })
}

func wideRoundColumns() {
	begin(avx512, "roundColumns", 64)
	round64("inverse", func(VecVirtual) {})
}

// round64 does what round32 does. Its additions and its conversion round downwards by themselves.
func round64(factors string, scale func(v VecVirtual)) {
	var lanes [8]uint64 // of 16 words: four registers were packed in parts of four values
	for i := range 16 {
		lanes[i/2] |= uint64(i%4*4+i/4) << (i % 2 * 32)
	}
	worth := func(name string, ofBit0 float64) VecVirtual { // of 16 bits of a random word
		return wideConstant(quads8(name, uint64(math.Float32bits(float32(ofBit0)))*(1<<32+1)))
	}
	dst, g, factor, random, n := pointer("dst"), pointer("gradient"), pointer(factors), pointer("random"), pointer("n")
	limit, low, high := wideBroadcast("limit"), worth("lowerBits16", 1./(1<<32)), worth("upperBits16", 1./(1<<16))
	inOrder := wideConstant(quads8("unpack", lanes[:]...))
	bound, lowest := GP32(), ZMM()
	VCVTTSS2SI(argument("limit"), bound)
	NEGL(bound)
	VPBROADCASTB(bound, lowest)
	loop(n, 64, func(i GPVirtual) {
		var q [4]VecVirtual
		for j := range q {
			v, r, other := ZMM(), ZMM(), ZMM()
			VMOVUPS(at4(g, i, 64*j), v)
			VMULPS(at4(factor, i, 64*j), v, v)
			scale(v)
			VPMOVZXWD(Mem{Base: random, Index: i, Scale: 2, Disp: 32 * j}, r)
			VCVTDQ2PS(r, r)
			VPERMILPS(Imm(0xb1), r, other)
			VFMADD231PS_RD_SAE(low, other, v)
			VFMADD231PS_RD_SAE(high, r, v)
			VMINPS(v, limit, v) // NaN stays NaN, and becomes the lowest integer
			VCVTPS2DQ_RD_SAE(v, v)
			q[j] = v
		}
		VPACKSSDW(q[1], q[0], q[0])
		VPACKSSDW(q[3], q[2], q[2])
		VPACKSSWB(q[2], q[0], q[0])
		VPERMD(q[0], inOrder, q[0])
		VPMAXSB(lowest, q[0], q[0])
		VMOVDQU64(q[0], Mem{Base: dst, Index: i, Scale: 1})
	})
	end()
}
