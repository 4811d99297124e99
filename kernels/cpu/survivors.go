package cpu

import (
	"math"
	"math/bits"

	"bitnet1/kernels"
)

// Survivors are the keys of the highest scores. Most of them are near their query, so the nearest keys of four queries
// are searched together first, without branches. Every query then searches on by itself, where distance does not
// exclude the other keys yet.

const (
	nearKeys   = 256 // at most so many keys are searched for four queries together
	keysAtOnce = 24  // of these, so many before distances are compared again
)

// nearSearch is the search among the keys that are nearest to four consecutive queries.
type nearSearch struct {
	constants  [5][4]float64 // of scores: see nearestGo
	best, away [4][4]float64 // scores and distances of the best keys: [rank][query]
	queries    [4 * 8]uint64 // those of several planes: see nearestOfPlanesGo
	seen       int           // number of keys searched, from the last query backwards; 0: none, for any of the four
}

func (n *nearSearch) prepare(dim int, queries kernels.Quantization, reciprocal float64) {
	unit, root := float64(queries.Unit()), math.Sqrt(float64(dim))
	for j := range 4 {
		n.constants[0][j], n.constants[1][j] = unit*float64(queries.Largest()*dim), root
		n.constants[3][j], n.constants[4][j] = reciprocal, 2*unit
	}
}

// arrange puts the planes of four queries, of one word each, in the order of nearestOfPlanes.
func (n *nearSearch) arrange(q []uint64) {
	planes := len(q) / 4
	for i, w := range q {
		n.queries[i%planes*4+i/planes] = w
	}
}

func (n *nearSearch) setSlope(slope float64) {
	for j := range n.constants[2] {
		n.constants[2][j] = slope
	}
}

// scoreTable is what scores of queries and keys are computed from.
type scoreTable struct {
	dotScores  []float64 // q·k/sqrt(HeadDim), by differingBits
	reciprocal float64   // see reciprocal
}

// scoreTables keeps the last table: it is that of all layers.
type scoreTables struct {
	scoreTable
	dim     int
	queries kernels.Quantization
}

// of returns the table of attention a with queries of the given quantization.
func (s *scoreTables) of(a kernels.Attention, queries kernels.Quantization) scoreTable {
	if s.dim != a.HeadDim || s.queries != queries {
		*s = scoreTables{scoreTable{a.DotScores(queries), reciprocal(a.HeadDim, queries)}, a.HeadDim, queries}
	}
	return s.scoreTable
}

// reciprocal returns 1/sqrt(dim) if division by sqrt(dim) is the same as multiplication by it with one correction, for
// every dot product of that dimension. Otherwise it returns 0.
func reciprocal(dim int, queries kernels.Quantization) float64 {
	root, unit, top := math.Sqrt(float64(dim)), float64(queries.Unit()), queries.Largest()*dim
	y := 1 / root
	for n := -top; n <= top; n += 2 {
		a := unit * float64(n)
		if s := a * y; math.FMA(math.FMA(-s, root, a), y, s) != a/root {
			return 0
		}
	}
	return y
}

// searchNear searches the nearest keys of queries t..t+3 if all four are in one document.
func (h *head) searchNear(t int) {
	n := &h.near
	n.seen = 0
	if h.words > 1 || h.Survivors > len(n.best) || t+4 > h.Seq || h.start(t) != h.start(t+3) {
		return
	}
	for r := range n.best {
		for j := range n.best[r] {
			n.best[r][j], n.away[r][j] = math.Inf(-1), -1
		}
	}
	if h.queryWords > 1 {
		n.arrange(h.q[t*h.queryWords:][:4*h.queryWords])
	}
	for last := min(t+4-h.start(t), nearKeys); n.seen < last && !h.distanceExcludesTheRest(); {
		more := min(keysAtOnce, last-n.seen)
		if h.queryWords == 1 {
			h.nearest(&n.best, &n.away, h.q[t:t+4], h.k[:t+4], n.seen, more, &n.constants)
		} else {
			h.nearestOfPlanes(&n.best, &n.away, n.queries[:4*h.queryWords], h.k[:t+4], n.seen, more, &n.constants)
		}
		n.seen += more
	}
}

// distanceExcludesTheRest says whether none of the four queries can find a better key beyond those seen.
func (h *head) distanceExcludesTheRest() bool {
	n := &h.near
	for j, worst := range n.best[min(h.Survivors, len(n.best))-1] {
		if h.dotScores[0]-float64(h.slope*float64(j-3+n.seen)) > worst {
			return false
		}
	}
	return true
}

// nearSurvivors copies what searchNear found for query t to the front of best and pointers. It returns how many keys
// these are, and the key from which to search on.
func (h *head) nearSurvivors(best []float64, pointers []int32, t int) (found, next int) {
	n := &h.near
	if n.seen == 0 {
		return 0, t
	}
	lane := t % 4
	for ; found < len(pointers) && n.away[found][lane] >= 0; found++ {
		best[found], pointers[found] = n.best[found][lane], int32(t-int(n.away[found][lane]))
	}
	return found, t - lane + 3 - n.seen
}

