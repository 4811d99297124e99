package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// rankedLoop writes the gradients of one head's queries, four survivors each. There are too few registers for all that
// it needs, so most parameters are variables in memory.
type rankedLoop struct {
	frame     Mem
	variables int

	dq, dk, dv, do, q, k, v, survivors, exps, left Mem // pointers, and the number of queries left
	dqStride, doStride, words                      Mem // in bytes
	width                                          GPVirtual

	// For one query and a position in rows of floats.
	signs            bool         // the rows are of signs, with bits and lanes
	row, bits        [4]GPVirtual // where the survivors' rows of floats, relative to base, and of bits are
	base, line, at   GPVirtual
	lanes            [4]VecVirtual // 32 bits of the survivors, in every lane
	dots, scoreGrads [4]VecVirtual
}

func ranked() {
	rankedOf("ranked", "q, k, v *uint64", (*rankedLoop).dotsOfSigns, (*rankedLoop).signsOfQuery)
}

func rankedLevels() {
	rankedOf("rankedLevels", "q, k *uint64, v *float32", (*rankedLoop).dotsOfFloats, (*rankedLoop).signsOfQuery)
}

func rankedQueries() {
	rankedOf("rankedQueries", "q *float32, k *uint64, v *float32", (*rankedLoop).dotsOfFloats,
		(*rankedLoop).floatsOfQuery)
}

// rankedOf writes the loop for values and queries of one kind each. dots begins the dot products of values and the
// output's gradient. It returns a function that adds eight products to each. query begins the products of scores' gradients
// and the query.
func rankedOf(name, inputs string, dots func(l *rankedLoop) func(d VecVirtual, j int),
	query func(l *rankedLoop) rankedQuery) {
	beginOther(avx2, name, "func(dq, dk, dv, do *float32, "+inputs+", survivors *int32, exps *float32, "+
		"weights *[4]float32, scale float64, dqStride, doStride, words, n, queries int)", "for whole registers.")
	l := &rankedLoop{frame: AllocLocal(13 * 8)}
	l.dq, l.dk, l.dv, l.do = l.variable("dq", 0), l.variable("dk", 0), l.variable("dv", 0), l.variable("do", 0)
	l.q, l.k, l.v = l.variable("q", 0), l.variable("k", 0), l.variable("v", 0)
	l.survivors, l.exps, l.left = l.variable("survivors", 0), l.variable("exps", 0), l.variable("queries", 0)
	l.dqStride, l.doStride = l.variable("dqStride", 2), l.variable("doStride", 2)
	l.words = l.variable("words", 3)
	l.width = pointer("n")
	SHLQ(Imm(2), l.width)

	Label("query")
	l.values(dots)
	l.scores()
	q := query(l)
	l.queriesAndKeys(q)
	step := GP64()
	for _, s := range []struct {
		by   Op
		what Mem
	}{{l.dqStride, l.dq}, {l.doStride, l.do}, {q.size, l.q}} {
		MOVQ(s.by, step)
		ADDQ(step, s.what)
	}
	ADDQ(Imm(16), l.survivors)
	ADDQ(Imm(16), l.exps)
	DECQ(l.left)
	JNZ(LabelRef("query"))
	end()
}

// variable copies a parameter, times 2^shift, to memory.
func (l *rankedLoop) variable(name string, shift uint64) Mem {
	v, m := pointer(name), l.frame.Offset(8*l.variables)
	l.variables++
	if shift > 0 {
		SHLQ(Imm(shift), v)
	}
	MOVQ(v, m)
	return m
}

// findRows finds where the survivors' rows of floats and of bits begin.
func (l *rankedLoop) findRows(bits Mem) {
	at := GP64()
	MOVQ(l.survivors, at)
	for r := range l.row {
		l.row[r], l.bits[r] = GP64(), GP64()
		MOVLQSX(Mem{Base: at, Disp: 4 * r}, l.row[r])
		MOVQ(l.row[r], l.bits[r])
		IMULQ(l.width, l.row[r])
		IMULQ(l.words, l.bits[r])
		ADDQ(bits, l.bits[r])
	}
}

