package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// floats8 is a constant of 8 equal 32-bit values.
func words8(name string, w func(i int) uint32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(w(i)))
	}
	return m
}

func all(w uint32) func(int) uint32 { return func(int) uint32 { return w } }

func pointer(name string) GPVirtual { return Load(Param(name), GP64()).(GPVirtual) }

func end() {
	VZEROUPPER()
	RET()
}

// broadcast loads a 32-bit parameter to all lanes.
func broadcast(name string) VecVirtual {
	v := YMM()
	m, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(m.Addr, v)
	return v
}

func constant(m Mem) VecVirtual {
	v := YMM()
	VMOVDQU(m, v)
	return v
}

// loop8 runs body for steps of `values` values; body gets the index register for addresses of 4-byte values.
func loop(n GPVirtual, values int, body func(i GPVirtual)) {
	i := GP64()
	XORQ(i, i)
	Label("loop")
	body(i)
	ADDQ(Imm(uint64(values)), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
}

func at4(base, i GPVirtual, disp int) Mem { return Mem{Base: base, Index: i, Scale: 4, Disp: disp} }

// vectors: magnitudes are compared as the integers that their bits are, which order them as floats do and put NaN above all.
func vectors() {
	sign := words8("sign", all(1<<31))
	magnitude := words8("magnitude", all(1<<31-1))
	oneUlp := words8("above1", all(math.Float32bits(1)+1))
	bitOf := words8("bits", func(i int) uint32 { return 1 << i })

	round := bfloats{words8("belowHalf", all(0x7fff)), words8("lastBit", all(1)), words8("quiet", all(1<<22))}
	scaled := func(sums, i GPVirtual, disp int, offset, unit VecVirtual) VecVirtual {
		v := YMM()
		VMOVDQU(at4(sums, i, disp), v)
		VPADDD(v, v, v)
		VPSUBD(offset, v, v)
		VCVTDQ2PS(v, v)
		VMULPS(unit, v, v)
		return v
	}
	begin(avx2, "scaleIntegers", 8)
	dst, sums, n := pointer("dst"), pointer("sums"), pointer("n")
	offset, unit := broadcast("offset"), broadcast("unit")
	loop(n, 8, func(i GPVirtual) { VMOVUPS(scaled(sums, i, 0, offset, unit), at4(dst, i, 0)) })
	end()

	begin(avx2, "scaleToBFloats", 16, finite("unit"))
	dst, sums, n = pointer("dst"), pointer("sums"), pointer("n")
	offset, unit = broadcast("offset"), broadcast("unit")
	loop(n, 16, func(i GPVirtual) {
		store16(at2(dst, i), round.number(scaled(sums, i, 0, offset, unit)), round.number(scaled(sums, i, 32, offset, unit)))
	})
	end()

	begin(avx2, "addCounts", 8)
	sums, n = pointer("sums"), pointer("n")
	counts, pops := pointer("counts"), pointer("pops")
	weight, shift, by := broadcast("weight"), XMM(), GP32()
	Load(Param("shift"), by)
	VMOVD(by, shift)
	loop(n, 8, func(i GPVirtual) {
		v, w := YMM(), YMM()
		VMOVDQU(at4(counts, i, 0), v)
		VPSLLD(shift, v, v)
		VPMULLD(at4(pops, i, 0), weight, w)
		VPSUBD(w, v, v)
		VPADDD(at4(sums, i, 0), v, v)
		VMOVDQU(v, at4(sums, i, 0))
	})
	end()

	begin(avx2, "affineSums", 8)
	dst, sums, n = pointer("dst"), pointer("sums"), pointer("n")
	alpha, theta := pointer("alpha"), pointer("theta")
	offset, unit = broadcast("offset"), broadcast("unit")
	loop(n, 8, func(i GPVirtual) { VMOVUPS(affineOf(sums, alpha, theta, i, 0, offset, unit), at4(dst, i, 0)) })
	end()

	signsOfSums(magnitude, oneUlp)

	begin(avx2, "affine", 8)
	u := pointer("u")
	alpha, theta, n = pointer("alpha"), pointer("theta"), pointer("n")
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(u, i, 0), v)
		VMULPS(at4(alpha, i, 0), v, v)
		VSUBPS(at4(theta, i, 0), v, v)
		VMOVUPS(v, at4(u, i, 0))
	})
	end()

	begin(avx2, "add", 8)
	dst, a, b, n := pointer("dst"), pointer("a"), pointer("b"), pointer("n")
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(a, i, 0), v)
		VADDPS(at4(b, i, 0), v, v)
		VMOVUPS(v, at4(dst, i, 0))
	})
	end()

	begin(avx2, "roundBFloats", 16)
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	dstStride, srcStride, rows := pointer("dstStride"), pointer("srcStride"), pointer("rows")
	SHLQ(Imm(1), dstStride)
	SHLQ(Imm(2), srcStride)
	Label("row")
	loop(n, 16, func(i GPVirtual) {
		var rounded [2]VecVirtual
		for j := range rounded {
			v, nan, isNaN := YMM(), YMM(), YMM()
			VMOVUPS(at4(src, i, 32*j), v)
			VCMPPS(Imm(3), v, v, isNaN) // unordered
			VPOR(round.quiet, v, nan)
			VPSRLD(Imm(16), nan, nan)
			VBLENDVPS(isNaN, nan, round.number(v), v)
			rounded[j] = v
		}
		store16(at2(dst, i), rounded[0], rounded[1])
	})
	ADDQ(dstStride, dst)
	ADDQ(srcStride, src)
	DECQ(rows)
	JNZ(LabelRef("row"))
	end()

	begin(avx2, "widenBFloats", 8)
	dst, src, n = pointer("dst"), pointer("src"), pointer("n")
	dstStride, srcStride, rows = pointer("dstStride"), pointer("srcStride"), pointer("rows")
	SHLQ(Imm(2), dstStride)
	SHLQ(Imm(1), srcStride)
	Label("row")
	loop(n, 8, func(i GPVirtual) { VMOVUPS(widened(at2(src, i)), at4(dst, i, 0)) })
	ADDQ(dstStride, dst)
	ADDQ(srcStride, src)
	DECQ(rows)
	JNZ(LabelRef("row"))
	end()

	beginOther(avx2, "packSigns", "func(words *uint64, x *float32, n int)", "for n whole words.")
	words, x := pointer("words"), pointer("x")
	n = pointer("n")
	zero := YMM()
	VXORPS(zero, zero, zero)
	packs(words, x, n, func(v VecVirtual) { VCMPPS(atLeast, zero, v, v) })
	end()

	beginOther(avx2, "packMask", "func(words *uint64, x *float32, n int)", "for n whole words.")
	words, x, n = pointer("words"), pointer("x"), pointer("n")
	mask, above := constant(magnitude), constant(oneUlp)
	packs(words, x, n, func(v VecVirtual) {
		VPAND(mask, v, v)
		VPSUBD(above, v, v)
	})
	end()

	begin(avx2, "mask", 64)
	dst, src, words, n = pointer("dst"), pointer("src"), pointer("words"), pointer("n")
	lanes := constant(bitOf)
	SHRQ(Imm(3), n)
	loop(n, 1, func(i GPVirtual) {
		m := bitsToLanes(words, i, lanes)
		VPAND(Mem{Base: src}, m, m)
		VMOVDQU(m, Mem{Base: dst})
		ADDQ(Imm(32), src)
		ADDQ(Imm(32), dst)
	})
	end()

	begin(avx2, "maskBFloats", 64)
	dst, src, words, n = pointer("dst"), pointer("src"), pointer("words"), pointer("n")
	lanes = constant(bitOf)
	SHRQ(Imm(3), n)
	loop(n, 1, func(i GPVirtual) {
		m := bitsToLanes(words, i, lanes)
		VPAND(widened(Mem{Base: src}), m, m)
		VMOVDQU(m, Mem{Base: dst})
		ADDQ(Imm(16), src)
		ADDQ(Imm(32), dst)
	})
	end()

	begin(avx2, "absMax", 8)
	most, x, n := pointer("most"), pointer("x"), pointer("n")
	mask = constant(magnitude)
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VANDPS(at4(x, i, 0), mask, v)
		VPMAXSD(at4(most, i, 0), v, v)
		VMOVUPS(v, at4(most, i, 0))
	})
	end()

	begin(avx2, "absMaxProduct", 8)
	a, b, n = pointer("a"), pointer("b"), pointer("n")
	mask = constant(magnitude)
	top := YMM()
	VXORPS(top, top, top)
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(a, i, 0), v)
		VMULPS(at4(b, i, 0), v, v)
		VANDPS(mask, v, v)
		VPMAXSD(top, v, top)
	})
	storeMost(top, VPMAXSD)
	end()

	begin(avx2, "addScaled", 64)
	dst, sums, words, n = pointer("dst"), pointer("sums"), pointer("signs"), pointer("n")
	offset = broadcast("offset")
	factor := broadcast("factor")
	lanes, flip := constant(bitOf), constant(sign)
	low, high := YMM(), YMM()
	VXORPD(low, low, low)
	VXORPD(high, high, high)
	SHRQ(Imm(3), n)
	loop(n, 1, func(i GPVirtual) {
		p, scaled := YMM(), YMM()
		VMOVDQU(Mem{Base: sums}, p)
		VPADDD(p, p, p)
		VPSUBD(offset, p, p)
		VCVTDQ2PS(p, p)
		VMULPS(factor, p, scaled)
		VADDPS(Mem{Base: dst}, scaled, scaled)
		VMOVUPS(scaled, Mem{Base: dst})
		m := bitsToLanes(words, i, lanes)
		VPANDN(flip, m, m)
		VXORPS(m, p, p)
		addDoubles(p, low, high)
		ADDQ(Imm(32), sums)
		ADDQ(Imm(32), dst)
	})
	storeSum(low, high)
	end()

	addRows("addRows", 4, magnitude, bitOf)
	addRows("addBFloatRows", 2, magnitude, bitOf)

	begin(avx2, "sumSquares", 8)
	x, n = pointer("x"), pointer("n")
	low, high = YMM(), YMM()
	VXORPD(low, low, low)
	VXORPD(high, high, high)
	loop(n, 8, func(i GPVirtual) {
		v, w := YMM(), YMM()
		VCVTPS2PD(at4(x, i, 0), v)
		VCVTPS2PD(at4(x, i, 16), w)
		VMULPD(v, v, v)
		VMULPD(w, w, w)
		VADDPD(v, low, low)
		VADDPD(w, high, high)
	})
	storeSum(low, high)
	end()

	adam()
}

