package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const randomWordsSignature = "func(dst *uint32, steps int, key *[2]uint32, counter *[4]uint32)"

// The constants of Philox4x32 (Salmon, Moraes, Dror and Shaw 2011).
const (
	philoxM0    = 0xD2511F53
	philoxM1    = 0xCD9E8D57
	philoxWeyl0 = 0x9E3779B9
	philoxWeyl1 = 0xBB67AE85
)

// randomWords has one word of a block in every 64-bit lane, of which a multiplication sees only the lower 32 bits. It
// computes two registers of four blocks at a time, which hides the latency of multiplications.
func randomWords() {
	lanes := quads4("blocks", func(i int) uint64 { return uint64(i) })
	four := words8("four", all[uint32](4))
	weyl0, weyl1 := words8("weyl0", all[uint32](philoxWeyl0)), words8("weyl1", all[uint32](philoxWeyl1))
	beginOther(avx2, "randomWords", randomWordsSignature, "for 32 words a step.")
	dst, steps, key, counter := pointer("dst"), pointer("steps"), pointer("key"), pointer("counter")
	m0, m1 := constant(words8("round0", all[uint32](philoxM0))), constant(words8("round1", all[uint32](philoxM1)))
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
		VPADDD(four, next, next)
		for i := 1; i < 4; i++ {
			VPBROADCASTD(Mem{Base: counter, Disp: 4 * i}, x[s][i])
		}
	}
	for range 10 {
		for s := range x {
			philoxRound(&x[s], m0, m1, k0, k1)
		}
		VPADDD(weyl0, k0, k0)
		VPADDD(weyl1, k1, k1)
	}
	for s := range x {
		storeBlocks(Mem{Base: dst, Disp: 64 * s}, x[s])
	}
	ADDQ(U32(128), dst)
	DECQ(steps)
	JNZ(LabelRef("step"))
	end()
}

// philoxRound is one round with the keys k0 and k1.
func philoxRound(x *[4]VecVirtual, m0, m1, k0, k1 VecVirtual) {
	p0, p1 := YMM(), YMM()
	VPMULUDQ(m0, x[0], p0)
	VPMULUDQ(m1, x[2], p1)
	VPXOR(k0, x[1], x[1])
	VPXOR(k1, x[3], x[3])
	VPSRLQ(Imm(32), p1, x[0])
	VPXOR(x[1], x[0], x[0])
	VPSRLQ(Imm(32), p0, x[2])
	VPXOR(x[3], x[2], x[2])
	x[1], x[3] = p1, p0
}

// storeBlocks stores four blocks, one after the other.
func storeBlocks(to Mem, x [4]VecVirtual) {
	for i := 0; i < 4; i += 2 {
		VPSLLQ(Imm(32), x[i+1], x[i+1])
		VPBLENDD(Imm(0xaa), x[i+1], x[i], x[i])
	}
	even, odd := YMM(), YMM() // blocks 0 and 2, 1 and 3
	VPUNPCKLQDQ(x[2], x[0], even)
	VPUNPCKHQDQ(x[2], x[0], odd)
	for i, lanes := range []uint64{0x20, 0x31} {
		v := YMM()
		VPERM2I128(Imm(lanes), odd, even, v)
		VMOVDQU(v, to.Offset(32*i))
	}
}

// wideRandomWords computes four registers of eight blocks at a time. The keys of the ten rounds are in memory.
func wideRandomWords() {
	const streams, rounds = 4, 10
	lanes := quads8("blocks8", 0, 1, 2, 3, 4, 5, 6, 7)
	eight := quads8("eight8", 8)
	m0, m1 := quads8("round0q", philoxM0), quads8("round1q", philoxM1)
	first := quads8("firstBlocks", 0, 8, 1, 9, 2, 10, 3, 11)
	last := quads8("lastBlocks", 4, 12, 5, 13, 6, 14, 7, 15)
	beginOther(avx512, "randomWords", randomWordsSignature, "for 128 words a step.")
	dst, steps, key, counter := pointer("dst"), pointer("steps"), pointer("key"), pointer("counter")
	frame := AllocLocal(rounds * 2 * 4)
	storeKeys(frame, key, rounds)
	mul0, mul1, step := wideConstant(m0), wideConstant(m1), wideConstant(eight)
	firstOrder, lastOrder := wideConstant(first), wideConstant(last)
	odd := maskOf(0xaaaa)
	next := ZMM()
	VPBROADCASTD(Mem{Base: counter}, next)
	VPADDD(lanes, next, next)
	Label("step")
	var x [streams][4]VecVirtual
	for s := range x {
		for i := range x[s] {
			x[s][i] = ZMM()
		}
		VMOVDQA64(next, x[s][0])
		VPADDD(step, next, next)
		for i := 1; i < 4; i++ {
			VPBROADCASTD(Mem{Base: counter, Disp: 4 * i}, x[s][i])
		}
	}
	for r := range rounds {
		for s := range x {
			p0, p1 := ZMM(), ZMM()
			VPMULUDQ(mul0, x[s][0], p0)
			VPMULUDQ(mul1, x[s][2], p1)
			VPSRLQ(Imm(32), p1, x[s][0])
			VPTERNLOGD_BCST(Imm(0x96), frame.Offset(8*r), x[s][1], x[s][0])
			VPSRLQ(Imm(32), p0, x[s][2])
			VPTERNLOGD_BCST(Imm(0x96), frame.Offset(8*r+4), x[s][3], x[s][2])
			x[s][1], x[s][3] = p1, p0
		}
	}
	for s := range x {
		for i := 0; i < 4; i += 2 {
			VPSHUFD(Imm(0xa0), x[s][i+1], odd, x[s][i])
		}
		for i, order := range []VecVirtual{firstOrder, lastOrder} {
			v := ZMM()
			VMOVDQA64(order, v)
			VPERMI2Q(x[s][2], x[s][0], v)
			VMOVDQU64(v, Mem{Base: dst, Disp: 128*s + 64*i})
		}
	}
	ADDQ(U32(4*128), dst)
	DECQ(steps)
	JNZ(LabelRef("step"))
	end()
}

// storeKeys stores the two keys of every round.
func storeKeys(to Mem, key GPVirtual, rounds int) {
	for i, weyl := range []uint32{philoxWeyl0, philoxWeyl1} {
		k := GP32()
		MOVL(Mem{Base: key, Disp: 4 * i}, k)
		for r := range rounds {
			MOVL(k, to.Offset(8*r+4*i))
			ADDL(U32(weyl), k)
		}
	}
}