// loadLanes loads the next 32 bits of every survivor.
func (l *rankedLoop) loadLanes() {
	for r := range l.lanes {
		l.lanes[r] = YMM()
		VPBROADCASTD(Mem{Base: l.bits[r]}, l.lanes[r])
	}
}

// next goes on to the next 32 values of the rows, if there are any.
func (l *rankedLoop) next(label string) {
	for r := range l.row {
		ADDQ(U32(128), l.row[r])
		if l.signs {
			ADDQ(Imm(4), l.bits[r])
		}
	}
	ADDQ(U32(128), l.at)
	CMPQ(l.at, l.width)
	JLT(LabelRef(label))
}

// signBits brings bits 8*j to 8*j+7 of 32 bits in every lane to the sign of the lanes: set where the bit is clear.
func signBits(lanes VecVirtual, j int) VecVirtual {
	t := YMM()
	VPSLLVD(words8(fmt.Sprintf("toSign%d", j), func(i int) uint32 { return uint32(31 - 8*j - i) }), lanes, t)
	VPANDN(sign(), t, t)
	return t
}

// timesSign is x times the signs of bits 8*j to 8*j+7.
func timesSign(lanes VecVirtual, j int, x VecVirtual) VecVirtual {
	t := signBits(lanes, j)
	VXORPS(x, t, t)
	return t
}

// addTo adds v to eight floats in memory.
func addTo(to Mem, v VecVirtual) {
	VADDPS(to, v, v)
	VMOVUPS(v, to)
}

// values adds to the gradients of the survivors' values, and computes the dot products of the values and the output's
// gradient.
func (l *rankedLoop) values(dots func(l *rankedLoop) func(d VecVirtual, j int)) {
	add := dots(l)
	weightsAt := pointer("weights")
	var weight [4]VecVirtual
	for r := range l.dots {
		weight[r], l.dots[r] = YMM(), YMM()
		VBROADCASTSS(Mem{Base: weightsAt, Disp: 4 * r}, weight[r])
		VXORPS(l.dots[r], l.dots[r], l.dots[r])
	}
	l.base, l.line, l.at = GP64(), GP64(), GP64()
	XORQ(l.at, l.at)
	MOVQ(l.dv, l.base)
	MOVQ(l.do, l.line)
	Label("read")
	if l.signs {
		l.loadLanes()
	}
	for j := range 4 {
		d := YMM()
		VMOVUPS(Mem{Base: l.line, Index: l.at, Scale: 1, Disp: 32 * j}, d)
		add(d, j)
		for r := range l.dots {
			t := YMM()
			VMULPS(weight[r], d, t)
			addTo(Mem{Base: l.base, Index: l.row[r], Scale: 1, Disp: 32 * j}, t)
		}
	}
	l.next("read")
}

func (l *rankedLoop) dotsOfSigns() func(d VecVirtual, j int) {
	l.findRows(l.v)
	l.signs = true
	return func(d VecVirtual, j int) {
		for r := range l.dots {
			VADDPS(timesSign(l.lanes[r], j, d), l.dots[r], l.dots[r])
		}
	}
}

func (l *rankedLoop) dotsOfFloats() func(d VecVirtual, j int) {
	values, at := GP64(), GP64()
	MOVQ(l.v, values)
	MOVQ(l.survivors, at)
	for r := range l.row {
		l.row[r] = GP64()
		MOVLQSX(Mem{Base: at, Disp: 4 * r}, l.row[r])
		IMULQ(l.width, l.row[r])
	}
	l.signs = false
	return func(d VecVirtual, j int) {
		for r := range l.dots {
			t := YMM()
			VMULPS(Mem{Base: values, Index: l.row[r], Scale: 1, Disp: 32 * j}, d, t)
			VADDPS(t, l.dots[r], l.dots[r])
		}
	}
}

