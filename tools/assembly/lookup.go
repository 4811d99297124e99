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

// lookupParts are the parts of lookup that differ between instruction sets.
type lookupParts struct {
	clear   func()                                 // the 16-bit sums
	indices func(panel Mem) (low, high VecVirtual) // of the tables' entries, for 32 columns
	pick    func(index, entries, entry VecVirtual)
	flush   func(bytes VecVirtual, i int) // adds bytes to the 16-bit sums of even columns and those of odd ones
	// writes them as 32 bits; all bits of before: adds them to the sums in memory
	finish func(i int, to Mem, before GPVirtual)
}

// lookup keeps 8 registers of byte sums, 4 rows × 64 columns. After flush groups they are added to 16-bit sums, apart
// for even and odd columns. Only AVX-512 has registers for these too.
func lookup() {
	evens := bytes32("evens", func(i int) byte { return byte(0xff * (1 - i%2)) })
	lookupWith(avx2, func() lookupParts {
		frame, base := AllocLocal(lookupRows*2*64+32), GP64()
		LEAQ(frame.Offset(31), base)
		ANDQ(I32(-32), base) // sums that cross lines of the cache cost a third of the speed
		wide := Mem{Base: base}
		mask, even := constant(nibbles()), constant(evens)
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
}

// wideLookup permutes bytes of a whole register, with the table in both of its lanes. This does not see what an index
// has above four bits. Tables are broadcast to AVX2's registers; to the others it would take a shuffle.
func wideLookup() {
	var inOrder [2]Mem
	for i := range inOrder {
		inOrder[i] = words8(fmt.Sprintf("columns%d", i), func(j int) uint32 { return uint32(8*i+j)*(1<<16+1) + 16<<16 })
	}
	lookupWith(avx512, func() lookupParts {
		wide := [2 * lookupRows][2]VecPhysical{
			{Y16, Y17}, {Y18, Y19}, {Y20, Y21}, {Y22, Y23}, {Y24, Y25}, {Y26, Y27}, {Y28, Y29}, {Y30, Y31},
		}
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

// addGroup adds the entries of one group, 8 rows of signs, to the byte sums.
func (p lookupParts) addGroup(sum *[lookupRows][2]VecVirtual, panel, table GPVirtual) {
	var index [2][2]VecVirtual // low and high nibbles, of the first and the last 32 columns
	for i := range 2 {
		index[0][i], index[1][i] = p.indices(Mem{Base: panel, Disp: 32 * i})
	}
	for r := range sum {
		for nibble := range index {
			entries := YMM()
			VBROADCASTI128(Mem{Base: table, Disp: tableSize*r + 16*nibble}, entries)
			for i := range 2 {
				entry := YMM()
				p.pick(index[nibble][i], entries, entry)
				VPADDB(entry, sum[r][i], sum[r][i])
			}
		}
	}
}

func lookupWith(set string, prepare func() lookupParts) {
	beginOther(set, "lookup",
		"func(sums *int32, stride int, tables, panel *byte, groups, skip, panels, flush int, add bool)",
		"for all panels; between the groups of two panels it skips so many.")
	panel, flush := pointer("panel"), pointer("flush")
	sums, stride := pointer("sums"), pointer("stride")
	SHLQ(Imm(2), stride)
	before := GP32() // all bits are set if the sums are to be added to those in memory
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
	parts.addGroup(&sum, panel, table)
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
