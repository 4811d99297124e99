package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// How floats are compared.
var (
	lessThan  = Imm(1)
	atMost    = Imm(2)
	unordered = Imm(3)    // true where one of the two is NaN
	atLeast   = Imm(0x1d) // false for NaN
	greater   = Imm(0x1e) // false for NaN
)

// scaled is unit * (2*sums - offset) of eight channels.
func scaled(sums, i GPVirtual, disp int, offset, unit VecVirtual) VecVirtual {
	v := YMM()
	VMOVDQU(at4(sums, i, disp), v)
	VPADDD(v, v, v)
	VPSUBD(offset, v, v)
	VCVTDQ2PS(v, v)
	VMULPS(unit, v, v)
	return v
}

// wideScaled is scaled for sixteen channels.
func wideScaled(sums, i GPVirtual, disp int, offset, unit VecVirtual) VecVirtual {
	v := ZMM()
	VMOVDQU32(at4(sums, i, disp), v)
	VPADDD(v, v, v)
	VPSUBD(offset, v, v)
	VCVTDQ2PS(v, v)
	VMULPS(unit, v, v)
	return v
}

// times replaces v by alpha*v - theta.
func times(v VecVirtual, alpha, theta, i GPVirtual, disp int) VecVirtual {
	VMULPS(at4(alpha, i, disp), v, v)
	VSUBPS(at4(theta, i, disp), v, v)
	return v
}

func scaleIntegers() {
	begin(avx2, "scaleIntegers", 8)
	dst, sums, n := pointer("dst"), pointer("sums"), pointer("n")
	offset, unit := broadcast("offset"), broadcast("unit")
	loop(n, 8, func(i GPVirtual) { VMOVUPS(scaled(sums, i, 0, offset, unit), at4(dst, i, 0)) })
	end()
}

func scaleBytes() {
	begin(avx2, "scaleBytes", 8)
	dst, q, n := pointer("dst"), pointer("q"), pointer("n")
	unit := broadcast("unit")
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VPMOVSXBD(Mem{Base: q, Index: i, Scale: 1}, v)
		VCVTDQ2PS(v, v)
		VMULPS(unit, v, v)
		VMOVUPS(v, at4(dst, i, 0))
	})
	end()
}

func affineSums() {
	begin(avx2, "affineSums", 8)
	dst, sums, n := pointer("dst"), pointer("sums"), pointer("n")
	alpha, theta := pointer("alpha"), pointer("theta")
	offset, unit := broadcast("offset"), broadcast("unit")
	loop(n, 8, func(i GPVirtual) {
		VMOVUPS(times(scaled(sums, i, 0, offset, unit), alpha, theta, i, 0), at4(dst, i, 0))
	})
	end()
}

func signsOfSums() {
	begin(avx2, "signsOfSums", 64)
	signs, masks, sums := pointer("signs"), pointer("mask"), pointer("sums")
	alpha, theta, n := pointer("alpha"), pointer("theta"), pointer("n")
	offset, unit := broadcast("offset"), broadcast("unit")
	absolute, above, zero := constant(magnitude()), constant(above1()), YMM()
	VXORPS(zero, zero, zero)
	loop(n, 64, func(i GPVirtual) {
		sign, mask := GP64(), GP64()
		XORQ(sign, sign)
		XORQ(mask, mask)
		for j := range 8 {
			u, s, m, bits := times(scaled(sums, i, 32*j, offset, unit), alpha, theta, i, 32*j), YMM(), YMM(), GP64()
			VCMPPS(atLeast, zero, u, s)
			VPAND(absolute, u, m)
			VPSUBD(above, m, m)
			for _, part := range []struct {
				from VecVirtual
				to   GPVirtual
			}{{s, sign}, {m, mask}} {
				VMOVMSKPS(part.from, bits.As32())
				if j > 0 {
					SHLQ(Imm(uint64(8*j)), bits)
				}
				ORQ(bits, part.to)
			}
		}
		MOVQ(sign, Mem{Base: signs})
		MOVQ(mask, Mem{Base: masks})
		ADDQ(Imm(8), signs)
		ADDQ(Imm(8), masks)
	})
	end()
}

func wideSignsOfSums() {
	begin(avx512, "signsOfSums", 64)
	signs, masks, sums := pointer("signs"), pointer("mask"), pointer("sums")
	alpha, theta, n := pointer("alpha"), pointer("theta"), pointer("n")
	offset, unit := wideBroadcast("offset"), wideBroadcast("unit")
	absolute, zero := wideConstant(magnitude16()), wideZero()
	one := wideConstant(quads8("one16", uint64(math.Float32bits(1))*(1<<32+1)))
	loop(n, 16, func(i GPVirtual) {
		u, sign, mask := times(wideScaled(sums, i, 0, offset, unit), alpha, theta, i, 0), K(), K()
		VCMPPS(atLeast, zero, u, sign)
		VPANDD(absolute, u, u)
		VCMPPS(atMost, one, u, mask)
		KMOVW(sign, Mem{Base: signs})
		KMOVW(mask, Mem{Base: masks})
		ADDQ(Imm(2), signs)
		ADDQ(Imm(2), masks)
	})
	end()
}

// squaredReLU: a fused product and sum with a number whose unit in the last place is 1 rounds the exact product to an
// integer.
func squaredReLU() {
	begin(avx2, "squaredReLU", 8)
	dst, factors, u, n := pointer("dst"), pointer("factors"), pointer("u"), pointer("n")
	perUnit, zero := broadcast("perUnit"), YMM()
	integer := constant(words8("unitAbove", all(math.Float32bits(3<<22))))
	two, four := constant(words8("float2", all(math.Float32bits(2)))), constant(words8("float4", all(math.Float32bits(4))))
	VXORPS(zero, zero, zero)
	loop(n, 8, func(i GPVirtual) {
		v, r, m := YMM(), YMM(), YMM()
		VMOVUPS(at4(u, i, 0), v)
		VCMPPS(greater, zero, v, m)
		VANDPS(m, v, v)
		VMULPS(v, v, r)
		VMINPS(four, r, r)
		VFMADD213PS(integer, perUnit, r)
		VPSUBD(integer, r, r)
		VCMPPS(atMost, two, v, m)
		VADDPS(v, v, v)
		VANDPS(m, v, v)
		VMOVUPS(v, at4(factors, i, 0))
		storeBytes(r, Mem{Base: dst, Index: i, Scale: 1})
	})
	end()
}

// storeBytes stores eight integers from 0 to 255.
func storeBytes(v VecVirtual, to Mem) {
	high := XMM()
	VEXTRACTI128(Imm(1), v, high)
	VPACKSSDW(high, v.AsX(), high)
	VPACKUSWB(high, high, high)
	VMOVQ(high, to)
}

func addCounts() {
	begin(avx2, "addCounts", 8)
	sums, n := pointer("sums"), pointer("n")
	counts, shift, by := pointer("counts"), XMM(), GP32()
	Load(Param("shift"), by)
	VMOVD(by, shift)
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVDQU(at4(counts, i, 0), v)
		VPSLLD(shift, v, v)
		VPADDD(at4(sums, i, 0), v, v)
		VMOVDQU(v, at4(sums, i, 0))
	})
	end()
}

func addScaled() {
	begin(avx2, "addScaled", 64)
	dst, sums, words, n := pointer("dst"), pointer("sums"), pointer("signs"), pointer("n")
	offset, factor := broadcast("offset"), broadcast("factor")
	lanes, flip := constant(bitOf()), constant(sign())
	low, high := zeros64()
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
	returnSum(low, high)
	end()
}
