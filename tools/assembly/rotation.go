package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func at8(base, i GPVirtual, disp int) Mem { return Mem{Base: base, Index: i, Scale: 8, Disp: disp} }

func products() {
	begin(avx2, "products", 4)
	dst, a, b, n := pointer("dst"), pointer("a"), pointer("b"), pointer("n")
	loop(n, 4, func(i GPVirtual) {
		v, w := YMM(), YMM()
		VCVTPS2PD(at4(a, i, 0), v)
		VCVTPS2PD(at4(b, i, 0), w)
		VMULPD(w, v, v)
		VMOVUPD(v, at8(dst, i, 0))
	})
	end()
}

// rotate: the butterflies of values 1, 2, 4 and 8 apart in registers of 16 values, then those of larger distances in
// memory.
func rotate() {
	beginOther(avx2, "rotate", "func(x *float64, n int, block int)", "for blocks of 16 or more.")
	x, n, block := pointer("x"), pointer("n"), pointer("block")
	odd := constant(quads4("minusOdd", func(i int) uint64 { return uint64(i%2) << 63 }))
	upper := constant(quads4("minusUpper", func(i int) uint64 { return uint64(i/2) << 63 }))
	at, last := GP64(), GP64()
	MOVQ(x, at)
	SHLQ(Imm(3), n)
	SHLQ(Imm(3), block)
	LEAQ(Mem{Base: x, Index: n, Scale: 1}, last)
	Label("sixteen")
	var v [4]VecVirtual
	for i := range v {
		v[i] = YMM()
		VMOVUPD(Mem{Base: at, Disp: 32 * i}, v[i])
		other := YMM()
		VPERMILPD(Imm(5), v[i], other)
		VXORPD(odd, v[i], v[i])
		VADDPD(other, v[i], v[i])
		other = YMM()
		VPERM2F128(Imm(1), v[i], v[i], other)
		VXORPD(upper, v[i], v[i])
		VADDPD(other, v[i], v[i])
	}
	butterfly := func(a, b int) {
		difference := YMM()
		VSUBPD(v[b], v[a], difference)
		VADDPD(v[b], v[a], v[a])
		v[b] = difference
	}
	butterfly(0, 1)
	butterfly(2, 3)
	butterfly(0, 2)
	butterfly(1, 3)
	for i := range v {
		VMOVUPD(v[i], Mem{Base: at, Disp: 32 * i})
	}
	ADDQ(Imm(128), at)
	CMPQ(at, last)
	JLT(LabelRef("sixteen"))

	distance, low, high, middle := GP64(), GP64(), GP64(), GP64()
	MOVQ(U32(128), distance)
	Label("distance")
	CMPQ(distance, block)
	JGE(LabelRef("done"))
	MOVQ(x, low)
	Label("group")
	LEAQ(Mem{Base: low, Index: distance, Scale: 1}, high)
	MOVQ(high, middle)
	Label("pair")
	for i := range 2 {
		a, b, sum := YMM(), YMM(), YMM()
		VMOVUPD(Mem{Base: low, Disp: 32 * i}, a)
		VMOVUPD(Mem{Base: high, Disp: 32 * i}, b)
		VADDPD(b, a, sum)
		VSUBPD(b, a, a)
		VMOVUPD(sum, Mem{Base: low, Disp: 32 * i})
		VMOVUPD(a, Mem{Base: high, Disp: 32 * i})
	}
	ADDQ(Imm(64), low)
	ADDQ(Imm(64), high)
	CMPQ(low, middle)
	JLT(LabelRef("pair"))
	MOVQ(high, low)
	CMPQ(low, last)
	JLT(LabelRef("group"))
	SHLQ(Imm(1), distance)
	JMP(LabelRef("distance"))
	Label("done")
	end()
}

func maskRotated() {
	begin(avx2, "maskRotated", 4)
	v, da, n := pointer("v"), pointer("da"), pointer("n")
	r, limit := broadcast64("r"), broadcast64("limit")
	absolute := constant(quads4("magnitude64", all[uint64](1<<63-1)))
	loop(n, 4, func(i GPVirtual) {
		x, d := YMM(), YMM()
		VMULPD(at8(v, i, 0), r, x)
		VANDPD(absolute, x, x)
		VCMPPD(atMost, limit, x, x)
		VCVTPS2PD(at4(da, i, 0), d)
		VANDPD(x, d, d)
		VMOVUPD(d, at8(v, i, 0))
	})
	end()
}

func narrowScaled() {
	begin(avx2, "narrowScaled", 4)
	dst, x, n := pointer("dst"), pointer("x"), pointer("n")
	factor := broadcast64("factor")
	loop(n, 4, func(i GPVirtual) {
		v, f := YMM(), XMM()
		VMULPD(at8(x, i, 0), factor, v)
		VCVTPD2PSY(v, f)
		VMOVUPS(f, at4(dst, i, 0))
	})
	end()
}
