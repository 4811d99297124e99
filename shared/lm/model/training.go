package model

import (
	"fmt"
	"math"

	"bitnet1/kernels"
)

// Update says how a step changes the parameters.
type Update struct {
	Settings
	LearningRate float64
	Beta1        float64 // decay of the mean gradient, 0 (no mean) to below 1
	Beta2        float64 // decay of the mean square of gradients, likewise
	Decay        float64 // decoupled weight decay of the weights; gains and scales do not decay
	MaxNorm      float64 // gradients are scaled down to this norm; 0 does not clip
	Muon         Muon    // with Options.Muon: for the matrices of the blocks, in place of the values above
}

// adamEps is added to the root of the mean square, as in the reference.
const adamEps = 1e-8

// Step makes one update: gradients of the mean loss over all targets, clipping, AdamW or Muon. tokens are one or more
// whole batches, which are computed one after the other. There are as many targets as tokens; a target is -1 where
// there is nothing to predict. Step may return before the device is done; Result waits.
func (m *Model) Step(tokens, targets []int32, u Update) error {
	if err := m.Backward(tokens, targets, u.Settings); err != nil {
		return err
	}
	type key struct {
		beta1, beta2, norm, momentum float64
		iterations                   int
	}
	captured := key{u.Beta1, u.Beta2, u.MaxNorm, u.Muon.Beta, u.Muon.Steps} // all else are scalars
	never := func() bool { return false }
	run, err := m.sequence(captured, never, m.updateParts(u))
	if err != nil {
		return err
	}
	m.updates++ // from here on the step is not abandoned
	m.scalars.LearningRate, m.scalars.Decay = u.LearningRate, u.Decay
	m.scalars.MuonRate, m.scalars.MuonDecay = u.Muon.LearningRate, u.Muon.Decay
	m.scalars.Correction1 = 1 - math.Pow(u.Beta1, float64(m.updates))
	m.scalars.Correction2 = 1 - math.Pow(u.Beta2, float64(m.updates))
	m.dev.SetScalars(m.scalars)
	if m.store.flips != nil {
		if err := m.flip(); err != nil {
			return err
		}
	}
	run()
	return m.exchanged()
}

// Backward computes the gradients of the mean loss over all targets, which Gradients returns. It changes no parameter.
func (m *Model) Backward(tokens, targets []int32, s Settings) error {
	n := m.rows()
	switch {
	case m.options.Inference:
		return errInference
	case len(tokens) == 0 || len(tokens)%n != 0:
		return fmt.Errorf("training step: %d tokens are no whole batches of %d × %d", len(tokens), m.options.Batch,
			m.options.Seq)
	case len(tokens) != len(targets):
		return fmt.Errorf("training step: %d targets for %d tokens", len(targets), len(tokens))
	}
	if err := m.checkMicroBatches(len(tokens) / n); err != nil {
		return err
	}
	wanted := 0
	for _, t := range targets {
		if t >= 0 {
			wanted++
		}
	}
	if wanted == 0 {
		return fmt.Errorf("training step: none of the %d targets is to be predicted", len(targets))
	}
	if err := m.prepare(s); err != nil {
		return err
	}
	m.scalars.GradScale = 1 / float64(wanted)
	if m.sums == nil { // otherwise each micro-batch begins anew
		m.dev.Zero(m.store.grad)
		m.dev.Zero(m.buffers.totalLoss)
	}
	for micro := m.rank(); micro < len(tokens)/n; micro += m.ranks() {
		if err := m.microBatch(micro, tokens, targets); err != nil {
			return err
		}
	}
	return m.readSums()
}

