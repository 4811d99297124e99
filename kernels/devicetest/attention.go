package devicetest

import (
	"fmt"
	"math"
	"slices"

	"bitnet1/kernels"
	"bitnet1/kernels/number/philox"
)

// reading is one attention read and the integers behind its input.
type reading struct {
	kernels.Attention
	rule    kernels.AttentionRule
	scalars kernels.Scalars
	queries []int                // rows × heads * dim, the integers behind queries
	k       []int                // rows × heads * dim
	values  []int                // rows × heads * dim, the integers behind values
	asks    kernels.Quantization // the queries
	of      kernels.Quantization // the values
	reads   kernels.Quantization // the output
	noise   []float32
	starts  []int32 // of documents, or nil
}

// asked is an attention read whose queries and values have so many bits. 0: reading draws their number.
type asked struct {
	kernels.Attention
	bits, values int
}

// readings are attention reads of all kinds, of sequences that are one document each and of sequences that hold
// several. Heads of 64 channels and four survivors are asked by queries of 1 to 4 bits in every run, and all keys by
// queries of few and of many bits, for values of few and of many: devices have loops for each.
func (b *bench) readings() []asked {
	one := []kernels.Attention{
		{Batch: 2, Seq: 100, Heads: 2, HeadDim: 64, Alibi: true, Layer: 3},
		{Batch: 1, Seq: 77, Heads: 3, HeadDim: 20},
		{Batch: 1, Seq: 4 * b.size(60), Heads: 3, HeadDim: 64, Alibi: b.r.IntN(2) == 0, Layer: 7},
		{Batch: 1, Seq: 90, Heads: 2, HeadDim: 64, Alibi: true},
		{Batch: 2, Seq: 41, Heads: 2, HeadDim: 37},
	}
	several := []kernels.Attention{
		{Batch: 2, Seq: 150, Heads: 3, HeadDim: 10, Survivors: 4},
		{Batch: 1, Seq: 300, Heads: 4, HeadDim: 64, Survivors: 4, Alibi: true},
		{Batch: 2, Seq: 257, Heads: 2, HeadDim: 64, Survivors: 4},
		{Batch: 1, Seq: 140, Heads: 2, HeadDim: 70, Survivors: 7, Alibi: true},
		{Batch: 1, Seq: 90, Heads: 3, HeadDim: 33, Survivors: 1, Alibi: true},
		{Batch: 1, Seq: 130, Heads: 2, HeadDim: 128, Survivors: 2},
		{Batch: 2, Seq: 3, Heads: 1, HeadDim: 32, Survivors: 3, Alibi: true},
		{Batch: b.size(3), Seq: b.size(200), Heads: b.size(4), HeadDim: b.size(90), Survivors: 1 + b.r.IntN(16),
			Alibi: b.r.IntN(2) == 0},
	}
	var list []asked
	for bits := 1; bits <= 4; bits++ {
		a := kernels.Attention{
			Kind: kernels.RWSP, Batch: 2, Seq: 130 + bits, Heads: 2, HeadDim: 64, Survivors: 4, Alibi: bits != 3,
		}
		list = append(list, asked{a, bits, 0})
		a.Starts = b.ints(b.starts(a.Batch, a.Seq))
		list = append(list, asked{a, bits, 0})
	}
	for i, bits := range []int{1, 4, 8} {
		for j, values := range []int{1, 4, 8} {
			a := kernels.Attention{
				Kind: kernels.Softmax, Batch: 1, Seq: 128 + 30*i + 7*j, Heads: 1 + 2*j, HeadDim: 64, Survivors: 1, Alibi: i != 1,
			}
			list = append(list, asked{a, bits, values})
			a.Batch = 2
			a.Starts = b.ints(b.starts(a.Batch, a.Seq))
			list = append(list, asked{a, bits, values})
		}
	}
	for _, kind := range kernels.AttentionKinds() {
		shapes := one
		if kind.Rule().MaxSurvivors > 1 {
			shapes = several
		}
		for i, a := range shapes {
			a.Kind, a.Survivors, a.Gumbel = kind, max(a.Survivors, 1), kind.Rule().Noise && i%2 == 0
			list = append(list, asked{Attention: a})
			a.Starts = b.ints(b.starts(a.Batch, a.Seq))
			list = append(list, asked{Attention: a})
		}
	}
	return list
}

