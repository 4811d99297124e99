package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	nearestSignature = "func(best, away *[4][4]float64, q, k *uint64, n int, skip float64, constants *[5][4]float64)"
	// q points to the highest plane of the first query.
	nearestOfPlanesSignature = "func(best, away *[4][4]float64, q *uint64, planes int, k *uint64, n int, skip float64, " +
		"constants *[5][4]float64)"
	firstOfEach    = "for pointers to the first query and the first key to look at."
	withReciprocal = "for dimensions that have a reciprocal, and pointers to the first query and the first key to look at."
)

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
	beginOther(avx2, "nearest", nearestSignature, firstOfEach)
	q, query := pointer("q"), YMM()
	VMOVDQU(Mem{Base: q}, query)
	nearestBy(func(k GPVirtual, counts, mask VecVirtual) VecVirtual {
		s, t := YMM(), YMM()
		VPBROADCASTQ(Mem{Base: k}, s)
		VPXOR(query, s, s)
		countBits(s, t, counts, mask)
		return s
	})
}

func nearestOfPlanes() {
	beginOther(avx2, "nearestOfPlanes", nearestOfPlanesSignature, firstOfEach)
	q, planes := pointer("q"), pointer("planes")
	nearestBy(func(k GPVirtual, counts, mask VecVirtual) VecVirtual {
		sum, s, t := YMM(), YMM(), YMM()
		VPXOR(sum, sum, sum)
		eachPlane(q, planes, 32, func(plane GPVirtual) {
			VPBROADCASTQ(Mem{Base: k}, s)
			VPXOR(Mem{Base: plane}, s, s)
			countBits(s, t, counts, mask)
			VPADDQ(sum, sum, sum)
			VPADDQ(s, sum, sum)
		})
		return sum
	})
}

// eachPlane is a loop over planes from the highest, which q points to, down to the lowest. They are size bytes apart.
func eachPlane(q, planes GPVirtual, size uint64, body func(plane GPVirtual)) {
	plane, left := GP64(), GP64()
	MOVQ(q, plane)
	MOVQ(planes, left)
	Label("plane")
	body(plane)
	SUBQ(Imm(size), plane)
	DECQ(left)
	JNZ(LabelRef("plane"))
}

// countBits replaces the four words of s by the numbers of their bits. t is overwritten.
func countBits(s, t, counts, mask VecVirtual) {
	VPSRLW(Imm(4), s, t)
	VPAND(mask, s, s)
	VPAND(mask, t, t)
	VPSHUFB(s, counts, s)
	VPSHUFB(t, counts, t)
	VPADDB(t, s, s)
	VPSADBW(quads4("zeros", all[uint64](0)), s, s)
}

// nearestBy compares keys with four queries, whose bits that differ from key k differ counts.
func nearestBy(differ func(k GPVirtual, counts, mask VecVirtual) VecVirtual) {
	integer := quads4("integer", all(math.Float64bits(1<<52))) // or'ed with a small integer: 2^52 + that
	k, n, constants := pointer("k"), pointer("n"), pointer("constants")
	counts, mask, distance := constant(nibbleCounts()), constant(nibbles()), broadcast64("skip")
	VADDPD(start(), distance, distance)
	keys := loadBestKeys()
	Label("key")
	s, t := differ(k, counts, mask), YMM()
	VPOR(integer, s, s)
	VSUBPD(integer, s, s)
	VMULPD(Mem{Base: constants, Disp: 128}, s, s)
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
	beginOther(avx512, "nearest", nearestSignature, withReciprocal)
	q, query := pointer("q"), YMM()
	VMOVDQU64(Mem{Base: q}, query)
	wideNearestBy(func(k GPVirtual) VecVirtual {
		s := YMM()
		VPXORQ_BCST(Mem{Base: k}, query, s)
		VPOPCNTQ(s.AsZ(), s.AsZ())
		return s
	})
}

func wideNearestOfPlanes() {
	beginOther(avx512, "nearestOfPlanes", nearestOfPlanesSignature, withReciprocal)
	q, planes := pointer("q"), pointer("planes")
	wideNearestBy(func(k GPVirtual) VecVirtual {
		sum, key, s := YMM(), YMM(), YMM()
		VPBROADCASTQ(Mem{Base: k}, key)
		VPXORQ(sum, sum, sum)
		eachPlane(q, planes, 32, func(plane GPVirtual) {
			VPXORQ(Mem{Base: plane}, key, s)
			VPOPCNTQ(s.AsZ(), s.AsZ())
			VPADDQ(sum, sum, sum)
			VPADDQ(s, sum, sum)
		})
		return sum
	})
}

// wideNearestBy is nearestBy for wideNearest and wideNearestOfPlanes.
func wideNearestBy(differ func(k GPVirtual) VecVirtual) {
	k, n, constantsAt := pointer("k"), pointer("n"), pointer("constants")
	distance, one, lowest := broadcast64("skip"), YMM(), YMM()
	VADDPD(start(), distance, distance)
	VMOVUPD(one64(), one)
	VMOVUPD(none(), lowest)
	keys := loadBestKeys()
	var constants [5]VecVirtual
	for r := range constants {
		constants[r] = YMM()
		VMOVUPD(Mem{Base: constantsAt, Disp: 32 * r}, constants[r])
	}
	top, root, slope, reciprocal, perBit := constants[0], constants[1], constants[2], constants[3], constants[4]
	Label("key")
	s, t, rest := differ(k), YMM(), YMM()
	VCVTQQ2PD(s, t)
	VFNMADD213PD(top, perBit, t) // top - perBit*bits
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
	query := ZMM()
	VPBROADCASTQ(argument("q"), query)
	wideLastBelowBy(func(keys [2]Mem) (differ [2]VecVirtual) {
		for i := range differ {
			differ[i] = ZMM()
			VPXORQ(keys[i], query, differ[i])
			VPOPCNTQ(differ[i], differ[i])
		}
		return differ
	})
}

func wideLastBelowOfPlanes() {
	beginOther(avx512, "lastBelowOfPlanes", "func(k, q *uint64, planes, below, n int) int",
		"for n keys, a multiple of 16, and a pointer to the highest plane of the query.")
	q, planes := pointer("q"), pointer("planes")
	wideLastBelowBy(func(keys [2]Mem) (sums [2]VecVirtual) {
		var key [2]VecVirtual
		for i := range sums {
			sums[i], key[i] = ZMM(), ZMM()
			VMOVDQU64(keys[i], key[i])
			VPXORQ(sums[i], sums[i], sums[i])
		}
		eachPlane(q, planes, 8, func(plane GPVirtual) {
			for i := range sums {
				differ := ZMM()
				VPXORQ_BCST(Mem{Base: plane}, key[i], differ)
				VPOPCNTQ(differ, differ)
				VPADDQ(sums[i], sums[i], sums[i])
				VPADDQ(differ, sums[i], sums[i])
			}
		})
		return sums
	})
}

// wideLastBelowBy takes the numbers of bits in which 16 keys differ from the query from differ.
func wideLastBelowBy(differ func(keys [2]Mem) [2]VecVirtual) {
	k, at, limit := pointer("k"), pointer("n"), ZMM()
	VPBROADCASTQ(argument("below"), limit)
	Label("keys")
	SUBQ(Imm(16), at)
	var keys [2]Mem
	for i := range keys {
		keys[i] = Mem{Base: k, Index: at, Scale: 8, Disp: 64 * i}
	}
	var found [2]GPVirtual
	for i, d := range differ(keys) {
		mask := K()
		found[i] = GP64()
		VPCMPUQ(lessThan, limit, d, mask)
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
