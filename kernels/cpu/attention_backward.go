package cpu

import (
	"math"

	"bitnet1/kernels"
)

// AttendBackward computes the gradients of queries, keys and values, one task per sequence and head.
func (d *Device) AttendBackward(dqkv, dOut kernels.Floats, qkv kernels.Planes, pointers kernels.Ints, a kernels.Attention) {
	d.run("AttendBackward", func() {
		in, grad, dst, ptr := qkv.(*planes), anyFloatsOf(dOut), anyFloatsOf(dqkv), pointers.(ints)
		all := d.anyHead(a)
		d.parallel(a.Batch*a.Heads, func(task int, s *scratch) {
			h := oneHead(&all, in, task, s)
			g := d.gradients(h, s, dst, grad)
			to := ptr[task*a.Seq*a.Survivors:][:a.Seq*a.Survivors]
			if all.rule.Gamma && a.Survivors <= fewSurvivors {
				g.fewRanked(h, to, s)
			} else {
				g.many(h, to, s)
			}
			width := a.Heads * a.HeadDim
			at := h.row0*3*width + h.col
			if dst.bfloats != nil { // otherwise those of queries are where they belong
				d.writeRows(dst, at, 3*width, g.dqs, h.Seq)
			}
			d.writeRows(dst, at+width, 3*width, g.dk, h.Seq)
			d.writeRows(dst, at+2*width, 3*width, g.dv, h.Seq)
		})
	})
}

// gradients are those of one head's queries, which no other head adds to, if they can be where they belong; and of its keys and
// values.
type gradients struct {
	width    int
	dqs      []float32 // dqStride apart
	dqStride int
	dos      []float32 // what is read, likewise
	doStride int
	dk, dv   []float32 // Seq × width
}

func (d *Device) gradients(h *head, s *scratch, dqkv, dOut anyFloats) *gradients {
	width, n := h.Heads*h.HeadDim, h.Seq*h.HeadDim
	sums := s.keyValueGradients.take(2 * n)
	clear(sums)
	g := &gradients{width: h.HeadDim, dqStride: h.HeadDim, doStride: h.HeadDim, dk: sums[:n], dv: sums[n:]}
	if dqkv.bfloats == nil {
		g.dqs, g.dqStride = dqkv.floats[h.row0*3*width+h.col:], 3*width
		g.dos, g.doStride = dOut.floats[h.row0*width+h.col:], width
		return g
	}
	g.dqs, g.dos = s.queryGradients.take(n), s.outputGradients.take(n)
	d.widenBFloats(g.dos, h.HeadDim, dOut.bfloats[h.row0*width+h.col:], width, h.Seq, h.HeadDim)
	return g
}

func (g *gradients) dq(t int) []float32 { return g.dqs[t*g.dqStride:][:g.width] }
func (g *gradients) do(t int) []float32 { return g.dos[t*g.doStride:][:g.width] }

// exponentiate returns exp(score - best score) of every query's survivors, and anything for those that it lacks.
func (h *head) exponentiate(pointers []int32, s *scratch) []float32 {
	exps := s.survivorExps.take(len(pointers))
	for t := range h.Seq {
		var best float64
		for r, u := range pointers[t*h.Survivors:][:h.Survivors] {
			at := t*h.Survivors + r
			if u < 0 {
				exps[at] = 0
				continue
			}
			score := h.score(t, int(u))
			if r == 0 {
				best = score
			}
			exps[at] = float32(score - best)
		}
	}
	h.exponentials(exps, 0)
	return exps
}

// ranked are queries of one head, each with four survivors, the dead ones first.
type ranked struct {
	*gradients          // of the first of these queries
	q          []uint64 // the queries alone
	k, v       []uint64 // of the head
	at         []int32  // queries × 4
	exps       []float32
	weights    [4]float32
	scale      float64 // of a score's gradient
}

