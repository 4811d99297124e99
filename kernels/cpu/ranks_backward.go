package cpu

import (
	"math"

	"bitnet1/kernels"
)

// rankedQueries are consecutive queries of one head that have four survivors each, worst ranks of missing ones first:
// see fill.
type rankedQueries struct {
	*headGradients            // dqs and dos begin with the first of these queries
	q              []uint64   // these queries, if they are signs
	queries        []float32  // these queries, if they are not: queries × width
	k, v           []uint64   // all keys and values of the head
	levels         []float32  // all values, unless both they and queries are signs: Seq × width
	survivors      []int32    // queries × 4
	exps           []float32  // queries × 4: see exponentiate
	weights        [4]float32 // of the four values
	scale          float64    // 1/sqrt(HeadDim)
}

// ofFewSurvivors is for queries that read at most four keys, weighted by rank. Values get the gradient of their rank's
// weight, and scores get the gradient of a softmax over the survivors.
func (g *headGradients) ofFewSurvivors(h *head, pointers []int32, s *scratch) {
	exps := h.exponentiate(pointers, s)
	r := rankedQueries{k: h.k, v: h.v, scale: 1 / math.Sqrt(float64(h.HeadDim))}
	var queries []float32
	if h.queryRule != kernels.Sign() {
		queries = h.expandQueries(s)
	}
	if queries != nil || h.valueRule != kernels.Sign() {
		r.levels = h.expandValues(s)
	}
	for t := 0; t < h.Seq; {
		from, n := t, h.survivorsOf(t)
		for t++; t < h.Seq && h.survivorsOf(t) == n; t++ { // queries with as many survivors
		}
		part := *g
		part.dqs, part.dos = g.dqs[from*g.dqStride:], g.dos[from*g.doStride:]
		r.headGradients = &part
		r.survivors, r.exps = pointers[from*h.Survivors:t*h.Survivors], exps[from*h.Survivors:]
		if n < fewSurvivors {
			r.fill(s, from, n, h.Survivors)
		}
		r.weights = [fewSurvivors]float32{}
		narrow(r.weights[fewSurvivors-n:], h.rankWeights(n))
		switch {
		case queries != nil:
			r.queries = queries[from*h.HeadDim : t*h.HeadDim]
			h.rankedQueries(&r)
		case r.levels != nil:
			r.q = h.q[from*h.words : t*h.words]
			h.rankedLevels(&r)
		default:
			r.q = h.q[from*h.words : t*h.words]
			h.ranked(&r)
		}
	}
}

// survivorsOf is the number of survivors of query t.
func (h *head) survivorsOf(t int) int { return min(t+1-h.start(t), h.Survivors) }

// fill puts queries that have only n survivors each, in rows of stride, in rows of four: in front of the survivors come
// stand-ins whose weight and exponential are 0. A stand-in's key is the query's own position, and nothing is added to
// its gradient.
func (g *rankedQueries) fill(s *scratch, from, n, stride int) {
	queries, missing := len(g.survivors)/stride, fewSurvivors-n
	survivors, exps := s.filledPointers.take(queries*fewSurvivors), s.filledExps.take(queries*fewSurvivors)
	for t := range queries {
		for i := range missing {
			survivors[t*fewSurvivors+i], exps[t*fewSurvivors+i] = int32(from+t), 0
		}
		copy(survivors[t*fewSurvivors+missing:][:n], g.survivors[t*stride:])
		copy(exps[t*fewSurvivors+missing:][:n], g.exps[t*stride:])
	}
	g.survivors, g.exps = survivors, exps
}

// rankedGo overwrites the rows of dq, and adds to dk and dv. The gradients of a query's four scores sum to zero. Their
// float32 values do so too, because the last one is computed from the others: where all survivors have the same key, dq
// is that sum times the key.
func rankedGo(g *rankedQueries) {
	words := wordsOf(g.width)
	g.gradients(func(do []float32, u, c int) float32 { return timesSign(do[c], g.v[u*words:], c) }, g.timesSign)
}

// rankedLevelsGo is rankedGo for values that are not signs.
func rankedLevelsGo(g *rankedQueries) { g.gradients(g.timesLevel, g.timesSign) }

// rankedQueriesGo is rankedLevelsGo for queries that are not signs.
func rankedQueriesGo(g *rankedQueries) {
	g.gradients(g.timesLevel, func(x float32, t, c int) float32 { return float32(x * g.queries[t*g.width+c]) })
}

// timesLevel is channel c of an output's gradient times that of the value of key u.
func (g *rankedQueries) timesLevel(do []float32, u, c int) float32 {
	return float32(do[c] * g.levels[u*g.width+c])
}

// timesSign is x times channel c of query t.
func (g *rankedQueries) timesSign(x float32, t, c int) float32 {
	return timesSign(x, g.q[t*wordsOf(g.width):], c)
}

// gradients takes the products of channel c of an output's gradient and the value of key u from product, and those of a
// score's gradient and channel c of query t from slope.
func (g *rankedQueries) gradients(product func(do []float32, u, c int) float32,
	slope func(x float32, t, c int) float32) {
	n, words := g.width, wordsOf(g.width)
	for t := range len(g.survivors) / fewSurvivors {
		survivors, do, dq := g.survivors[t*fewSurvivors:][:fewSurvivors], g.do(t), g.dq(t)
		var dots, p, products [fewSurvivors]float64
		for r, u := range survivors {
			dots[r] = float64(inLanes(n, func(c int) float32 { return product(do, int(u), c) }))
			dv := g.dv[int(u)*n:][:n]
			for c, x := range do {
				dv[c] += float32(g.weights[r] * x)
			}
		}
		widen(p[:], g.exps[t*fewSurvivors:])
		total := (p[0] + p[2]) + (p[1] + p[3])
		for r := range p {
			p[r] /= total
			products[r] = dots[r] * p[r]
		}
		mean := (products[0] + products[2]) + (products[1] + products[3])
		var s [fewSurvivors]float32 // gradients of the scores
		for r := range p {
			s[r] = float32(float64(float64(p[r]*(dots[r]-mean)) * g.scale))
		}
		s[3] = -(s[0] + s[1] + s[2])
		clear(dq)
		for r, u := range survivors {
			dk, k := g.dk[int(u)*n:][:n], g.k[int(u)*words:]
			for c := range dq {
				dq[c] += timesSign(s[r], k, c)
				dk[c] += slope(s[r], t, c)
			}
		}
	}
}

// timesSign is x times the sign that bit c of words stands for.
func timesSign(x float32, words []uint64, c int) float32 {
	if words[c>>6]>>(c&63)&1 == 0 {
		return -x
	}
	return x
}
