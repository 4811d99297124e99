package tokenizer

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"sync"

	"github.com/pkoukk/tiktoken-go-loader/assets"
)

// bpe is byte pair encoding. A text is split into pieces. A piece that is a token becomes that token. Any other piece
// begins as single bytes, whose neighbours are merged in the order of the ranks.
type bpe struct {
	name      string
	vocab     int // number of ids
	endOfText uint32
	tokens    *vocabulary // by id
	pieces    *pieceTable // with ids
	merges    *merges     // with ranks
	ids       []uint32    // by rank; nil where the id of a token is its rank
	noPairs   bool        // a piece of two bytes may be a token that merging does not make
	classes   *classes
	split     splitter
	encoders  sync.Pool // of *encoder
}

// splitter returns the end of the piece of text that begins at i < len(text).
type splitter func(c *classes, text []byte, i int) int

// vocabulary is the bytes of all tokens, one after the other.
type vocabulary struct {
	bytes []byte
	ends  []uint32
}

func (v *vocabulary) size() int { return len(v.ends) }

func (v *vocabulary) token(id uint32) []byte {
	start := uint32(0)
	if id > 0 {
		start = v.ends[id-1]
	}
	return v.bytes[start:v.ends[id]:v.ends[id]]
}

// add adds a token.
func (v *vocabulary) add(token ...byte) {
	v.bytes = append(v.bytes, token...)
	v.ends = append(v.ends, uint32(len(v.bytes)))
}

// all are the ids of all tokens.
func (v *vocabulary) all() []uint32 {
	ids := make([]uint32, v.size())
	for id := range ids {
		ids[id] = uint32(id)
	}
	return ids
}

// newBPE reads the ranks from a file of the loader module. There must be size of them.
func newBPE(name, file string, size int, endOfText uint32, split splitter) (*bpe, error) {
	data, err := assets.Assets.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %s: reading the embedded ranks: %w", name, err)
	}
	b := &bpe{name: name, vocab: int(endOfText) + 1, endOfText: endOfText, split: split, pieces: newPieceTable(size),
		classes: newClasses(nil)}
	if b.tokens, err = readRanks(data); err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", name, err)
	}
	if b.tokens.size() != size {
		return nil, fmt.Errorf("tokenizer %s: %d embedded ranks instead of %d: the loader module has changed", name,
			b.tokens.size(), size)
	}
	for id := range uint32(size) {
		if !b.pieces.add(b.tokens.token(id), id) {
			return nil, fmt.Errorf("tokenizer %s: rank %d repeats an earlier token", name, id)
		}
	}
	for v := range 256 {
		if id, ok := b.pieces.find([]byte{byte(v)}); !ok || id > 255 {
			return nil, fmt.Errorf("tokenizer %s: byte %#02x has no rank below 256", name, v)
		}
	}
	b.merges = newMerges(b.tokens, b.pieces)
	b.encoders.New = func() any { return new(encoder) }
	return b, nil
}

// readRanks reads lines of a token in base64, a space and its rank. The ranks ascend from 0.
func readRanks(data []byte) (*vocabulary, error) {
	v := new(vocabulary)
	for line := range bytes.Lines(data) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) == 0 {
			continue
		}
		coded, rank, _ := bytes.Cut(line, []byte(" "))
		if n, err := strconv.Atoi(string(rank)); err != nil || n != len(v.ends) {
			return nil, fmt.Errorf("embedded rank %q instead of %d", rank, len(v.ends))
		}
		var err error
		if v.bytes, err = base64.StdEncoding.AppendDecode(v.bytes, coded); err != nil {
			return nil, fmt.Errorf("embedded rank %s: %w", rank, err)
		}
		v.ends = append(v.ends, uint32(len(v.bytes)))
		if n := len(v.token(uint32(len(v.ends) - 1))); n == 0 || n > 255 {
			return nil, fmt.Errorf("the token with rank %s has %d bytes", rank, n)
		}
	}
	return v, nil
}

func (b *bpe) Name() string      { return b.name }
func (b *bpe) Vocab() int        { return b.vocab }
func (b *bpe) EndOfText() uint32 { return b.endOfText }

// The cache of an encoder keeps short pieces of a few tokens. A slot has room for one piece; a new piece replaces it.
const (
	cacheBits   = 14
	cacheTokens = 5
)

// encoder is the scratch memory of one Encode call.
type encoder struct {
	cache [1 << cacheBits]cached
	path  path
}

type cached struct {
	low, high     uint64
	length, count uint8 // 0: free
	ids           [cacheTokens]uint32
}

func (b *bpe) Encode(dst []uint32, text []byte) []uint32 {
	e := b.encoders.Get().(*encoder)
	defer b.encoders.Put(e)
	for i := 0; i < len(text); {
		end := b.split(b.classes, text, i)
		if end-i == 2 && !b.noPairs { // frequent in unusual text, and found quickly
			dst = b.identify(b.merges.tree.pair(dst, text[i], text[i+1]), len(dst))
		} else if end-i <= shortBytes {
			dst = b.encodeShort(dst, text, i, end, e)
		} else if id, ok := b.pieces.long[string(text[i:end])]; ok {
			dst = append(dst, id)
		} else {
			dst = b.merge(dst, text[i:end], e)
		}
		i = end
	}
	return dst
}

// merge appends the tokens of a piece that is no token itself.
func (b *bpe) merge(dst []uint32, piece []byte, e *encoder) []uint32 {
	return b.identify(b.merges.encode(dst, piece, &e.path), len(dst))
}

// identify replaces the ranks in dst, from the given one on, by ids.
func (b *bpe) identify(dst []uint32, from int) []uint32 {
	if b.ids != nil {
		for i, rank := range dst[from:] {
			dst[from+i] = b.ids[rank]
		}
	}
	return dst
}

// encodeShort appends the tokens of the piece text[i:end].
func (b *bpe) encodeShort(dst []uint32, text []byte, i, end int, e *encoder) []uint32 {
	k := keyOf(text, i, end)
	hash := k.hash()
	if id, ok := b.pieces.short(k, hash); ok {
		return append(dst, id)
	}
	c := &e.cache[hash>>(64-cacheBits)]
	if c.low == k.low && c.high == k.high && uint32(c.length) == k.length {
		return append(dst, c.ids[:c.count]...)
	}
	n := len(dst)
	dst = b.merge(dst, text[i:end], e)
	if count := len(dst) - n; count <= cacheTokens {
		*c = cached{low: k.low, high: k.high, length: uint8(k.length), count: uint8(count)}
		copy(c.ids[:], dst[n:])
	}
	return dst
}

func (b *bpe) Decode(dst []byte, tokens []uint32) []byte {
	for _, id := range tokens {
		switch {
		case int(id) < b.tokens.size() && len(b.tokens.token(id)) > 0:
			dst = append(dst, b.tokens.token(id)...)
		case id == b.endOfText:
			dst = append(dst, endOfTextBytes...)
		default:
			dst = append(dst, unknownBytes...)
		}
	}
	return dst
}
