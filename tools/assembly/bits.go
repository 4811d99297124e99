package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func packSigns() {
	beginOther(avx2, "packSigns", "func(words *uint64, x *float32, n int)", "for n whole words.")
	words, x, n, zero := pointer("words"), pointer("x"), pointer("n"), YMM()
	VXORPS(zero, zero, zero)
	packs(words, x, n, func(v VecVirtual) { VCMPPS(atLeast, zero, v, v) })
	end()
}

func packMask() {
	beginOther(avx2, "packMask", "func(words *uint64, x *float32, limit float32, n int)", "for n whole words.")
	words, x, n := pointer("words"), pointer("x"), pointer("n")
	absolute, limit := constant(magnitude()), broadcast("limit")
	packs(words, x, n, func(v VecVirtual) {
		VPAND(absolute, v, v)
		VCMPPS(atMost, limit, v, v)
	})
	end()
}

// packs takes 64 values at a time, lets prepare replace them, and packs their sign bits.
func packs(words, x, n GPVirtual, prepare func(v VecVirtual)) {
	Label("word")
	word := GP64()
	XORQ(word, word)
	for i := range 8 {
		v, byte := YMM(), GP64()
		VMOVUPS(Mem{Base: x, Disp: 32 * i}, v)
		prepare(v)
		VMOVMSKPS(v, byte.As32())
		if i > 0 {
			SHLQ(Imm(uint64(8*i)), byte)
		}
		ORQ(byte, word)
	}
	MOVQ(word, Mem{Base: words})
	ADDQ(Imm(8), words)
	ADDQ(U32(256), x)
	DECQ(n)
	JNZ(LabelRef("word"))
}

// transposeBytes: 8 rows of 16 bytes are 16 columns of 8, by three rounds of interleaving.
func transposeBytes() {
	beginOther(avx2, "transposeBytes", "func(dst *byte, dstStride int, src *byte, srcStride int, n int)",
		"for n columns, a multiple of 16.")
	dst, dstStride := pointer("dst"), pointer("dstStride")
	src, srcStride, n := pointer("src"), pointer("srcStride"), pointer("n")
	Label("columns")
	from := GP64()
	MOVQ(src, from)
	var x [8]VecVirtual
	for i := range x {
		x[i] = XMM()
		VMOVDQU(Mem{Base: from}, x[i])
		if i < 7 {
			ADDQ(srcStride, from)
		}
	}
	// Each round interleaves two neighbouring results of the round before.
	interleave := func(low, high func(ops ...Op)) {
		var y [8]VecVirtual
		for i := 0; i < 4; i++ {
			y[i], y[i+4] = XMM(), XMM()
			low(x[2*i+1], x[2*i], y[i])
			high(x[2*i+1], x[2*i], y[i+4])
		}
		x = y
	}
	// x[i]: columns 0..7 of rows 2i and 2i + 1; x[i+4]: columns 8..15.
	interleave(VPUNPCKLBW, VPUNPCKHBW)
	// x[0], x[1]: columns 0..3 of rows 0..3 and 4..7; x[2], x[3]: 8..11; x[4..7]: 4..7, 12..15.
	interleave(VPUNPCKLWD, VPUNPCKHWD)
	interleave(VPUNPCKLDQ, VPUNPCKHDQ)
	to := GP64()
	for i, v := range [8]int{0, 4, 2, 6, 1, 5, 3, 7} { // columns 2i and 2i + 1
		if i == 0 {
			MOVQ(dst, to)
		}
		VMOVQ(x[v], Mem{Base: to})
		ADDQ(dstStride, to)
		VMOVHPS(x[v], Mem{Base: to})
		ADDQ(dstStride, to)
	}
	MOVQ(to, dst)
	ADDQ(Imm(16), src)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("columns"))
	end()
}