// fewRanked: values get the rank weights, scores the gradient of softmax over the survivors, of which there are at most four.
// Where there are fewer, the query itself stands in, with nothing to add.
func (g *gradients) fewRanked(h *head, pointers []int32, s *scratch) {
	exps := h.exponentiate(pointers, s)
	r := ranked{k: h.k, v: h.v, scale: 1 / math.Sqrt(float64(h.HeadDim))}
	for t := 0; t < h.Seq; { // queries that have as many survivors
		live, from := h.live(t), t
		for t++; t < h.Seq && h.live(t) == live; t++ {
		}
		r.gradients = &gradients{
			width: g.width, dqs: g.dqs[from*g.dqStride:], dqStride: g.dqStride, dos: g.dos[from*g.doStride:], doStride: g.doStride,
			dk: g.dk, dv: g.dv,
		}
		r.q, r.at, r.exps = h.q[from*h.words:t*h.words], pointers[from*h.Survivors:t*h.Survivors], exps[from*h.Survivors:]
		if live < fewSurvivors {
			r.fill(s, from, live, h.Survivors)
		}
		r.weights = [fewSurvivors]float32{}
		narrow(r.weights[fewSurvivors-live:], h.weights[live][:live])
		h.instructions.ranked(&r)
	}
}

// live is how many survivors query t has.
func (h *head) live(t int) int { return min(t+1-h.start(t), h.Survivors) }

// fill puts so many live survivors, of those that lie stride apart, after queries from.. themselves.
func (r *ranked) fill(s *scratch, from, live, stride int) {
	queries, dead := len(r.at)/stride, fewSurvivors-live
	at, exps := s.filledPointers.take(queries*fewSurvivors), s.filledExps.take(queries*fewSurvivors)
	for t := range queries {
		for i := range dead {
			at[t*fewSurvivors+i], exps[t*fewSurvivors+i] = int32(from+t), 0
		}
		copy(at[t*fewSurvivors+dead:][:live], r.at[t*stride:])
		copy(exps[t*fewSurvivors+dead:][:live], r.exps[t*stride:])
	}
	r.at, r.exps = at, exps
}