// starts cuts sequences into documents: some of one token, some of a few, and some that end with a tile of keys.
func (b *bench) starts(batch, seq int) []int32 {
	list := make([]int32, 0, batch*seq)
	for range batch {
		for at := 0; at < seq; {
			tile := []int{4, 16, 32, 64, 128}[b.r.IntN(5)]
			n := []int{1, 1 + b.r.IntN(9), 1 + b.r.IntN(seq), tile - at%tile}[b.r.IntN(4)]
			for range min(n, seq-at) {
				list = append(list, int32(at))
			}
			at += n
		}
	}
	return list
}

// reading draws queries, keys and values, and the number of bits of queries, values and output. Some keys are equal, so
// that scores are.
func (b *bench) reading(a asked) (v reading, queries, keys, values kernels.Planes) {
	a.Survivors = min(a.Survivors, a.Seq)
	v = reading{Attention: a.Attention, rule: a.Kind.Rule(),
		scalars: kernels.Scalars{Seed: b.r.Uint64(), Step: uint64(b.r.Uint32()), Micro: 9,
			Gamma: 0.1 + 0.8*b.r.Float64(), Tau: 0.7}}
	rows, width, bits := a.Batch*a.Seq, a.Heads*a.HeadDim, 1
	if b.r.IntN(3) > 0 {
		bits = 1 + b.r.IntN(8)
	}
	if a.values > 0 {
		bits = a.values
	}
	if a.bits == 0 {
		a.bits = []int{1, 1, 2, 4, 8, 1 + b.r.IntN(8)}[b.r.IntN(6)]
	}
	few := b.normals(rows * width)
	for r := range rows {
		if b.r.IntN(3) == 0 {
			copy(few[r*width:][:width], few[r%4*width:])
		}
	}
	queries, keys = b.activation(rows, width, a.bits).Planes, b.signsOf(few, rows, width)
	values = b.activation(rows, width, bits).Planes
	v.queries, v.k, v.values = b.integers(queries), b.integers(keys), b.integers(values)
	v.asks, v.of, v.reads = kernels.MidRise(a.bits), kernels.MidRise(bits), kernels.MidRise(1+b.r.IntN(bits))
	if v.rule.Noise && !a.Gumbel {
		v.noise = b.normals(a.Batch * a.Heads * a.Seq * a.Seq)
		v.Noise = b.floats(v.noise)
	}
	if a.Starts != nil {
		v.starts = make([]int32, a.Batch*a.Seq)
		b.must(b.d.DownloadInts(v.starts, a.Starts))
	}
	b.d.SetScalars(v.scalars)
	return v, queries, keys, values
}

// query, key and value are those of token t in head n. Heads count through all sequences.
func (v reading) query(n, t int) []int { return v.part(v.queries, n, t) }
func (v reading) key(n, t int) []int   { return v.part(v.k, n, t) }
func (v reading) value(n, t int) []int { return v.part(v.values, n, t) }

func (v reading) part(of []int, n, t int) []int {
	return of[((n/v.Heads)*v.Seq+t)*v.Heads*v.HeadDim+n%v.Heads*v.HeadDim:][:v.HeadDim]
}

// keys lists those that query t of head n may read.
func (v reading) keys(n, t int) (list []int) {
	first := 0
	if v.starts != nil {
		first = int(v.starts[n/v.Heads*v.Seq+t])
	}
	for u := first; u <= t; u++ {
		list = append(list, u)
	}
	return list
}

