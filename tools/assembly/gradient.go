package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func mask() {
	maskLoop("mask", 32, func(src GPVirtual) Op { return Mem{Base: src} })
}

func maskBFloats() {
	maskLoop("maskBFloats", 16, func(src GPVirtual) Op { return widened(Mem{Base: src}) })
}

// maskLoop copies eight values at a time, which are size bytes of src.
func maskLoop(name string, size uint64, values func(src GPVirtual) Op) {
	begin(avx2, name, 64)
	dst, src, words, n := pointer("dst"), pointer("src"), pointer("words"), pointer("n")
	lanes := constant(bitOf())
	SHRQ(Imm(3), n)
	loop(n, 1, func(i GPVirtual) {
		m := bitsToLanes(words, i, lanes)
		VPAND(values(src), m, m)
		VMOVDQU(m, Mem{Base: dst})
		ADDQ(Imm(size), src)
		ADDQ(Imm(32), dst)
	})
	end()
}

// columns are four vector registers of columns at a time: their sums in float64, and their largest absolute values.
type columns struct {
	register func() VecVirtual
	size     int // bytes of a register
	sum      [4][2]VecVirtual
	top      [4]VecVirtual
}

// move moves sums and maxima between memory and registers.
func (c *columns) move(sums, most GPVirtual, move func(memory Mem, register VecVirtual)) {
	for i := range c.sum {
		for half := range c.sum[i] {
			move(Mem{Base: sums, Disp: c.size * (2*i + half)}, c.sum[i][half])
		}
		move(Mem{Base: most, Disp: c.size * i}, c.top[i])
	}
}

// addRows adds all rows to the sums. add adds register i of a row, whose values have the given size, to sum and top.
func (c *columns) addRows(set, name string, size int, add func(row, bits GPVirtual, i int)) {
	sums, most, src, stride := pointer("sums"), pointer("most"), pointer("src"), pointer("stride")
	words, wordStride, rows, n := pointer("words"), pointer("wordStride"), pointer("rows"), pointer("n")
	SHLQ(Imm(uint64(size/2)), stride)
	SHLQ(Imm(3), wordStride)
	Label("columns")
	for i := range c.sum {
		c.sum[i], c.top[i] = [2]VecVirtual{c.register(), c.register()}, c.register()
	}
	c.move(sums, most, func(memory Mem, register VecVirtual) { VMOVUPD(memory, register) })
	row, bits, left := GP64(), GP64(), GP64()
	MOVQ(src, row)
	MOVQ(words, bits)
	MOVQ(rows, left)
	Label("rows")
	lanes := c.size / 4                       // of a register
	for line := range 4 * lanes * size / 64 { // rows are too far apart for the processor to prefetch them itself
		PREFETCHT0(Mem{Base: row, Index: stride, Scale: 8, Disp: 64 * line})
	}
	for i := range c.sum {
		add(row, bits, i)
	}
	ADDQ(stride, row)
	ADDQ(wordStride, bits)
	DECQ(left)
	JNZ(LabelRef("rows"))
	c.move(sums, most, func(memory Mem, register VecVirtual) { VMOVUPD(register, memory) })
	ADDQ(U32(uint32(8*c.size)), sums)
	ADDQ(U32(uint32(4*c.size)), most)
	ADDQ(U32(uint32(4*lanes*size)), src)
	ADDQ(Imm(uint64(4*lanes/8)), words)
	SUBQ(Imm(uint64(4*lanes)), n)
	JNZ(LabelRef("columns"))
	end()
}

func addRows() {
	narrowAddRows("addRows", 4, func(row GPVirtual, i int) Op { return Mem{Base: row, Disp: 32 * i} })
}

func addBFloatRows() {
	narrowAddRows("addBFloatRows", 2, func(row GPVirtual, i int) Op { return widened(Mem{Base: row, Disp: 16 * i}) })
}

func narrowAddRows(name string, size int, values func(row GPVirtual, i int) Op) {
	begin(avx2, name, 64)
	c := &columns{register: func() VecVirtual { return YMM() }, size: 32}
	c.addRows(avx2, name, size, func(row, bits GPVirtual, i int) {
		v, upper, d := YMM(), XMM(), YMM()
		VPBROADCASTB(Mem{Base: bits, Disp: i}, v)
		VPAND(bitOf(), v, v)
		VPCMPEQD(bitOf(), v, v)
		VPAND(values(row, i), v, v)
		VEXTRACTF128(Imm(1), v, upper)
		VCVTPS2PD(v.AsX(), d)
		VADDPD(d, c.sum[i][0], c.sum[i][0])
		VCVTPS2PD(upper, d)
		VADDPD(d, c.sum[i][1], c.sum[i][1])
		VANDPS(magnitude(), v, v)
		VPMAXSD(c.top[i], v, c.top[i])
	})
}

func wideAddBFloatRows() {
	begin(avx512, "addBFloatRows", 64)
	absolute := wideConstant(magnitude16())
	c := &columns{register: func() VecVirtual { return ZMM() }, size: 64}
	c.addRows(avx512, "addBFloatRows", 2, func(row, bits GPVirtual, i int) {
		v, upper, d, passes := ZMM(), YMM(), ZMM(), K()
		KMOVW(Mem{Base: bits, Disp: 2 * i}, passes)
		VPMOVZXWD_Z(Mem{Base: row, Disp: 32 * i}, passes, v)
		VPSLLD(Imm(16), v, v)
		VEXTRACTF64X4(Imm(1), v, upper)
		VCVTPS2PD(v.AsY(), d)
		VADDPD(d, c.sum[i][0], c.sum[i][0])
		VCVTPS2PD(upper, d)
		VADDPD(d, c.sum[i][1], c.sum[i][1])
		VPANDD(absolute, v, v)
		VPMAXSD(c.top[i], v, c.top[i])
	})
}