// findSurvivors writes the keys of query t's highest scores to pointers, best first, and -1 where there are fewer. Of
// equal scores the most recent key comes first.
func (h *head) findSurvivors(pointers []int32, t int) {
	var best [kernels.MaxSurvivors]float64
	most, start := len(pointers), h.start(t)
	found, next := h.nearSurvivors(best[:], pointers, t)
	// A score falls with distance and with the number of bits that differ. So once there are enough survivors, only keys
	// first..u-1 can be better than the worst of them, and only those that differ in fewer than tooMany bits.
	tooMany, first := len(h.dotScores), start
	step := h.queryRule.Largest() // of tooMany, which may be a few too large
	exclude := func(u int) {
		away := float64(h.slope * float64(t-u))
		for tooMany >= step && h.dotScores[tooMany-step]-away <= best[most-1] {
			tooMany -= step
		}
		if h.slope > 0 {
			first = max(start, t-1-int((h.dotScores[0]-best[most-1])/h.slope))
		}
	}
	if found == most && next >= start {
		exclude(next)
	}
	for u := next; u >= first; u-- {
		if h.words == 1 {
			if u = first + h.lastKeyBelow(t, first, u, tooMany); u < first {
				break
			}
		}
		n := h.differingBits(t, u)
		if n >= tooMany {
			continue
		}
		s := h.dotScores[n] - float64(h.slope*float64(t-u))
		if found == most && s <= best[most-1] {
			continue
		}
		found = min(found+1, most)
		i := found - 1
		for ; i > 0 && best[i-1] < s; i-- {
			best[i], pointers[i] = best[i-1], pointers[i-1]
		}
		best[i], pointers[i] = s, int32(u)
		if found == most {
			exclude(u)
		}
	}
	for i := found; i < most; i++ {
		pointers[i] = -1
	}
}

// lastKeyBelow returns how far behind `first` that key of first..u lies which is the last to differ from query t in
// fewer bits than below; -1: none does.
func (h *head) lastKeyBelow(t, first, u, below int) int {
	if h.queryWords == 1 {
		return h.lastBelow(h.k[first:u+1], h.q[t], below)
	}
	return h.lastBelowOfPlanes(h.k[first:u+1], h.query(t), below)
}

// lastBelowGo returns the index of the last key of k that differs from q in fewer bits than below, or -1.
func lastBelowGo(k []uint64, q uint64, below int) int {
	i := len(k) - 1
	for i >= 0 && bits.OnesCount64(k[i]^q) >= below {
		i--
	}
	return i
}

// lastBelowOfPlanesGo is lastBelowGo for a query of several planes, the lowest first. A bit of plane b counts as 2^b.
func lastBelowOfPlanesGo(k, q []uint64, below int) int {
	i := len(k) - 1
	for i >= 0 && planesDiffer(q, 1, k[i]) >= below {
		i--
	}
	return i
}

// planesDiffer is the number of bits in which planes, stride words apart, differ from a key. One of plane b counts as
// 2^b.
func planesDiffer(q []uint64, stride int, key uint64) int {
	n := 0
	for b := 0; b*stride < len(q); b++ {
		n += bits.OnesCount64(q[b*stride]^key) << b
	}
	return n
}

// countSurvivors is the number of survivors among a query's pointers.
func countSurvivors(pointers []int32) int {
	n := 0
	for n < len(pointers) && pointers[n] >= 0 {
		n++
	}
	return n
}

// nearestGo compares four queries q with n keys and keeps the four best scores of every query.
//
// The keys are those before the last skip keys of k, and the last query has the position of the last key. best[r][j] is
// the score of rank r of query j and away[r][j] the distance of its key. Of equal scores the nearest key comes first. A
// key that differs from query j in b bits has the score (constants[0][j] - constants[4][j]*b) / constants[1][j] -
// constants[2][j]*distance. constants[3][j] is the reciprocal of constants[1][j], or 0: see reciprocal.
func nearestGo(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64) {
	for i := skip; i < skip+n; i++ {
		key := k[len(k)-1-i]
		for j := range 4 {
			keepNearest(best, away, j, j-3+i, bits.OnesCount64(q[j]^key), constants)
		}
	}
}

// nearestOfPlanesGo is nearestGo for queries of several planes: first the lowest planes of all four. A bit of plane p
// counts as 2^p.
func nearestOfPlanesGo(best, away *[4][4]float64, q, k []uint64, skip, n int, constants *[5][4]float64) {
	for i := skip; i < skip+n; i++ {
		key := k[len(k)-1-i]
		for j := range 4 {
			keepNearest(best, away, j, j-3+i, planesDiffer(q[j:], 4, key), constants)
		}
	}
}

// keepNearest keeps the key at a distance from query j, unless that is negative, among the query's four best keys.
func keepNearest(best, away *[4][4]float64, j, distance, differ int, constants *[5][4]float64) {
	if distance < 0 {
		return
	}
	s := (constants[0][j]-float64(constants[4][j]*float64(differ)))/constants[1][j] -
		float64(constants[2][j]*float64(distance))
	for r := len(best) - 1; r >= 0 && s > best[r][j]; r-- {
		if r+1 < len(best) {
			best[r+1][j], away[r+1][j] = best[r][j], away[r][j]
		}
		best[r][j], away[r][j] = s, float64(distance)
	}
}
