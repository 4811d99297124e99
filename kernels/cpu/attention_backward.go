package cpu

import (
	"math"

	"bitnet1/kernels"
)

// AttendBackward computes the gradients of queries, keys and values, one task per sequence and head.
func (d *Device) AttendBackward(dqkv, dOut kernels.Floats, qkv kernels.Planes, pointers kernels.Ints, a kernels.Attention) {
	d.run("AttendBackward", func() {
		in, grad, dst, ptr := qkv.(*planes), gradientValues(dOut), gradientValues(dqkv), pointers.(ints)
		settle := d.settling(dqkv)
		d.parallel(a.Batch*a.Heads, func(task int, s *scratch) {
			h := d.head(a, in, task, s)
			g := h.gradients(s)
			if a.Kind == kernels.RWSP {
				g.exponentiate(h, ptr[task*a.Seq*a.Survivors:][:a.Seq*a.Survivors], s)
			}
			for t := range a.Seq {
				g.query(h, dst, t)
				g.do = grad[(h.row0+t)*a.Heads*a.HeadDim+h.col:][:a.HeadDim]
				p := ptr[(task*a.Seq+t)*a.Survivors:][:a.Survivors]
				switch {
				case g.few:
					g.four(h, t, p)
				case a.Kind == kernels.RWSP:
					g.ranked(h, t, p)
				default:
					g.dense(h, t, p)
				}
				settle(g.dq)
			}
			g.round()
			settle(g.dk)
			settle(g.dv)
			g.store(h, dst)
		})
	})
}

// gradients are one head's queries, keys and values as floats (Seq × HeadDim), and their gradients.
type gradients struct {
	width   int
	few     bool // survivors, at most four: their gradients are added up in float32, all others in float64
	q, k, v []float32
	dk, dv  []float32
	dq, do  []float32 // of the present query, and of what it reads
	ds      []float64 // of its scores
	exps    []float32 // exp(score - best score) of survivors, Seq × Survivors
	ranks   ranks
	sums    struct{ dq, dk, dv []float64 } // in place of dq, dk and dv
}

// ranks are what four survivors have.
type ranks struct {
	p, ds            [4]float64
	weights, dots, s [4]float32
	at               [4]int32
}

func (h *head) gradients(s *scratch) *gradients {
	n := h.Seq * h.HeadDim
	all := s.floats(0, 5*n)
	clear(all[3*n:])
	g := &gradients{
		width: h.HeadDim,
		few:   h.Kind == kernels.RWSP && h.Survivors <= 4,
		q:     all[:n], k: all[n : 2*n], v: all[2*n : 3*n], dk: all[3*n : 4*n], dv: all[4*n : 5*n],
		ds: s.doubles(2, max(h.Seq, maxSurvivors)),
	}
	if !g.few {
		sums := s.doubles(3, 2*n+h.HeadDim)
		clear(sums)
		g.sums.dk, g.sums.dv, g.sums.dq = sums[:n], sums[n:2*n], sums[2*n:]
	}
	for t := range h.Seq {
		for i, src := range [][]uint64{h.q, h.k, h.v} {
			expandSigns(all[i*n+t*h.HeadDim:][:h.HeadDim], src[t*h.words:], 0)
		}
	}
	return g
}

// query makes room for the gradient of query t, which no other query adds to, where it belongs.
func (g *gradients) query(h *head, dst []float32, t int) {
	g.dq = dst[(h.row0+t)*3*h.Heads*h.HeadDim+h.col:][:h.HeadDim]
	clear(g.dq)
	clear(g.sums.dq)
}

// round takes over what was added up in float64.
func (g *gradients) round() {
	if !g.few {
		narrow(g.dk, g.sums.dk)
		narrow(g.dv, g.sums.dv)
	}
}

// store writes the gradients of keys and values to the head's columns.
func (g *gradients) store(h *head, dst []float32) {
	width := h.Heads * h.HeadDim
	for t := range h.Seq {
		row := dst[(h.row0+t)*3*width:][:3*width]
		copy(row[width+h.col:][:h.HeadDim], g.row(g.dk, t))
		copy(row[2*width+h.col:][:h.HeadDim], g.row(g.dv, t))
	}
}

func (g *gradients) row(m []float32, t int) []float32 { return m[t*g.width:][:g.width] }

func (g *gradients) sumsRow(m []float64, t int) []float64 { return m[t*g.width:][:g.width] }

// narrow rounds len(dst) values.
func narrow(dst []float32, src []float64) {
	for i, v := range src[:len(dst)] {
		dst[i] = float32(v)
	}
}