// storeMost returns the greatest of eight lanes.
func storeMost(top VecVirtual, most func(ops ...Op)) {
	half, other := XMM(), XMM()
	VEXTRACTF128(Imm(1), top, half)
	most(top.AsX(), half, half)
	VPSHUFD(Imm(0x0e), half, other)
	most(other, half, half)
	VPSHUFD(Imm(0x01), half, other)
	most(other, half, half)
	Store(half, ReturnIndex(0))
}

// addRows keeps the sums of 32 columns, and their largest values, in registers.
func addRows(name string, size int, magnitude, bitOf Mem) {
	begin(avx2, name, 64)
	sums, most, src, stride := pointer("sums"), pointer("most"), pointer("src"), pointer("stride")
	words, wordStride, rows, n := pointer("words"), pointer("wordStride"), pointer("rows"), pointer("n")
	SHLQ(Imm(uint64(size/2)), stride)
	SHLQ(Imm(3), wordStride)
	Label("columns")
	var sum [4][2]VecVirtual
	var top [4]VecVirtual
	for i := range sum {
		for half := range sum[i] {
			sum[i][half] = YMM()
			VMOVUPD(Mem{Base: sums, Disp: 64*i + 32*half}, sum[i][half])
		}
		top[i] = YMM()
		VMOVUPS(Mem{Base: most, Disp: 32 * i}, top[i])
	}
	row, bits, left := GP64(), GP64(), GP64()
	MOVQ(src, row)
	MOVQ(words, bits)
	MOVQ(rows, left)
	Label("rows")
	for line := range size / 2 { // rows are too far apart for the processor to see what comes
		PREFETCHT0(Mem{Base: row, Index: stride, Scale: 8, Disp: 64 * line})
	}
	for i := range sum {
		v, upper, d := YMM(), XMM(), YMM()
		VPBROADCASTB(Mem{Base: bits, Disp: i}, v)
		VPAND(bitOf, v, v)
		VPCMPEQD(bitOf, v, v)
		if size == 2 {
			VPAND(widened(Mem{Base: row, Disp: 16 * i}), v, v)
		} else {
			VPAND(Mem{Base: row, Disp: 32 * i}, v, v)
		}
		VEXTRACTF128(Imm(1), v, upper)
		VCVTPS2PD(v.AsX(), d)
		VADDPD(d, sum[i][0], sum[i][0])
		VCVTPS2PD(upper, d)
		VADDPD(d, sum[i][1], sum[i][1])
		VANDPS(magnitude, v, v)
		VPMAXSD(top[i], v, top[i])
	}
	ADDQ(stride, row)
	ADDQ(wordStride, bits)
	DECQ(left)
	JNZ(LabelRef("rows"))
	for i := range sum {
		for half, v := range sum[i] {
			VMOVUPD(v, Mem{Base: sums, Disp: 64*i + 32*half})
		}
		VMOVUPS(top[i], Mem{Base: most, Disp: 32 * i})
	}
	ADDQ(U32(256), sums)
	ADDQ(U32(128), most)
	ADDQ(U32(uint32(32*size)), src)
	ADDQ(Imm(4), words)
	SUBQ(Imm(32), n)
	JNZ(LabelRef("columns"))
	end()
}

