package cpu

import (
	"math"

	"bitnet1/kernels"
)

// AttendBackward computes the gradients of queries, keys and values, one task per sequence and head.
func (d *Device) AttendBackward(dqkv, dOut kernels.Floats, queries, keys, values kernels.Planes,
	pointers kernels.Ints, a kernels.Attention) {
	d.run("AttendBackward", kernels.CheckAttendBackward(dqkv, dOut, queries, keys, values, pointers, a), func() {
		in := attentionInput{queries.(*planes), keys.(*planes), values.(*planes)}
		grad, dst, ptr := anyFloatsOf(dOut), anyFloatsOf(dqkv), pointers.(ints)
		all := d.newHead(a, in.queries.quantization, in.values.quantization)
		d.parallel(a.Batch*a.Heads, func(task int, s *scratch) {
			h := loadHead(&all, in, task, s)
			g := d.headGradients(h, s, dst, grad)
			p := ptr[task*a.Seq*a.Survivors:][:a.Seq*a.Survivors]
			if h.rule.Gamma && a.Survivors <= fewSurvivors {
				g.ofFewSurvivors(h, p, s)
			} else {
				g.inFloat64(h, p, s)
			}
			width := a.Heads * a.HeadDim
			at := h.row0*3*width + h.col
			if dst.bfloats != nil { // otherwise dq is in dst already
				d.writeRows(dst, at, 3*width, g.dqs, h.Seq)
			}
			d.writeRows(dst, at+width, 3*width, g.dk, h.Seq)
			d.writeRows(dst, at+2*width, 3*width, g.dv, h.Seq)
		})
	})
}

// headGradients are the gradients of one head's queries, keys and values, and the gradient of its output. The rows of
// dqs and dos lie in the operation's memory if that has float32: no other head writes to them.
type headGradients struct {
	width    int       // HeadDim
	dqs      []float32 // Seq rows, dqStride apart
	dqStride int
	dos      []float32 // of the attention output: Seq rows, doStride apart
	doStride int
	dk, dv   []float32 // Seq × width
}

func (d *Device) headGradients(h *head, s *scratch, dqkv, dOut anyFloats) *headGradients {
	width, n := h.Heads*h.HeadDim, h.Seq*h.HeadDim
	sums := s.keyValueGradients.take(2 * n)
	clear(sums)
	g := &headGradients{width: h.HeadDim, dqStride: h.HeadDim, doStride: h.HeadDim, dk: sums[:n], dv: sums[n:]}
	if dqkv.bfloats == nil {
		g.dqs, g.dqStride = dqkv.floats[h.row0*3*width+h.col:], 3*width
		g.dos, g.doStride = dOut.floats[h.row0*width+h.col:], width
		return g
	}
	g.dqs, g.dos = s.queryGradients.take(n), s.outputGradients.take(n)
	d.widenBFloats(g.dos, h.HeadDim, dOut.bfloats[h.row0*width+h.col:], width, h.Seq, h.HeadDim)
	return g
}

func (g *headGradients) dq(t int) []float32 { return g.dqs[t*g.dqStride:][:g.width] }
func (g *headGradients) do(t int) []float32 { return g.dos[t*g.doStride:][:g.width] }

// exponentiate returns exp(score - best score) of every query's survivors. Where a query has fewer, the rest is
// undefined.
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

// doubleGradients are a head's gradients summed up in float64, for queries that read more than a few keys.
type doubleGradients struct {
	*headGradients           // receives the sums, and has the gradient of the output
	q, v           []float32 // Seq × width
	k              []float32 // Seq × width: ±1
	dk, dv         []float64 // Seq × width
	dq             []float64 // of one query
	ds             []float64 // of one query's scores
	exps           []float32 // of survivors: see exponentiate
}

func (g *headGradients) inFloat64(h *head, pointers []int32, s *scratch) {
	n := h.Seq * h.HeadDim
	doubles := s.gradientSums.take(2*n + h.HeadDim)
	clear(doubles)
	x := &doubleGradients{
		headGradients: g, q: h.expandQueries(s), k: s.headKeys.take(n), v: h.expandValues(s),
		dk: doubles[:n], dv: doubles[n : 2*n], dq: doubles[2*n:],
		ds: s.scoreGradients.take(max(h.Seq, kernels.MaxSurvivors)),
	}
	for t := range h.Seq {
		expandSigns(x.row(x.k, t), h.k[t*h.words:], 0)
	}
	if !h.rule.SoftmaxOverAll {
		x.exps = h.exponentiate(pointers, s)
	}
	for t := range h.Seq {
		clear(x.dq)
		survivors := pointers[t*h.Survivors:][:h.Survivors]
		survivors = survivors[:countSurvivors(survivors)]
		if h.rule.SoftmaxOverAll {
			x.overAllKeys(h, t, survivors)
		} else {
			x.overSurvivors(h, t, survivors)
		}
		narrow(g.dq(t), x.dq)
	}
	narrow(g.dk, x.dk)
	narrow(g.dv, x.dv)
}