func (v reading) score(n, t, u int) float64 {
	sum := 0
	k := v.key(n, u)
	for i, q := range v.query(n, t) {
		sum += q * k[i]
	}
	slope := 0.0
	if v.Alibi {
		slope = math.Pow(2, -8*float64(n%v.Heads+1)/float64(v.Heads))
	}
	s := float64(v.asks.Unit())*float64(sum)/math.Sqrt(float64(v.HeadDim)) - float64(slope*float64(t-u))
	at := (n*v.Seq+t)*v.Seq + u
	switch {
	case v.noise != nil:
		s += float64(v.noise[at])
	case v.Gumbel:
		block := philox.Block(philox.Key(v.scalars.Seed),
			[4]uint32{uint32(at / 4), uint32(at / 4 >> 32), uint32(v.Layer) | v.scalars.Micro<<16,
				uint32(v.scalars.Step)})
		s += philox.Gumbel(block[at%4])
	}
	return s
}

// best lists the keys of query t by score, cut to the survivors. Of equal keys the most recent comes first, or the
// first where all are read.
func (v reading) best(n, t int) []int {
	keys := v.keys(n, t)
	scores := map[int]float64{}
	for _, u := range keys {
		scores[u] = v.score(n, t, u)
	}
	if !v.rule.AllKeys {
		slices.Reverse(keys)
	}
	slices.SortStableFunc(keys, func(x, y int) int {
		switch {
		case scores[x] > scores[y]:
			return -1
		case scores[x] < scores[y]:
			return 1
		}
		return 0
	})
	return keys[:min(len(keys), v.Survivors)]
}

// weights are the weights of the values of the given keys, for query t.
func (v reading) weights(n, t int, keys []int) []float64 {
	w := make([]float64, len(keys))
	for r, u := range keys {
		w[r] = v.score(n, t, u)
	}
	v.rule.Weights(w, v.scalars.Gamma)
	return w
}

// readKeys lists the keys that query t reads.
func (v reading) readKeys(n, t int) []int {
	if v.rule.AllKeys {
		return v.keys(n, t)
	}
	return v.best(n, t)
}

func testAttend(b *bench) {
	for _, a := range b.readings() {
		b.attend(b.reading(a))
	}
}

// attend compares what a device reads, and its pointers, with what v says.
func (b *bench) attend(v reading, queries, keys, values kernels.Planes) {
	rows, width, heads := v.Batch*v.Seq, v.Heads*v.HeadDim, v.Batch*v.Heads
	out := b.activation(rows, width, v.reads.Bits()).Planes // other values, to be overwritten
	list := make([]int32, heads*v.Seq*v.Survivors)
	for i := range list {
		list[i] = -77
	}
	pointers := b.ints(list)
	b.d.Attend(out, pointers, queries, keys, values, v.Attention)
	b.must(b.d.DownloadInts(list, pointers))
	want, read := make([]int32, len(list)), b.integers(out)
	wrong := 0
	for n := range heads {
		for t := range v.Seq {
			keys := v.best(n, t)
			for r := range v.Survivors {
				want[(n*v.Seq+t)*v.Survivors+r] = -1
				if r < len(keys) {
					want[(n*v.Seq+t)*v.Survivors+r] = int32(keys[r])
				}
			}
			keys = v.readKeys(n, t)
			w := v.weights(n, t, keys)
			for c := range v.HeadDim {
				sum, slack := v.read(n, keys, w, c)
				got := read[((n/v.Heads)*v.Seq+t)*width+n%v.Heads*v.HeadDim+c]
				if got < v.reads.Integer(sum-slack) || got > v.reads.Integer(sum+slack) {
					wrong++
				}
			}
		}
	}
	same(b.t, fmt.Sprintf("%+v, queries of %v: pointers", v.Attention, v.asks), list, want, v.Survivors)
	if wrong > 0 {
		b.t.Errorf("%+v, queries of %v, values of %v, output of %v: %d of %d differ", v.Attention, v.asks, v.of, v.reads,
			wrong, len(read))
	}
	// Planes come with the popcounts of their rows: a product with out shows whether they are right.
	l := b.newLinear(width, 9, 1)
	y := b.poisoned(rows * 9)
	b.d.LinearAdd(y, nil, kernels.Activation{Planes: out}, l.Linear)
	levels := b.values(kernels.Activation{Planes: out})
	sums, size := make([]float64, rows*9), make([]float64, rows*9)
	for i := range sums {
		sum, _ := l.product(levels, i/9, i%9)
		alpha, theta := float64(l.alpha[i%9]), float64(l.theta[i%9])
		sums[i], size[i] = alpha*sum-theta, math.Abs(alpha*sum)+math.Abs(theta)
	}
	near(b.t, fmt.Sprintf("%+v: product of what was read", v.Attention), b.download(y), sums, size, 1e-6, 9)
}

