package cpu

import (
	"math"
	"math/bits"

	"bitnet1/kernels"
	"bitnet1/kernels/number/philox"
)

// Attend reads values, one task per sequence and head.
func (d *Device) Attend(out kernels.Planes, pointers kernels.Ints, qkv kernels.Planes, a kernels.Attention) {
	d.run("Attend", func() {
		in, dst, ptr := qkv.(*planes), out.(*planes), pointers.(ints)
		// Heads share words of out, so each writes words of its own, which are joined afterwards.
		perHead := (a.HeadDim + 63) / 64
		read := d.shared.headOutputs.take(in.rows * a.Heads * perHead)
		all := d.anyHead(a)
		d.parallel(a.Batch*a.Heads, func(task int, s *scratch) {
			h := oneHead(&all, in, task, s)
			for t := range a.Seq {
				if t%4 == 0 && a.Kind == kernels.RWSP {
					h.prepare(t)
				}
				to := read[((h.row0+t)*a.Heads+task%a.Heads)*perHead:][:perHead]
				h.read(to, ptr[(task*a.Seq+t)*a.Survivors:][:a.Survivors], t)
			}
		})
		d.blocks(in.rows, 32, func(from, to int, _ *scratch) {
			for r := from; r < to; r++ {
				row := dst.row(r)
				clear(row)
				for i, w := range read[r*a.Heads*perHead:][:a.Heads*perHead] {
					orBits(row, i/perHead*a.HeadDim+i%perHead*64, w)
				}
				dst.count(r)
			}
		})
	})
}

// orBits sets the bits of w at bit at of words.
func orBits(words []uint64, at int, w uint64) {
	words[at>>6] |= w << (at & 63)
	if high := w >> 1 >> (63 - at&63); high != 0 {
		words[at>>6+1] |= high
	}
}

// head is one head of one sequence: its packed queries, keys and values, and what the arithmetic of scores needs.
type head struct {
	kernels.Attention
	*instructions
	index      int      // b*Heads + h
	row0, col  int      // where the sequence starts, where the head starts in a row
	words      int      // per query, key or value
	q, k, v    []uint64 // Seq × words
	starts     []int32  // of the queries' documents, or nil
	products   []float64
	slope      float64
	scores     []float64
	key        [2]uint32
	step       uint32
	stream     uint32
	noise      []float32
	tau        float64
	weights    [maxSurvivors + 1][maxSurvivors]float64 // of ranks, by the number of live survivors
	choices    [fewSurvivors + 1]choice                // the signs of sums, by the number of live survivors
	sums       []float32                               // one read
	score4     [4][4]float64                           // the constants of the scores of four queries
	best, away [4][4]float64                           // of four queries, from their most recent keys
	seen       int                                     // how many keys of the last of the four have been looked at
}

// anyHead prepares what the heads of one operation have in common.
func (d *Device) anyHead(a kernels.Attention) head {
	h := head{
		Attention: a, instructions: &d.instructions, words: wordsOf(a.HeadDim),
		key: philox.Key(d.scalars.Seed), step: uint32(d.scalars.Step), stream: uint32(a.Layer) | d.scalars.Micro<<16,
		tau: d.scalars.Tau, noise: values(a.Noise),
	}
	root, inverse := math.Sqrt(float64(a.HeadDim)), reciprocal(a.HeadDim)
	h.products = d.shared.scoresByCount.take(a.HeadDim + 1) // by the number of bits that differ
	for n := range h.products {
		h.products[n] = float64(a.HeadDim-2*n) / root
	}
	for j := range 4 {
		h.score4[0][j], h.score4[1][j], h.score4[3][j] = float64(a.HeadDim), root, inverse
	}
	if a.Kind == kernels.RWSP {
		for alive := 1; alive <= min(a.Survivors, maxSurvivors); alive++ {
			h.rankWeights(alive, d.scalars.Gamma)
		}
	}
	return h
}

