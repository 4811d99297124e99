package cpu

import (
	"math/bits"

	"bitnet1/kernels"
	"bitnet1/kernels/number/philox"
)

// Attend computes the attention output, one task per sequence and head.
func (d *Device) Attend(out kernels.Planes, pointers kernels.Ints, queries, keys, values kernels.Planes,
	a kernels.Attention) {
	d.run("Attend", kernels.CheckAttend(out, pointers, queries, keys, values, a), func() {
		in := attentionInput{queries.(*planes), keys.(*planes), values.(*planes)}
		all := d.newHead(a, in.queries.quantization, in.values.quantization)
		d.attend(out.(*planes), pointers.(ints), 0, &all, func(task int, s *scratch) *head {
			return loadHead(&all, in, task, s)
		})
	})
}

// attend writes what queries first..Seq-1 of every sequence read to out, and their keys to pointers: the pointers of
// every head are Seq-first times Survivors. load returns a head that is valid until the next call with the same
// scratch.
func (d *Device) attend(out *planes, pointers ints, first int, all *head, load func(task int, s *scratch) *head) {
	queries := all.Seq - first
	d.attendHeads(out, all, all.Batch*all.Heads, func(task int, outputs []uint64, s *scratch) {
		h := load(task, s)
		h.attend(outputs, task/h.Heads*queries, task%h.Heads, pointers[task*queries*h.Survivors:], first, s)
	})
}

// attendHeads does tasks, in each of which a head writes what it reads to outputs, and joins the heads in out.
func (d *Device) attendHeads(out *planes, all *head, tasks int, f func(task int, outputs []uint64, s *scratch)) {
	// In a row of out, several heads may share a word. So every head first writes words of its own.
	words := wordsOf(all.HeadDim)
	perHead := words * out.bits
	outputs := d.shared.headOutputs.take(out.rows * all.Heads * perHead)
	all.reads(out.quantization, d.ones(all.HeadDim))
	d.parallel(tasks, func(task int, s *scratch) { f(task, outputs, s) })
	d.blocks(out.rows, 32, func(from, to int, _ *scratch) {
		for r := from; r < to; r++ {
			row := out.row(r)
			clear(row)
			for i, w := range outputs[r*all.Heads*perHead:][:all.Heads*perHead] {
				plane := row[i%perHead/words*out.stride:][:out.stride]
				orBits(plane, i/perHead*all.HeadDim+i%words*64, w)
			}
		}
	})
}

// attend writes what queries first..Seq-1 read to outputs, of head i and the rows from row on, and their keys to
// pointers.
func (h *head) attend(outputs []uint64, row, i int, pointers []int32, first int, s *scratch) {
	perHead := h.words * h.outputRule.Planes()
	if h.rule.AllKeys {
		h.valueRows, h.valueSums = h.expandValues(s), s.valueSums.take(h.HeadDim)
	}
	for t := first; t < h.Seq; t++ {
		if t%4 == 0 && !h.rule.AllKeys && !h.noisy() {
			h.searchNear(t)
		}
		to := outputs[((row+t-first)*h.Heads+i)*perHead:][:perHead]
		h.read(to, pointers[(t-first)*h.Survivors:][:h.Survivors], t)
	}
}

// orBits sets in words, from bit at on, the bits that are set in w.
func orBits(words []uint64, at int, w uint64) {
	words[at>>6] |= w << (at & 63)
	if high := w >> 1 >> (63 - at&63); high != 0 {
		words[at>>6+1] |= high
	}
}