// Scores of far keys are higher. Those of near ones decide where ALiBi's slope is steep, and the farthest where it is
// not: a device that leaves out keys because they are far away must know how far is enough.
func testFarKeys(b *bench) {
	for _, kind := range []kernels.AttentionKind{kernels.Softmax, kernels.Pointer} {
		for _, bits := range []int{1, 4} {
			a := kernels.Attention{Kind: kind, Batch: 1, Seq: 360 + 4*b.r.IntN(20), Heads: 2, HeadDim: 64, Survivors: 1,
				Alibi: true, Gumbel: kind.Rule().Noise}
			v, _, _, values := b.reading(asked{Attention: a, bits: bits})
			rows, width := a.Seq, a.Heads*a.HeadDim
			like := b.normals(width) // all queries, and the first keys
			q, k := make([]float32, rows*width), make([]float32, rows*width)
			for i := range q {
				q[i] = like[i%width] * (1 + b.r.Float32())
				k[i] = like[i%width]
				if b.r.IntN(rows) < i/width*4/5 {
					k[i] = -k[i]
				}
			}
			queries, keys := b.planes(rows, width, v.asks), b.signsOf(k, rows, width)
			b.d.Normalize(kernels.Activation{Planes: queries}, b.floats(q),
				kernels.RMSNorm{Gain: b.floats(onesOf(width)), Eps: eps})
			v.queries, v.k = b.integers(queries), b.integers(keys)
			b.attend(v, queries, keys, values)
		}
	}
}

// read is channel c of what is read of the values of keys with weights w, and what another order of sums may change.
// Where keys are weighted by rank, the order is that of the contract.
func (v reading) read(n int, keys []int, w []float64, c int) (sum, slack float64) {
	if !v.rule.Gamma {
		for r, u := range keys {
			sum += w[r] * float64(v.of.Unit()) * float64(v.value(n, u)[c])
		}
		return sum, 1e-6
	}
	total := float32(0)
	for b := range v.of.Planes() {
		pattern := 0
		for r, u := range keys {
			pattern |= (v.value(n, u)[c] + v.of.Largest()) / 2 >> b & 1 << r
		}
		total += float32(int(1)<<b) * kernels.SignedSum(w, pattern)
	}
	return float64(v.of.Unit() * total), 0
}

func testAttendBackward(b *bench) {
	for _, a := range b.readings() {
		v, queries, keys, values := b.reading(a)
		rows, width, heads := v.Batch*v.Seq, v.Heads*v.HeadDim, v.Batch*v.Heads
		pointers := b.ints(make([]int32, heads*v.Seq*v.Survivors))
		b.d.Attend(b.signs(rows, width), pointers, queries, keys, values, v.Attention)
		dOut := b.normals(rows * width)
		dqkv := b.poisoned(rows * 3 * width)
		b.d.AttendBackward(dqkv, b.floats(dOut), queries, keys, values, pointers, v.Attention)
		what := fmt.Sprintf("%+v, queries of %v, values of %v", a, v.asks, v.of)
		norms(b.t, what, b.download(dqkv), v.gradients(dOut), 2e-6)
	}
}

