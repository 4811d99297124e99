package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	panelCols  = 64
	lookupRows = 4
	tableSize  = 32 // of the eight integers of a row that a group reads; those of lookupRows rows follow one another
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

// lookup: 8 sums of bytes (4 rows × 64 columns) stay in registers; every flush groups they are added to 16-bit sums of
// even and of odd columns on the stack.
func lookup() {
	nibbles := bytes32("nibbles", same(0x0f))
	evens := bytes32("evens", func(i int) byte { return byte(0xff * (1 - i%2)) })

	TEXT("lookupAVX2", NOSPLIT, "func(sums *int32, stride int, tables, panel *byte, groups, skip, panels, flush int, add bool)")
	Doc("lookupAVX2 is lookupGo.")
	Pragma("noescape")
	frame, base := AllocLocal(lookupRows*2*64+32), GP64()
	LEAQ(frame.Offset(31), base)
	ANDQ(I32(-32), base) // sums that cross lines of the cache cost a third of the speed
	wide := Mem{Base: base}
	panel, flush := pointer("panel"), pointer("flush")
	sums, stride := pointer("sums"), pointer("stride")
	SHLQ(Imm(2), stride)
	before := GP32() // all bits, if the sums are to be added to what is there
	MOVBLZX(flag("add"), before)
	NEGL(before)
	mask, even := YMM(), YMM()
	VMOVDQU(nibbles, mask)
	VMOVDQU(evens, even)
	var sum [lookupRows][2]VecVirtual
	for r := range sum {
		sum[r] = [2]VecVirtual{YMM(), YMM()}
	}
	panels := pointer("panels")
	Label("panel")
	table, left := pointer("tables"), pointer("groups")
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
			VBROADCASTI128(Mem{Base: table, Disp: tableSize*r + 16*half}, entries)
			for i := range 2 {
				entry := YMM()
				VPSHUFB(index[i], entries, entry)
				VPADDB(entry, sum[r][i], sum[r][i])
			}
		}
	}
	ADDQ(Imm(panelCols), panel)
	ADDQ(U32(lookupRows*tableSize), table)
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
	keep, row := YMM(), GP64()
	MOVQ(sums, row)
	VMOVD(before, keep.AsX())
	VPBROADCASTD(keep.AsX(), keep)
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
				y, to := YMM(), Mem{Base: row, Disp: 4 * (32*i + 8*j)}
				VPMOVZXWD(half, y)
				old := YMM()
				VPAND(to, keep, old)
				VPADDD(old, y, y)
				VMOVDQU(y, to)
			}
		}
		ADDQ(stride, row)
	}
	ADDQ(U32(4*panelCols), sums)
	skip := pointer("skip")
	SHLQ(Imm(6), skip)
	ADDQ(skip, panel)
	DECQ(panels)
	JNZ(LabelRef("panel"))
	VZEROUPPER()
	RET()
}

// flag is where a parameter lies.
func flag(name string) Mem {
	m, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return m.Addr
}

// makeTables: the sum that four bits choose is one of four sums of the first two integers and one of four of the others. A
// register holds the tables of eight integers, a lane for each four.
func makeTables() {
	byLow := bytes32("lowBits", func(n int) byte { return byte(n%4 + n/16*4) })
	byHigh := bytes32("highBits", func(n int) byte { return byte(n/4%4 + n/16*4) })
	first := bytes32("first", func(n int) byte { return byte(n % 16 &^ 3) })
	ones := bytes32("ones", same(1))
	middle := words8("middleBytes", all(0x00ffff00))
	tables := func(name string, spread func() func(j int, lower, upper VecVirtual) (a, b VecVirtual)) {
		TEXT(name, NOSPLIT, "func(dst *byte, q *int8, n int) (sum int32)")
		Doc(name + " is makeTablesGo for n integers, a multiple of 32.")
		Pragma("noescape")
		dst, q, n := pointer("dst"), pointer("q"), pointer("n")
		zero, total, one := YMM(), YMM(), constant(ones)
		lowest := constant(first)
		entries := spread()
		inner := constant(middle)
		VPXOR(zero, zero, zero)
		VPXOR(total, total, total)

		Label("block")
		values, negative, absolute, t := YMM(), YMM(), YMM(), YMM()
		VMOVDQU(Mem{Base: q}, values)
		VPABSB(values, absolute)
		VPSADBW(zero, absolute, absolute)
		VPADDQ(absolute, total, total)
		// The entry that no bits choose, in all bytes of 32 bits.
		VPSUBB(values, zero, negative)
		VPMAXSB(zero, negative, negative)
		VPMADDUBSW(one, negative, negative)
		VPSRLD(Imm(16), negative, t)
		VPADDD(t, negative, negative)
		VPSHUFB(lowest, negative, negative)
		// Bytes 0, q0, q1, q0+q1; and the same of q2 and q3.
		pairs, upper, lower := YMM(), YMM(), YMM()
		VPMADDUBSW(values, one, pairs)
		VPSLLD(Imm(8), values, lower)
		VPAND(inner, lower, lower)
		VPSLLD(Imm(24), pairs, t)
		VPOR(t, lower, lower)
		VPADDB(negative, lower, lower)
		VPSRLD(Imm(8), values, upper)
		VPAND(inner, upper, upper)
		VPSRLD(Imm(16), pairs, pairs)
		VPSLLD(Imm(24), pairs, pairs)
		VPOR(pairs, upper, upper)
		for j := range 4 {
			a, b := entries(j, lower, upper)
			VPADDB(b, a, a)
			VMOVDQU(a, Mem{Base: dst, Disp: lookupRows * tableSize * j})
		}
		ADDQ(Imm(32), q)
		ADDQ(U32(4*lookupRows*tableSize), dst)
		SUBQ(Imm(32), n)
		JNZ(LabelRef("block"))
		half, other, result := XMM(), XMM(), GP32()
		VEXTRACTI128(Imm(1), total, half)
		VPADDQ(half, total.AsX(), half)
		VPSRLDQ(Imm(8), half, other)
		VPADDQ(other, half, half)
		VMOVD(half, result)
		Store(result, ReturnIndex(0))
		end()
	}
	tables("makeTablesAVX2", func() func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
		low, high := constant(byLow), constant(byHigh)
		return func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
			a, b = YMM(), YMM()
			VPERMQ(Imm(uint64(0x55*j)), lower, a)
			VPERMQ(Imm(uint64(0x55*j)), upper, b)
			VPSHUFB(low, a, a)
			VPSHUFB(high, b, b)
			return a, b
		}
	})
	tables("makeTablesVBMI", func() func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
		var low, high [4]Mem // where the four bytes of the eight integers j lie
		for j := range low {
			low[j] = bytes32(fmt.Sprintf("lowBits%d", j), func(n int) byte { return byte(8*j + n%4 + n/16*4) })
			high[j] = bytes32(fmt.Sprintf("highBits%d", j), func(n int) byte { return byte(8*j + n/4%4 + n/16*4) })
		}
		return func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
			a, b = constant(low[j]), constant(high[j])
			VPERMB(lower, a, a)
			VPERMB(upper, b, b)
			return a, b
		}
	})
}
