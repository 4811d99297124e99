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
				if t%4 == 0 && !h.rule.AllKeys && !h.rule.Noise {
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
	rule       kernels.AttentionRule
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
	gamma, tau float64
	weights    [kernels.MaxSurvivors + 1][kernels.MaxSurvivors]float64 // of ranks, by the number of live survivors
	ofScores   [kernels.MaxSurvivors]float64                           // weights of one query's survivors that depend on scores
	choices    [fewSurvivors + 1]choice                                // the signs of sums, by the number of live survivors
	sums       []float32                                               // one read
	score4     [4][4]float64                                           // the constants of the scores of four queries
	best, away [4][4]float64                                           // of four queries, from their most recent keys
	seen       int                                                     // how many keys of the last of the four have been looked at
}

// anyHead prepares what the heads of one operation have in common.
func (d *Device) anyHead(a kernels.Attention) head {
	h := head{
		Attention: a, instructions: &d.instructions, words: wordsOf(a.HeadDim),
		key: philox.Key(d.scalars.Seed), step: uint32(d.scalars.Step), stream: uint32(a.Layer) | d.scalars.Micro<<16,
		rule: a.Kind.Rule(), gamma: d.scalars.Gamma, tau: d.scalars.Tau, noise: values(a.Noise),
	}
	root, inverse := math.Sqrt(float64(a.HeadDim)), reciprocal(a.HeadDim)
	h.products = d.shared.scoresByCount.take(a.HeadDim + 1) // by the number of bits that differ
	a.DotScores(h.products)
	for j := range 4 {
		h.score4[0][j], h.score4[1][j], h.score4[3][j] = float64(a.HeadDim), root, inverse
	}
	if h.rule.Gamma {
		for alive := 1; alive <= a.Survivors; alive++ {
			h.rankWeights(alive)
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
	h.slope = h.Slope(i)
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
	if !h.rule.Noise {
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
	switch {
	case h.rule.AllKeys:
		h.readAll(dst, pointers, t)
	case h.rule.Noise:
		first, scores := h.allScores(t)
		best := len(scores) - 1
		for i := best - 1; i >= 0; i-- {
			if scores[i] > scores[best] {
				best = i
			}
		}
		pointers[0] = int32(first + best)
		copy(dst, h.v[(first+best)*h.words:])
	case h.rule.Gamma:
		h.survivors(pointers, t)
		h.readRanked(dst, pointers)
	default:
		h.survivors(pointers, t)
		keys := pointers[:alive(pointers)]
		h.readWeighted(dst, h.survivorWeights(keys, t), func(i int) int { return int(keys[i]) })
	}
}

// survivorWeights are the weights of the values that query t reads at the given keys.
func (h *head) survivorWeights(keys []int32, t int) []float64 {
	if h.rule.Gamma {
		return h.weights[len(keys)][:len(keys)]
	}
	w := h.ofScores[:len(keys)]
	for i, u := range keys {
		w[i] = h.score(t, int(u))
	}
	h.rule.Weights(w, h.gamma)
	return w
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
	var best [kernels.MaxSurvivors]float64
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

// fewSurvivors is up to how many survivors the signs of all sums are tabulated.
const fewSurvivors = 4

// rankWeights prepares the weights of so many live survivors.
func (h *head) rankWeights(alive int) {
	w := h.weights[alive][:alive]
	h.rule.Weights(w, h.gamma)
	if alive <= fewSurvivors {
		h.choices[alive] = newChoice(func(pattern int) bool { return kernels.SignedSum(w, pattern&(1<<alive-1)) >= 0 })
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
		var words [kernels.MaxSurvivors]uint64
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
			if kernels.SignedSum(h.weights[live][:live], pattern) >= 0 {
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

// readAll reads all keys, and points at the first of the highest score.
func (h *head) readAll(dst []uint64, pointers []int32, t int) {
	first, scores := h.allScores(t)
	best := 0
	for i, s := range scores {
		if s > scores[best] {
			best = i
		}
	}
	pointers[0] = int32(first + best)
	h.rule.Weights(scores, h.gamma)
	h.readWeighted(dst, scores, func(i int) int { return first + i })
}

// readWeighted writes the signs of the sum of the values of keys key(0), key(1) and so on with the given weights.
func (h *head) readWeighted(dst []uint64, weights []float64, key func(i int) int) {
	var sums [64]float64
	for i := range dst {
		part := sums[:min(64, h.HeadDim-64*i)]
		clear(part)
		for j, p := range weights {
			w := h.v[key(j)*h.words+i]
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
