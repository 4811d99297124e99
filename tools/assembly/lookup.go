package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	panelCols  = 64
	lookupRows = 4
)

// bytes32 is a constant of 32 bytes.
func bytes32(name string, f func(i int) byte) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 32 {
		DATA(i, U8(f(i)))
	}
	return m
}

func same(b byte) func(int) byte { return func(int) byte { return b } }

// tableRows addresses the tables of four rows of size bytes.
func tableRows(table Register, size, size3 GPVirtual) func(r, at int) Mem {
	return func(r, at int) Mem {
		switch r {
		case 0:
			return Mem{Base: table, Disp: at}
		case 3:
			return Mem{Base: table, Index: size3, Scale: 1, Disp: at}
		}
		return Mem{Base: table, Index: size, Scale: uint8(r), Disp: at}
	}
}

// lookupAVX2: 8 sums of bytes (4 rows × 64 columns) stay in registers; every flush groups they are added to 16-bit sums of
// even and of odd columns on the stack.
func lookupAVX2() {
	nibbles := bytes32("nibbles", same(0x0f))
	evens := bytes32("evens", func(i int) byte { return byte(0xff * (1 - i%2)) })

	TEXT("lookupAVX2", NOSPLIT, "func(sums *int32, stride int, tables, panel *byte, groups, flush int)")
	Doc("lookupAVX2 is lookupGo.")
	Pragma("noescape")
	wide := AllocLocal(lookupRows * 2 * 64)
	table, panel := Load(Param("tables"), GP64()), Load(Param("panel"), GP64())
	left, flush := Load(Param("groups"), GP64()), Load(Param("flush"), GP64())
	size, size3 := GP64(), GP64()
	MOVQ(left, size)
	SHLQ(Imm(5), size)
	LEAQ(Mem{Base: size, Index: size, Scale: 2}, size3)
	row := tableRows(table, size.(GPVirtual), size3.(GPVirtual))
	mask, even := YMM(), YMM()
	VMOVDQU(nibbles, mask)
	VMOVDQU(evens, even)
	var sum [lookupRows][2]VecVirtual
	for r := range sum {
		sum[r] = [2]VecVirtual{YMM(), YMM()}
	}
	t := YMM()
	VPXOR(t, t, t)
	for i := range lookupRows * 4 {
		VMOVDQU(t, wide.Offset(32*i))
	}

	Label("flushes")
	for r := range sum {
		for _, s := range sum[r] {
			VPXOR(s, s, s)
		}
	}
	count := GP64()
	MOVQ(flush, count)
	Label("groups")
	low, high := [2]VecVirtual{YMM(), YMM()}, [2]VecVirtual{YMM(), YMM()}
	for i := range 2 {
		VMOVDQU(Mem{Base: panel, Disp: 32 * i}, low[i])
		VPSRLW(Imm(4), low[i], high[i])
		VPAND(mask, low[i], low[i])
		VPAND(mask, high[i], high[i])
	}
	for r := range sum {
		for half, index := range [][2]VecVirtual{low, high} {
			entries := YMM()
			VBROADCASTI128(row(r, 16*half), entries)
			for i := range 2 {
				entry := YMM()
				VPSHUFB(index[i], entries, entry)
				VPADDB(entry, sum[r][i], sum[r][i])
			}
		}
	}
	ADDQ(Imm(panelCols), panel)
	ADDQ(Imm(32), table)
	DECQ(count)
	JNZ(LabelRef("groups"))
	for r := range sum {
		for i, s := range sum[r] {
			at := wide.Offset(64 * (2*r + i))
			e := YMM()
			VPAND(even, s, e)
			VPSRLW(Imm(8), s, s)
			VPADDW(at, e, e)
			VPADDW(at.Offset(32), s, s)
			VMOVDQU(e, at)
			VMOVDQU(s, at.Offset(32))
		}
	}
	SUBQ(flush, left)
	JNZ(LabelRef("flushes"))

	// Back to the order of columns, as 32 bits.
	sums, stride := Load(Param("sums"), GP64()), Load(Param("stride"), GP64())
	SHLQ(Imm(2), stride)
	for r := range lookupRows {
		for i := range 2 {
			at := wide.Offset(64 * (2*r + i))
			e, o, mixed := YMM(), YMM(), [2]VecVirtual{YMM(), YMM()}
			VMOVDQU(at, e)
			VMOVDQU(at.Offset(32), o)
			VPUNPCKLWD(o, e, mixed[0]) // columns 0..7 and 16..23
			VPUNPCKHWD(o, e, mixed[1]) // columns 8..15 and 24..31
			for j := range 4 {
				half := XMM()
				VEXTRACTI128(Imm(uint64(j/2)), mixed[j%2], half)
				y, to := YMM(), Mem{Base: sums, Disp: 4 * (32*i + 8*j)}
				VPMOVZXWD(half, y)
				VPADDD(to, y, y)
				VMOVDQU(y, to)
			}
		}
		ADDQ(stride, sums)
	}
	VZEROUPPER()
	RET()
}

