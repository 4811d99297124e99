package inference

import (
	"errors"
	"fmt"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// ErrContextFull is wrapped by the errors of calls that would make a sequence longer than the model's Config.Seq.
var ErrContextFull = errors.New("the context is full")

var errClosed = errors.New("the model is closed")

// Options of a Session. The zero value computes on all cores.
type Options struct {
	Workers int // goroutines that compute; default: GOMAXPROCS
}

// rowsAtOnce is how many tokens of a prompt are computed together: more gain little, and take memory.
const rowsAtOnce = 256

// Session is one sequence of a model. It serves one goroutine at a time; several sessions may compute at once.
type Session struct {
	model  *Model
	dev    *cpu.Device
	length int // tokens so far
	// most is how many tokens are computed together. Buffers of activations have that many rows.
	most   int
	starts []int32 // of every token: the first position of its document

	// Activations, of all layers in turn. The residual stream is x.
	tokens        kernels.Ints
	x             kernels.Floats
	stream        kernels.Activation // normalized, the input of q, k, v and of up, and of lmHead
	q, k, v       kernels.Planes
	attnOut       kernels.Activation
	hidden        kernels.Activation
	logits        kernels.Floats
	logitsOnHost  []float32
	documents     kernels.Ints // starts on the device; nil where a sequence is one document
	shiftedStarts kernels.Ints
	layers        []sessionLayer
}

// sessionLayer is what a session keeps of one layer.
type sessionLayer struct {
	cache    *cpu.Cache
	pointers kernels.Ints       // of the tokens that were computed last
	shifted  kernels.Activation // with K-shift: the inputs of k at all positions so far
}

// NewSession returns an empty sequence.
func (m *Model) NewSession(o Options) (*Session, error) {
	if m.closed.Load() {
		return nil, m.error(errClosed)
	}
	c := m.Config
	s := &Session{model: m, dev: cpu.New(cpu.Options{Workers: o.Workers}), most: min(rowsAtOnce, c.Seq),
		starts: make([]int32, 0, c.Seq), logitsOnHost: make([]float32, c.Vocab), layers: make([]sessionLayer, c.Layers)}
	s.dev.SetScalars(kernels.Scalars{Gamma: m.Gamma, Tau: 1, Mix: 1})
	if err := s.allocate(); err != nil {
		return nil, m.error(fmt.Errorf("memory for a session of %d tokens: %w", c.Seq, err))
	}
	return s, nil
}

func (s *Session) allocate() error {
	c, n := s.model.Config, s.most
	a := kernels.Allocator{Device: s.dev}
	s.tokens, s.x, s.stream = a.Ints(n), a.Floats(n*c.D), a.Activation(n, c.D, c.Stream())
	s.q, s.v = a.Planes(n, c.D, c.Queries()), a.Planes(n, c.D, c.Values())
	s.attnOut, s.hidden = a.Activation(n, c.D, c.Reads()), a.Activation(n, c.FF, c.Hidden())
	s.logits = a.Floats(c.Vocab)
	if s.model.Documents.Separate {
		s.documents = a.Ints(c.Seq)
	}
	keys := n
	for i := range s.layers {
		l := &s.layers[i]
		l.cache = s.dev.NewCache(s.attention(i, c.Seq), c.Values())
		l.pointers = a.Ints(n * c.Heads * c.Survivors(c.Seq))
		if c.ShiftsKeys(i) {
			l.shifted = a.Activation(c.Seq, c.D, c.Stream())
			keys = min(c.Seq, n+c.KShiftOffset)
		}
	}
	s.k, s.shiftedStarts = a.Planes(keys, c.D, kernels.Sign()), a.Ints(keys)
	return a.Err
}

// attention is that of layer i in a sequence of so many tokens.
func (s *Session) attention(i, tokens int) kernels.Attention {
	c := s.model.Config
	return kernels.Attention{Kind: c.AttentionKind(), Batch: 1, Seq: tokens, Heads: c.Heads, HeadDim: c.HeadDim(),
		Survivors: c.Survivors(c.Seq), Alibi: c.Alibi, Layer: i}
}

// Len is the number of tokens of the sequence.
func (s *Session) Len() int { return s.length }

// Truncate takes back all tokens but the first n, which costs nothing: another continuation of the same prompt begins
// with it.
func (s *Session) Truncate(n int) error {
	if n < 0 || n > s.length {
		return fmt.Errorf("truncate a sequence of %d tokens to %d", s.length, n)
	}
	s.length, s.starts = n, s.starts[:n]
	return nil
}

// Decode appends one token and returns the logits of the token that follows, Config.Vocab of them. They are valid until
// the session's next call.
func (s *Session) Decode(token int32) ([]float32, error) { return s.Prefill([]int32{token}) }

// Prefill appends tokens, of which there is at least one, and returns the logits of the token that follows the last.
// They are valid until the session's next call. It computes many tokens together, so that a prompt costs much less than
// as many calls of Decode; the results are the same. After an error the sequence is as it was.
func (s *Session) Prefill(tokens []int32) ([]float32, error) {
	err := s.pieces(tokens, func(piece span, last bool) error {
		if !last {
			return nil
		}
		return s.eachLogits(piece.rows-1, piece.rows, func(_ int, logits kernels.Floats) error {
			return s.dev.Download(s.logitsOnHost, logits)
		})
	})
	if err != nil {
		return nil, err
	}
	return s.logitsOnHost, nil
}

// Each is Prefill that calls f with the logits that follow each of the tokens, in order. They are valid during the
// call. After an error, one of f too, the sequence is as it was.
func (s *Session) Each(tokens []int32, f func(i int, logits []float32) error) error {
	before := s.length
	return s.pieces(tokens, func(piece span, _ bool) error {
		first := s.length - piece.rows - before
		return s.eachLogits(0, piece.rows, func(row int, logits kernels.Floats) error {
			if err := s.dev.Download(s.logitsOnHost, logits); err != nil {
				return err
			}
			return f(first+row, s.logitsOnHost)
		})
	})
}

// pieces appends tokens, as many at a time as are computed together, and calls f after every piece.
func (s *Session) pieces(tokens []int32, f func(piece span, last bool) error) error {
	if len(tokens) == 0 {
		return errors.New("no tokens to append: a prompt has at least one, the end-of-text token for instance")
	}
	before := s.length
	for len(tokens) > 0 {
		piece := span{Session: s, rows: min(len(tokens), s.most)}
		err := s.room(len(tokens))
		if err == nil {
			err = s.forward([]span{piece}, tokens[:piece.rows])
		}
		if err == nil {
			err = f(piece, piece.rows == len(tokens))
		}
		if err != nil {
			return errors.Join(err, s.Truncate(before))
		}
		tokens = tokens[piece.rows:]
	}
	return nil
}

// room refuses n tokens that the context has no room for.
func (s *Session) room(n int) error {
	if most := s.model.Config.Seq; n > most-s.length {
		return fmt.Errorf("%d tokens after %d, and the model's context is %d: %w", n, s.length, most, ErrContextFull)
	}
	return nil
}

// span is the rows of activations from row `from` on that are the last tokens of a session.
type span struct {
	*Session
	from, rows int
}

func (p span) first() int { return p.length - p.rows } // position

// forward appends at most s.most tokens to the sequences of spans, whose rows follow one another, and computes the
// residual streams after the last layer in the memory of s. After an error some tokens may be appended.
func (s *Session) forward(spans []span, tokens []int32) error {
	c := s.model.Config
	if s.model.closed.Load() {
		return s.model.error(errClosed)
	}
	for _, p := range spans {
		if err := p.append(tokens[p.from:][:p.rows]); err != nil {
			return err
		}
	}
	n := len(tokens)
	x := s.x.Slice(0, n*c.D)
	s.dev.UploadInts(s.tokens, tokens)
	s.dev.Embed(x, s.tokens.Slice(0, n), s.model.codebook)
	for i := range s.layers {
		l := &s.model.layers[i]
		s.attend(i, x, spans, n)
		s.dev.LinearAdd(x, x, s.attnOut.Slice(c.D, 0, n), l.o)
		in, hidden := s.stream.Slice(c.D, 0, n), s.hidden.Slice(c.FF, 0, n)
		s.dev.Normalize(in, x, l.normFFN)
		s.dev.LinearQuantize([]kernels.Planes{hidden.Planes}, kernels.Derivative{}, in, l.up, kernels.KShift{})
		s.dev.LinearAdd(x, x, hidden, l.down)
	}
	return s.dev.Sync()
}

// append counts tokens and finds where their documents start.
func (s *Session) append(tokens []int32) error {
	c := s.model.Config
	for i, t := range tokens {
		if t < 0 || int(t) >= c.Vocab {
			return fmt.Errorf("token %d at position %d is none of the vocabulary of %d: was the text encoded with another "+
				"tokenizer than %q?", t, s.length+i, c.Vocab, s.model.Tokenizer)
		}
	}
	for _, t := range tokens {
		before, at := int32(0), len(s.starts)
		if at > 0 {
			before = s.starts[at-1]
		}
		s.starts = append(s.starts, s.model.Documents.Start(t, at, before))
	}
	s.length = len(s.starts)
	if s.documents != nil {
		s.dev.UploadInts(s.documents, s.starts)
	}
	return nil
}

// attend computes the attention of layer i for the n rows of spans, whose residual stream is x, to attnOut.
func (s *Session) attend(i int, x kernels.Floats, spans []span, n int) {
	c, l, in := s.model.Config, &s.model.layers[i], s.stream.Slice(s.model.Config.D, 0, n)
	s.dev.Normalize(in, x, l.normAttn)
	q, v := s.q.Slice(0, n), s.v.Slice(0, n)
	shifts := c.ShiftsKeys(i)
	if shifts {
		s.dev.LinearQuantizeEach([]kernels.Planes{q, v}, in, []kernels.Linear{l.q, l.v})
	} else {
		s.dev.LinearQuantizeEach([]kernels.Planes{q, s.k.Slice(0, n), v}, in, []kernels.Linear{l.q, l.k, l.v})
	}
	next := make([]cpu.NextTokens, len(spans))
	for j, p := range spans {
		next[j] = p.next(i)
	}
	if !shifts {
		s.dev.AttendNext(s.attnOut.Planes.Slice(0, n), q, s.k.Slice(0, n), v, next)
		return
	}
	for j, p := range spans {
		from, to := p.from, p.from+p.rows
		k := s.shiftedKeys(i, p, x.Slice(from*c.D, to*c.D))
		s.dev.AttendNext(s.attnOut.Planes.Slice(from, to), q.Slice(from, to), k, v.Slice(from, to), next[j:j+1])
	}
}

// next is what the attention of layer i needs of a span.
func (p span) next(i int) cpu.NextTokens {
	a, own := p.attention(i, p.length), &p.layers[i]
	if p.documents != nil {
		a.Starts = p.documents.Slice(0, p.length)
	}
	return cpu.NextTokens{Attention: a, First: p.first(), Cache: own.cache,
		Pointers: own.pointers.Slice(0, p.rows*a.Heads*a.Survivors)}
}

// shiftedKeys returns the keys of layer i, which has K-shift, for the rows of a span, whose residual stream is x. The
// products of earlier tokens are computed again, as far as the offset reaches back.
func (s *Session) shiftedKeys(i int, p span, x kernels.Floats) kernels.Planes {
	c, l, shifted := s.model.Config, &s.model.layers[i], p.layers[i].shifted
	s.dev.Normalize(shifted.Slice(c.D, p.first(), p.length), x, l.normAttn)
	from := max(0, p.first()-c.KShiftOffset)
	all := p.length - from
	starts := make([]int32, all)
	for r := range starts {
		starts[r] = max(0, p.starts[from+r]-int32(from))
	}
	shift := kernels.KShift{To: c.D, Offset: c.KShiftOffset, Self: c.KShiftSelf, Seq: all,
		Starts: s.shiftedStarts.Slice(0, all)}
	s.dev.UploadInts(shift.Starts, starts)
	k := s.k.Slice(0, all)
	s.dev.LinearQuantize([]kernels.Planes{k}, kernels.Derivative{}, shifted.Slice(c.D, from, p.length), l.k, shift)
	return k.Slice(all-p.rows, all)
}

// rowsOfLogits is how many rows go through lmHead together.
const rowsOfLogits = 16

// eachLogits calls f with the logits that follow each of the rows from..to-1 of those that forward appended last.
func (s *Session) eachLogits(from, to int, f func(row int, logits kernels.Floats) error) error {
	c := s.model.Config
	for ; from < to; from += rowsOfLogits {
		n := min(to-from, rowsOfLogits)
		if s.logits.Len() < n*c.Vocab {
			var err error
			if s.logits, err = s.dev.NewFloats(n * c.Vocab); err != nil {
				return s.model.error(err)
			}
		}
		in, logits := s.stream.Slice(c.D, 0, n), s.logits.Slice(0, n*c.Vocab)
		s.dev.Normalize(in, s.x.Slice(from*c.D, (from+n)*c.D), s.model.normOut)
		s.dev.LinearAdd(logits, nil, in, s.model.codebook)
		for i := range n {
			if err := f(from+i, logits.Slice(i*c.Vocab, (i+1)*c.Vocab)); err != nil {
				return err
			}
		}
	}
	return nil
}