// microBatch adds the gradients of a micro-batch of the step.
func (m *Model) microBatch(micro int, tokens, targets []int32) error {
	n := m.rows()
	type training struct {
		pass
		place
	}
	at := m.placeOf(micro, len(tokens)/n)
	run, err := m.sequence(training{m.pass("training"), at}, m.abandoned, m.trainingParts(at))
	if err != nil {
		return err
	}
	if err := m.uploadTokens(tokens[micro*n:micro*n+n], targets[micro*n:micro*n+n]); err != nil {
		return err
	}
	m.scalars.Micro = uint32(micro)
	m.dev.SetScalars(m.scalars)
	run()
	if m.abandoned() {
		return ErrAbandoned
	}
	return nil
}

// checkMicroBatches refuses a step that cannot be divided among the ranks, or whose sums might not fit.
func (m *Model) checkMicroBatches(n int) error {
	switch {
	case n < m.ranks():
		return fmt.Errorf("training step: %d micro-batches for %d ranks: want one or more for each", n, m.ranks())
	case m.sums != nil && n > kernels.MaxTerms:
		return fmt.Errorf("training step: %d micro-batches: sums in fixed point hold at most %d: compute more tokens at once",
			n, kernels.MaxTerms)
	}
	return nil
}

// Result describes the last step.
type Result struct {
	Loss float64 // mean over all targets, in nats, before the update
	Norm float64 // of the gradients, before clipping; 0 after a Backward alone

	Flipped int // weights that changed their sign, where they train by flipping
}

// Result waits for the last Step or Backward and returns its loss and gradient norm.
func (m *Model) Result() (Result, error) {
	if m.options.Inference {
		return Result{}, errInference
	}
	var loss, squares [1]float32
	if err := m.dev.Download(loss[:], m.buffers.totalLoss); err != nil {
		return Result{}, err
	}
	if err := m.dev.Download(squares[:], m.buffers.squaredNorm); err != nil {
		return Result{}, err
	}
	if err := m.exchanged(); err != nil {
		return Result{}, err
	}
	r := Result{Loss: float64(loss[0]) * m.scalars.GradScale, Norm: math.Sqrt(float64(squares[0]))}
	if f := m.store.flips; f != nil {
		r.Flipped = f.flipped
	}
	return r, nil
}

// NotFinite looks for NaN and infinities. It names the first gradient of the last Step that holds one or, if all
// gradients are finite, the first parameter, in the order of Config.Parameters. It returns "" if there is none.
func (m *Model) NotFinite() (string, error) {
	if m.options.Inference {
		return "", errInference
	}
	found := ""
	look := func(p *Parameter, values kernels.Floats) error {
		if found != "" {
			return nil
		}
		err := m.copied(p, values)
		found = p.NotFinite()
		return err
	}
	if _, err := m.store.cut(m.store.grad, same, all, look); err != nil {
		return "", err
	}
	if found != "" {
		return "the gradient of " + found, nil
	}
	if _, err := m.store.cut(m.store.param, same, all, look); err != nil || found == "" {
		return "", err
	}
	return "parameter " + found, nil
}

// trainingParts compute one micro-batch forward and backward. They add to all gradients, or to their sums. In the last
// micro-batch of one of several ranks the sum of a part's gradients over all ranks begins behind the part, beside the
// rest of the backward pass.
func (m *Model) trainingParts(at place) []part {
	parts := []part{
		{enqueue: func() { m.clearGradients(at) }}, {enqueue: m.enqueueForward}, {enqueue: m.enqueueLMHeadBackward},
	}
	lowest := m.lowest()
	for i := len(m.layers) - 1; i >= max(lowest, 0); i-- {
		parts = append(parts, part{enqueue: func() {
			m.enqueueLayerBackward(&m.layers[i])
			m.addPart(layerPart(i), at)
		}, exchange: m.exchangeOfPart(layerPart(i), at)})
	}
	return append(parts, part{enqueue: func() {
		if lowest < 0 {
			m.dev.EmbedBackward(m.dCodebook.Weight, m.buffers.dx, m.buffers.tokens, m.config.D)
		}
		m.addPart(codebookPart, at)
		m.addRest(at)
	}, exchange: m.exchangeOfRest(at)})
}

