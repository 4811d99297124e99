package tokenizer

import (
	"fmt"
	"sync"

	loader "github.com/pkoukk/tiktoken-go-loader"
)

const (
	gpt2Vocab     = 50257
	gpt2EndOfText = gpt2Vocab - 1

	// The piece cache of one encoder: pieces longer than cachedBytes are rare and not kept, and a full cache is
	// emptied, so that text that never repeats cannot grow it.
	cachedPieces = 1 << 15
	cachedBytes  = 64
)

// gpt2 is byte pair encoding with GPT-2's ranks: text is split into pieces, and within a piece the adjacent pair whose
// concatenation has the lowest rank is merged until none is left. A token's id is its rank.
type gpt2 struct {
	ranks    map[string]uint32
	tokens   []string
	encoders sync.Pool // of *encoder
}

// encoder is the scratch memory of one Encode call.
type encoder struct {
	cache map[string][]uint32
	merge merger
}

func newGPT2() (*gpt2, error) {
	ranks, err := loader.NewOfflineLoader().LoadTiktokenBpe("r50k_base.tiktoken")
	if err != nil {
		return nil, fmt.Errorf("tokenizer gpt2: reading the embedded ranks: %w", err)
	}
	g := &gpt2{ranks: make(map[string]uint32, len(ranks)), tokens: make([]string, gpt2EndOfText)}
	if len(ranks) != gpt2EndOfText {
		return nil, fmt.Errorf("tokenizer gpt2: %d embedded ranks instead of %d: the loader module has changed", len(ranks), gpt2EndOfText)
	}
	for s, rank := range ranks {
		if rank < 0 || rank >= gpt2EndOfText || g.tokens[rank] != "" {
			return nil, fmt.Errorf("tokenizer gpt2: embedded rank %d of %q is out of range or repeated", rank, s)
		}
		g.ranks[s], g.tokens[rank] = uint32(rank), s
	}
	for b := range 256 {
		if _, ok := g.ranks[string([]byte{byte(b)})]; !ok {
			return nil, fmt.Errorf("tokenizer gpt2: byte %#02x has no rank", b)
		}
	}
	g.encoders.New = func() any { return &encoder{cache: make(map[string][]uint32)} }
	return g, nil
}

func (*gpt2) Name() string      { return "gpt2" }
func (*gpt2) Vocab() int        { return gpt2Vocab }
func (*gpt2) EndOfText() uint32 { return gpt2EndOfText }

func (g *gpt2) Encode(dst []uint32, text []byte) []uint32 {
	e := g.encoders.Get().(*encoder)
	defer g.encoders.Put(e)
	for i := 0; i < len(text); {
		end := piece(text, i)
		dst = g.encodePiece(dst, text[i:end], e)
		i = end
	}
	return dst
}

func (g *gpt2) encodePiece(dst []uint32, p []byte, e *encoder) []uint32 {
	if id, ok := g.ranks[string(p)]; ok {
		return append(dst, id)
	}
	if ids, ok := e.cache[string(p)]; ok {
		return append(dst, ids...)
	}
	n := len(dst)
	dst = e.merge.encode(dst, p, g.ranks)
	if len(p) <= cachedBytes {
		if len(e.cache) >= cachedPieces {
			clear(e.cache)
		}
		e.cache[string(p)] = append([]uint32(nil), dst[n:]...)
	}
	return dst
}

func (g *gpt2) Decode(dst []byte, tokens []uint32) []byte {
	for _, t := range tokens {
		switch {
		case t < gpt2EndOfText:
			dst = append(dst, g.tokens[t]...)
		case t == gpt2EndOfText:
			dst = append(dst, endOfTextBytes...)
		default:
			dst = append(dst, unknownBytes...)
		}
	}
	return dst
}