// bfloats are the constants of rounding to bfloat16.
type bfloats struct{ belowHalf, lastBit, quiet Mem }

// number rounds what is one, to the lower halves of its lanes.
func (b bfloats) number(v VecVirtual) VecVirtual {
	up := YMM()
	VPSRLD(Imm(16), v, up)
	VPAND(b.lastBit, up, up)
	VPADDD(b.belowHalf, up, up)
	VPADDD(v, up, up)
	VPSRLD(Imm(16), up, up)
	return up
}

// store16 stores the lower halves of the lanes of a, then of b.
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

func at2(base, i GPVirtual) Mem { return Mem{Base: base, Index: i, Scale: 2} }

// affineOf is alpha * unit * (2*sums - offset) - theta of eight channels.
func affineOf(sums, alpha, theta, i GPVirtual, disp int, offset, unit VecVirtual) VecVirtual {
	v := YMM()
	VMOVDQU(at4(sums, i, disp), v)
	VPADDD(v, v, v)
	VPSUBD(offset, v, v)
	VCVTDQ2PS(v, v)
	VMULPS(unit, v, v)
	VMULPS(at4(alpha, i, disp), v, v)
	VSUBPS(at4(theta, i, disp), v, v)
	return v
}

// signsOfSums packs signs, and where gradients pass, without writing the values.
func signsOfSums(magnitude, above1 Mem) {
	begin(avx2, "signsOfSums", 64)
	signs, pass, sums := pointer("signs"), pointer("mask"), pointer("sums")
	alpha, theta, n := pointer("alpha"), pointer("theta"), pointer("n")
	offset, unit, mask, above, zero := broadcast("offset"), broadcast("unit"), constant(magnitude), constant(above1), YMM()
	VXORPS(zero, zero, zero)
	loop(n, 64, func(i GPVirtual) {
		sign, passed := GP64(), GP64()
		XORQ(sign, sign)
		XORQ(passed, passed)
		for j := range 8 {
			u, s, p, bits := affineOf(sums, alpha, theta, i, 32*j, offset, unit), YMM(), YMM(), GP64()
			VCMPPS(atLeast, zero, u, s)
			VPAND(mask, u, p)
			VPSUBD(above, p, p)
			for _, part := range []struct {
				from VecVirtual
				to   GPVirtual
			}{{s, sign}, {p, passed}} {
				VMOVMSKPS(part.from, bits.As32())
				if j > 0 {
					SHLQ(Imm(uint64(8*j)), bits)
				}
				ORQ(bits, part.to)
			}
		}
		MOVQ(sign, Mem{Base: signs})
		MOVQ(passed, Mem{Base: pass})
		ADDQ(Imm(8), signs)
		ADDQ(Imm(8), pass)
	})
	end()
}