// head is an attention head at work on one sequence.
type head struct {
	// What all heads of an operation have in common, from newHead.
	kernels.Attention
	*instructions
	rule       kernels.AttentionRule
	words      int // of a key, or a plane of a query or a value
	queryWords int // of all planes of a query
	scoreTable
	gamma, tau float64
	noise      []float32 // of all scores, or nil
	noiseKey   [2]uint32 // of Philox
	noiseLayer uint32    // counters of Philox
	noiseStep  uint32
	rankTables
	queryRule  kernels.Quantization
	valueRule  kernels.Quantization
	outputRule kernels.Quantization
	levels     []float32 // of values: see planes.values
	ones       []float32 // HeadDim

	// This head and sequence, from loadHead.
	number    int       // b*Heads + h
	row0, col int       // of the first query in the rows of the batch
	q, v      []uint64  // Seq × planes × words
	k         []uint64  // Seq × words
	starts    []int32   // of the queries' documents, or nil
	valueRows []float32 // Seq × HeadDim, where all keys are read: what v stands for
	slope     float64   // of ALiBi

	// Results for one query.
	scores       []float64
	valueSums    []float64                     // HeadDim, where all keys are read: sums before it is narrowed
	sums         []float32                     // attention output before it is quantized
	index        []byte                        // of its levels, whole words
	scoreWeights [kernels.MaxSurvivors]float64 // weights of survivors that depend on their scores
	near         nearSearch
}

// attentionInput is what an operation reads.
type attentionInput struct{ queries, keys, values *planes }

// newHead returns a head that has what all heads of an operation have in common.
func (d *Device) newHead(a kernels.Attention, queryRule, valueRule kernels.Quantization) head {
	words := wordsOf(a.HeadDim)
	h := head{
		Attention: a, instructions: &d.instructions, rule: a.Kind.Rule(),
		words: words, queryWords: queryRule.Planes() * words,
		scoreTable: d.shared.scores.of(a, queryRule), queryRule: queryRule,
		valueRule: valueRule, levels: valuesOf(valueRule),
		gamma: d.scalars.Gamma, tau: d.scalars.Tau, noise: values(a.Noise),
		noiseKey:   philox.Key(d.scalars.Seed),
		noiseLayer: uint32(a.Layer) | d.scalars.Micro<<16, noiseStep: uint32(d.scalars.Step),
	}
	h.near.prepare(h.HeadDim, h.queryRule, h.reciprocal)
	if h.rule.Gamma {
		h.rankTables.prepare(a.Survivors, func(w []float64) { h.rule.Weights(w, h.gamma) })
	}
	return h
}

// reads says what attention outputs are quantized to.
func (h *head) reads(q kernels.Quantization, ones []float32) { h.outputRule, h.ones = q, ones }

// loadHead returns head task%Heads of sequence task/Heads. The head is valid until the next call with the same scratch.
func loadHead(all *head, in attentionInput, task int, s *scratch) *head {
	b, i := task/all.Heads, task%all.Heads
	h := placeHead(all, all.Attention, i, s)
	h.number, h.row0 = task, b*h.Seq
	n := h.Seq * h.words
	h.q, h.k, h.v = s.queryBits.take(n*in.queries.bits), s.keyBits.take(n), s.valueBits.take(n*in.values.bits)
	in.queries.copyBits(h.q, h.row0, h.col, h.HeadDim)
	in.keys.copyBits(h.k, h.row0, h.col, h.HeadDim)
	in.values.copyBits(h.v, h.row0, h.col, h.HeadDim)
	if h.Starts != nil {
		h.starts = h.Starts.(ints)[h.row0:][:h.Seq]
	}
	return h
}

// placeHead returns head i of some sequence of attention a, without what it reads.
func placeHead(all *head, a kernels.Attention, i int, s *scratch) *head {
	h := &s.head
	*h = *all
	h.Attention = a
	h.col, h.slope = i*h.HeadDim, h.Slope(i)
	h.near.setSlope(h.slope)
	h.scores, h.sums, h.index = s.scores.take(h.Seq), s.outputSums.take(h.HeadDim), s.outputIndices.take(64*h.words)
	clear(h.index) // beyond HeadDim it stays so
	return h
}

// start is the first key that query t may read.
func (h *head) start(t int) int {
	if h.starts == nil {
		return 0
	}
	return int(h.starts[t])
}

// query is all planes of query t.
func (h *head) query(t int) []uint64 { return h.q[t*h.queryWords:][:h.queryWords] }

// differingBits is the number of bits in which query t and key u differ, those of plane b of the query times 2^b.
func (h *head) differingBits(t, u int) int {
	if h.queryWords == 1 {
		return bits.OnesCount64(h.q[t] ^ h.k[u])
	}
	n, q, k := 0, h.query(t), h.k[u*h.words:][:h.words]
	for b := 0; len(q) > 0; b++ {
		for i, w := range q[:h.words] {
			n += bits.OnesCount64(w^k[i]) << b
		}
		q = q[h.words:]
	}
	return n
}

