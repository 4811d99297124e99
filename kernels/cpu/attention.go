package cpu

import (
	"math"
	"math/bits"

	"bitnet1/kernels"
	"bitnet1/kernels/philox"
)

// Attend reads values, one task per sequence and head.
func (d *Device) Attend(out kernels.Planes, pointers kernels.Ints, qkv kernels.Planes, a kernels.Attention) {
	d.run("Attend", func() {
		in, dst, ptr := qkv.(*planes), out.(*planes), pointers.(ints)
		// Heads share words of out, so each writes floats first and rows are packed afterwards.
		width := a.Heads * a.HeadDim
		read := d.shared.floats(0, in.rows*width)
		d.parallel(a.Batch*a.Heads, func(task int, s *scratch) {
			h := d.head(a, in, task, s)
			for t := range a.Seq {
				to := read[(h.row0+t)*width+h.col:][:a.HeadDim]
				h.read(to, ptr[(task*a.Seq+t)*a.Survivors:][:a.Survivors], t)
			}
		})
		d.blocks(in.rows, 32, func(from, to int, _ *scratch) {
			for r := from; r < to; r++ {
				d.packSigns(dst.row(r), read[r*width:][:width])
				dst.count(r)
			}
		})
	})
}

// head is one head of one sequence: its packed queries and keys, and what the arithmetic of scores needs.
type head struct {
	kernels.Attention
	index      int // b*Heads + h
	row0, col  int // where the sequence starts, where the head starts in a row
	qkv        *planes
	words      int      // per query or key
	q, k       []uint64 // Seq × words
	products   []float64
	slope      float64
	scores     []float64
	key        [2]uint32
	step       uint32
	stream     uint32
	noise      []float32
	gamma, tau float64
}

func (d *Device) head(a kernels.Attention, qkv *planes, task int, s *scratch) *head {
	b, i := task/a.Heads, task%a.Heads
	h := &head{
		Attention: a, index: task, row0: b * a.Seq, col: i * a.HeadDim, qkv: qkv,
		words: (a.HeadDim + 63) / 64,
		key:   philox.Key(d.scalars.Seed), step: uint32(d.scalars.Step), stream: uint32(a.Layer) | d.scalars.Micro<<16,
		gamma: d.scalars.Gamma, tau: d.scalars.Tau,
		noise: values(a.Noise),
	}
	if a.Alibi {
		h.slope = math.Pow(2, -8*float64(i+1)/float64(a.Heads))
	}
	h.q, h.k = s.words(0, a.Seq*h.words), s.words(1, a.Seq*h.words)
	for t := range a.Seq {
		row := qkv.row(h.row0 + t)
		h.copyBits(h.q[t*h.words:], row, h.col)
		h.copyBits(h.k[t*h.words:], row, h.col+a.Heads*a.HeadDim)
	}
	h.products = s.doubles(0, a.HeadDim+1) // by the number of bits that differ
	for n := range h.products {
		h.products[n] = float64(a.HeadDim-2*n) / math.Sqrt(float64(a.HeadDim))
	}
	h.scores = s.doubles(1, a.Seq)
	return h
}

// copyBits moves the head's bits of a row to words of their own.
func (h *head) copyBits(dst, row []uint64, at int) {
	for i := range h.words {
		dst[i] = bitsAt(row, at+i*64, min(64, h.HeadDim-i*64))
	}
}

// score of query t and key u, without noise.
func (h *head) score(t, u int) float64 {
	var n int
	k := h.k[u*h.words:][:h.words]
	for i, w := range h.q[t*h.words:][:h.words] {
		n += bits.OnesCount64(w ^ k[i])
	}
	return h.products[n] - float64(h.slope*float64(t-u))
}

// allScores fills scores[0..t], with noise where there is any, and returns them.
func (h *head) allScores(t int) []float64 {
	s := h.scores[:t+1]
	for u := range s {
		s[u] = h.score(t, u)
	}
	if h.Kind != kernels.Pointer {
		return s
	}
	at := (h.index*h.Seq + t) * h.Seq
	switch {
	case h.noise != nil:
		for u := range s {
			s[u] += float64(h.noise[at+u])
		}
	case h.Gumbel:
		var block [4]uint32
		for u := range s {
			if i := uint64(at + u); u == 0 || i%4 == 0 {
				block = philox.Block(h.key, [4]uint32{uint32(i / 4), uint32(i / 4 >> 32), h.stream, h.step})
			}
			s[u] += philox.Gumbel(block[(at+u)%4])
		}
	}
	return s
}

