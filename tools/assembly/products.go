package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// sumOfLanes returns the sums of the lanes of four registers, in one register.
func sumOfLanes(x [4]VecVirtual) VecVirtual {
	VPSLLQ(Imm(32), x[1], x[1])
	VPSLLQ(Imm(32), x[3], x[3])
	VPOR(x[0], x[1], x[0])
	VPOR(x[2], x[3], x[2])
	VPUNPCKLQDQ(x[2], x[0], x[1])
	VPUNPCKHQDQ(x[2], x[0], x[3])
	VPADDD(x[1], x[3], x[0])
	half := XMM()
	VEXTRACTI128(Imm(1), x[0], half)
	VPADDD(x[0].AsX(), half, half)
	return half
}

// wideCountSigns keeps the sums of 4 rows × 16 channels, as 64 bits, in registers.
func wideCountSigns() {
	const rows, registers = 4, 2
	beginOther(avx512, "countSigns", "func(dst *int32, stride int, x *uint64, xStride int, w "+
		"*uint64, channels, words int)",
		"for 16 channels at a time.")
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

// tile keeps 4 × 8 sums in registers.
func tile() {
	const rows = 4
	beginOther(avx2, "tile", "func(c *float64, ldc int, a, b *float64, k int)", "with four lanes.")
	c, ldc, a, b, k := pointer("c"), pointer("ldc"), pointer("a"), pointer("b"), pointer("k")
	SHLQ(Imm(3), ldc)
	row := [rows]GPVirtual{c, GP64(), GP64(), GP64()}
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: row[r-1], Index: ldc, Scale: 1}, row[r])
	}
	var sum [rows][2]VecVirtual
	for r := range sum {
		for i := range sum[r] {
			sum[r][i] = YMM()
			VMOVUPD(Mem{Base: row[r], Disp: 32 * i}, sum[r][i])
		}
	}
	Label("k")
	columns := [2]VecVirtual{YMM(), YMM()}
	for i := range columns {
		VMOVUPD(Mem{Base: b, Disp: 32 * i}, columns[i])
	}
	for r := range sum {
		v := YMM()
		VBROADCASTSD(Mem{Base: a, Disp: 8 * r}, v)
		for i := range columns {
			VFMADD231PD(columns[i], v, sum[r][i])
		}
	}
	ADDQ(Imm(64), b)
	ADDQ(Imm(32), a)
	DECQ(k)
	JNZ(LabelRef("k"))
	for r := range sum {
		for i := range sum[r] {
			VMOVUPD(sum[r][i], Mem{Base: row[r], Disp: 32 * i})
		}
	}
	end()
}

// wideTilePair: a row of a tile is one register, and one of the other tile another.
func wideTilePair() {
	const rows = 4
	beginOther(avx512, "tilePair", "func(c *float64, ldc int, a, b *float64, k int)", "with eight lanes.")
	c, ldc, a, b, k := pointer("c"), pointer("ldc"), pointer("a"), pointer("b"), pointer("k")
	SHLQ(Imm(3), ldc)
	row := [rows]GPVirtual{c, GP64(), GP64(), GP64()}
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: row[r-1], Index: ldc, Scale: 1}, row[r])
	}
	var sum [rows][2]VecVirtual
	for r := range sum {
		for i := range sum[r] {
			sum[r][i] = ZMM()
			VMOVUPD(Mem{Base: row[r], Disp: 64 * i}, sum[r][i])
		}
	}
	panels := [2]GPVirtual{b, GP64()}
	MOVQ(k, panels[1])
	SHLQ(Imm(6), panels[1])
	ADDQ(b, panels[1])
	Label("k")
	columns := [2]VecVirtual{ZMM(), ZMM()}
	for i := range columns {
		VMOVUPD(Mem{Base: panels[i]}, columns[i])
	}
	for r := range sum {
		v := ZMM()
		VBROADCASTSD(Mem{Base: a, Disp: 8 * r}, v)
		for i := range columns {
			VFMADD231PD(columns[i], v, sum[r][i])
		}
	}
	ADDQ(Imm(64), panels[0])
	ADDQ(Imm(64), panels[1])
	ADDQ(Imm(32), a)
	DECQ(k)
	JNZ(LabelRef("k"))
	for r := range sum {
		for i := range sum[r] {
			VMOVUPD(sum[r][i], Mem{Base: row[r], Disp: 64 * i})
		}
	}
	end()
}
