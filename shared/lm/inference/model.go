// Package inference computes with packed models (.bit2) on a processor, one token after the other: the decisions are
// those of training, to the last bit.
//
//	m, err := inference.Open("packed/step-000600.bit2")
//	s, err := m.NewSession(inference.Options{})
//	logits, err := s.Prefill(prompt)    // of the token that follows the prompt
//	logits, err = s.Decode(next)        // of the token that follows next
//	all, err := m.DecodeTogether(sessions, tokens) // the next token of each of several sequences: faster than in turn
//
// A Model is a file mapped into memory: its weights are multiplied where they lie, and all sessions share them. A
// Session is one sequence: the keys and values of its tokens, kept as bits, and the memory in which it computes.
//
// The loops are those of kernels/cpu, so every level, every pointer, and every logit equals that of shared/lm/model on
// that device. A file of version 2 holds a self-test, and Open refuses to go on where a processor or a build of the
// program computes anything else.
//
// The package takes tokens and gives logits. See shared/lm/sampling for choosing a token, and shared/data/tokenizer for
// text. The package does not train, and reads no checkpoints: see shared/lm/checkpoint.
package inference

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

// Model is an open packed model. Any number of goroutines may make sessions of it.
type Model struct {
	Config model.Config
	checkpoint.Provenance

	path     string
	dev      *cpu.Device // makes what sessions share
	codebook kernels.Linear
	normOut  kernels.RMSNorm
	layers   []layer

	closed  atomic.Bool
	release func() error
}

// layer is what one block's weights are.
type layer struct {
	q, k, v, o, up, down kernels.Linear
	normAttn, normFFN    kernels.RMSNorm
}

// Open opens the packed model at path, of either version of the format, and computes its self-test. The file is mapped
// into memory, and must not change while the model is open. Where a file cannot be mapped, Open reads all of it.
// Weights whose rows are no multiple of 256 bits are copied; of the presets only nano has such rows.
func Open(path string) (*Model, error) {
	data, release, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening packed model %s: %w", path, err)
	}
	m := &Model{path: path, dev: cpu.New(cpu.Options{Workers: 1}), release: release}
	if err := m.load(data); err != nil {
		return nil, errors.Join(err, release())
	}
	return m, nil
}

// Close releases the file. No session may be in use: later calls of sessions return an error.
func (m *Model) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	return m.release()
}

func (m *Model) error(err error) error { return fmt.Errorf("packed model %s: %w", m.path, err) }

// load binds the model to the file's bytes, and computes the self-test.
func (m *Model) load(data []byte) error {
	f, err := bit2.New(m.path, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	m.Config, m.Provenance = f.Config, f.Provenance
	b := binder{kernels.Allocator{Device: m.dev}, m, data, make(map[string]bit2.Stored)}
	for p, err := range f.Stored() {
		if err != nil {
			return err
		}
		b.stored[p.Name] = p
	}
	if b.bind(); b.Err != nil {
		return m.error(b.Err)
	}
	test, err := f.SelfTest()
	if err != nil || test == nil {
		return err
	}
	if err := m.check(test); err != nil {
		return m.error(fmt.Errorf("%w: this processor or this build of the program computes something else than the one "+
			"that packed the model; use another machine, or another build of the program", err))
	}
	return nil
}

// check computes the self-test, the first half of its tokens together and each of the others by itself.
func (m *Model) check(test *bit2.SelfTest) error {
	s, err := m.NewSession(Options{})
	if err != nil {
		return err
	}
	half := len(test.Tokens) / 2
	if half > 0 {
		if err := s.Each(test.Tokens[:half], test.CheckLogits); err != nil {
			return err
		}
	}
	for i := half; i < len(test.Tokens); i++ {
		logits, err := s.Decode(test.Tokens[i])
		if err == nil {
			err = test.CheckLogits(i, logits)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// binder makes linears of what the file stores. It keeps the first error, as its Allocator does.
type binder struct {
	kernels.Allocator
	model  *Model
	data   []byte
	stored map[string]bit2.Stored
}

func (b *binder) bind() {
	m, c := b.model, b.model.Config
	m.codebook = b.linear("codebook", c.Codebook())
	m.normOut = b.norm("norm_out")
	m.layers = make([]layer, c.Layers)
	for i := range m.layers {
		name := fmt.Sprintf("blocks.%d.", i)
		block := func(linear string) kernels.Linear { return b.linear(name+linear, kernels.Sign()) }
		m.layers[i] = layer{
			q: block("attn.q"), k: block("attn.k"), v: block("attn.v"), o: block("attn.o"), up: block("up"),
			down: block("down"), normAttn: b.norm(name + "norm_attn"), normFFN: b.norm(name + "norm_ffn"),
		}
	}
}

// linear returns the named linear, whose weights have quantization q.
func (b *binder) linear(name string, q kernels.Quantization) kernels.Linear {
	weight := b.stored[name+".weight"]
	out, in := weight.Shape[0], weight.Shape[1]
	l := kernels.Linear{In: in, Out: out, Alpha: b.floats(name + ".alpha"), Theta: b.floats(name + ".theta")}
	words, err := wordsIn(b.data[weight.At:][:weight.Size])
	if err == nil {
		l.Quantized, err = b.model.dev.PlanesOf(words, out, in, q)
	}
	if err != nil && b.Err == nil {
		b.Err = fmt.Errorf("%s: %w", weight.Name, err)
	}
	return l
}

func (b *binder) norm(name string) kernels.RMSNorm {
	return kernels.RMSNorm{Gain: b.floats(name), Eps: b.model.Config.Eps, Rotation: b.model.Config.Hadamard}
}

func (b *binder) floats(name string) kernels.Floats {
	data := b.stored[name].Data
	x := b.Floats(len(data))
	if b.Err == nil {
		b.Device.Upload(x, data)
	}
	return x
}