// transposeBits: the bytes of eight words are brought together, then every 64 bits, an 8 × 8 matrix, are transposed.
func transposeBits() {
	pairs := bytes32("pairs", func(i int) byte { return byte(i%16/2 + i%2*8) })
	order := words8("pairsOfLanes", func(i int) uint32 { return uint32(i/2 + i%2*4) })
	masks := [3]Mem{
		quads4("swap7", all[uint64](0x00aa00aa00aa00aa)),
		quads4("swap14", all[uint64](0x0000cccc0000cccc)),
		quads4("swap28", all[uint64](0x00000000f0f0f0f0)),
	}
	beginOther(avx2, "transposeBits", "func(dst *byte, src *uint64, stride, groups int)", "with a stride in bytes.")
	dst, src, stride, groups := pointer("dst"), pointer("src"), pointer("stride"), pointer("groups")
	pairing, lanes := constant(pairs), constant(order)
	mask := [3]VecVirtual{constant(masks[0]), constant(masks[1]), constant(masks[2])}
	Label("group")
	var words [4]VecVirtual // two rows each
	for i := range words {
		words[i] = XMM()
		VMOVQ(Mem{Base: src}, words[i])
		ADDQ(stride, src)
		VPINSRQ(Imm(1), Mem{Base: src}, words[i], words[i])
		ADDQ(stride, src)
	}
	a, b, low, high := YMM(), YMM(), YMM(), YMM()
	VINSERTI128(Imm(1), words[2], words[0].AsY(), a) // rows 0, 1 | 4, 5
	VINSERTI128(Imm(1), words[3], words[1].AsY(), b) // rows 2, 3 | 6, 7
	VPSHUFB(pairing, a, a)
	VPSHUFB(pairing, b, b)
	VPUNPCKLWD(b, a, low)
	VPUNPCKHWD(b, a, high)
	for i, x := range []VecVirtual{low, high} {
		VPERMD(x, lanes, x)
		for j, shift := range []uint64{7, 14, 28} {
			t := YMM()
			VPSRLQ(Imm(shift), x, t)
			VPXOR(x, t, t)
			VPAND(mask[j], t, t)
			VPXOR(t, x, x)
			VPSLLQ(Imm(shift), t, t)
			VPXOR(t, x, x)
		}
		VMOVDQU(x, Mem{Base: dst, Disp: 32 * i})
	}
	ADDQ(Imm(64), dst)
	DECQ(groups)
	JNZ(LabelRef("group"))
	end()
}

// setBits: the highest bits of all bytes are gathered, plane by plane from the last one.
func setBits() {
	beginOther(avx2, "setBits", "func(words *uint64, stride, planes int, index *byte, n int)", "for n whole words.")
	words, stride, planes := pointer("words"), pointer("stride"), pointer("planes")
	index, n := pointer("index"), pointer("n")
	toTop, shift, last := GP64(), XMM(), GP64()
	MOVQ(U32(8), toTop)
	SUBQ(planes, toTop)
	VMOVQ(toTop, shift)
	SHLQ(Imm(3), stride)
	MOVQ(planes, last)
	DECQ(last)
	IMULQ(stride, last)
	ADDQ(words, last) // the first word of the last plane
	Label("word")
	low, high := YMM(), YMM()
	VMOVDQU(Mem{Base: index}, low)
	VMOVDQU(Mem{Base: index, Disp: 32}, high)
	VPSLLW(shift, low, low)
	VPSLLW(shift, high, high)
	at, left := GP64(), GP64()
	MOVQ(last, at)
	MOVQ(planes, left)
	Label("plane")
	a, b := GP64(), GP64()
	VPMOVMSKB(low, a.As32())
	VPMOVMSKB(high, b.As32())
	SHLQ(Imm(32), b)
	ORQ(b, a)
	MOVQ(a, Mem{Base: at})
	VPADDB(low, low, low)
	VPADDB(high, high, high)
	SUBQ(stride, at)
	DECQ(left)
	JNZ(LabelRef("plane"))
	ADDQ(Imm(64), index)
	ADDQ(Imm(8), last)
	DECQ(n)
	JNZ(LabelRef("word"))
	end()
}

// expandBits: lowest and weight have the byte eight times.
func expandBits() {
	beginOther(avx2, "expandBits",
		"func(dst *int8, words *byte, stride, planes int, lowest, weight uint64, n int)", "for the bits from a byte on.")
	dst, words, stride, planes := pointer("dst"), pointer("words"), pointer("stride"), pointer("planes")
	n := pointer("n")
	first, weight := broadcast64("lowest"), broadcast64("weight")
	bytes := constant(bytes32("byteOf", func(i int) byte { return byte(i / 8) }))
	bit := constant(bytes32("bitOfByte", func(i int) byte { return 1 << (i % 8) }))
	SHLQ(Imm(3), stride)
	Label("values")
	sum, by := YMM(), YMM()
	VMOVDQA(first, sum)
	VMOVDQA(weight, by)
	at, left := GP64(), GP64()
	MOVQ(words, at)
	MOVQ(planes, left)
	Label("plane")
	v := YMM()
	VPBROADCASTD(Mem{Base: at}, v)
	VPSHUFB(bytes, v, v)
	VPAND(bit, v, v)
	VPCMPEQB(bit, v, v)
	VPAND(by, v, v)
	VPADDB(v, sum, sum)
	VPADDB(by, by, by)
	ADDQ(stride, at)
	DECQ(left)
	JNZ(LabelRef("plane"))
	VMOVDQU(sum, Mem{Base: dst})
	ADDQ(Imm(32), dst)
	ADDQ(Imm(4), words)
	SUBQ(Imm(32), n)
	JNZ(LabelRef("values"))
	end()
}
