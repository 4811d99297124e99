package model

import (
	"fmt"

	"bitnet1/kernels"
)

// layer is one block: its parameters, their gradients, and the activations that its forward pass keeps for its backward
// pass.
type layer struct {
	qkv, o, up, down     kernels.Linear
	dQKV, dO, dUp, dDown kernels.LinearGradient
	gainAttn, gainFFN    kernels.Floats
	dGainAttn, dGainFFN  kernels.Floats
	shift                kernels.KShift
	attention            kernels.Attention

	in, mid         kernels.Floats     // the residual stream before attention, and before the MLP
	attnIn, mlpIn   kernels.Activation // the inputs of q, k and v, and of up: the normalized residual stream
	qk, values      kernels.Planes     // signs of q and k; of v
	attnOut, hidden kernels.Activation // the inputs of o and of down: signs of the attention output, and of up
	mask            kernels.Planes     // STE masks of q, k and v
	hiddenMask      kernels.Planes     // STE mask of up
	pointers        kernels.Ints
	noise           kernels.Floats // given noise, once there is any
}

// derivative is that of q, k and v.
func (l *layer) derivative() kernels.Derivative { return kernels.Derivative{Mask: l.mask} }

// hiddenDerivative is that of up.
func (l *layer) hiddenDerivative() kernels.Derivative { return kernels.Derivative{Mask: l.hiddenMask} }

// bindLayers points every linear at its part of the store.
func (m *Model) bindLayers(a *allocator) {
	c := m.config
	m.codebook, m.dCodebook = m.bind(a, "codebook", c.D, c.Vocab)
	m.gainOut, m.dGainOut = m.gain("norm_out")
	m.layers = make([]layer, c.Layers)
	for i := range m.layers {
		l, name := &m.layers[i], fmt.Sprintf("blocks.%d.", i)
		l.qkv, l.dQKV = m.bind(a, name+"attn.q", c.D, 3*c.D)
		l.o, l.dO = m.bind(a, name+"attn.o", c.D, c.D)
		l.up, l.dUp = m.bind(a, name+"up", c.D, c.FF)
		l.down, l.dDown = m.bind(a, name+"down", c.FF, c.D)
		l.gainAttn, l.dGainAttn = m.gain(name + "norm_attn")
		l.gainFFN, l.dGainFFN = m.gain(name + "norm_ffn")
		if c.shiftsKeys(i) {
			l.shift = kernels.KShift{From: c.D, To: 2 * c.D, Offset: c.KShiftOffset, Self: c.KShiftSelf}
		}
		l.attention = kernels.Attention{
			Kind: c.attentionKind(), Heads: c.Heads, HeadDim: c.HeadDim(), Alibi: c.Alibi, Layer: i,
		}
	}
}

// bind returns the linear of out channels whose first weight is the named one, and its gradients.
func (m *Model) bind(a *allocator, name string, in, out int) (kernels.Linear, kernels.LinearGradient) {
	part := func(x kernels.Floats, suffix string, n int) kernels.Floats {
		if a.err != nil {
			return nil
		}
		return m.store.slice(x, name+suffix, n)
	}
	s := &m.store
	l := kernels.Linear{
		In: in, Out: out, ID: m.bound,
		Weight: part(s.param, ".weight", in*out), Alpha: part(s.param, ".alpha", out),
		Theta:     part(s.param, ".theta", out),
		Quantized: a.planes(out, in, kernels.Sign()),
	}
	m.bound++
	if s.base > 0 && l.Quantized != nil {
		s.bindSigns(l.Quantized, s.at[s.index[name+".weight"]], in)
	}
	if m.options.Bonsai {
		l.Mixed = a.floats(in * out)
	}
	if s.grad == nil {
		return l, kernels.LinearGradient{}
	}
	dl := kernels.LinearGradient{}
	if s.trains(name+".weight", in*out) || s.trains(name+".alpha", out) {
		dl.Weight, dl.Alpha = part(s.grad, ".weight", in*out), part(s.grad, ".alpha", out)
	}
	if s.trains(name+".theta", out) {
		dl.Theta = part(s.grad, ".theta", out)
	}
	return l, dl
}