// atLeast compares floats; NaN is not at least anything.
var atLeast = Imm(0x1d)

// packs packs the sign bits of what prepare makes of 64 values at a time.
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

// bitsToLanes sets the lanes whose bit is set in byte i of words.
func bitsToLanes(words, i GPVirtual, lanes VecVirtual) VecVirtual {
	v := YMM()
	VPBROADCASTB(Mem{Base: words, Index: i, Scale: 1}, v)
	VPAND(lanes, v, v)
	VPCMPEQD(lanes, v, v)
	return v
}

// addDoubles adds the lower four lanes of p to low, the others to high.
func addDoubles(p, low, high VecVirtual) {
	half, d := XMM(), YMM()
	VEXTRACTF128(Imm(1), p, half)
	VCVTPS2PD(p.AsX(), d)
	VADDPD(d, low, low)
	e := YMM()
	VCVTPS2PD(half, e)
	VADDPD(e, high, high)
}

// storeSum returns the sum of eight lanes: i to i+4, then i to i+2, then the two.
func storeSum(low, high VecVirtual) {
	VADDPD(high, low, low)
	half := XMM()
	VEXTRACTF128(Imm(1), low, half)
	VADDPD(half, low.AsX(), half)
	other := XMM()
	VPERMILPD(Imm(1), half, other)
	VADDSD(other, half, half)
	Store(half, ReturnIndex(0))
}