// lookupAVX512: one register has all columns, so that there is room for the 16-bit sums as well.
func lookupAVX512() {
	nibbles, evens := NewDataAddr(Symbol{Name: "nibbles", Static: true}, 0), NewDataAddr(Symbol{Name: "evens", Static: true}, 0)
	TEXT("lookupAVX512", NOSPLIT, "func(sums *int32, stride int, tables, panel *byte, groups, flush int)")
	Doc("lookupAVX512 is lookupGo.")
	Pragma("noescape")
	table, panel := pointer("tables"), pointer("panel")
	left, flush := pointer("groups"), pointer("flush")
	size, size3 := GP64(), GP64()
	MOVQ(left, size)
	SHLQ(Imm(5), size)
	LEAQ(Mem{Base: size, Index: size, Scale: 2}, size3)
	row := tableRows(table, size.(GPVirtual), size3.(GPVirtual))
	mask, even := ZMM(), ZMM()
	VBROADCASTI32X4(nibbles, mask)
	VBROADCASTI32X4(evens, even)
	var sum [lookupRows]VecVirtual
	var wide [lookupRows][2]VecVirtual
	for r := range sum {
		sum[r] = ZMM()
		wide[r] = [2]VecVirtual{ZMM(), ZMM()}
		VPXORD(wide[r][0], wide[r][0], wide[r][0])
		VPXORD(wide[r][1], wide[r][1], wide[r][1])
	}
	Label("flushes")
	for r := range sum {
		VPXORD(sum[r], sum[r], sum[r])
	}
	count := GP64()
	MOVQ(flush, count)
	Label("groups")
	low, high := ZMM(), ZMM()
	VMOVDQU8(Mem{Base: panel}, low)
	VPSRLW(Imm(4), low, high)
	VPANDD(mask, low, low)
	VPANDD(mask, high, high)
	for r := range sum {
		for half, index := range []VecVirtual{low, high} {
			entries := ZMM()
			VBROADCASTI32X4(row(r, 16*half), entries)
			VPSHUFB(index, entries, entries)
			VPADDB(entries, sum[r], sum[r])
		}
	}
	ADDQ(Imm(panelCols), panel)
	ADDQ(Imm(32), table)
	DECQ(count)
	JNZ(LabelRef("groups"))
	for r, s := range sum {
		e := ZMM()
		VPANDD(even, s, e)
		VPSRLW(Imm(8), s, s)
		VPADDW(e, wide[r][0], wide[r][0])
		VPADDW(s, wide[r][1], wide[r][1])
	}
	SUBQ(flush, left)
	JNZ(LabelRef("flushes"))

	// Back to the order of columns, as 32 bits.
	sums, stride := pointer("sums"), pointer("stride")
	SHLQ(Imm(2), stride)
	for r := range sum {
		mixed := [2]VecVirtual{ZMM(), ZMM()}
		VPUNPCKLWD(wide[r][1], wide[r][0], mixed[0]) // columns 0..7 of every 16
		VPUNPCKHWD(wide[r][1], wide[r][0], mixed[1])
		for j := range 8 {
			part, y, to := XMM(), YMM(), Mem{Base: sums, Disp: 32 * j}
			VEXTRACTI32X4(Imm(uint64(j/2)), mixed[j%2], part)
			VPMOVZXWD(part, y)
			VPADDD(to, y, y)
			VMOVDQU(y, to)
		}
		ADDQ(stride, sums)
	}
	end()
}

// tableSums adds up the tables of four integers a lane: none is what no bits choose, spread[i] brings integer i to the
// entries whose number has bit i, and zeros to the others.
func tableSums(none, values VecVirtual, spread [4]Op, register func() VecVirtual) VecVirtual {
	for i := range spread {
		v := register()
		VPSHUFB(spread[i], values, v)
		VPADDB(v, none, none)
	}
	return none
}

