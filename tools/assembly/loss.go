package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func maximum() {
	begin(avx2, "maximum", 8)
	x, n := pointer("x"), pointer("n")
	top := YMM()
	VBROADCASTSS(words8("negativeInfinity", all(math.Float32bits(float32(math.Inf(-1))))), top)
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(x, i, 0), v)
		VMAXPS(top, v, top) // of a number and NaN, the first operand
	})
	returnMost(top, VMAXPS)
	end()
}

// exponentials has the constants of exponentialsGo.
func exponentials() {
	float := func(name string, f float32) Mem { return words8(name, all(math.Float32bits(f))) }
	var terms []Mem
	for i, t := range []float32{
		1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
	} {
		terms = append(terms, float(fmt.Sprintf("exp%d", i), t))
	}
	bias := words8("bias", all[uint32](127))

	begin(avx2, "exponentials", 8)
	x, n, top := pointer("x"), pointer("n"), broadcast("top")
	low, high := zeros64()
	log2e, one, lowest := constant(float("log2e", 1.44269504)), constant(float("one", 1)), constant(float("lowest", -87))
	ln2High, ln2Low := constant(float("ln2High", 0.693359375)), constant(float("ln2Low", -2.12194440e-4))
	loop(n, 8, func(i GPVirtual) {
		v, k, t, y := YMM(), YMM(), YMM(), YMM()
		VMOVUPS(at4(x, i, 0), v)
		VSUBPS(top, v, v)
		VMAXPS(v, lowest, v) // NaN stays
		VMULPS(log2e, v, k)
		VROUNDPS(Imm(0), k, k)
		VMULPS(ln2High, k, t)
		VSUBPS(t, v, v)
		VMULPS(ln2Low, k, t)
		VSUBPS(t, v, v)
		VMOVUPS(terms[0], y)
		for _, c := range terms[1:] {
			VMULPS(v, y, y)
			VADDPS(c, y, y)
		}
		VMULPS(v, v, t)
		VMULPS(t, y, y)
		VADDPS(v, y, y)
		VADDPS(one, y, y)
		VCVTPS2DQ(k, k)
		VPADDD(bias, k, k)
		VPSLLD(Imm(23), k, k)
		VMULPS(k, y, y)
		VMOVUPS(y, at4(x, i, 0))
		addDoubles(y, low, high)
	})
	returnSum(low, high)
	end()
}
