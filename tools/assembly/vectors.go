package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Magnitudes are compared as the integers that their bits are: these have the order of the floats, with NaN above all.

func add() { binary("add", VADDPS) }

func multiply() { binary("multiply", VMULPS) }

func binary(name string, operation func(ops ...Op)) {
	begin(avx2, name, 8)
	dst, a, b, n := pointer("dst"), pointer("a"), pointer("b"), pointer("n")
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(a, i, 0), v)
		operation(at4(b, i, 0), v, v)
		VMOVUPS(v, at4(dst, i, 0))
	})
	end()
}

func scale() {
	begin(avx2, "scale", 8)
	x, n := pointer("x"), pointer("n")
	factor := broadcast("factor")
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMULPS(at4(x, i, 0), factor, v)
		VMOVUPS(v, at4(x, i, 0))
	})
	end()
}

func affine() {
	begin(avx2, "affine", 8)
	u, alpha, theta, n := pointer("u"), pointer("alpha"), pointer("theta"), pointer("n")
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(u, i, 0), v)
		VMULPS(at4(alpha, i, 0), v, v)
		VSUBPS(at4(theta, i, 0), v, v)
		VMOVUPS(v, at4(u, i, 0))
	})
	end()
}

func absMax() {
	begin(avx2, "absMax", 8)
	most, x, n := pointer("most"), pointer("x"), pointer("n")
	mask := constant(magnitude())
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VANDPS(at4(x, i, 0), mask, v)
		VPMAXSD(at4(most, i, 0), v, v)
		VMOVUPS(v, at4(most, i, 0))
	})
	end()
}

func absMaxProduct() {
	begin(avx2, "absMaxProduct", 8)
	a, b, n := pointer("a"), pointer("b"), pointer("n")
	mask, top := constant(magnitude()), YMM()
	VXORPS(top, top, top)
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(a, i, 0), v)
		VMULPS(at4(b, i, 0), v, v)
		VANDPS(mask, v, v)
		VPMAXSD(top, v, top)
	})
	returnMost(top, VPMAXSD)
	end()
}

func sumSquares() {
	begin(avx2, "sumSquares", 8)
	x, n := pointer("x"), pointer("n")
	low, high := zeros64()
	loop(n, 8, func(i GPVirtual) {
		v, w := YMM(), YMM()
		VCVTPS2PD(at4(x, i, 0), v)
		VCVTPS2PD(at4(x, i, 16), w)
		VMULPD(v, v, v)
		VMULPD(w, w, w)
		VADDPD(v, low, low)
		VADDPD(w, high, high)
	})
	returnSum(low, high)
	end()
}

// adam: the factors are nine float32 in the order of the type update.
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