// rankedGo overwrites dq and adds to dk and dv. The gradients of a query's scores add up to zero, and so do they as float32:
// where the survivors' keys are equal, nothing but that sum is left of them.
func rankedGo(g *ranked) {
	n, words := g.width, wordsOf(g.width)
	for t := range len(g.at) / fewSurvivors {
		at, do, dq, q := g.at[t*fewSurvivors:][:fewSurvivors], g.do(t), g.dq(t), g.q[t*words:][:words]
		var dots, p, products [fewSurvivors]float64
		for r, u := range at {
			dv, v := g.dv[int(u)*n:][:n], g.v[int(u)*words:]
			dots[r] = float64(inLanes(n, func(c int) float32 { return turned(do[c], v, c) }))
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
		var s [fewSurvivors]float32
		for r := range p {
			s[r] = float32(float64(float64(p[r]*(dots[r]-mean)) * g.scale))
		}
		s[3] = -(s[0] + s[1] + s[2])
		clear(dq)
		for r, u := range at {
			dk, k := g.dk[int(u)*n:][:n], g.k[int(u)*words:]
			for c := range dq {
				dq[c] += turned(s[r], k, c)
				dk[c] += turned(s[r], q, c)
			}
		}
	}
}

// turned is x times the sign that is bit c of words.
func turned(x float32, words []uint64, c int) float32 {
	if words[c>>6]>>(c&63)&1 == 0 {
		return -x
	}
	return x
}

// sums are those of a head's gradients in float64, and what they are made of in floats.
type sums struct {
	*gradients
	q, k, v    []float32 // Seq × width
	dk, dv, dq []float64 // dq of one query
	ds         []float64 // of its scores
	exps       []float32 // of survivors
}

// many is for what reads more than a few keys.
func (g *gradients) many(h *head, pointers []int32, s *scratch) {
	n := h.Seq * h.HeadDim
	signs, doubles := s.headSigns.take(3*n), s.gradientSums.take(2*n+h.HeadDim)
	clear(doubles)
	x := &sums{
		gradients: g, q: signs[:n], k: signs[n : 2*n], v: signs[2*n:],
		dk: doubles[:n], dv: doubles[n : 2*n], dq: doubles[2*n:],
		ds: s.scoreGradients.take(max(h.Seq, kernels.MaxSurvivors)),
	}
	for t := range h.Seq {
		for i, src := range [][]uint64{h.q, h.k, h.v} {
			expandSigns(signs[i*n+t*h.HeadDim:][:h.HeadDim], src[t*h.words:], 0)
		}
	}
	if !h.rule.SoftmaxOverAll {
		x.exps = h.exponentiate(pointers, s)
	}
	for t := range h.Seq {
		clear(x.dq)
		if p := pointers[t*h.Survivors:][:h.Survivors]; h.rule.SoftmaxOverAll {
			x.dense(h, t, p)
		} else {
			x.ranked(h, t, p)
		}
		narrow(g.dq(t), x.dq)
	}
	narrow(g.dk, x.dk)
	narrow(g.dv, x.dv)
}

func (x *sums) row(m []float32, t int) []float32  { return m[t*x.width:][:x.width] }
func (x *sums) sums(m []float64, t int) []float64 { return m[t*x.width:][:x.width] }

// narrow rounds len(dst) values.
func narrow(dst []float32, src []float64) {
	for i, v := range src[:len(dst)] {
		dst[i] = float32(v)
	}
}

// ranked is fewRanked for one query and any number of survivors.
func (x *sums) ranked(h *head, t int, pointers []int32) {
	live := alive(pointers)
	var probabilities [kernels.MaxSurvivors]float64
	p, ds := probabilities[:live], x.ds[:live]
	weights := h.survivorWeights(pointers[:live], t)
	var total float64
	for r, u := range pointers[:live] {
		ds[r] = h.readGradient(x.sums(x.dv, int(u)), x.do(t), x.row(x.v, int(u)), weights[r])
		p[r] = float64(x.exps[t*h.Survivors+r])
		total += p[r]
	}
	for r := range p {
		p[r] /= total
	}
	softmaxGradient(ds, p, 1)
	for r, u := range pointers[:live] {
		x.addScore(h, t, int(u), ds[r])
	}
}

// dense is for a query whose scores get the gradient of a softmax over all keys.
func (x *sums) dense(h *head, t int, pointers []int32) {
	first, p := h.allScores(t)
	ds := x.ds[:len(p)]
	if h.rule.AllKeys {
		copy(ds, p)
		h.rule.Weights(ds, h.gamma)
	} else {
		clear(ds)
		live := pointers[:alive(pointers)]
		for r, w := range h.survivorWeights(live, t) {
			ds[int(live[r])-first] = w
		}
	}
	tau := 1.0
	if h.rule.Tau {
		tau = h.tau
	}
	kernels.SoftmaxWeights(p, tau)
	for i, w := range ds {
		u := first + i
		ds[i] = h.readGradient(x.sums(x.dv, u), x.do(t), x.row(x.v, u), w)
	}
	softmaxGradient(ds, p, tau)
	for i, v := range ds {
		x.addScore(h, t, first+i, v)
	}
}

// softmaxGradient turns ds, the gradient of softmax(scores/tau), into that of the scores.
func softmaxGradient(ds, p []float64, tau float64) {
	var mean float64
	for i, v := range ds {
		mean += v * p[i]
	}
	for i, v := range ds {
		ds[i] = p[i] * (v - mean) / tau
	}
}

// addScore passes the gradient of one score on to its query and key.
func (x *sums) addScore(h *head, t, u int, ds float64) {
	h.scoreGradient(x.dq, x.sums(x.dk, u), x.row(x.q, t), x.row(x.k, u), ds/math.Sqrt(float64(h.HeadDim)))
}

// readGradientGo adds w*do to dv and returns do·v, v being ±1.
func readGradientGo(dv []float64, do, v []float32, w float64) float64 {
	for i := range dv {
		dv[i] += float64(w * float64(do[i]))
	}
	return inLanes(len(dv), func(i int) float64 { return float64(do[i] * v[i]) })
}

// scoreGradientGo adds s*k to dq and s*q to dk, q and k being ±1.
func scoreGradientGo(dq, dk []float64, q, k []float32, s float64) {
	for i := range dq {
		dq[i] += s * float64(k[i])
		dk[i] += s * float64(q[i])
	}
}
