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

// lookupParts are what differs between instruction sets.
type lookupParts struct {
	clear   func()                                 // the 16-bit sums
	indices func(panel Mem) (low, high VecVirtual) // of the tables' entries, for 32 columns
	pick    func(index, entries, entry VecVirtual)
	flush   func(bytes VecVirtual, i int)         // adds bytes to the 16-bit sums of even columns and those of odd ones
	finish  func(i int, to Mem, before GPVirtual) // writes them as 32 bits, added to what is there if before has all bits
}

// lookup: 8 sums of bytes (4 rows × 64 columns) stay in registers; every flush groups they are added to 16-bit sums of
// even and of odd columns, for which only AVX-512 has registers too.
func lookup() {
	nibbles := bytes32("nibbles", same(0x0f))
	evens := bytes32("evens", func(i int) byte { return byte(0xff * (1 - i%2)) })
	lookupWith(avx2, func() lookupParts {
		frame, base := AllocLocal(lookupRows*2*64+32), GP64()
		LEAQ(frame.Offset(31), base)
		ANDQ(I32(-32), base) // sums that cross lines of the cache cost a third of the speed
		wide := Mem{Base: base}
		mask, even := constant(nibbles), constant(evens)
		return lookupParts{
			clear: func() {
				t := YMM()
				VPXOR(t, t, t)
				for i := range lookupRows * 4 {
					VMOVDQU(t, wide.Offset(32*i))
				}
			},
			indices: func(panel Mem) (low, high VecVirtual) {
				low, high = YMM(), YMM()
				VMOVDQU(panel, low)
				VPSRLW(Imm(4), low, high)
				VPAND(mask, low, low)
				VPAND(mask, high, high)
				return low, high
			},
			pick: func(index, entries, entry VecVirtual) { VPSHUFB(index, entries, entry) },
			flush: func(bytes VecVirtual, i int) {
				e, at := YMM(), wide.Offset(64*i)
				VPAND(even, bytes, e)
				VPSRLW(Imm(8), bytes, bytes)
				VPADDW(at, e, e)
				VPADDW(at.Offset(32), bytes, bytes)
				VMOVDQU(e, at)
				VMOVDQU(bytes, at.Offset(32))
			},
			finish: func(i int, to Mem, before GPVirtual) {
				keep, e, o, mixed, at := YMM(), YMM(), YMM(), [2]VecVirtual{YMM(), YMM()}, wide.Offset(64*i)
				VMOVD(before, keep.AsX())
				VPBROADCASTD(keep.AsX(), keep)
				VMOVDQU(at, e)
				VMOVDQU(at.Offset(32), o)
				VPUNPCKLWD(o, e, mixed[0]) // columns 0..7 and 16..23
				VPUNPCKHWD(o, e, mixed[1]) // columns 8..15 and 24..31
				for j := range 4 {
					half, sums, old := XMM(), YMM(), YMM()
					VEXTRACTI128(Imm(uint64(j/2)), mixed[j%2], half)
					VPMOVZXWD(half, sums)
					VPAND(to.Offset(32*j), keep, old)
					VPADDD(old, sums, sums)
					VMOVDQU(sums, to.Offset(32*j))
				}
			},
		}
	})
	// A permutation of all bytes, with the table in both lanes, does not see what an index has above four bits. Tables are broadcast
	// to the registers of AVX2, for the others it takes a shuffle.
	var inOrder [2]Mem
	for i := range inOrder {
		inOrder[i] = words8(fmt.Sprintf("columns%d", i), func(j int) uint32 { return uint32(8*i+j)*(1<<16+1) + 16<<16 })
	}
	lookupWith(avx512, func() lookupParts {
		wide := [2 * lookupRows][2]VecPhysical{{Y16, Y17}, {Y18, Y19}, {Y20, Y21}, {Y22, Y23}, {Y24, Y25}, {Y26, Y27}, {Y28, Y29}, {Y30, Y31}}
		return lookupParts{
			clear: func() {
				for _, w := range wide {
					VPXORD(w[0], w[0], w[0])
					VPXORD(w[1], w[1], w[1])
				}
			},
			indices: func(panel Mem) (low, high VecVirtual) {
				low, high = YMM(), YMM()
				VMOVDQU(panel, low)
				VPSRLW(Imm(4), low, high)
				return low, high
			},
			pick: func(index, entries, entry VecVirtual) { VPERMB(entries, index, entry) },
			flush: func(bytes VecVirtual, i int) { // the sums of even columns have 256 times those of the odd ones with them
				VPADDW(bytes, wide[i][0], wide[i][0])
				VPSRLW(Imm(8), bytes, bytes)
				VPADDW(bytes, wide[i][1], wide[i][1])
			},
			finish: func(i int, to Mem, before GPVirtual) {
				e, o, t, add := wide[i][0], wide[i][1], YMM(), K()
				KMOVW(before, add)
				VPSLLW(Imm(8), o, t)
				VPSUBW(t, e, e)
				for j, order := range inOrder {
					v, sums := YMM(), ZMM()
					VMOVDQU64(order, v)
					VPERMI2W(o, e, v)
					VPMOVZXWD(v, sums)
					VPADDD(to.Offset(64*j), sums, add, sums)
					VMOVDQU32(sums, to.Offset(64*j))
				}
			},
		}
	})
}

