package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func valueGradient() {
	begin(avx2, "valueGradient", 8)
	dv, do, v, n := pointer("dv"), pointer("do"), pointer("v"), pointer("n")
	w, sums := broadcast64("w"), [2]VecVirtual{}
	sums[0], sums[1] = zeros64()
	loop(n, 8, func(i GPVirtual) {
		for half := range sums {
			d, p := YMM(), YMM()
			VCVTPS2PD(at4(do, i, 16*half), d)
			VCVTPS2PD(at4(v, i, 16*half), p)
			VMULPD(p, d, p)
			VADDPD(p, sums[half], sums[half])
			VMULPD(w, d, d)
			to := Mem{Base: dv, Index: i, Scale: 8, Disp: 32 * half}
			VADDPD(to, d, d)
			VMOVUPD(d, to)
		}
	})
	returnSum(sums[0], sums[1])
	end()
}

func scoreGradient() {
	begin(avx2, "scoreGradient", 8)
	dq, dk, q, k, n := pointer("dq"), pointer("dk"), pointer("q"), pointer("k"), pointer("n")
	s := broadcast64("s")
	loop(n, 4, func(i GPVirtual) {
		for _, p := range [2][2]GPVirtual{{dq, k}, {dk, q}} {
			t := YMM()
			VCVTPS2PD(at4(p[1], i, 0), t)
			VMULPD(s, t, t)
			to := Mem{Base: p[0], Index: i, Scale: 8}
			VADDPD(to, t, t)
			VMOVUPD(t, to)
		}
	})
	end()
}
