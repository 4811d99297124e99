package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wide writes the loops that gain much from AVX-512. Looking up is not one of them: long registers shuffle at half the rate.
func wide() {
	wideRandomWords()
}

// beginWide declares a function that equals the one whose name ends in Go.
func beginWide(name, signature, doc string) {
	TEXT(name+"AVX512", NOSPLIT, signature)
	Doc(name + "AVX512 is " + name + "Go " + doc)
	Pragma("noescape")
}

// quads8 is a constant of eight 64-bit values.
func quads8(name string, w ...uint64) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(8*i, U64(w[i%len(w)]))
	}
	return m
}

func wideConstant(m Mem) VecVirtual {
	v := ZMM()
	VMOVDQU64(m, v)
	return v
}

// mask returns a mask register with these bits.
func mask(bits uint32) OpmaskVirtual {
	k, v := K(), GP32()
	MOVL(U32(bits), v)
	KMOVD(v, k)
	return k
}

// wideRandomWords: every 64-bit lane holds one block's word in its lower half. Four registers of eight blocks hide the
// latency of multiplication; the keys of the ten rounds stay in memory, every lane for itself.
func wideRandomWords() {
	const streams, rounds = 4, 10
	lanes := quads8("blocks8", 0, 1, 2, 3, 4, 5, 6, 7)
	eight := quads8("eight8", 8)
	m0, m1 := quads8("round0q", 0xD2511F53), quads8("round1q", 0xCD9E8D57)
	first := quads8("firstBlocks", 0, 8, 1, 9, 2, 10, 3, 11)
	last := quads8("lastBlocks", 4, 12, 5, 13, 6, 14, 7, 15)
	beginWide("randomWords", "func(dst *uint32, steps int, key *[2]uint32, counter *[4]uint32)", "for 128 words a step.")
	dst, steps, key, counter := pointer("dst"), pointer("steps"), pointer("key"), pointer("counter")
	frame := AllocLocal(rounds * 2 * 4)
	for i, weyl := range []uint32{0x9E3779B9, 0xBB67AE85} {
		k := GP32()
		MOVL(Mem{Base: key, Disp: 4 * i}, k)
		for r := range rounds {
			MOVL(k, frame.Offset(8*r+4*i))
			ADDL(U32(weyl), k)
		}
	}
	mul0, mul1, step := wideConstant(m0), wideConstant(m1), wideConstant(eight)
	firstOrder, lastOrder := wideConstant(first), wideConstant(last)
	odd := mask(0xaaaa)
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