func lookupWith(set string, prepare func() lookupParts) {
	beginOther(set, "lookup", "func(sums *int32, stride int, tables, panel *byte, groups, skip, panels, flush int, add bool)",
		"for all panels; skip groups lie between what it reads of two of them.")
	panel, flush := pointer("panel"), pointer("flush")
	sums, stride := pointer("sums"), pointer("stride")
	SHLQ(Imm(2), stride)
	before := GP32() // all bits, if the sums are to be added to what is there
	MOVBLZX(argument("add"), before)
	NEGL(before)
	parts := prepare()
	var sum [lookupRows][2]VecVirtual
	for r := range sum {
		sum[r] = [2]VecVirtual{YMM(), YMM()}
	}
	panels := pointer("panels")
	Label("panel")
	table, left := pointer("tables"), pointer("groups")
	parts.clear()

	Label("flushes")
	for r := range sum {
		for _, s := range sum[r] {
			VPXOR(s, s, s)
		}
	}
	count := GP64()
	MOVQ(flush, count)
	Label("groups")
	var index [2][2]VecVirtual // low and high nibbles of both halves of the columns
	for i := range 2 {
		index[0][i], index[1][i] = parts.indices(Mem{Base: panel, Disp: 32 * i})
	}
	for r := range sum {
		for half := range index {
			entries := YMM()
			VBROADCASTI128(Mem{Base: table, Disp: tableSize*r + 16*half}, entries)
			for i := range 2 {
				entry := YMM()
				parts.pick(index[half][i], entries, entry)
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
			parts.flush(s, 2*r+i)
		}
	}
	SUBQ(flush, left)
	JNZ(LabelRef("flushes"))

	row := GP64()
	MOVQ(sums, row)
	for r := range lookupRows {
		for i := range 2 {
			parts.finish(2*r+i, Mem{Base: row, Disp: 128 * i}, before)
		}
		ADDQ(stride, row)
	}
	ADDQ(U32(4*panelCols), sums)
	skip := pointer("skip")
	SHLQ(Imm(6), skip)
	ADDQ(skip, panel)
	DECQ(panels)
	JNZ(LabelRef("panel"))
	end()
}

// argument is where a parameter lies.
func argument(name string) Mem {
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
	tables := func(set string, spread func() func(j int, lower, upper VecVirtual) (a, b VecVirtual)) {
		beginOther(set, "makeTables", "func(dst *byte, q *int8, n int) (sum int32)", "for n integers, a multiple of 32.")
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
	tables(avx2, func() func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
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
	tables(avx512, func() func(j int, lower, upper VecVirtual) (a, b VecVirtual) {
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
