package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// network writes the loops of normalization, attention and the loss.
func network() {
	normalization()
	attention()
	nearest()
	ranked()
	loss()
}

// broadcast64 loads a float64 parameter to all lanes.
func broadcast64(name string) VecVirtual {
	v := YMM()
	m, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSD(m.Addr, v)
	return v
}

func words4(name string, w uint64) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 4 {
		DATA(8*i, U64(w))
	}
	return m
}

// doubles converts four values.
func doubles(base, i GPVirtual) VecVirtual {
	v := YMM()
	VCVTPS2PD(at4(base, i, 0), v)
	return v
}

func normalization() {
	magnitude := words4("magnitude64", 1<<63-1)

	begin(avx2, "multiply", 8)
	dst, a, b, n := pointer("dst"), pointer("a"), pointer("b"), pointer("n")
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(a, i, 0), v)
		VMULPS(at4(b, i, 0), v, v)
		VMOVUPS(v, at4(dst, i, 0))
	})
	end()

	begin(avx2, "quantize", 8)
	dst, x, gain, n := pointer("dst"), pointer("x"), pointer("gain"), pointer("n")
	r, step, half, top := broadcast64("r"), broadcast64("step"), broadcast64("half"), YMM()
	middle, zero := constant(words4("middle", math.Float64bits(0.5))), YMM()
	VSUBPD(middle, half, top)
	VADDPD(top, top, top)
	VXORPD(zero, zero, zero)
	loop(n, 8, func(i GPVirtual) {
		var index [2]VecVirtual
		for j := range index {
			v, g := YMM(), YMM()
			VCVTPS2PD(at4(x, i, 16*j), v)
			VCVTPS2PD(at4(gain, i, 16*j), g)
			VMULPD(v, g, v)
			VMULPD(r, v, v)
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
	end()

	begin(avx2, "maskNormalized", 8)
	dst, x, gain, n = pointer("dst"), pointer("x"), pointer("gain"), pointer("n")
	da := pointer("da")
	r = broadcast64("r")
	limit, mask := broadcast64("limit"), constant(magnitude)
	sums := [2]VecVirtual{YMM(), YMM()}
	VXORPD(sums[0], sums[0], sums[0])
	VXORPD(sums[1], sums[1], sums[1])
	loop(n, 8, func(i GPVirtual) {
		var passed [2]VecVirtual
		for half := range 2 {
			v, g, p := YMM(), YMM(), YMM()
			VCVTPS2PD(at4(x, i, 16*half), v)
			VCVTPS2PD(at4(gain, i, 16*half), g)
			VMULPD(v, g, p)
			VMULPD(r, p, p)
			VANDPD(mask, p, p)
			VCMPPD(Imm(2), limit, p, p) // p <= limit
			d := YMM()
			VCVTPS2PD(at4(da, i, 16*half), d)
			VANDPD(p, d, d)
			passed[half] = d
			VMULPD(g, d, g)
			VMULPD(v, g, g)
			VADDPD(g, sums[half], sums[half])
		}
		for half, d := range passed {
			f := XMM()
			VCVTPD2PSY(d, f) // exact: it was a float32
			VMOVUPS(f, at4(dst, i, 16*half))
		}
	})
	storeSum(sums[0], sums[1])
	end()

	begin(avx2, "addNormalized", 8)
	dx, dGain := pointer("dx"), pointer("dGain")
	da, x, gain, n = pointer("da"), pointer("x"), pointer("gain"), pointer("n")
	r = broadcast64("r")
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

func attention() {
	begin(avx2, "valueGradient", 8)
	dv, do, v, n := pointer("dv"), pointer("do"), pointer("v"), pointer("n")
	w, sums := broadcast64("w"), [2]VecVirtual{YMM(), YMM()}
	VXORPD(sums[0], sums[0], sums[0])
	VXORPD(sums[1], sums[1], sums[1])
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
	storeSum(sums[0], sums[1])
	end()

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

// nearest keeps, for four queries at once, the four best scores and their distances.
func nearest() {
	table := NewDataAddr(Symbol{Name: "nibbleCounts", Static: true}, 0)
	nibbles := NewDataAddr(Symbol{Name: "nibbles", Static: true}, 0)
	zeros := words4("zeros", 0)
	integer := words4("integer", math.Float64bits(1<<52)) // or'ed with a small integer: 2^52 + that
	none := words4("none", math.Float64bits(math.Inf(-1)))
	one := words4("one64", math.Float64bits(1))
	start := GLOBL("start", RODATA|NOPTR)
	for i := range 4 {
		DATA(8*i, U64(math.Float64bits(float64(i-3))))
	}
	beginOther(avx2, "nearest", "func(best, away *[4][4]float64, q, k *uint64, n int, skip float64, constants *[4][4]float64)",
		"for pointers to the first query and the first key to look at.")
	best, away, q, k, n, score := pointer("best"), pointer("away"), pointer("q"), pointer("k"), pointer("n"), pointer("constants")
	query, counts, mask, distance := YMM(), constant(table), constant(nibbles), broadcast64("skip")
	VADDPD(start, distance, distance)
	VMOVDQU(Mem{Base: q}, query)
	var b, d [4]VecVirtual
	for r := range b {
		b[r], d[r] = YMM(), YMM()
		VMOVUPD(Mem{Base: best, Disp: 32 * r}, b[r])
		VMOVUPD(Mem{Base: away, Disp: 32 * r}, d[r])
	}
	Label("key")
	s, t := YMM(), YMM()
	VPBROADCASTQ(Mem{Base: k}, s)
	VPXOR(query, s, s)
	VPSRLW(Imm(4), s, t)
	VPAND(mask, s, s)
	VPAND(mask, t, t)
	VPSHUFB(s, counts, s)
	VPSHUFB(t, counts, t)
	VPADDB(t, s, s)
	VPSADBW(zeros, s, s)
	VPOR(integer, s, s)
	VSUBPD(integer, s, s)
	VADDPD(s, s, s)
	VMOVUPD(Mem{Base: score}, t)
	VSUBPD(s, t, s)
	VDIVPD(Mem{Base: score, Disp: 32}, s, s)
	VMULPD(Mem{Base: score, Disp: 64}, distance, t)
	VSUBPD(t, s, s)
	VMOVUPD(none, t)
	VBLENDVPD(distance, t, s, s) // keys after the query
	// Whatever is worse than the new score moves down by one.
	below := func(r int) VecVirtual {
		m := YMM()
		VCMPPD(Imm(1), s, b[r], m) // b[r] < s
		return m
	}
	m := below(3)
	for r := 3; r > 0; r-- {
		above := below(r - 1)
		v := YMM()
		VMINPD(b[r-1], s, v)
		VMAXPD(b[r], v, b[r])
		VBLENDVPD(above, d[r-1], distance, v)
		VBLENDVPD(m, v, d[r], d[r])
		m = above
	}
	VMAXPD(b[0], s, b[0])
	VBLENDVPD(m, distance, d[0], d[0])
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

// ranked computes the gradients of one head's queries, four survivors each. A sign turns a float's first bit: that of a value is
// shifted there from 32 bits in every lane.
func ranked() {
	sign := NewDataAddr(Symbol{Name: "sign", Static: true}, 0)
	var shifts [4]Mem
	for j := range shifts {
		shifts[j] = words8(fmt.Sprintf("toSign%d", j), func(i int) uint32 { return uint32(31 - 8*j - i) })
	}
	beginOther(avx2, "ranked", "func(dq, dk, dv, do *float32, q, k, v *uint64, at *int32, exps *float32, weights *[4]float32, "+
		"scale float64, dqStride, doStride, words, n, queries int)", "for whole registers.")
	frame := AllocLocal(13 * 8)
	variables := 0
	// variable copies a parameter, times 2^shift, to memory.
	variable := func(name string, shift uint64) Mem {
		v, m := pointer(name), frame.Offset(8*variables)
		variables++
		if shift > 0 {
			SHLQ(Imm(shift), v)
		}
		MOVQ(v, m)
		return m
	}
	inDQ, inDK, inDV, inDO := variable("dq", 0), variable("dk", 0), variable("dv", 0), variable("do", 0)
	inQ, inK, inV := variable("q", 0), variable("k", 0), variable("v", 0)
	inAt, inExps, inLeft := variable("at", 0), variable("exps", 0), variable("queries", 0)
	inDQStride, inDOStride := variable("dqStride", 2), variable("doStride", 2)
	inWords := variable("words", 3)
	n := pointer("n")
	SHLQ(Imm(2), n)

	Label("query")
	// Where the survivors' rows of floats and of bits begin.
	var row, bits [4]GPVirtual
	survivors := func(of Mem) {
		at := GP64()
		MOVQ(inAt, at)
		for r := range row {
			row[r], bits[r] = GP64(), GP64()
			MOVLQSX(Mem{Base: at, Disp: 4 * r}, row[r])
			MOVQ(row[r], bits[r])
			IMULQ(n, row[r])
			IMULQ(inWords, bits[r])
			ADDQ(of, bits[r])
		}
	}
	// turned is x with the sign that shift brings up in lanes, where a set bit is +.
	turned := func(lanes VecVirtual, j int, x VecVirtual) VecVirtual {
		t := YMM()
		VPSLLVD(shifts[j], lanes, t)
		VPANDN(sign, t, t)
		VXORPS(x, t, t)
		return t
	}
	survivors(inV)
	weightsAt := pointer("weights")
	var weight, sum [4]VecVirtual
	for r := range sum {
		weight[r], sum[r] = YMM(), YMM()
		VBROADCASTSS(Mem{Base: weightsAt, Disp: 4 * r}, weight[r])
		VXORPS(sum[r], sum[r], sum[r])
	}
	base, line, c := GP64(), GP64(), GP64()
	XORQ(c, c)
	MOVQ(inDV, base)
	MOVQ(inDO, line)
	Label("read")
	var lanes [4]VecVirtual
	for r := range lanes {
		lanes[r] = YMM()
		VPBROADCASTD(Mem{Base: bits[r]}, lanes[r])
	}
	for j := range 4 {
		d := YMM()
		VMOVUPS(Mem{Base: line, Index: c, Scale: 1, Disp: 32 * j}, d)
		for r := range sum {
			VADDPS(turned(lanes[r], j, d), sum[r], sum[r])
		}
		for r := range sum {
			t, to := YMM(), Mem{Base: base, Index: row[r], Scale: 1, Disp: 32 * j}
			VMULPS(weight[r], d, t)
			VADDPS(to, t, t)
			VMOVUPS(t, to)
		}
	}
	nextLanes := func(label string) {
		for r := range row {
			ADDQ(U32(128), row[r])
			ADDQ(Imm(4), bits[r])
		}
		ADDQ(U32(128), c)
		CMPQ(c, n)
		JLT(LabelRef(label))
	}
	nextLanes("read")

	// The four dots, in the order of inLanes.
	var part [4]VecVirtual
	for r := range sum {
		part[r] = XMM()
		VEXTRACTF128(Imm(1), sum[r], part[r])
		VADDPS(part[r], sum[r].AsX(), part[r])
	}
	var pair [2]VecVirtual
	for i := range pair {
		low := XMM()
		pair[i] = XMM()
		VUNPCKLPS(part[2*i+1], part[2*i], low)
		VUNPCKHPS(part[2*i+1], part[2*i], pair[i])
		VADDPS(pair[i], low, pair[i])
	}
	even, odd, dots := XMM(), XMM(), YMM()
	VUNPCKLPD(pair[1], pair[0], even)
	VUNPCKHPD(pair[1], pair[0], odd)
	VADDPS(odd, even, even)
	VCVTPS2PD(even, dots)

	// total is (x0 + x2) + (x1 + x3) in all lanes.
	total := func(x VecVirtual) VecVirtual {
		half, other, all := XMM(), XMM(), YMM()
		VEXTRACTF128(Imm(1), x, half)
		VADDPD(half, x.AsX(), half)
		VPERMILPD(Imm(1), half, other)
		VADDSD(other, half, half)
		VBROADCASTSD(half, all)
		return all
	}
	p, mean, factor := YMM(), YMM(), broadcast64("scale")
	exps := GP64()
	MOVQ(inExps, exps)
	VCVTPS2PD(Mem{Base: exps}, p)
	VDIVPD(total(p), p, p)
	VMULPD(dots, p, mean)
	VSUBPD(total(mean), dots, dots)
	VMULPD(dots, p, p)
	VMULPD(factor, p, p)
	s, one, last := XMM(), XMM(), XMM()
	VCVTPD2PSY(p, s)
	VPERMILPS(Imm(1), s, one)
	VADDSS(one, s, last)
	VPERMILPS(Imm(2), s, one)
	VADDSS(one, last, last)
	VXORPS(sign, last, last)
	VINSERTPS(Imm(0x30), last, s, s)
	var score [4]VecVirtual
	for r := range score {
		score[r] = YMM()
		VPERMILPS(Imm(uint64(0x55*r)), s, score[r].AsX())
		VBROADCASTSS(score[r].AsX(), score[r])
	}

	survivors(inK)
	query := GP64()
	MOVQ(inQ, query)
	MOVQ(inDK, base)
	MOVQ(inDQ, line)
	XORQ(c, c)
	Label("scores")
	ours := YMM()
	VPBROADCASTD(Mem{Base: query}, ours)
	ADDQ(Imm(4), query)
	for r := range lanes {
		lanes[r] = YMM()
		VPBROADCASTD(Mem{Base: bits[r]}, lanes[r])
	}
	for j := range 4 {
		sum, turn := YMM(), YMM()
		VXORPS(sum, sum, sum)
		VPSLLVD(shifts[j], ours, turn)
		VPANDN(sign, turn, turn)
		for r := range score {
			VADDPS(turned(lanes[r], j, score[r]), sum, sum)
		}
		VMOVUPS(sum, Mem{Base: line, Index: c, Scale: 1, Disp: 32 * j})
		for r := range score {
			t, to := YMM(), Mem{Base: base, Index: row[r], Scale: 1, Disp: 32 * j}
			VXORPS(turn, score[r], t)
			VADDPS(to, t, t)
			VMOVUPS(t, to)
		}
	}
	nextLanes("scores")
	step := GP64()
	for _, s := range []struct{ by, what Mem }{{inDQStride, inDQ}, {inDOStride, inDO}, {inWords, inQ}} {
		MOVQ(s.by, step)
		ADDQ(step, s.what)
	}
	ADDQ(Imm(16), inAt)
	ADDQ(Imm(16), inExps)
	DECQ(inLeft)
	JNZ(LabelRef("query"))
	end()
}

// The constants of expGo.
var exponential = struct {
	log2e, ln2High, ln2Low, lowest float32
	terms                          []float32
}{1.44269504, 0.693359375, -2.12194440e-4, -87,
	[]float32{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1}}

func loss() {
	float := func(name string, f float32) Mem { return words8(name, all(math.Float32bits(f))) }
	log2e, high, low, lowest := float("log2e", exponential.log2e), float("ln2High", exponential.ln2High), float("ln2Low", exponential.ln2Low), float("lowest", exponential.lowest)
	one, bias, none := float("one", 1), words8("bias", all(127)), float("negativeInfinity", float32(math.Inf(-1)))
	var terms []Mem
	for i, t := range exponential.terms {
		terms = append(terms, float("exp"+string(rune('0'+i)), t))
	}

	begin(avx2, "maximum", 8)
	x, n := pointer("x"), pointer("n")
	top := YMM()
	VBROADCASTSS(none, top)
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMOVUPS(at4(x, i, 0), v)
		VMAXPS(top, v, top) // of a number and NaN, the first operand
	})
	storeMost(top, VMAXPS)
	end()

	begin(avx2, "exponentials", 8)
	x, n = pointer("x"), pointer("n")
	most := broadcast("top")
	sums := [2]VecVirtual{YMM(), YMM()}
	VXORPD(sums[0], sums[0], sums[0])
	VXORPD(sums[1], sums[1], sums[1])
	scale, ones, h, l, least := constant(log2e), constant(one), constant(high), constant(low), constant(lowest)
	loop(n, 8, func(i GPVirtual) {
		v, k, t, y := YMM(), YMM(), YMM(), YMM()
		VMOVUPS(at4(x, i, 0), v)
		VSUBPS(most, v, v)
		VMAXPS(v, least, v) // NaN stays
		VMULPS(scale, v, k)
		VROUNDPS(Imm(0), k, k)
		VMULPS(h, k, t)
		VSUBPS(t, v, v)
		VMULPS(l, k, t)
		VSUBPS(t, v, v)
		VMOVUPS(terms[0], y)
		for _, c := range terms[1:] {
			VMULPS(v, y, y)
			VADDPS(c, y, y)
		}
		VMULPS(v, v, t)
		VMULPS(t, y, y)
		VADDPS(v, y, y)
		VADDPS(ones, y, y)
		VCVTPS2DQ(k, k)
		VPADDD(bias, k, k)
		VPSLLD(Imm(23), k, k)
		VMULPS(k, y, y)
		VMOVUPS(y, at4(x, i, 0))
		addDoubles(y, sums[0], sums[1])
	})
	storeSum(sums[0], sums[1])
	end()

	begin(avx2, "scale", 8)
	x, n = pointer("x"), pointer("n")
	factor := broadcast("factor")
	loop(n, 8, func(i GPVirtual) {
		v := YMM()
		VMULPS(at4(x, i, 0), factor, v)
		VMOVUPS(v, at4(x, i, 0))
	})
	end()
}
