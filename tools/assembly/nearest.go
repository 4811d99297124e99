package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const nearestSignature = "func(best, away *[4][4]float64, q, k *uint64, n int, skip float64, constants *[5][4]float64)"

func none() Mem { return quads4("none", all(math.Float64bits(math.Inf(-1)))) }

// start are the distances of the last key from four queries.
func start() Mem {
	return quads4("start", func(i int) uint64 { return math.Float64bits(float64(i - 3)) })
}

// bestKeys are, by rank, the scores and distances of four queries' best keys. A lane is a query.
type bestKeys struct {
	best, away     GPVirtual // where they lie in memory
	score, distant [4]VecVirtual
}

func loadBestKeys() *bestKeys {
	b := &bestKeys{best: pointer("best"), away: pointer("away")}
	for r := range b.score {
		b.score[r], b.distant[r] = YMM(), YMM()
		VMOVUPD(Mem{Base: b.best, Disp: 32 * r}, b.score[r])
		VMOVUPD(Mem{Base: b.away, Disp: 32 * r}, b.distant[r])
	}
	return b
}

func (b *bestKeys) store() {
	for r := range b.score {
		VMOVUPD(b.score[r], Mem{Base: b.best, Disp: 32 * r})
		VMOVUPD(b.distant[r], Mem{Base: b.away, Disp: 32 * r})
	}
}

// nextKey goes on to the key before, at a greater distance.
func nextKey(k, n GPVirtual, distance VecVirtual, one Op) {
	VADDPD(one, distance, distance)
	SUBQ(Imm(8), k)
	DECQ(n)
	JNZ(LabelRef("key"))
}

func nearest() {
	zeros := quads4("zeros", all[uint64](0))
	integer := quads4("integer", all(math.Float64bits(1<<52))) // or'ed with a small integer: 2^52 + that
	beginOther(avx2, "nearest", nearestSignature, "for pointers to the first query and the first key to look at.")
	q, k, n, constants := pointer("q"), pointer("k"), pointer("n"), pointer("constants")
	query, counts, mask, distance := YMM(), constant(nibbleCounts()), constant(nibbles()), broadcast64("skip")
	VADDPD(start(), distance, distance)
	VMOVDQU(Mem{Base: q}, query)
	keys := loadBestKeys()
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
	VMOVUPD(Mem{Base: constants}, t)
	VSUBPD(s, t, s)
	VDIVPD(Mem{Base: constants, Disp: 32}, s, s)
	VMULPD(Mem{Base: constants, Disp: 64}, distance, t)
	VSUBPD(t, s, s)
	VMOVUPD(none(), t)
	VBLENDVPD(distance, t, s, s) // keys after the query
	keys.insert(s, distance)
	nextKey(k, n, distance, one64())
	keys.store()
	end()
}

// insert moves everything that is worse than the score s down by one rank, and puts s in its place.
func (b *bestKeys) insert(s, distance VecVirtual) {
	worse := func(r int) VecVirtual {
		m := YMM()
		VCMPPD(lessThan, s, b.score[r], m)
		return m
	}
	m := worse(3)
	for r := 3; r > 0; r-- {
		above := worse(r - 1)
		v := YMM()
		VMINPD(b.score[r-1], s, v)
		VMAXPD(b.score[r], v, b.score[r])
		VBLENDVPD(above, b.distant[r-1], distance, v)
		VBLENDVPD(m, v, b.distant[r], b.distant[r])
		m = above
	}
	VMAXPD(b.score[0], s, b.score[0])
	VBLENDVPD(m, distance, b.distant[0], b.distant[0])
}

// wideNearest is nearest with masks, counted bits, and a quotient without division.
func wideNearest() {
	beginOther(avx512, "nearest", nearestSignature,
		"for dimensions that have a reciprocal, and pointers to the first query and the first key to look at.")
	q, k, n, constantsAt := pointer("q"), pointer("k"), pointer("n"), pointer("constants")
	query, distance, one, lowest, two := YMM(), broadcast64("skip"), YMM(), YMM(), YMM()
	VADDPD(start(), distance, distance)
	VMOVUPD(one64(), one)
	VMOVUPD(none(), lowest)
	VADDPD(one, one, two)
	VMOVDQU64(Mem{Base: q}, query)
	keys := loadBestKeys()
	var constants [4]VecVirtual
	for r := range constants {
		constants[r] = YMM()
		VMOVUPD(Mem{Base: constantsAt, Disp: 32 * r}, constants[r])
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
	VBLENDMPD(lowest, s, later, s)
	keys.wideInsert(s, distance)
	nextKey(k, n, distance, one)
	keys.store()
	end()
}

func (b *bestKeys) wideInsert(s, distance VecVirtual) {
	var worse [4]OpmaskVirtual
	for r := range worse {
		worse[r] = K()
		VCMPPD(lessThan, s, b.score[r], worse[r])
	}
	for r := 3; r > 0; r-- {
		v, w := YMM(), YMM()
		VMINPD(b.score[r-1], s, v)
		VMAXPD(b.score[r], v, b.score[r])
		VBLENDMPD(b.distant[r-1], distance, worse[r-1], w)
		VBLENDMPD(w, b.distant[r], worse[r], b.distant[r])
	}
	VMAXPD(b.score[0], s, b.score[0])
	VBLENDMPD(distance, b.distant[0], worse[0], b.distant[0])
}

// wideLastBelow compares 16 keys at a time, the last ones first.
func wideLastBelow() {
	beginOther(avx512, "lastBelow", "func(k *uint64, q uint64, below, n int) int", "for n keys, a multiple of 16.")
	k, at := pointer("k"), pointer("n")
	query, limit := ZMM(), ZMM()
	VPBROADCASTQ(argument("q"), query)
	VPBROADCASTQ(argument("below"), limit)
	Label("keys")
	SUBQ(Imm(16), at)
	var found [2]GPVirtual
	for i := range found {
		differ, mask := ZMM(), K()
		found[i] = GP64()
		VPXORQ(Mem{Base: k, Index: at, Scale: 8, Disp: 64 * i}, query, differ)
		VPOPCNTQ(differ, differ)
		VPCMPUQ(lessThan, limit, differ, mask)
		KMOVB(mask, found[i].As32())
	}
	SHLQ(Imm(8), found[1])
	ORQ(found[1], found[0])
	JNZ(LabelRef("found"))
	TESTQ(at, at)
	JNZ(LabelRef("keys"))
	none := GP64()
	MOVQ(I32(-1), none)
	Store(none, ReturnIndex(0))
	end()
	Label("found")
	BSRQ(found[0], found[0])
	ADDQ(found[0], at)
	Store(at, ReturnIndex(0))
	end()
}