// exponentiate prepares softmax over the survivors of all queries.
func (g *gradients) exponentiate(h *head, pointers []int32, s *scratch) {
	g.exps = s.floats(1, len(pointers))
	for t := range h.Seq {
		var best float64
		for r, u := range pointers[t*h.Survivors:][:h.Survivors] {
			at := t*h.Survivors + r
			if u < 0 {
				g.exps[at] = 0
				continue
			}
			score := h.score(t, int(u))
			if r == 0 {
				best = score
			}
			g.exps[at] = float32(score - best)
		}
	}
	h.exponentials(g.exps, 0)
}

// softmax writes the probabilities of query t's live survivors to p.
func (g *gradients) softmax(h *head, t int, p []float64) {
	var sum float64
	for r := range p {
		p[r] = float64(g.exps[t*h.Survivors+r])
		sum += p[r]
	}
	for r := range p {
		p[r] /= sum
	}
}

// ranked: values get the rank weights, scores the gradient of softmax over the survivors.
func (g *gradients) ranked(h *head, t int, pointers []int32) {
	live := alive(pointers)
	var probabilities [maxSurvivors]float64
	p, ds := probabilities[:live], g.ds[:live]
	for r, u := range pointers[:live] {
		ds[r] = h.readGradient(g.sumsRow(g.sums.dv, int(u)), g.do, g.row(g.v, int(u)), h.weights[live][r])
	}
	g.softmax(h, t, p)
	softmaxGradient(ds, p, 1)
	for r, u := range pointers[:live] {
		g.addScore(h, t, int(u), ds[r])
	}
	narrow(g.dq, g.sums.dq)
}

// four is ranked for up to four survivors. Where there are fewer, the others are the query itself, with nothing to add.
func (g *gradients) four(h *head, t int, pointers []int32) {
	x, live := &g.ranks, alive(pointers)
	x.at, x.weights = [4]int32{int32(t), int32(t), int32(t), int32(t)}, [4]float32{}
	copy(x.at[:], pointers[:live])
	narrow(x.weights[:live], h.weights[live][:live])
	h.rankedRead(&x.dots, g.dv, g.do, g.v, &x.at, &x.weights)
	p, ds := x.p[:live], x.ds[:live]
	widen(ds, x.dots[:live])
	g.softmax(h, t, p)
	softmaxGradient(ds, p, 1)
	x.s = [4]float32{}
	// The gradients of scores add up to zero, and so must they as float32: where the survivors' keys are equal, nothing but
	// the sum is left of them.
	var sum float32
	for r, v := range ds[:live-1] {
		x.s[r] = float32(g.scaled(h, v))
		sum += x.s[r]
	}
	x.s[live-1] = -sum
	h.rankedScores(g.dq, g.dk, g.row(g.q, t), g.k, &x.at, &x.s)
}

// dense: softmax, whose values get the probabilities, or a pointer, whose one value gets all.
func (g *gradients) dense(h *head, t int, pointers []int32) {
	p, tau := h.allScores(t), 1.0
	if h.Kind == kernels.Pointer {
		tau = h.tau
	}
	softmax(p, tau)
	ds := g.ds[:t+1]
	for u := range ds {
		w := p[u]
		if h.Kind == kernels.Pointer {
			w = 0
			if u == int(pointers[0]) {
				w = 1
			}
		}
		ds[u] = h.readGradient(g.sumsRow(g.sums.dv, u), g.do, g.row(g.v, u), w)
	}
	softmaxGradient(ds, p, tau)
	for u, v := range ds {
		g.addScore(h, t, u, v)
	}
	narrow(g.dq, g.sums.dq)
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
func (g *gradients) addScore(h *head, t, u int, ds float64) {
	h.scoreGradient(g.sums.dq, g.sumsRow(g.sums.dk, u), g.row(g.q, t), g.row(g.k, u), g.scaled(h, ds))
}

// scaled is the gradient of q·k, given that of the score.
func (g *gradients) scaled(h *head, ds float64) float64 {
	return ds / math.Sqrt(float64(h.HeadDim))
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

// rankedReadGo adds w[r]*do to the rows at of dv, as long as do, and returns the dots of do and those rows of v.
func rankedReadGo(dots *[4]float32, dv, do, v []float32, at *[4]int32, w *[4]float32) {
	for r, u := range at {
		from := int(u) * len(do)
		to, row := dv[from:from+len(do)], v[from:]
		for i, x := range do {
			to[i] += float32(w[r] * x)
		}
		dots[r] = inLanes(len(do), func(i int) float32 { return float32(do[i] * row[i]) })
	}
}

// rankedScoresGo adds the sum of s[r] times the rows at of k, as long as dq, to dq, and s[r]*q to those of dk.
func rankedScoresGo(dq, dk, q, k []float32, at *[4]int32, s *[4]float32) {
	for r, u := range at {
		from := int(u) * len(dq)
		to, row := dk[from:from+len(dq)], k[from:]
		for i := range dq {
			dq[i] += float32(s[r] * row[i])
			to[i] += float32(s[r] * q[i])
		}
	}
}