// sumDots sums up the lanes of the four dot products, in the order of inLanes.
func (l *rankedLoop) sumDots() VecVirtual {
	var part [4]VecVirtual
	for r := range l.dots {
		part[r] = XMM()
		VEXTRACTF128(Imm(1), l.dots[r], part[r])
		VADDPS(part[r], l.dots[r].AsX(), part[r])
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
	return dots
}

// sum4 is (x0 + x2) + (x1 + x3) in all lanes.
func sum4(x VecVirtual) VecVirtual {
	half, other, sum := XMM(), XMM(), YMM()
	VEXTRACTF128(Imm(1), x, half)
	VADDPD(half, x.AsX(), half)
	VPERMILPD(Imm(1), half, other)
	VADDSD(other, half, half)
	VBROADCASTSD(half, sum)
	return sum
}

// scores computes the gradients of the four scores. The last one is minus the sum of the others.
func (l *rankedLoop) scores() {
	dots := l.sumDots()
	p, mean, factor := YMM(), YMM(), broadcast64("scale")
	exps := GP64()
	MOVQ(l.exps, exps)
	VCVTPS2PD(Mem{Base: exps}, p)
	VDIVPD(sum4(p), p, p)
	VMULPD(dots, p, mean)
	VSUBPD(sum4(mean), dots, dots)
	VMULPD(dots, p, p)
	VMULPD(factor, p, p)
	s, one, last := XMM(), XMM(), XMM()
	VCVTPD2PSY(p, s)
	VPERMILPS(Imm(1), s, one)
	VADDSS(one, s, last)
	VPERMILPS(Imm(2), s, one)
	VADDSS(one, last, last)
	VXORPS(sign(), last, last)
	VINSERTPS(Imm(0x30), last, s, s)
	for r := range l.scoreGrads {
		l.scoreGrads[r] = YMM()
		VPERMILPS(Imm(uint64(0x55*r)), s, l.scoreGrads[r].AsX())
		VBROADCASTSS(l.scoreGrads[r].AsX(), l.scoreGrads[r])
	}
}

// rankedQuery is how a loop reads queries of one kind. load loads the next 32 channels, part the eight channels from 8*j
// on of these, and times makes the product of x and them.
type rankedQuery struct {
	size  Op // of a query, in bytes
	load  func()
	part  func(j int) VecVirtual
	times func(part, x VecVirtual) VecVirtual
}

func (l *rankedLoop) signsOfQuery() rankedQuery {
	query, ours := GP64(), YMM()
	MOVQ(l.q, query)
	return rankedQuery{
		size: l.words,
		load: func() {
			VPBROADCASTD(Mem{Base: query}, ours)
			ADDQ(Imm(4), query)
		},
		part: func(j int) VecVirtual { return signBits(ours, j) },
		times: func(part, x VecVirtual) VecVirtual {
			t := YMM()
			VXORPS(part, x, t)
			return t
		},
	}
}

func (l *rankedLoop) floatsOfQuery() rankedQuery {
	query := GP64()
	MOVQ(l.q, query)
	return rankedQuery{
		size: l.width,
		load: func() {},
		part: func(j int) VecVirtual {
			t := YMM()
			VMOVUPS(Mem{Base: query, Index: l.at, Scale: 1, Disp: 32 * j}, t)
			return t
		},
		times: func(part, x VecVirtual) VecVirtual {
			t := YMM()
			VMULPS(part, x, t)
			return t
		},
	}
}

// queriesAndKeys writes the gradient of the query and adds to the gradients of the survivors' keys.
func (l *rankedLoop) queriesAndKeys(q rankedQuery) {
	l.findRows(l.k)
	l.signs = true
	MOVQ(l.dk, l.base)
	MOVQ(l.dq, l.line)
	XORQ(l.at, l.at)
	Label("scores")
	q.load()
	l.loadLanes()
	for j := range 4 {
		sum := YMM()
		VXORPS(sum, sum, sum)
		part := q.part(j)
		for r := range l.scoreGrads {
			VADDPS(timesSign(l.lanes[r], j, l.scoreGrads[r]), sum, sum)
		}
		VMOVUPS(sum, Mem{Base: l.line, Index: l.at, Scale: 1, Disp: 32 * j})
		for r := range l.scoreGrads {
			addTo(Mem{Base: l.base, Index: l.row[r], Scale: 1, Disp: 32 * j}, q.times(part, l.scoreGrads[r]))
		}
	}
	l.next("scores")
}
