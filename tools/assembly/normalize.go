package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func quantize() {
	begin(avx2, "quantize", 8)
	dst, x, gain, n := pointer("dst"), pointer("x"), pointer("gain"), pointer("n")
	r := broadcast64("r")
	levelsOf(dst, n, func(i GPVirtual, j int) VecVirtual {
		v, g := YMM(), YMM()
		VCVTPS2PD(at4(x, i, 16*j), v)
		VCVTPS2PD(at4(gain, i, 16*j), g)
		VMULPD(v, g, v)
		VMULPD(r, v, v)
		return v
	})
	end()
}

func nearestLevels() {
	begin(avx2, "nearestLevels", 8)
	dst, x, n := pointer("dst"), pointer("x"), pointer("n")
	r := broadcast64("r")
	levelsOf(dst, n, func(i GPVirtual, j int) VecVirtual {
		v := YMM()
		VMULPD(at8(x, i, 32*j), r, v)
		return v
	})
	end()
}

// levelsOf stores the indices of the levels nearest to values. value loads the values i+4j..i+4j+3.
func levelsOf(dst, n GPVirtual, value func(i GPVirtual, j int) VecVirtual) {
	step, half, top := broadcast64("step"), broadcast64("half"), YMM()
	middle, zero := constant(quads4("middle", all(math.Float64bits(0.5)))), YMM()
	VSUBPD(middle, half, top)
	VADDPD(top, top, top)
	VXORPD(zero, zero, zero)
	loop(n, 8, func(i GPVirtual) {
		var index [2]VecVirtual
		for j := range index {
			v := value(i, j)
			VDIVPD(step, v, v)
			VSUBPD(middle, v, v)
			VROUNDPD(Imm(0), v, v)
			VADDPD(half, v, v)
			VMAXPD(zero, v, v)
			VMINPD(top, v, v)
			index[j] = XMM()
			VCVTPD2DQY(v, index[j])
		}
		VPACKSSDW(index[1], index[0], index[0])
		VPACKUSWB(index[0], index[0], index[0])
		VMOVQ(index[0], Mem{Base: dst, Index: i, Scale: 1})
	})
}

func maskNormalized() {
	begin(avx2, "maskNormalized", 8)
	dst, x, gain, n := pointer("dst"), pointer("x"), pointer("gain"), pointer("n")
	da := pointer("da")
	r := broadcast64("r")
	limit, absolute := broadcast64("limit"), constant(quads4("magnitude64", all[uint64](1<<63-1)))
	var sums [2]VecVirtual
	sums[0], sums[1] = zeros64()
	loop(n, 8, func(i GPVirtual) {
		var masked [2]VecVirtual
		for half := range masked {
			v, g, p := YMM(), YMM(), YMM()
			VCVTPS2PD(at4(x, i, 16*half), v)
			VCVTPS2PD(at4(gain, i, 16*half), g)
			VMULPD(v, g, p)
			VMULPD(r, p, p)
			VANDPD(absolute, p, p)
			VCMPPD(atMost, limit, p, p)
			d := YMM()
			VCVTPS2PD(at4(da, i, 16*half), d)
			VANDPD(p, d, d)
			masked[half] = d
			VMULPD(g, d, g)
			VMULPD(v, g, g)
			VADDPD(g, sums[half], sums[half])
		}
		for half, d := range masked {
			f := XMM()
			VCVTPD2PSY(d, f) // exact: it was a float32
			VMOVUPS(f, at4(dst, i, 16*half))
		}
	})
	returnSum(sums[0], sums[1])
	end()
}

// doubles converts four values.
func doubles(base, i GPVirtual) VecVirtual {
	v := YMM()
	VCVTPS2PD(at4(base, i, 0), v)
	return v
}

func addNormalized() {
	begin(avx2, "addNormalized", 8)
	dx, dGain := pointer("dx"), pointer("dGain")
	da, x, gain, n := pointer("da"), pointer("x"), pointer("gain"), pointer("n")
	r := broadcast64("r")
	c := broadcast64("c")
	loop(n, 4, func(i GPVirtual) {
		d, v, t, g := doubles(da, i), doubles(x, i), YMM(), doubles(gain, i)
		VMULPD(d, g, g)
		VMULPD(v, c, t)
		VSUBPD(t, g, g)
		VMULPD(r, g, g)
		f := XMM()
		VCVTPD2PSY(g, f)
		VADDPS(at4(dx, i, 0), f, f)
		VMOVUPS(f, at4(dx, i, 0))
		VMULPD(r, v, v)
		VMULPD(d, v, v)
		at := Mem{Base: dGain, Index: i, Scale: 8}
		VADDPD(at, v, v)
		VMOVUPD(v, at)
	})
	end()
}
