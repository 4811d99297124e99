package model

import (
	"cmp"
	"errors"
	"fmt"

	"bitnet1/kernels"
)

// ErrAbandoned is returned by a pass that ended before its result was there: Options.Abandon ended it, or a rank was
// lost. Parameters and optimizer state are as they were before.
var ErrAbandoned = errors.New("abandoned")

func (m *Model) abandoned() bool { return m.options.Abandon != nil && m.options.Abandon() }

var errInference = errors.New("the model was built with Options.Inference: it has no gradients or optimizer state")

// strict is l without mixed weights, unless this pass blends them.
func (m *Model) strict(l kernels.Linear) kernels.Linear {
	if !m.mixed {
		l.Mixed = nil
	}
	return l
}

// enqueueForward computes all layers, up to the input of the language-model head.
func (m *Model) enqueueForward() {
	b := &m.buffers
	m.dev.Embed(m.layers[0].in, b.tokens, m.strict(m.codebook))
	for i := range m.layers {
		if m.abandoned() {
			return
		}
		l := &m.layers[i]
		next := b.out
		if i+1 < len(m.layers) {
			next = m.layers[i+1].in
		}
		m.dev.Normalize(l.attnIn, l.in, l.normAttn)
		qkv := []kernels.Planes{l.queries, l.keys, l.values}
		m.dev.LinearQuantize(qkv, l.qkvDerivative, l.attnIn, m.strict(l.qkv), m.shift(l))
		m.dev.Attend(l.attnOut.Planes, l.pointers, l.queries, l.keys, l.values, m.attention(l))
		m.dev.LinearAdd(l.mid, l.in, l.attnOut, m.strict(l.o))
		m.dev.Normalize(l.mlpIn, l.mid, l.normFFN)
		m.dev.LinearQuantize([]kernels.Planes{l.hidden.Planes}, l.upDerivative, l.mlpIn, m.strict(l.up), kernels.KShift{})
		m.dev.LinearAdd(next, l.mid, l.hidden, m.strict(l.down))
	}
	m.dev.Normalize(b.lmHeadIn, b.out, m.normOut)
}

// seq is the number of tokens of a sequence in this pass.
func (m *Model) seq() int { return cmp.Or(m.settings.Seq, m.options.Seq) }

// shift is l's K-shift in this pass's sequences.
func (m *Model) shift(l *layer) kernels.KShift {
	s := l.shift
	s.Seq = m.seq()
	return s
}

// attention is l's attention in this pass's sequences and with its noise.
func (m *Model) attention(l *layer) kernels.Attention {
	a := l.attention
	a.Seq = m.seq()
	a.Batch, a.Survivors = m.rows()/a.Seq, m.config.Survivors(a.Seq)
	a.Gumbel = m.settings.Gumbel
	if m.settings.Noise != nil {
		a.Noise = l.noise
	}
	return a
}

// prepare uploads the settings of a pass.
func (m *Model) prepare(s Settings) error {
	if s.Seq < 0 || s.Seq > 0 && m.options.Seq%s.Seq != 0 {
		return fmt.Errorf("sequences of %d tokens cannot be cut into sequences of %d: want a divisor", m.options.Seq,
			s.Seq)
	}
	if s.Tau == 0 {
		s.Tau = 1
	}
	m.settings = s
	m.mixed = m.options.Bonsai && s.Mix < 1
	m.scalars = kernels.Scalars{Seed: s.Seed, Step: s.Step, Gamma: s.Gamma, Tau: s.Tau, Mix: s.Mix}
	m.dev.SetScalars(m.scalars)
	if m.mixed && m.blended != s.Mix {
		m.quantize()
		m.blended = s.Mix
	}
	return m.uploadNoise(s.Noise)
}

func (m *Model) uploadNoise(noise [][]float32) error {
	if noise == nil {
		return nil
	}
	size, most := m.rows()*m.config.Heads*m.seq(), m.rows()*m.config.Heads*m.options.Seq
	if len(noise) != len(m.layers) {
		return fmt.Errorf("noise is given for %d layers of %d", len(noise), len(m.layers))
	}
	for i := range m.layers {
		if len(noise[i]) != size {
			return fmt.Errorf("noise of layer %d has %d values, want %d", i, len(noise[i]), size)
		}
		if m.layers[i].noise == nil {
			x, err := m.dev.NewFloats(most)
			if err != nil {
				return err
			}
			m.layers[i].noise = x
		}
		m.dev.Upload(m.layers[i].noise, noise[i])
	}
	return nil
}

