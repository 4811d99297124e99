package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// bitCounter counts bits of several channels at a time, with a register for the sums of each.
type bitCounter struct {
	set      string
	channels int // a multiple of 4
	step     int // bytes of a register
	register func() VecVirtual
	zero     func(v VecVirtual)
	// add adds to sum the bits of x and the channel's word together, one count for each 64 bits. combine says how.
	add func(combine combination, channel Mem, x, sum VecVirtual)
	// store stores the sums of all lanes, or minus these.
	store func(sums []VecVirtual, negative bool, to Mem)
}

// combination combines a word of memory with x.
type combination func(word Mem, x, to VecVirtual)

func countDiffering() {
	narrowCounter().write("countDiffering", func(word Mem, x, to VecVirtual) { VPXOR(word, x, to) }, true)
}

func countCommon() {
	narrowCounter().write("countCommon", func(word Mem, x, to VecVirtual) { VPAND(word, x, to) }, false)
}

func wideCountDiffering() {
	wideCounter().write("countDiffering", func(word Mem, x, to VecVirtual) { VPXORQ(word, x, to) }, true)
}

func wideCountCommon() {
	wideCounter().write("countCommon", func(word Mem, x, to VecVirtual) { VPANDQ(word, x, to) }, false)
}

// write writes a loop over planes within planes: both sums are doubled from plane to plane, the last one first.
func (c bitCounter) write(name string, combine combination, negative bool) {
	beginOther(c.set, name, "func(dst *int32, x *uint64, xPlanes int, w *uint64, wPlanes, steps, groups int)",
		"for whole registers of words and groups of channels.")
	dst, x, w, plane := pointer("dst"), pointer("x"), pointer("w"), pointer("steps")
	row, rows3 := GP64(), GP64()
	IMUL3Q(Imm(uint64(c.step)), plane, plane) // bytes of a plane
	MOVQ(plane, row)
	IMULQ(argument("wPlanes"), row)
	LEAQ(Mem{Base: row, Index: row, Scale: 2}, rows3)
	lastPlane := GP64()
	MOVQ(argument("xPlanes"), lastPlane)
	DECQ(lastPlane)
	IMULQ(plane, lastPlane)
	ADDQ(lastPlane, x) // of x

	ahead := GP64() // memory to fetch
	LEAQ(Mem{Base: w, Disp: 8192}, ahead)

	Label("group")
	quads := make([]GPVirtual, c.channels/4) // the first of four channels each
	for i := range quads {
		quads[i] = GP64()
	}
	MOVQ(row, quads[0]) // the last plane of w
	SUBQ(plane, quads[0])
	ADDQ(w, quads[0])
	for i := 1; i < len(quads); i++ {
		LEAQ(Mem{Base: quads[i-1], Index: row, Scale: 4}, quads[i])
	}
	total, sum := make([]VecVirtual, c.channels), make([]VecVirtual, c.channels)
	for i := range total {
		total[i], sum[i] = c.register(), c.register()
		c.zero(total[i])
	}
	wLeft := GP64()
	MOVQ(argument("wPlanes"), wLeft)
	Label("wPlane")
	for _, v := range sum {
		c.zero(v)
	}
	from, xLeft := GP64(), GP64()
	MOVQ(x, from)
	MOVQ(argument("xPlanes"), xLeft)
	Label("xPlane")
	for _, v := range sum {
		VPADDQ(v, v, v)
	}
	at := GP64()
	XORQ(at, at)
	Label("step")
	CMPQ(xLeft, argument("xPlanes"))
	JNE(LabelRef("count"))
	for i := 0; i < c.channels*c.step; i += 64 {
		PREFETCHT0(Mem{Base: ahead, Disp: i})
	}
	ADDQ(U32(uint32(c.channels*c.step)), ahead)
	Label("count")
	v := c.register()
	c.load(Mem{Base: from, Index: at, Scale: 1}, v)
	for i, s := range sum {
		channel := Mem{Base: quads[i/4]}
		switch i % 4 {
		case 1, 2:
			channel.Index, channel.Scale = row, uint8(i%4)
		case 3:
			channel.Index, channel.Scale = rows3, 1
		}
		c.add(combine, channel, v, s)
	}
	for _, q := range quads {
		ADDQ(Imm(uint64(c.step)), q)
	}
	ADDQ(Imm(uint64(c.step)), at)
	CMPQ(at, plane)
	JLT(LabelRef("step"))
	for _, q := range quads {
		SUBQ(plane, q)
	}
	SUBQ(plane, from)
	DECQ(xLeft)
	JNZ(LabelRef("xPlane"))
	for i, s := range sum {
		VPADDQ(total[i], total[i], total[i])
		VPADDQ(s, total[i], total[i])
	}
	for _, q := range quads {
		SUBQ(plane, q)
	}
	DECQ(wLeft)
	JNZ(LabelRef("wPlane"))
	c.store(total, negative, Mem{Base: dst})
	ADDQ(Imm(uint64(4*c.channels)), dst)
	for range quads {
		LEAQ(Mem{Base: w, Index: row, Scale: 4}, w)
	}
	groups := argument("groups")
	DECQ(groups)
	JNZ(LabelRef("group"))
	end()
}