// negatives leaves in the low byte of every 32 bits the sum of the absolute values of its negative integers, and adds all
// absolute values to total.
func negatives(values, zero, one, total VecVirtual) VecVirtual {
	negative, absolute, pairs := YMM(), YMM(), YMM()
	VPSUBB(values, zero, negative)
	VPMAXSB(zero, negative, negative)
	VPABSB(values, absolute)
	VPSADBW(zero, absolute, absolute)
	VPADDQ(absolute, total, total)
	VPMADDUBSW(one, negative, negative)
	VPSRLD(Imm(16), negative, pairs)
	VPADDD(pairs, negative, negative)
	return negative
}

// makeTables writes both sets' loops: a lane of 16 bytes holds the table of four integers.
func makeTables() {
	lane := func(f func(n int) byte) func(int) byte { return func(n int) byte { return f(n % 16) } }
	var wide, narrow [4]Mem // which integer goes where; narrow: the second lane has the next four of 8 bytes
	for i := range wide {
		entry := func(n int) byte {
			if n>>i&1 == 0 {
				return 0x80
			}
			return byte(i)
		}
		wide[i] = bytes32("wide"+string(rune('0'+i)), lane(entry))
		narrow[i] = bytes32("narrow"+string(rune('0'+i)), func(n int) byte { return entry(n%16) + byte(n/16*4) })
	}
	first := bytes32("first", func(n int) byte { return byte(n / 16 * 4) })
	ones := bytes32("ones", same(1))

	start := func(name string) (dst, q, n GPVirtual, zero, one, total VecVirtual) {
		TEXT("makeTables"+name, NOSPLIT, "func(dst *byte, q *int8, n int) (sum int32)")
		Doc("makeTables" + name + " is makeTablesGo for n integers, a multiple of 32.")
		Pragma("noescape")
		dst, q, n, zero, total = pointer("dst"), pointer("q"), pointer("n"), YMM(), YMM()
		VPXOR(zero, zero, zero)
		VPXOR(total, total, total)
		return dst, q, n, zero, constant(ones), total
	}
	finish := func(dst, q, n GPVirtual, total VecVirtual) {
		ADDQ(Imm(32), q)
		ADDQ(U32(128), dst)
		SUBQ(Imm(32), n)
		JNZ(LabelRef("block"))
		upper, other, result := XMM(), XMM(), GP32()
		VEXTRACTI128(Imm(1), total, upper)
		VPADDQ(upper, total.AsX(), upper)
		VPSRLDQ(Imm(8), upper, other)
		VPADDQ(other, upper, upper)
		VMOVD(upper, result)
		Store(result, ReturnIndex(0))
		end()
	}

	dst, q, n, zero, one, total := start("AVX2")
	lowest := constant(first)
	var spread [4]Op
	for i := range spread {
		spread[i] = constant(narrow[i])
	}
	Label("block")
	values := YMM()
	VMOVDQU(Mem{Base: q}, values)
	negative := negatives(values, zero, one, total)
	for j := range 4 {
		eight, none := YMM(), YMM()
		VPERMQ(Imm(uint64(0x55*j)), values, eight)
		VPERMQ(Imm(uint64(0x55*j)), negative, none)
		VPSHUFB(lowest, none, none)
		VMOVDQU(tableSums(none, eight, spread, func() VecVirtual { return YMM() }), Mem{Base: dst, Disp: 32 * j})
	}
	finish(dst, q, n, total)

	dst, q, n, zero, one, total = start("AVX512")
	for i := range spread {
		v := ZMM()
		VBROADCASTI32X4(wide[i], v)
		spread[i] = v
	}
	byteZero := ZMM()
	VPXORD(byteZero, byteZero, byteZero)
	var order [2]VecVirtual
	for j := range order {
		m := GLOBL("fours"+string(rune('0'+j)), RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, U32(4*j+i/4))
		}
		order[j] = ZMM()
		VMOVDQU32(m, order[j])
	}
	Label("block")
	values = YMM()
	VMOVDQU(Mem{Base: q}, values)
	negative = negatives(values, zero, one, total)
	for j := range order {
		four, none := ZMM(), ZMM()
		VPERMD(values.AsZ(), order[j], four)
		VPERMD(negative.AsZ(), order[j], none)
		VPSHUFB(byteZero, none, none)
		VMOVDQU32(tableSums(none, four, spread, func() VecVirtual { return ZMM() }), Mem{Base: dst, Disp: 64 * j})
	}
	finish(dst, q, n, total)
}