// uploadTokens checks and uploads tokens and targets. Fewer sequences than a batch holds are padded with token 0,
// without targets. targets may be nil.
func (m *Model) uploadTokens(tokens, targets []int32) error {
	n := m.rows()
	if len(tokens) == 0 || len(tokens) > n || len(tokens)%m.options.Seq != 0 {
		return fmt.Errorf("%d tokens do not make 1 to %d sequences of %d", len(tokens), m.options.Batch, m.options.Seq)
	}
	if targets != nil && len(targets) != len(tokens) {
		return fmt.Errorf("%d targets for %d tokens", len(targets), len(tokens))
	}
	ids, wanted := make([]int32, n), make([]int32, n)
	copy(ids, tokens)
	for i := copy(wanted, targets); i < n; i++ {
		wanted[i] = -1
	}
	for i, id := range ids {
		if id < 0 || int(id) >= m.config.Vocab {
			return fmt.Errorf("token %d at %d is outside the vocabulary of %d: "+
				"were the shards made with another tokenizer?", id, i, m.config.Vocab)
		}
		if t := wanted[i]; t < -1 || int(t) >= m.config.Vocab {
			return fmt.Errorf("target %d at %d is outside the vocabulary of %d", t, i, m.config.Vocab)
		}
	}
	m.dev.UploadInts(m.buffers.tokens, ids)
	m.dev.UploadInts(m.buffers.targets, wanted)
	if m.buffers.starts != nil {
		m.dev.UploadInts(m.buffers.starts, m.options.Documents.Starts(ids, m.seq()))
	}
	return nil
}

// program returns a function that runs what enqueue enqueues. A device that can capture does so once for each key.
func (m *Model) program(key any, enqueue func()) (func(), error) {
	if run, ok := m.programs[key]; ok {
		return run, nil
	}
	run, err := m.dev.Capture(enqueue)
	if err == nil && m.abandoned() { // perhaps captured in part
		err = ErrAbandoned
	}
	if err != nil {
		return nil, err
	}
	m.programs[key] = run
	return run, nil
}

// part is enqueued as a whole, and behind it an exchange with the other ranks, unless that is nil.
type part struct{ enqueue, exchange func() }

// sequence returns a function that runs parts one after the other, and no further once stop returns true. Exchanges
// cannot be captured, so the parts up to an exchange are one program, and those behind it the next.
func (m *Model) sequence(key any, stop func() bool, parts []part) (func(), error) {
	type stretch struct{ of, from any }
	var captured []part
	for from, to := 0, 0; to < len(parts); from = to {
		for to++; to < len(parts) && parts[to-1].exchange == nil; to++ {
		}
		run, err := m.program(stretch{key, from}, func() {
			for _, p := range parts[from:to] {
				if stop() {
					return
				}
				p.enqueue()
			}
		})
		if err != nil {
			return nil, err
		}
		captured = append(captured, part{run, parts[to-1].exchange})
	}
	return func() {
		for _, p := range captured {
			p.enqueue()
			if stop() {
				return
			}
			if p.exchange != nil {
				p.exchange()
			}
		}
	}, nil
}

// pass is the key of a captured program: the settings on which the enqueued operations depend.
type pass struct {
	kind          string
	seq           int
	mixed, gumbel bool
	noise         bool
}

func (m *Model) pass(kind string) pass {
	return pass{kind: kind, seq: m.seq(), mixed: m.mixed, gumbel: m.settings.Gumbel, noise: m.settings.Noise != nil}
}

// Losses returns the loss of every token in nats. tokens are 1 to Batch whole sequences. There are as many targets; a
// target is -1 where there is nothing to predict, and the loss is 0 there.
func (m *Model) Losses(tokens, targets []int32, s Settings) ([]float32, error) {
	if targets == nil {
		targets = []int32{}
	}
	if err := m.begin(tokens, targets, s); err != nil {
		return nil, err
	}
	run, err := m.program(m.pass("losses"), func() {
		m.enqueueForward()
		m.dev.CrossEntropy(m.buffers.losses, m.buffers.lmHeadIn, m.strict(m.codebook), m.buffers.targets)
	})
	if err != nil {
		return nil, err
	}
	run()
	if m.abandoned() {
		return nil, ErrAbandoned
	}
	losses := make([]float32, len(tokens))
	return losses, m.dev.Download(losses, m.buffers.losses)
}