func (c bitCounter) load(from Mem, v VecVirtual) {
	if c.set == avx512 {
		VMOVDQU64(from, v)
	} else {
		VMOVDQU(from, v)
	}
}

// narrowCounter counts the bits of a nibble by a shuffle (Muła).
func narrowCounter() bitCounter {
	return bitCounter{
		set: avx2, channels: 4, step: 32,
		register: func() VecVirtual { return YMM() },
		zero:     func(v VecVirtual) { VPXOR(v, v, v) },
		add: func(combine combination, channel Mem, x, sum VecVirtual) {
			low, high := YMM(), YMM()
			combine(channel, x, low)
			VPSRLW(Imm(4), low, high)
			VPAND(nibbles(), low, low)
			VPAND(nibbles(), high, high)
			counts := constant(nibbleCounts())
			VPSHUFB(low, counts, low)
			VPSHUFB(high, counts, high)
			VPADDB(low, high, low)
			VPXOR(high, high, high)
			VPSADBW(high, low, low)
			VPADDQ(low, sum, sum)
		},
		store: func(sums []VecVirtual, negative bool, to Mem) {
			v := sumOfLanes([4]VecVirtual(sums))
			if negative {
				zero := XMM()
				VPXOR(zero, zero, zero)
				VPSUBD(v, zero, v)
			}
			VMOVDQU(v, to)
		},
	}
}

func wideCounter() bitCounter {
	return bitCounter{
		set: avx512, channels: 8, step: 64,
		register: func() VecVirtual { return ZMM() },
		zero:     func(v VecVirtual) { VPXORQ(v, v, v) },
		add: func(combine combination, channel Mem, x, sum VecVirtual) {
			bits := ZMM()
			combine(channel, x, bits)
			VPOPCNTQ(bits, bits)
			VPADDQ(bits, sum, sum)
		},
		store: func(sums []VecVirtual, negative bool, to Mem) {
			// Pairs of neighbouring lanes, then of neighbouring pairs, then of halves.
			merge := func(a, b VecVirtual, low, high func(a, b, to VecVirtual)) VecVirtual {
				x, y := ZMM(), ZMM()
				low(a, b, x)
				high(a, b, y)
				VPADDQ(x, y, x)
				return x
			}
			shuffle := func(order uint64) func(a, b, to VecVirtual) {
				return func(a, b, to VecVirtual) { VSHUFI64X2(Imm(order), b, a, to) }
			}
			for len(sums) > 1 {
				low, high := shuffle(0x88), shuffle(0xdd)
				if len(sums) == 8 {
					low = func(a, b, to VecVirtual) { VPUNPCKLQDQ(b, a, to) }
					high = func(a, b, to VecVirtual) { VPUNPCKHQDQ(b, a, to) }
				}
				var merged []VecVirtual
				for i := 0; i < len(sums); i += 2 {
					merged = append(merged, merge(sums[i], sums[i+1], low, high))
				}
				sums = merged
			}
			v := sums[0]
			if negative {
				zero := wideZero()
				VPSUBQ(v, zero, v)
			}
			VPMOVQD(v, to)
		},
	}
}