// oneHead is head task%Heads of sequence task/Heads.
func oneHead(all *head, qkv *planes, task int, s *scratch) *head {
	h := &s.head
	*h = *all
	b, i := task/h.Heads, task%h.Heads
	h.index, h.row0, h.col = task, b*h.Seq, i*h.HeadDim
	if h.Alibi {
		h.slope = math.Pow(2, -8*float64(i+1)/float64(h.Heads))
	}
	for j := range h.score4[2] {
		h.score4[2][j] = h.slope
	}
	h.q, h.k, h.v = s.queryBits.take(h.Seq*h.words), s.keyBits.take(h.Seq*h.words), s.valueBits.take(h.Seq*h.words)
	for j, dst := range [][]uint64{h.q, h.k, h.v} {
		qkv.copyBits(dst, h.row0, j*h.Heads*h.HeadDim+h.col, h.HeadDim)
	}
	h.scores, h.sums = s.scores.take(h.Seq), s.outputSums.take(h.HeadDim)
	if h.Starts != nil {
		h.starts = h.Starts.(ints)[h.row0:][:h.Seq]
	}
	return h
}

// start is the first key that query t may read.
func (h *head) start(t int) int {
	if h.starts == nil {
		return 0
	}
	return int(h.starts[t])
}

// reciprocal is the y that divides by the root of dim without a division: a/root is a*y, corrected once. It is 0 where that
// would not give the quotients of all a that products have.
func reciprocal(dim int) float64 {
	root := math.Sqrt(float64(dim))
	y := 1 / root
	for a := -float64(dim); a <= float64(dim); a++ {
		if s := a * y; math.FMA(math.FMA(-s, root, a), y, s) != a/root {
			return 0
		}
	}
	return y
}

// distance is the number of bits in which query t and key u differ.
func (h *head) distance(t, u int) int {
	if h.words == 1 {
		return bits.OnesCount64(h.q[t] ^ h.k[u])
	}
	n := 0
	k := h.k[u*h.words:][:h.words]
	for i, w := range h.q[t*h.words:][:h.words] {
		n += bits.OnesCount64(w ^ k[i])
	}
	return n
}

// score of query t and key u, without noise.
func (h *head) score(t, u int) float64 {
	return h.products[h.distance(t, u)] - float64(h.slope*float64(t-u))
}

// allScores returns the scores of the keys first..t that query t may read, with noise where there is any.
func (h *head) allScores(t int) (first int, scores []float64) {
	first = h.start(t)
	s := h.scores[:t+1-first]
	for i := range s {
		s[i] = h.score(t, first+i)
	}
	if h.Kind != kernels.Pointer {
		return first, s
	}
	at := (h.index*h.Seq+t)*h.Seq + first
	switch {
	case h.noise != nil:
		for i := range s {
			s[i] += float64(h.noise[at+i])
		}
	case h.Gumbel:
		var block [4]uint32
		for i := range s {
			if n := uint64(at + i); i == 0 || n%4 == 0 {
				block = philox.Block(h.key, [4]uint32{uint32(n / 4), uint32(n / 4 >> 32), h.stream, h.step})
			}
			s[i] += philox.Gumbel(block[(at+i)%4])
		}
	}
	return first, s
}

// read writes the signs of what query t reads, and where it points.
func (h *head) read(dst []uint64, pointers []int32, t int) {
	switch h.Kind {
	case kernels.Softmax:
		h.readAll(dst, pointers, t)
	case kernels.Pointer:
		first, scores := h.allScores(t)
		best := len(scores) - 1
		for i := best - 1; i >= 0; i-- {
			if scores[i] > scores[best] {
				best = i
			}
		}
		pointers[0] = int32(first + best)
		copy(dst, h.v[(first+best)*h.words:])
	case kernels.RWSP:
		h.survivors(pointers, t)
		h.readRanked(dst, pointers)
	}
}

// nearKeys of every query are looked at four queries at a time, keysAtOnce before it is asked whether farther ones can be
// better. Those beyond rarely matter.
const (
	nearKeys   = 256
	keysAtOnce = 24
)