func (m *Model) enqueueLMHeadBackward() {
	b := &m.buffers
	_, bits := GradBits(m.options.GradBits, m.options.WeightGradBits)
	m.dev.CrossEntropyBackward(b.losses, b.dStream, m.dCodebook, b.lmHeadIn, m.strict(m.codebook), b.targets, bits)
	m.dev.AddSum(b.totalLoss, b.losses)
	m.dev.Zero(b.dx)
	m.dev.NormalizeBackward(b.dx, m.dGainOut, b.dStream, b.out, m.normOut, m.config.Stream())
}

// enqueueLayerBackward replaces the gradient of a layer's output, in dx, by that of its input.
func (m *Model) enqueueLayerBackward(l *layer) {
	b, stream := &m.buffers, m.config.Stream()
	bits, _ := GradBits(m.options.GradBits, m.options.WeightGradBits)
	var whole kernels.Derivative
	var none kernels.KShift
	m.dev.LinearBackward(b.dHidden, l.dDown, b.dx, whole, l.hidden, m.strict(l.down), none, bits)
	m.dev.LinearBackward(b.dStream, l.dUp, b.dHidden, l.upDerivative, l.mlpIn, m.strict(l.up), none, bits)
	m.dev.NormalizeBackward(b.dx, l.dGainFFN, b.dStream, l.mid, l.normFFN, stream)
	m.dev.LinearBackward(b.dStream, l.dO, b.dx, whole, l.attnOut, m.strict(l.o), none, bits)
	m.dev.AttendBackward(b.dQKV, b.dStream, l.queries, l.keys, l.values, l.pointers, m.attention(l))
	m.dev.LinearBackward(b.dStream, l.dQKV, b.dQKV, l.qkvDerivative, l.attnIn, m.strict(l.qkv), m.shift(l), bits)
	m.dev.NormalizeBackward(b.dx, l.dGainAttn, b.dStream, l.in, l.normAttn, stream)
}

// updateParts clip the gradient, apply AdamW to weights, gains and scales, or Muon to the weights of the blocks, and
// quantize the weights. Frozen parameters count neither in the norm nor in the update.
func (m *Model) updateParts(u Update) []part {
	parts := []part{{enqueue: m.enqueueNorm}}
	if m.store.flips == nil {
		parts = append(parts, m.muonParts(u)...)
	}
	adam := part{enqueue: func() { m.enqueueAdamW(u) }}
	if c := m.options.Communicator; c != nil {
		adam.exchange = c.Join
	}
	return append(parts, adam, part{enqueue: m.quantize})
}

func (m *Model) enqueueNorm() {
	s, norm := &m.store, m.buffers.squaredNorm
	m.dev.Zero(norm)
	for _, t := range s.trained(0, s.size) {
		m.dev.AddSumSquares(norm, s.grad.Slice(t.from, t.to))
	}
}

// enqueueAdamW updates all that Muon does not, beside the exchange of Muon's weights.
func (m *Model) enqueueAdamW(u Update) {
	s, norm := &m.store, m.buffers.squaredNorm
	update := func(from, to int, decays bool, master kernels.Floats) {
		for _, t := range s.trained(from, to) {
			a := kernels.Adam{
				Param: s.param.Slice(t.from, t.to), Grad: s.grad.Slice(t.from, t.to),
				M: s.m.Slice(t.from, t.to), V: s.v.Slice(s.squareAt(t.from), s.squareAt(t.to)),
				Beta1: u.Beta1, Beta2: u.Beta2, Eps: adamEps, Decays: decays,
			}
			if master != nil {
				a.Master = master.Slice(t.from-from, t.to-from)
			}
			if u.MaxNorm > 0 {
				a.SquaredNorm, a.MaxNorm = norm, u.MaxNorm
			}
			m.dev.AdamW(a)
		}
	}
	if s.flips == nil {
		update(0, s.muon, true, nil)
	}
	update(s.gains, s.scales, false, nil)
	update(s.scales, s.size, false, s.master)
}