// adam: the factors come as eight float32 in the order of the type update.
func adam() {
	begin(avx2, "adam", 8, addressOf("clip"))
	param, grad, m, v, n := pointer("param"), pointer("grad"), pointer("m"), pointer("v"), pointer("n")
	u := pointer("u")
	var f [9]VecVirtual
	for i := range f {
		f[i] = YMM()
		VBROADCASTSS(Mem{Base: u, Disp: 4 * i}, f[i])
	}
	clip, beta1, beta2, rest1, rest2, keep, rate, root, eps := f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8]
	loop(n, 8, func(i GPVirtual) {
		g, mean, square, t := YMM(), YMM(), YMM(), YMM()
		VMULPS(at4(grad, i, 0), clip, g)
		VMULPS(at4(m, i, 0), beta1, mean)
		VMULPS(rest1, g, t)
		VADDPS(t, mean, mean)
		VMOVUPS(mean, at4(m, i, 0))
		VMULPS(g, g, g)
		VMULPS(rest2, g, g)
		VMULPS(at4(v, i, 0), beta2, square)
		VADDPS(g, square, square)
		VMOVUPS(square, at4(v, i, 0))
		VSQRTPS(square, square)
		VMULPS(root, square, square)
		VADDPS(eps, square, square)
		VMULPS(rate, mean, mean)
		VDIVPS(square, mean, mean)
		VMULPS(at4(param, i, 0), keep, t)
		VSUBPS(mean, t, t)
		VMOVUPS(t, at4(param, i, 0))
	})
	end()
}
