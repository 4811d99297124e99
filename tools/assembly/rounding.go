package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func rounding() {
	randomWords()
	r := rounder{
		order: words8("interleave", func(i int) uint32 { return uint32(i/2 + i%2*4) }),
		high:  words8("highHalf", all(math.Float32bits(1./(1<<16)))),
		low:   words8("lowHalf", all(math.Float32bits(1./(1<<32)))),
	}

	begin(avx2, "roundRow", 32)
	dst, g, alpha, random, n := pointer("dst"), pointer("gradient"), pointer("alpha"), pointer("random"), pointer("n")
	inverse := broadcast("inverse")
	r.round32(dst, random, n, func(i GPVirtual, j int) VecVirtual {
		v := YMM()
		VMOVUPS(at4(g, i, 32*j), v)
		VMULPS(at4(alpha, i, 32*j), v, v)
		VMULPS(inverse, v, v)
		return v
	})

	begin(avx2, "roundColumns", 32)
	dst, g, inverses, random, n := pointer("dst"), pointer("gradient"), pointer("inverse"), pointer("random"), pointer("n")
	r.round32(dst, random, n, func(i GPVirtual, j int) VecVirtual {
		v := YMM()
		VMOVUPS(at4(g, i, 32*j), v)
		VMULPS(at4(inverses, i, 32*j), v, v)
		return v
	})
}

// rounder has the constants of rounding: what the halves of random words are worth, and how packed integers are put in order.
type rounder struct{ order, high, low Mem }

// round32 writes floor(v + r) within ±limit, 32 at a time. The low half of r is added first, then the high half, both downwards. Then
// what was rounded away decides nothing: a multiple of 2^-16 below the limit is a float32, so a sum that reaches it does so rounded
// downwards too. The products before are rounded to nearest, so the mode changes twice.
func (c rounder) round32(dst, random, n GPVirtual, next func(i GPVirtual, j int) VecVirtual) {
	limit, lowest, high, low := broadcast("limit"), YMM(), constant(c.high), constant(c.low)
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
			q[j] = next(i, j)
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
		VMOVDQU(c.order, order)
		VPERMD(q[0], order, q[0])
		VMOVDQU(q[0], Mem{Base: dst, Index: i, Scale: 1})
	})
	end()
}

// randomWords: every 64-bit lane holds one block's word, of which the multiplication sees only the lower half. Two
// registers of four blocks hide its latency.
func randomWords() {
	lanes := GLOBL("blocks", RODATA|NOPTR)
	for i := range 4 {
		DATA(8*i, U64(uint64(i)))
	}
	constants := map[string]Mem{}
	for _, c := range []struct {
		name string
		w    uint32
	}{{"round0", 0xD2511F53}, {"round1", 0xCD9E8D57}, {"weyl0", 0x9E3779B9}, {"weyl1", 0xBB67AE85}, {"four", 4}} {
		constants[c.name] = words8(c.name, all(c.w))
	}
	beginOther(avx2, "randomWords", "func(dst *uint32, steps int, key *[2]uint32, counter *[4]uint32)", "for 32 words a step.")
	dst, steps, key, counter := pointer("dst"), pointer("steps"), pointer("key"), pointer("counter")
	m0, m1 := constant(constants["round0"]), constant(constants["round1"])
	next := YMM()
	VPBROADCASTD(Mem{Base: counter}, next)
	VPADDD(lanes, next, next)
	Label("step")
	k0, k1 := YMM(), YMM()
	VPBROADCASTD(Mem{Base: key}, k0)
	VPBROADCASTD(Mem{Base: key, Disp: 4}, k1)
	var x [2][4]VecVirtual
	for s := range x {
		for i := range x[s] {
			x[s][i] = YMM()
		}
		VMOVDQA(next, x[s][0])
		VPADDD(constants["four"], next, next)
		for i := 1; i < 4; i++ {
			VPBROADCASTD(Mem{Base: counter, Disp: 4 * i}, x[s][i])
		}
	}
	for range 10 {
		for s := range x {
			p0, p1 := YMM(), YMM()
			VPMULUDQ(m0, x[s][0], p0)
			VPMULUDQ(m1, x[s][2], p1)
			VPXOR(k0, x[s][1], x[s][1])
			VPXOR(k1, x[s][3], x[s][3])
			VPSRLQ(Imm(32), p1, x[s][0])
			VPXOR(x[s][1], x[s][0], x[s][0])
			VPSRLQ(Imm(32), p0, x[s][2])
			VPXOR(x[s][3], x[s][2], x[s][2])
			x[s][1], x[s][3] = p1, p0
		}
		VPADDD(constants["weyl0"], k0, k0)
		VPADDD(constants["weyl1"], k1, k1)
	}
	for s := range x {
		for i := 0; i < 4; i += 2 {
			VPSLLQ(Imm(32), x[s][i+1], x[s][i+1])
			VPBLENDD(Imm(0xaa), x[s][i+1], x[s][i], x[s][i])
		}
		even, odd := YMM(), YMM() // blocks 0 and 2, 1 and 3
		VPUNPCKLQDQ(x[s][2], x[s][0], even)
		VPUNPCKHQDQ(x[s][2], x[s][0], odd)
		for i, halves := range []uint64{0x20, 0x31} {
			v := YMM()
			VPERM2I128(Imm(halves), odd, even, v)
			VMOVDQU(v, Mem{Base: dst, Disp: 64*s + 32*i})
		}
	}
	ADDQ(U32(128), dst)
	DECQ(steps)
	JNZ(LabelRef("step"))
	end()
}
