package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wide writes the loops that gain much from long registers or masks. Looking up does not: long registers shuffle at half the rate.
func wide() {
	wideRandomWords()
	wideCountSigns()
	wideNearest()
	wideRounding()
	wideSignsOfSums()
	wideAddBFloatRows()
	wideBFloats()
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
	beginOther(avx512, "randomWords", "func(dst *uint32, steps int, key *[2]uint32, counter *[4]uint32)", "for 128 words a step.")
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
	beginOther(avx512, "countSigns", "func(dst *int32, stride int, x *uint64, xStride int, w *uint64, channels, words int)", "for 16 channels at a time.")
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
	beginOther(avx512, "nearest", "func(best, away *[4][4]float64, q, k *uint64, n int, skip float64, constants *[4][4]float64)",
		"for dimensions that have a reciprocal, and pointers to the first query and the first key to look at.")
	best, away, q, k, n, score := pointer("best"), pointer("away"), pointer("q"), pointer("k"), pointer("n"), pointer("constants")
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

// wideBroadcast is a 32-bit parameter in all lanes.
func wideBroadcast(name string) VecVirtual {
	v := ZMM()
	VBROADCASTSS(argument(name), v)
	return v
}

func wideZero() VecVirtual {
	v := ZMM()
	VPXORD(v, v, v)
	return v
}

// wideRounding does what rounder.round32 does; its additions and its conversion round downwards by themselves.
func wideRounding() {
	var lanes [8]uint64 // of 16 words: four registers were packed in parts of four values
	for i := range 16 {
		lanes[i/2] |= uint64(i%4*4+i/4) << (i % 2 * 32)
	}
	order := quads8("unpack", lanes[:]...)
	parts := [2]Mem{} // what the low and the high half of a random word are worth
	for half, name := range []string{"lowHalf16", "highHalf16"} {
		parts[half] = quads8(name, uint64(math.Float32bits(float32(math.Ldexp(1, 16*half-32))))*(1<<32+1))
	}
	for _, f := range []struct{ name, factor string }{{"roundRow", "alpha"}, {"roundColumns", "inverse"}} {
		begin(avx512, f.name, 64)
		dst, g, factor, random, n := pointer("dst"), pointer("gradient"), pointer(f.factor), pointer("random"), pointer("n")
		limit, low, high, inOrder := wideBroadcast("limit"), wideConstant(parts[0]), wideConstant(parts[1]), wideConstant(order)
		var inverse VecVirtual
		if f.name == "roundRow" {
			inverse = wideBroadcast("inverse")
		}
		bound, lowest := GP32(), ZMM()
		VCVTTSS2SI(argument("limit"), bound)
		NEGL(bound)
		VPBROADCASTB(bound, lowest)
		loop(n, 64, func(i GPVirtual) {
			var q [4]VecVirtual
			for j := range q {
				v, r, other := ZMM(), ZMM(), ZMM()
				VMOVUPS(at4(g, i, 64*j), v)
				VMULPS(at4(factor, i, 64*j), v, v)
				if inverse != nil {
					VMULPS(inverse, v, v)
				}
				VPMOVZXWD(Mem{Base: random, Index: i, Scale: 2, Disp: 32 * j}, r)
				VCVTDQ2PS(r, r)
				VPERMILPS(Imm(0xb1), r, other)
				VFMADD231PS_RD_SAE(low, other, v)
				VFMADD231PS_RD_SAE(high, r, v)
				VMINPS(v, limit, v) // no number stays what it is, and becomes the lowest integer
				VCVTPS2DQ_RD_SAE(v, v)
				q[j] = v
			}
			VPACKSSDW(q[1], q[0], q[0])
			VPACKSSDW(q[3], q[2], q[2])
			VPACKSSWB(q[2], q[0], q[0])
			VPERMD(q[0], inOrder, q[0])
			VPMAXSB(lowest, q[0], q[0])
			VMOVDQU64(q[0], Mem{Base: dst, Index: i, Scale: 1})
		})
		end()
	}
}

func wideSignsOfSums() {
	magnitude, one := quads8("magnitude16", 0x7fffffff7fffffff), quads8("one16", uint64(math.Float32bits(1))*(1<<32+1))
	begin(avx512, "signsOfSums", 64)
	signs, pass, sums := pointer("signs"), pointer("mask"), pointer("sums")
	alpha, theta, n := pointer("alpha"), pointer("theta"), pointer("n")
	offset, unit, mask, most, zero := wideBroadcast("offset"), wideBroadcast("unit"), wideConstant(magnitude), wideConstant(one), wideZero()
	loop(n, 16, func(i GPVirtual) {
		u, sign, passed := ZMM(), K(), K()
		VMOVDQU32(at4(sums, i, 0), u)
		VPADDD(u, u, u)
		VPSUBD(offset, u, u)
		VCVTDQ2PS(u, u)
		VMULPS(unit, u, u)
		VMULPS(at4(alpha, i, 0), u, u)
		VSUBPS(at4(theta, i, 0), u, u)
		VCMPPS(atLeast, zero, u, sign)
		VPANDD(mask, u, u)
		VCMPPS(Imm(2), most, u, passed)
		KMOVW(sign, Mem{Base: signs})
		KMOVW(passed, Mem{Base: pass})
		ADDQ(Imm(2), signs)
		ADDQ(Imm(2), pass)
	})
	end()
}

// wideAddBFloatRows keeps the sums of 64 columns, and their largest values, in registers.
func wideAddBFloatRows() {
	magnitude := NewDataAddr(Symbol{Name: "magnitude16", Static: true}, 0)
	begin(avx512, "addBFloatRows", 64)
	sums, most, src, stride := pointer("sums"), pointer("most"), pointer("src"), pointer("stride")
	words, wordStride, rows, n := pointer("words"), pointer("wordStride"), pointer("rows"), pointer("n")
	SHLQ(Imm(1), stride)
	SHLQ(Imm(3), wordStride)
	mask := wideConstant(magnitude)
	Label("columns")
	var sum [4][2]VecVirtual
	var top [4]VecVirtual
	for i := range sum {
		for half := range sum[i] {
			sum[i][half] = ZMM()
			VMOVUPD(Mem{Base: sums, Disp: 128*i + 64*half}, sum[i][half])
		}
		top[i] = ZMM()
		VMOVUPS(Mem{Base: most, Disp: 64 * i}, top[i])
	}
	row, bits, left := GP64(), GP64(), GP64()
	MOVQ(src, row)
	MOVQ(words, bits)
	MOVQ(rows, left)
	Label("rows")
	for line := range 2 { // rows are too far apart for the processor to see what comes
		PREFETCHT0(Mem{Base: row, Index: stride, Scale: 8, Disp: 64 * line})
	}
	for i := range sum {
		v, upper, d, passes := ZMM(), YMM(), ZMM(), K()
		KMOVW(Mem{Base: bits, Disp: 2 * i}, passes)
		VPMOVZXWD_Z(Mem{Base: row, Disp: 32 * i}, passes, v)
		VPSLLD(Imm(16), v, v)
		VEXTRACTF64X4(Imm(1), v, upper)
		VCVTPS2PD(v.AsY(), d)
		VADDPD(d, sum[i][0], sum[i][0])
		VCVTPS2PD(upper, d)
		VADDPD(d, sum[i][1], sum[i][1])
		VPANDD(mask, v, v)
		VPMAXSD(top[i], v, top[i])
	}
	ADDQ(stride, row)
	ADDQ(wordStride, bits)
	DECQ(left)
	JNZ(LabelRef("rows"))
	for i := range sum {
		for half, v := range sum[i] {
			VMOVUPD(v, Mem{Base: sums, Disp: 128*i + 64*half})
		}
		VMOVUPS(top[i], Mem{Base: most, Disp: 64 * i})
	}
	ADDQ(U32(512), sums)
	ADDQ(U32(256), most)
	ADDQ(U32(128), src)
	ADDQ(Imm(8), words)
	SUBQ(Imm(64), n)
	JNZ(LabelRef("columns"))
	end()
}

// wideBFloats rounds 32 values at a time; a permutation takes the upper halves of two registers.
func wideBFloats() {
	var odd [8]uint64
	for i := range 32 {
		odd[i/4] |= uint64(2*i+1) << (i % 4 * 16)
	}
	upper := quads8("upperHalves", odd[:]...)
	belowHalf, last, one := quads8("belowHalf16", 0x7fff00007fff), quads8("lastBit16", 0x1000000010000), quads8("unit16", 0x100000001)
	quiet := quads8("quiet16", 0x40000000400000)
	// rounder returns what rounds a number in place, ties to even.
	rounder := func() func(v VecVirtual) {
		half, bit, ulp := wideConstant(belowHalf), wideConstant(last), wideConstant(one)
		return func(v VecVirtual) {
			odd := K()
			VPTESTMD(bit, v, odd)
			VPADDD(half, v, v)
			VPADDD(ulp, v, odd, v)
		}
	}
	store := func(order, a, b VecVirtual, to Mem) {
		v := ZMM()
		VMOVDQA64(order, v)
		VPERMI2W(b, a, v)
		VMOVDQU64(v, to)
	}

	begin(avx512, "roundBFloats", 32)
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	dstStride, srcStride, rows := pointer("dstStride"), pointer("srcStride"), pointer("rows")
	SHLQ(Imm(1), dstStride)
	SHLQ(Imm(2), srcStride)
	round, nan, order := rounder(), wideConstant(quiet), wideConstant(upper)
	Label("row")
	loop(n, 32, func(i GPVirtual) {
		var rounded [2]VecVirtual
		for j := range rounded {
			v, r, isNaN := ZMM(), ZMM(), K()
			VMOVUPS(at4(src, i, 64*j), v)
			VCMPPS(Imm(3), v, v, isNaN) // unordered
			VMOVDQA64(v, r)
			round(r)
			VPORD(nan, v, isNaN, r)
			rounded[j] = r
		}
		store(order, rounded[0], rounded[1], at2(dst, i))
	})
	ADDQ(dstStride, dst)
	ADDQ(srcStride, src)
	DECQ(rows)
	JNZ(LabelRef("row"))
	end()

	begin(avx512, "scaleToBFloats", 32, finite("unit"))
	dst, sums, n := pointer("dst"), pointer("sums"), pointer("n")
	offset, unit := wideBroadcast("offset"), wideBroadcast("unit")
	round, order = rounder(), wideConstant(upper)
	loop(n, 32, func(i GPVirtual) {
		var rounded [2]VecVirtual
		for j := range rounded {
			v := ZMM()
			VMOVDQU32(at4(sums, i, 64*j), v)
			VPADDD(v, v, v)
			VPSUBD(offset, v, v)
			VCVTDQ2PS(v, v)
			VMULPS(unit, v, v)
			round(v)
			rounded[j] = v
		}
		store(order, rounded[0], rounded[1], at2(dst, i))
	})
	end()
}