// prepare looks at the nearest keys of queries t..t+3, if they are of one document.
func (h *head) prepare(t int) {
	h.seen = 0
	if h.words > 1 || h.Survivors > len(h.best) || t+4 > h.Seq || h.start(t) != h.start(t+3) {
		return
	}
	for r := range h.best {
		for j := range h.best[r] {
			h.best[r][j], h.away[r][j] = math.Inf(-1), -1
		}
	}
	for near := min(t+4-h.start(t), nearKeys); h.seen < near && !h.decided(); {
		n := min(keysAtOnce, near-h.seen)
		h.nearest(&h.best, &h.away, h.q[t:t+4], h.k[:t+4], h.seen, n, &h.score4)
		h.seen += n
	}
}

// decided says whether distance excludes every key that prepare has not looked at.
func (h *head) decided() bool {
	for j, worst := range h.best[min(h.Survivors, len(h.best))-1] {
		if h.products[0]-float64(h.slope*float64(j-3+h.seen)) > worst {
			return false
		}
	}
	return true
}

// survivors finds the best keys of query t, best first; of equal ones the most recent comes first.
func (h *head) survivors(pointers []int32, t int) {
	var best [maxSurvivors]float64
	found, most, next := 0, len(pointers), t
	if h.seen > 0 {
		lane := t % 4
		for ; found < most && h.away[found][lane] >= 0; found++ {
			best[found], pointers[found] = h.best[found][lane], int32(t-int(h.away[found][lane]))
		}
		next = t - lane + 3 - h.seen
	}
	// Scores only fall with distance and with the bits that differ. So once there are enough survivors, few keys need more
	// than a count: those with fewer than worse bits that differ, up to the first that distance does not exclude.
	worse, start := h.HeadDim+1, h.start(t)
	first := start
	exclude := func(u int) {
		away := float64(h.slope * float64(t-u))
		for worse > 0 && h.products[worse-1]-away <= best[most-1] {
			worse--
		}
		if h.slope > 0 {
			first = max(start, t-1-int((h.products[0]-best[most-1])/h.slope))
		}
	}
	if found == most && next >= start {
		exclude(next)
	}
	for u := next; u >= first; u-- {
		n := h.distance(t, u)
		if n >= worse {
			continue
		}
		s := h.products[n] - float64(h.slope*float64(t-u))
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

// maxSurvivors bounds Attention.Survivors.
const maxSurvivors = 16

// fewSurvivors is up to how many survivors the signs of all sums are tabulated.
const fewSurvivors = 4

// rankWeights prepares gamma^r over so many live survivors, normalised to 1. The reference's order of operations is kept:
// with some gammas two ranks balance the others exactly, and the sign of what is read hangs on it.
func (h *head) rankWeights(alive int, gamma float64) {
	w := h.weights[alive][:alive]
	var sum float64
	for r := range w {
		w[r] = math.Pow(gamma, float64(r))
		sum += w[r]
	}
	for r := range w {
		w[r] /= sum
	}
	if alive <= fewSurvivors {
		h.choices[alive] = newChoice(func(pattern int) bool { return signedSum(w, pattern&(1<<alive-1)) >= 0 })
	}
}

// alive is the number of live survivors.
func alive(pointers []int32) int {
	n := 0
	for n < len(pointers) && pointers[n] >= 0 {
		n++
	}
	return n
}

// readRanked writes the signs of the weighted sum of the survivors' values.
func (h *head) readRanked(dst []uint64, pointers []int32) {
	live := alive(pointers)
	for i := range dst {
		var words [maxSurvivors]uint64
		for r, u := range pointers[:live] {
			words[r] = h.v[int(u)*h.words+i]
		}
		mask := uint64(math.MaxUint64)
		if rest := h.HeadDim - 64*i; rest < 64 {
			mask = 1<<rest - 1
		}
		if live <= fewSurvivors {
			dst[i] = h.choices[live].of(words[0], words[1], words[2], words[3]) & mask
			continue
		}
		dst[i] = 0
		for c := range min(64, h.HeadDim-64*i) {
			pattern := 0
			for r, word := range words[:live] {
				pattern |= int(word>>c&1) << r
			}
			if signedSum(h.weights[live][:live], pattern) >= 0 {
				dst[i] |= 1 << c
			}
		}
	}
}

// choice is a table of bits by pattern of four bits: all 64 bits of a word are that of a pattern whose first bit is clear, and
// what the first bit turns.
type choice [1 << (fewSurvivors - 1)]struct{ clear, turned uint64 }

func newChoice(bit func(pattern int) bool) (c choice) {
	word := func(pattern int) uint64 {
		if bit(pattern) {
			return math.MaxUint64
		}
		return 0
	}
	for p := range c {
		c[p].clear, c[p].turned = word(2*p), word(2*p)^word(2*p+1)
	}
	return c
}

// of looks 64 patterns up at once, whose bits are those of a, b, c and d.
func (t *choice) of(a, b, c, d uint64) uint64 {
	var x [len(t)]uint64
	for p := range x {
		x[p] = t[p].clear ^ t[p].turned&a
	}
	pick := func(clear, set, by uint64) uint64 { return clear ^ (clear^set)&by }
	return pick(pick(pick(x[0], x[1], b), pick(x[2], x[3], b), c), pick(pick(x[4], x[5], b), pick(x[6], x[7], b), c), d)
}

// signedSum adds w[r] where bit r of pattern is set and subtracts it elsewhere, in the order of ranks.
func signedSum(w []float64, pattern int) float32 {
	var sum float64
	for r, v := range w {
		if pattern>>r&1 == 1 {
			sum += v
		} else {
			sum -= v
		}
	}
	return float32(sum)
}

// readAll is softmax attention.
func (h *head) readAll(dst []uint64, pointers []int32, t int) {
	first, scores := h.allScores(t)
	best := 0
	for i, s := range scores {
		if s > scores[best] {
			best = i
		}
	}
	pointers[0] = int32(first + best)
	softmax(scores, 1)
	var sums [64]float64
	for i := range dst {
		part := sums[:min(64, h.HeadDim-64*i)]
		clear(part)
		for j, p := range scores {
			w := h.v[(first+j)*h.words+i]
			for c := range part {
				part[c] += math.Copysign(p, float64(int(w>>c&1)*2-1))
			}
		}
		for c, v := range part {
			h.sums[64*i+c] = float32(v)
		}
	}
	h.packSigns(dst, h.sums)
}

// softmax turns scores into probabilities of scores / tau.
func softmax(scores []float64, tau float64) {
	top := math.Inf(-1)
	for _, s := range scores {
		top = max(top, s)
	}
	var sum float64
	for i, s := range scores {
		scores[i] = math.Exp((s - top) / tau)
		sum += scores[i]
	}
	for i := range scores {
		scores[i] /= sum
	}
}

// nearestGo offers the n keys before the last skip of k to the four queries q, the last of which is at the last key's position.
// best and away hold each query's four best scores and how far away their keys are, the best first. Of equal scores the
// nearest comes first. The score of a key that differs in so many bits is (score[0] - 2*bits) / score[1] - score[2]*distance,
// lane by lane; score[3] is the reciprocal of score[1].
func nearestGo(best, away *[4][4]float64, q, k []uint64, skip, n int, score *[4][4]float64) {
	for i := skip; i < skip+n; i++ {
		key := k[len(k)-1-i]
		for j := range 4 {
			distance := float64(j - 3 + i)
			if distance < 0 {
				continue
			}
			differ := float64(bits.OnesCount64(q[j] ^ key))
			s := (score[0][j]-2*differ)/score[1][j] - float64(score[2][j]*distance)
			for r := len(best) - 1; r >= 0 && s > best[r][j]; r-- {
				if r+1 < len(best) {
					best[r+1][j], away[r+1][j] = best[r][j], away[r][j]
				}
				best[r][j], away[r][j] = s, distance
			}
		}
	}
}