// Logits returns the logits of rows from..to-1 of tokens, (to-from) × Vocab. A row is a position in tokens.
func (m *Model) Logits(tokens []int32, from, to int, s Settings) ([]float32, error) {
	if from < 0 || to < from || to > len(tokens) {
		return nil, fmt.Errorf("logits of rows %d to %d of %d tokens", from, to, len(tokens))
	}
	if err := m.forward(tokens, s); err != nil {
		return nil, err
	}
	all := make([]float32, 0, (to-from)*m.config.Vocab)
	err := m.eachLogits(from, to, func(_ int, logits []float32) { all = append(all, logits...) })
	return all, err
}

// Greedy returns the most probable next token of every position, and the first of equally probable ones.
func (m *Model) Greedy(tokens []int32, s Settings) ([]int32, error) {
	best := make([]int32, len(tokens))
	every := func(int) bool { return true }
	return best, m.EachLogits(tokens, every, s, func(row int, logits []float32) { best[row] = Best(logits) })
}

// Best is the index of the largest logit, and of equal ones the first.
func Best(logits []float32) int32 {
	best := 0
	for i, x := range logits {
		if x > logits[best] {
			best = i
		}
	}
	return int32(best)
}

// EachLogits calls f with the Vocab logits of every row of tokens that is wanted, in order. f must not keep logits.
func (m *Model) EachLogits(tokens []int32, wanted func(row int) bool, s Settings,
	f func(row int, logits []float32)) error {
	if err := m.forward(tokens, s); err != nil {
		return err
	}
	for from := 0; from < len(tokens); {
		to := from
		for to < len(tokens) && wanted(to) {
			to++
		}
		if err := m.eachLogits(from, to, f); err != nil {
			return err
		}
		from = to + 1
	}
	return nil
}

// forward computes tokens up to the input of the language-model head.
func (m *Model) forward(tokens []int32, s Settings) error {
	if err := m.begin(tokens, nil, s); err != nil {
		return err
	}
	run, err := m.program(m.pass("forward"), m.enqueueForward)
	if err == nil {
		run()
	}
	return err
}

// logitsAtOnce bounds the logits that exist at a time: 64 MiB.
const logitsAtOnce = 1 << 24

// eachLogits calls f with the logits of rows from..to-1 of the last forward pass. f must not keep logits.
func (m *Model) eachLogits(from, to int, f func(row int, logits []float32)) error {
	vocab := m.config.Vocab
	part := min(m.rows(), max(1, logitsAtOnce/vocab))
	if m.logits == nil {
		x, err := m.dev.NewFloats(part * vocab)
		if err != nil {
			return err
		}
		m.logits = x
	}
	host := make([]float32, min(part, to-from)*vocab)
	for r := from; r < to; r += part {
		end := min(r+part, to)
		logits := m.logits.Slice(0, (end-r)*vocab)
		m.dev.LinearAdd(logits, nil, m.buffers.lmHeadIn.Slice(m.config.D, r, end), m.strict(m.codebook))
		if err := m.dev.Download(host[:(end-r)*vocab], logits); err != nil {
			return err
		}
		for i := r; i < end; i++ {
			f(i, host[(i-r)*vocab:][:vocab])
		}
	}
	return m.dev.Sync()
}

// Pointers returns the positions of the keys that a layer's queries chose in the last pass, best first: Batch × Heads ×
// Seq × Config.Survivors(Seq), with the Seq of that pass. It is -1 where a query had fewer keys.
func (m *Model) Pointers(layer int) ([]int32, error) {
	if layer < 0 || layer >= len(m.layers) {
		return nil, fmt.Errorf("pointers of layer %d: the model has %d", layer, len(m.layers))
	}
	a := m.attention(&m.layers[layer])
	p := m.layers[layer].pointers.Slice(0, a.Batch*a.Heads*a.Seq*a.Survivors)
	list := make([]int32, p.Len())
	return list, m.dev.DownloadInts(list, p)
}

// begin checks and uploads what a forward pass needs.
func (m *Model) begin(tokens, targets []int32, s Settings) error {
	if err := m.prepare(s); err != nil {
		return err
	}
	return m.uploadTokens(tokens, targets)
}