// Gradients in bfloat16 of kinds that read all keys, for devices have faster ways to compute these: with other
// temperatures, and with distances at which keys no longer count.
func testDenseGradients(b *bench) {
	for i, tau := range []float64{0.5, 1, 8} {
		for _, kind := range []kernels.AttentionKind{kernels.Softmax, kernels.Pointer} {
			a := kernels.Attention{Kind: kind, Batch: 1 + i%2, Seq: 4 * (20 + b.r.IntN(20)), Heads: 2, HeadDim: 64,
				Survivors: 1, Alibi: i != 2, Gumbel: kind.Rule().Noise, Layer: i}
			b.denseGradients(asked{Attention: a}, tau)
			a.Starts = b.ints(b.starts(a.Batch, a.Seq))
			b.denseGradients(asked{Attention: a, bits: 1, values: 1}, tau)
		}
	}
	b.denseGradients(asked{Attention: kernels.Attention{Kind: kernels.Pointer, Batch: 1, Seq: 300 + 4*b.r.IntN(9),
		Heads: 4, HeadDim: 64, Survivors: 1, Alibi: true, Gumbel: true}, bits: 1, values: 1}, 0.7)
}

// denseGradients compares the rounded gradients of an attention read with those of float64.
func (b *bench) denseGradients(a asked, tau float64) {
	v, queries, keys, values := b.reading(a)
	v.scalars.Tau = tau
	b.d.SetScalars(v.scalars)
	rows, width := v.Batch*v.Seq, v.Heads*v.HeadDim
	pointers := b.ints(make([]int32, v.Batch*v.Heads*v.Seq))
	b.d.Attend(b.signs(rows, width), pointers, queries, keys, values, v.Attention)
	dOut, dqkv := bfloatsOf(b.normals(rows*width)), b.poisonedBFloats(3*rows*width)
	b.d.AttendBackward(dqkv, b.bfloats(dOut), queries, keys, values, pointers, v.Attention)
	want := make([]float32, 3*rows*width)
	for i, x := range v.gradients(dOut) {
		want[i] = float32(x)
	}
	what := fmt.Sprintf("%+v, queries of %v, values of %v, tau %g", v.Attention, v.asks, v.of, tau)
	b.nearParts(what, b.download(dqkv), bfloatsOf(want), width)
}

// gradients are those of queries, keys and values, if dOut is the gradient of what is read.
func (v reading) gradients(dOut []float32) []float64 {
	width := v.Heads * v.HeadDim
	all := make([]float64, v.Batch*v.Seq*3*width)
	for n := range v.Batch * v.Heads {
		row := func(part, t int) []float64 {
			return all[(((n/v.Heads)*v.Seq+t)*3+part)*width+n%v.Heads*v.HeadDim:][:v.HeadDim]
		}
		for t := range v.Seq {
			do := wide(dOut[((n/v.Heads)*v.Seq+t)*width+n%v.Heads*v.HeadDim:][:v.HeadDim])
			v.addGradients(row, do, n, t)
		}
	}
	return all
}

// addGradients adds to the gradients of queries, keys and values what follows from do, the gradient of query t's read.
func (v reading) addGradients(row func(part, t int) []float64, do []float64, n, t int) {
	keys, tau := v.readKeys(n, t), 1.0
	for r, w := range v.weights(n, t, keys) {
		for c, x := range do {
			row(2, keys[r])[c] += w * x
		}
	}
	if v.rule.SoftmaxOverAll {
		keys = v.keys(n, t)
	}
	if v.rule.Tau {
		tau = v.scalars.Tau
	}
	p, ds := make([]float64, len(keys)), make([]float64, len(keys))
	var sum, mean float64
	top := math.Inf(-1)
	for _, u := range keys {
		top = max(top, v.score(n, t, u))
	}
	for r, u := range keys {
		p[r] = math.Exp((v.score(n, t, u) - top) / tau)
		sum += p[r]
		for c, x := range do {
			ds[r] += x * float64(v.of.Unit()) * float64(v.value(n, u)[c])
		}
	}
	for r := range p {
		p[r] /= sum
		mean += p[r] * ds[r]
	}
	for r, u := range keys {
		g := p[r] * (ds[r] - mean) / tau / math.Sqrt(float64(v.HeadDim))
		for c := range do {
			row(0, t)[c] += g * float64(v.key(n, u)[c])
			row(1, u)[c] += g * float64(v.asks.Unit()) * float64(v.query(n, t)[c])
		}
	}
}