// score of query t and key u, without noise.
func (h *head) score(t, u int) float64 {
	return h.dotScores[h.differingBits(t, u)] - float64(h.slope*float64(t-u))
}

// allScores returns the scores of the keys first..t, which are all that query t may read. The scores include the noise.
func (h *head) allScores(t int) (first int, scores []float64) {
	first = h.start(t)
	s := h.scores[:t+1-first]
	for i := range s {
		s[i] = h.score(t, first+i)
	}
	if !h.noisy() {
		return first, s
	}
	at := (h.number*h.Seq+t)*h.Seq + first
	switch {
	case h.noise != nil:
		for i := range s {
			s[i] += float64(h.noise[at+i])
		}
	case h.Gumbel:
		var block [4]uint32
		for i := range s {
			if n := uint64(at + i); i == 0 || n%4 == 0 {
				block = philox.Block(h.noiseKey, [4]uint32{uint32(n / 4), uint32(n / 4 >> 32), h.noiseLayer, h.noiseStep})
			}
			s[i] += philox.Gumbel(block[(at+i)%4])
		}
	}
	return first, s
}

// noisy says whether scores have noise, which is not bounded as scores are.
func (h *head) noisy() bool { return h.rule.Noise && (h.Gumbel || h.noise != nil) }

// read writes the attention output of query t to dst, and the keys that the query reads to pointers.
func (h *head) read(dst []uint64, pointers []int32, t int) {
	switch {
	case h.rule.AllKeys:
		h.readAll(dst, pointers, t)
	case h.noisy():
		first, scores := h.allScores(t)
		best := len(scores) - 1
		for i := best - 1; i >= 0; i-- {
			if scores[i] > scores[best] {
				best = i
			}
		}
		pointers[0] = int32(first + best)
		h.readOne(dst, first+best)
	case h.rule.Noise:
		h.findSurvivors(pointers, t)
		h.readOne(dst, int(pointers[0]))
	case h.rule.Gamma:
		h.findSurvivors(pointers, t)
		h.readRanked(dst, pointers[:countSurvivors(pointers)])
	default:
		panic("no way to read values by attention of " + h.Kind.String())
	}
}

// survivorWeights returns the weights of the values of query t's survivors.
func (h *head) survivorWeights(survivors []int32, t int) []float64 {
	if h.rule.Gamma {
		return h.rankWeights(len(survivors))
	}
	w := h.scoreWeights[:len(survivors)]
	for i, u := range survivors {
		w[i] = h.score(t, int(u))
	}
	h.rule.Weights(w, h.gamma)
	return w
}

// readAll reads all keys and points at the first of the highest score.
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
	clear(h.valueSums)
	for i, w := range scores {
		v := h.valueRows[(first+i)*h.HeadDim:][:h.HeadDim]
		h.valueGradient(h.valueSums, v, v, w) // adds w*v; the product that it returns is not needed
	}
	narrow(h.sums, h.valueSums)
	h.quantizeSums(dst)
}

// value is all planes of the value of key u.
func (h *head) value(u int) []uint64 {
	n := h.valueRule.Planes() * h.words
	return h.v[u*n:][:n]
}

// readOne writes the quantized value of key u.
func (h *head) readOne(dst []uint64, u int) {
	if h.valueRule == h.outputRule {
		copy(dst, h.value(u))
		return
	}
	h.expandValue(h.sums, u)
	h.quantizeSums(dst)
}

// expandValue writes the value of key u.
func (h *head) expandValue(dst []float32, u int) {
	if h.valueRule == kernels.Sign() {
		expandSigns(dst, h.value(u), 0)
		return
	}
	expandLevels(dst, h.value(u), h.words, 0, h.levels)
}

// quantizeSums writes the planes of the quantized sums.
func (h *head) quantizeSums(dst []uint64) {
	if h.outputRule == kernels.Sign() {
		h.packSigns(dst, h.sums)
		return
	}
	half, step := halfLevels(h.outputRule)
	h.quantize(h.index[:h.HeadDim], h.sums, h.ones, 1, step, half)
	h.packLevels(dst, h.words, h.index)
}
