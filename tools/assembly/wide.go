package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wide writes the loops that gain much from AVX-512. Looking up is not one of them: long registers shuffle at half the rate.
func wide() {
	wideRandomWords()
	wideCountSigns()
	wideNearest()
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

// wideCountSigns keeps the sums of 4 rows × 16 channels, as 64 bits, in registers.
func wideCountSigns() {
	const rows, registers = 4, 2
	beginWide("countSigns", "func(dst *int32, stride int, x *uint64, xStride int, w *uint64, channels, words int)", "for 16 channels at a time.")
	dst, stride, x, xStride := pointer("dst"), pointer("stride"), pointer("x"), pointer("xStride")
	w, channels, words := pointer("w"), pointer("channels"), pointer("words")
	SHLQ(Imm(2), stride)
	SHLQ(Imm(3), xStride)
	row := [rows]GPVirtual{x, GP64(), GP64(), GP64()}
	to := [rows]GPVirtual{dst, GP64(), GP64(), GP64()}
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: row[r-1], Index: xStride, Scale: 1}, row[r])
		LEAQ(Mem{Base: to[r-1], Index: stride, Scale: 1}, to[r])
	}
	next, left := GP64(), GP64() // bytes to the next word of the channels; channels left
	MOVQ(channels, next)
	SHLQ(Imm(3), next)
	MOVQ(channels, left)
	Label("channels")
	var sum [rows][registers]VecVirtual
	for r := range sum {
		for i := range sum[r] {
			sum[r][i] = ZMM()
			VPXORQ(sum[r][i], sum[r][i], sum[r][i])
		}
	}
	at, k := GP64(), GP64()
	MOVQ(w, at)
	XORQ(k, k)
	Label("words")
	weights := [registers]VecVirtual{ZMM(), ZMM()}
	for i := range weights {
		VMOVDQU64(Mem{Base: at, Disp: 64 * i}, weights[i])
	}
	for r := range sum {
		word := ZMM()
		VPBROADCASTQ(Mem{Base: row[r], Index: k, Scale: 8}, word)
		for i := range weights {
			t := ZMM()
			VPXORQ(weights[i], word, t)
			VPOPCNTQ(t, t)
			VPSUBQ(t, sum[r][i], sum[r][i])
		}
	}
	ADDQ(next, at)
	INCQ(k)
	CMPQ(k, words)
	JLT(LabelRef("words"))
	for r := range sum {
		for i, s := range sum[r] {
			VPMOVQD(s, Mem{Base: to[r], Disp: 32 * i})
		}
		ADDQ(Imm(64), to[r])
	}
	ADDQ(U32(128), w)
	SUBQ(Imm(16), left)
	JNZ(LabelRef("channels"))
	end()
}

// wideNearest is nearest with masks, counted bits, and a quotient without division.
func wideNearest() {
	data := func(name string) Mem { return NewDataAddr(Symbol{Name: name, Static: true}, 0) }
	beginWide("nearest", "func(best, away *[4][4]float64, q, k *uint64, n int, skip float64, score *[4][4]float64)",
		"for dimensions that have a reciprocal: q points to the first query, k to the first key to look at.")
	best, away, q, k, n, score := pointer("best"), pointer("away"), pointer("q"), pointer("k"), pointer("n"), pointer("score")
	query, distance, one, none, two := YMM(), broadcast64("skip"), YMM(), YMM(), YMM()
	VADDPD(data("start"), distance, distance)
	VMOVUPD(data("one64"), one)
	VMOVUPD(data("none"), none)
	VADDPD(one, one, two)
	VMOVDQU64(Mem{Base: q}, query)
	var b, d, constants [4]VecVirtual
	for r := range b {
		b[r], d[r], constants[r] = YMM(), YMM(), YMM()
		VMOVUPD(Mem{Base: best, Disp: 32 * r}, b[r])
		VMOVUPD(Mem{Base: away, Disp: 32 * r}, d[r])
		VMOVUPD(Mem{Base: score, Disp: 32 * r}, constants[r])
	}
	dim, root, slope, reciprocal := constants[0], constants[1], constants[2], constants[3]
	Label("key")
	s, t, rest := YMM(), YMM(), YMM()
	VPXORQ_BCST(Mem{Base: k}, query, s)
	VPOPCNTQ(s.AsZ(), s.AsZ())
	VCVTQQ2PD(s, t)
	VFNMADD213PD(dim, two, t) // dim - 2*bits
	VMULPD(reciprocal, t, s)
	VMOVAPD(t, rest)
	VFNMADD231PD(root, s, rest)
	VFMADD231PD(reciprocal, rest, s)
	VMULPD(slope, distance, t)
	VSUBPD(t, s, s)
	later := K()
	VPMOVQ2M(distance, later)
	VBLENDMPD(none, s, later, s)
	// Whatever is worse than the new score moves down by one.
	var below [4]OpmaskVirtual
	for r := range below {
		below[r] = K()
		VCMPPD(Imm(1), s, b[r], below[r]) // b[r] < s
	}
	for r := 3; r > 0; r-- {
		v, w := YMM(), YMM()
		VMINPD(b[r-1], s, v)
		VMAXPD(b[r], v, b[r])
		VBLENDMPD(d[r-1], distance, below[r-1], w)
		VBLENDMPD(w, d[r], below[r], d[r])
	}
	VMAXPD(b[0], s, b[0])
	VBLENDMPD(distance, d[0], below[0], d[0])
	VADDPD(one, distance, distance)
	SUBQ(Imm(8), k)
	DECQ(n)
	JNZ(LabelRef("key"))
	for r := range b {
		VMOVUPD(b[r], Mem{Base: best, Disp: 32 * r})
		VMOVUPD(d[r], Mem{Base: away, Disp: 32 * r})
	}
	end()
}