// read writes what query t reads, up to a positive factor, and where it points.
func (h *head) read(dst []float32, pointers []int32, t int) {
	switch h.Kind {
	case kernels.Softmax:
		h.readAll(dst, pointers, t)
	case kernels.Pointer:
		best, scores := t, h.allScores(t)
		for u := t - 1; u >= 0; u-- {
			if scores[u] > scores[best] {
				best = u
			}
		}
		pointers[0] = int32(best)
		h.values(dst, best)
	case kernels.RWSP:
		h.survivors(pointers, t)
		h.readRanked(dst, pointers)
	}
}

// values writes the value of key u as ±1.
func (h *head) values(dst []float32, u int) {
	row, at := h.qkv.row(h.row0+u), 2*h.Heads*h.HeadDim+h.col
	if at%8 == 0 {
		expandSigns(dst, row, at)
		return
	}
	for i := range dst {
		dst[i] = float32(row[(at+i)>>6]>>((at+i)&63)&1)*2 - 1
	}
}

// survivors finds the best keys of query t, best first; of equal ones the most recent comes first.
func (h *head) survivors(pointers []int32, t int) {
	var best [maxSurvivors]float64
	found, most := 0, len(pointers)
	for u := t; u >= 0; u-- {
		if found == most && h.products[0]-float64(h.slope*float64(t-u)) <= best[most-1] {
			break // no key this far back can score better
		}
		s := h.score(t, u)
		if found == most && s <= best[most-1] {
			continue
		}
		found = min(found+1, most)
		i := found - 1
		for ; i > 0 && best[i-1] < s; i-- {
			best[i], pointers[i] = best[i-1], pointers[i-1]
		}
		best[i], pointers[i] = s, int32(u)
	}
	for i := found; i < most; i++ {
		pointers[i] = -1
	}
}

// maxSurvivors bounds Attention.Survivors.
const maxSurvivors = 16

// rankWeights are gamma^r over the live survivors, normalised to 1. The reference's order of operations is kept: with
// some gammas two ranks balance the others exactly, and the sign of what is read hangs on it.
func (h *head) rankWeights(pointers []int32) (w [maxSurvivors]float64) {
	var sum float64
	for r, u := range pointers {
		if u >= 0 {
			w[r] = math.Pow(h.gamma, float64(r))
			sum += w[r]
		}
	}
	for r := range pointers {
		w[r] /= sum
	}
	return w
}

// readRanked writes the weighted sum of the survivors' values: of the 2^survivors sums that there are, each channel picks
// one with its bits.
func (h *head) readRanked(dst []float32, pointers []int32) {
	alive := 0
	for alive < len(pointers) && pointers[alive] >= 0 {
		alive++
	}
	w := h.rankWeights(pointers[:alive])
	at := 2*h.Heads*h.HeadDim + h.col
	var sums [1 << fewSurvivors]float32
	if alive <= fewSurvivors {
		for pattern := range 1 << alive {
			sums[pattern] = signedSum(w[:alive], pattern)
		}
	}
	for from := 0; from < len(dst); from += 64 {
		part := dst[from:min(from+64, len(dst))]
		var words [maxSurvivors]uint64
		for r, u := range pointers[:alive] {
			words[r] = bitsAt(h.qkv.row(h.row0+int(u)), at+from, len(part))
		}
		for i := range part {
			pattern := 0
			for r, word := range words[:alive] {
				pattern |= int(word>>i&1) << r
			}
			if alive <= fewSurvivors {
				part[i] = sums[pattern]
			} else {
				part[i] = signedSum(w[:alive], pattern)
			}
		}
	}
}

// fewSurvivors is up to how many survivors all sums are tabulated.
const fewSurvivors = 4

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
func (h *head) readAll(dst []float32, pointers []int32, t int) {
	scores := h.allScores(t)
	best := 0
	for u, s := range scores {
		if s > scores[best] {
			best = u
		}
	}
	pointers[0] = int32(best)
	softmax(scores, 1)
	at := 2*h.Heads*h.HeadDim + h.col
	var sums [64]float64
	for from := 0; from < len(dst); from += 64 {
		part := sums[:min(64, len(dst)-from)]
		clear(part)
		for u, p := range scores {
			w := bitsAt(h.qkv.row(h.row0+u), at+from, len(part))
			for i := range part {
				part[i] += math.Copysign(p, float64(int(w>>i&1)*2-1))
			}
		}
		for i, v := range part {
			dst[from+i] = float32(v)
		}
	}
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
