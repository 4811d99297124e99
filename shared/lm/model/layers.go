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
	normAttn, normFFN    kernels.RMSNorm
	dGainAttn, dGainFFN  kernels.Floats
	shift                kernels.KShift
	attention            kernels.Attention

	in, mid         kernels.Floats     // the residual stream before attention, and before the MLP
	attnIn, mlpIn   kernels.Activation // the inputs of q, k and v, and of up: the normalized residual stream
	queries         kernels.Planes     // q, quantized
	keys            kernels.Planes     // k, its signs
	values          kernels.Planes     // v, quantized
	attnOut, hidden kernels.Activation // the inputs of o and of down: the attention output and up's, quantized
	qkvDerivative   kernels.Derivative // of quantizing q, k and v
	upDerivative    kernels.Derivative // of quantizing up's output
	pointers        kernels.Ints
	noise           kernels.Floats // given noise, once there is any
}

// bindLayers points every linear at its part of the store.
func (m *Model) bindLayers(a *kernels.Allocator) {
	c := m.config
	m.codebook, m.dCodebook = m.bind(a, "codebook", c.D, c.Vocab, c.Codebook())
	m.normOut, m.dGainOut = m.norm("norm_out")
	m.layers = make([]layer, c.Layers)
	for i := range m.layers {
		l, name := &m.layers[i], fmt.Sprintf("blocks.%d.", i)
		l.qkv, l.dQKV = m.bind(a, name+"attn.q", c.D, 3*c.D, kernels.Sign())
		l.o, l.dO = m.bind(a, name+"attn.o", c.D, c.D, kernels.Sign())
		l.up, l.dUp = m.bind(a, name+"up", c.D, c.FF, kernels.Sign())
		l.down, l.dDown = m.bind(a, name+"down", c.FF, c.D, kernels.Sign())
		l.normAttn, l.dGainAttn = m.norm(name + "norm_attn")
		l.normFFN, l.dGainFFN = m.norm(name + "norm_ffn")
		if c.ShiftsKeys(i) {
			l.shift = kernels.KShift{From: c.D, To: 2 * c.D, Offset: c.KShiftOffset, Self: c.KShiftSelf}
		}
		l.attention = kernels.Attention{
			Kind: c.AttentionKind(), Heads: c.Heads, HeadDim: c.HeadDim(), Alibi: c.Alibi, Layer: i,
		}
	}
}

// bind returns the linear of out channels whose first weight is the named one, quantized to q, and its gradients.
func (m *Model) bind(a *kernels.Allocator, name string, in, out int, q kernels.Quantization) (kernels.Linear,
	kernels.LinearGradient) {
	part := func(x kernels.Floats, suffix string, n int) kernels.Floats {
		if a.Err != nil {
			return nil
		}
		return m.store.slice(x, name+suffix, n)
	}
	s := &m.store
	l := kernels.Linear{
		In: in, Out: out, ID: m.bound,
		Weight: part(s.param, ".weight", in*out), Alpha: part(s.param, ".alpha", out),
		Theta:     part(s.param, ".theta", out),
		Quantized: a.Planes(out, in, q),
	}
	m.bound++
	if s.base > 0 && l.Quantized != nil {
		s.bindQuantized(l.Quantized, s.at[s.index[name+".weight"]], in)
	}
	if m.options.Bonsai {
		l.Mixed = a.Floats(in * out)
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

// norm returns the RMSNorm with the named gain, and the gradient of the gain.
func (m *Model) norm(name string) (n kernels.RMSNorm, dGain kernels.Floats) {
	n = kernels.RMSNorm{Eps: m.config.Eps, Rotation: m.config.Hadamard}
	if m.store.param == nil {
		return n, nil
	}
	n.Gain = m.store.slice(m.store.param, name, m.config.D)
	if m.store.grad != nil {
		dGain = m.store.slice(m.store.grad, name, m.config.D)
	}
	return n, dGain
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

// quantize refreshes the planes of all weights and bonsai's effective weights. A model without latents has its planes
// from the upload of its weights.
func (m *Model) quantize() {
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

	// Gradients between operations.
	dx      kernels.Floats // of the residual stream
	dStream kernels.Floats // of what a linear read, rows × D
	dQKV    kernels.Floats
	dHidden kernels.Floats
}

func (m *Model) newBuffers(a *kernels.Allocator) buffers {
	c, n := m.config, m.rows()
	b := buffers{
		tokens: a.Ints(n), targets: a.Ints(n), losses: a.Floats(n), totalLoss: a.Floats(1),
		lmHeadIn: a.Activation(n, c.D, c.Stream()),
	}
	if m.options.Documents.Separate {
		b.starts = a.Ints(n)
	}
	for i := range m.layers {
		l := &m.layers[i]
		l.shift.Starts, l.attention.Starts = b.starts, b.starts
		if m.options.Inference && i > 0 {
			first := m.layers[0]
			l.in, l.mid, l.attnIn, l.mlpIn = first.in, first.mid, first.attnIn, first.mlpIn
			l.queries, l.keys, l.values = first.queries, first.keys, first.values
			l.attnOut, l.hidden = first.attnOut, first.hidden
		} else {
			m.layerBuffers(a, l)
		}
		l.pointers = a.Ints(n * c.Heads * c.Survivors(m.options.Seq))
	}
	if m.options.Inference {
		b.out = m.layers[0].in
		return b
	}
	b.out, b.squaredNorm = a.Floats(n*c.D), a.Floats(1)
	b.dx, b.dStream = m.gradientFloats(a, n*c.D), m.gradientFloats(a, n*c.D)
	b.dQKV, b.dHidden = m.gradientFloats(a, n*3*c.D), m.gradientFloats(a, n*c.FF)
	return b
}

// gradientFloats allocates gradients between operations: bfloat16 where products round them to integers anyway.
func (m *Model) gradientFloats(a *kernels.Allocator, n int) kernels.Floats {
	if m.options.GradBits == kernels.FloatBits {
		return a.Floats(n)
	}
	return a.BFloats(n)
}

// layerBuffers allocates the activations of a layer. Without a backward pass the residual stream is one array.
func (m *Model) layerBuffers(a *kernels.Allocator, l *layer) {
	c, n := m.config, m.rows()
	l.in = a.Floats(n * c.D)
	l.mid = l.in
	l.attnIn, l.mlpIn = a.Activation(n, c.D, c.Stream()), a.Activation(n, c.D, c.Stream())
	l.queries, l.keys = a.Planes(n, c.D, c.Queries()), a.Planes(n, c.D, kernels.Sign())
	l.values = a.Planes(n, c.D, c.Values())
	l.attnOut, l.hidden = a.Activation(n, c.D, c.Reads()), a.Activation(n, c.FF, c.Hidden())
	if m.options.Inference {
		return
	}
	l.mid = a.Floats(n * c.D)
	l.qkvDerivative.Mask = a.Planes(n, 3*c.D, kernels.Sign())
	if c.Hidden() == kernels.Sign() {
		l.upDerivative.Mask = a.Planes(n, c.FF, kernels.Sign())
	} else {
		l.upDerivative.Factors = m.gradientFloats(a, n*c.FF)
	}
}