// expandQueries returns all queries, Seq × HeadDim.
func (h *head) expandQueries(s *scratch) []float32 {
	all := s.headQueries.take(h.Seq * h.HeadDim)
	h.expandAll(all, h.q, h.queryRule, s)
	return all
}

// expandValues returns the values of all keys, Seq × HeadDim.
func (h *head) expandValues(s *scratch) []float32 {
	all := s.headValues.take(h.Seq * h.HeadDim)
	h.expandAll(all, h.v, h.valueRule, s)
	return all
}

// expandAll writes what the planes of all queries, or of all values, stand for: Seq × HeadDim.
func (h *head) expandAll(all []float32, planes []uint64, q kernels.Quantization, s *scratch) {
	perRow := q.Planes() * h.words
	if 1 < q.Bits() && q.Bits() < 8 && h.HeadDim%32 == 0 {
		integers := s.headIntegers.take(len(all))
		for t := range h.Seq {
			h.expandBits(integers[t*h.HeadDim:][:h.HeadDim], planes[t*perRow:][:perRow], h.words, q.Planes(), 0,
				int8(-q.Largest()), 2)
		}
		h.scaleBytes(all, integers, q.Unit())
		return
	}
	levels := valuesOf(q)
	for t := range h.Seq {
		row, bits := all[t*h.HeadDim:][:h.HeadDim], planes[t*perRow:][:perRow]
		if q == kernels.Sign() {
			expandSigns(row, bits, 0)
		} else {
			expandLevels(row, bits, h.words, 0, levels)
		}
	}
}

// scaleBytesGo writes unit * q.
func scaleBytesGo(dst []float32, q []int8, unit float32) {
	for i, n := range q[:len(dst)] {
		dst[i] = unit * float32(n)
	}
}

func (x *doubleGradients) row(m []float32, t int) []float32  { return m[t*x.width:][:x.width] }
func (x *doubleGradients) sums(m []float64, t int) []float64 { return m[t*x.width:][:x.width] }

// overSurvivors is for a query whose scores get the gradient of a softmax over its survivors.
func (x *doubleGradients) overSurvivors(h *head, t int, survivors []int32) {
	var probabilities [kernels.MaxSurvivors]float64
	p, ds := probabilities[:len(survivors)], x.ds[:len(survivors)]
	weights := h.survivorWeights(survivors, t)
	var total float64
	for r, u := range survivors {
		ds[r] = h.valueGradient(x.sums(x.dv, int(u)), x.do(t), x.row(x.v, int(u)), weights[r])
		p[r] = float64(x.exps[t*h.Survivors+r])
		total += p[r]
	}
	for r := range p {
		p[r] /= total
	}
	softmaxGradient(ds, p, 1)
	for r, u := range survivors {
		x.addScore(h, t, int(u), ds[r])
	}
}

// overAllKeys is for a query whose scores get the gradient of a softmax over all keys.
func (x *doubleGradients) overAllKeys(h *head, t int, survivors []int32) {
	first, p := h.allScores(t)
	ds := x.ds[:len(p)] // first the weights of values, then the gradients of p, then those of scores
	tau := 1.0
	if h.rule.Tau {
		tau = h.tau
	}
	kernels.SoftmaxWeights(p, tau)
	if h.rule.AllKeys {
		copy(ds, p) // the rule's weights are those of softmax
	} else {
		clear(ds)
		for r, w := range h.survivorWeights(survivors, t) {
			ds[int(survivors[r])-first] = w
		}
	}
	for i, w := range ds {
		u := first + i
		ds[i] = h.valueGradient(x.sums(x.dv, u), x.do(t), x.row(x.v, u), w)
	}
	softmaxGradient(ds, p, tau)
	for i, v := range ds {
		x.addScore(h, t, first+i, v)
	}
}

// softmaxGradient replaces ds, the gradient of p = softmax(scores/tau), by the gradient of the scores.
func softmaxGradient(ds, p []float64, tau float64) {
	var mean float64
	for i, v := range ds {
		mean += v * p[i]
	}
	for i, v := range ds {
		ds[i] = p[i] * (v - mean) / tau
	}
}

// addScore adds the share of one score, of query t and key u with the gradient ds, to the gradients of the query and
// the key.
func (x *doubleGradients) addScore(h *head, t, u int, ds float64) {
	h.scoreGradient(x.dq, x.sums(x.dk, u), x.row(x.q, t), x.row(x.k, u), ds/math.Sqrt(float64(h.HeadDim)))
}

// valueGradientGo adds w*do to dv and returns do·v, the gradient of the weight w.
func valueGradientGo(dv []float64, do, v []float32, w float64) float64 {
	for i := range dv {
		dv[i] += float64(w * float64(do[i]))
	}
	return inLanes(len(dv), func(i int) float64 { return float64(do[i] * v[i]) })
}

// scoreGradientGo adds s*k to dq and s*q to dk.
func scoreGradientGo(dq, dk []float64, q, k []float32, s float64) {
	for i := range dq {
		dq[i] += float64(s * float64(k[i]))
		dk[i] += float64(s * float64(q[i]))
	}
}