func (m *Model) gain(name string) (gain, gradient kernels.Floats) {
	if m.store.param == nil {
		return nil, nil
	}
	gain = m.store.slice(m.store.param, name, m.config.D)
	if m.store.grad != nil {
		gradient = m.store.slice(m.store.grad, name, m.config.D)
	}
	return gain, gradient
}

// linears lists every linear of the model.
func (m *Model) linears() []kernels.Linear {
	list := []kernels.Linear{m.codebook}
	for i := range m.layers {
		l := &m.layers[i]
		list = append(list, l.qkv, l.o, l.up, l.down)
	}
	return list
}

// binarize refreshes the signs of all weights and bonsai's effective weights. A model without latents has its signs
// from the upload of its weights.
func (m *Model) binarize() {
	if m.store.base > 0 {
		return
	}
	for _, l := range m.linears() {
		m.dev.Quantize(l)
	}
}

// buffers is memory that belongs to no layer.
type buffers struct {
	tokens, targets kernels.Ints
	starts          kernels.Ints       // of tokens' documents; nil where all of a sequence is one
	out             kernels.Floats     // the residual stream after the last layer
	lmHeadIn        kernels.Activation // the input of the language-model head
	losses          kernels.Floats
	totalLoss       kernels.Floats // summed over the micro-batches of a step
	squaredNorm     kernels.Floats

	// Gradients between operations: bfloat16 where products round them to integers anyway.
	dx      kernels.Floats // of the residual stream
	dStream kernels.Floats // of what a linear read, rows × D
	dQKV    kernels.Floats
	dHidden kernels.Floats
}

func (m *Model) newBuffers(a *allocator) buffers {
	c, n := m.config, m.rows()
	b := buffers{
		tokens: a.ints(n), targets: a.ints(n), losses: a.floats(n), totalLoss: a.floats(1),
		lmHeadIn: a.activation(n, c.D, c.stream()),
	}
	if m.options.Documents.Separate {
		b.starts = a.ints(n)
	}
	for i := range m.layers {
		l := &m.layers[i]
		l.shift.Starts, l.attention.Starts = b.starts, b.starts
		if m.options.Inference && i > 0 {
			first := m.layers[0]
			l.in, l.mid, l.attnIn, l.mlpIn = first.in, first.mid, first.attnIn, first.mlpIn
			l.qk, l.values, l.attnOut, l.hidden = first.qk, first.values, first.attnOut, first.hidden
		} else {
			m.layerBuffers(a, l)
		}
		l.pointers = a.ints(n * c.Heads * c.Survivors(m.options.Seq))
	}
	if m.options.Inference {
		b.out = m.layers[0].in
		return b
	}
	b.out, b.squaredNorm = a.floats(n*c.D), a.floats(1)
	handed := a.bfloats
	if m.options.GradBits == kernels.FloatBits {
		handed = a.floats
	}
	b.dx, b.dStream, b.dQKV, b.dHidden = handed(n*c.D), handed(n*c.D), handed(n*3*c.D), handed(n*c.FF)
	return b
}

// layerBuffers allocates the activations of a layer. Without a backward pass the residual stream is one array.
func (m *Model) layerBuffers(a *allocator, l *layer) {
	c, n := m.config, m.rows()
	l.in = a.floats(n * c.D)
	l.mid = l.in
	l.attnIn, l.mlpIn = a.activation(n, c.D, c.stream()), a.activation(n, c.D, c.stream())
	l.qk, l.values = a.planes(n, 2*c.D, kernels.Sign()), a.planes(n, c.D, kernels.Sign())
	l.attnOut, l.hidden = a.activation(n, c.D, kernels.Sign()), a.activation(n, c.FF, kernels.Sign())
	if !m.options.Inference {
		l.mid = a.floats(n * c.D)
		l.mask, l.hiddenMask = a.planes(n, 3*c.D, kernels.Sign()), a.planes(n, c.FF, kernels.Sign())
	}
}
