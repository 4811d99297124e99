package tokenizer

import (
	"encoding/binary"
	"math/bits"
)

// shortBytes is the length up to which a piece is a key of the tables: two machine words.
const shortBytes = 16

// shortKey is a piece of at most shortBytes bytes, padded with zeros.
type shortKey struct {
	low, high uint64
	length    uint32
}

// keyOf is the key of text[i:end], which is at most shortBytes long.
func keyOf(text []byte, i, end int) shortKey {
	n := end - i
	if i+shortBytes > len(text) { // two words would reach beyond the end of the text
		var padded [shortBytes]byte
		copy(padded[:], text[i:end])
		return shortKey{binary.LittleEndian.Uint64(padded[:]), binary.LittleEndian.Uint64(padded[8:]), uint32(n)}
	}
	low, high := binary.LittleEndian.Uint64(text[i:]), binary.LittleEndian.Uint64(text[i+8:])
	if n < 8 {
		return shortKey{low & (1<<(8*n) - 1), 0, uint32(n)}
	}
	return shortKey{low, high & (1<<(8*(n-8)) - 1), uint32(n)}
}

// hash mixes a key. The tables use its highest bits.
func (k shortKey) hash() uint64 {
	high, low := bits.Mul64(k.low^0x9e3779b97f4a7c15, k.high+uint64(k.length)+0xd1b54a32d192ed03)
	return (high ^ low) * 0x9e3779b97f4a7c15
}

// pieceTable finds the ids of tokens by their bytes. It uses open addressing and is at most half full.
type pieceTable struct {
	slots []pieceSlot
	shift uint
	long  map[string]uint32 // tokens of more than shortBytes bytes
}

type pieceSlot struct {
	low, high uint64
	length    uint32 // 0: free
	id        uint32
}

func newPieceTable(tokens int) *pieceTable {
	width := uint(bits.Len(uint(2 * tokens)))
	return &pieceTable{slots: make([]pieceSlot, 1<<width), shift: 64 - width, long: map[string]uint32{}}
}

// add adds a token. It returns false if the token is there already.
func (t *pieceTable) add(token []byte, id uint32) bool {
	if len(token) > shortBytes {
		_, there := t.long[string(token)]
		t.long[string(token)] = id
		return !there
	}
	k := keyOf(token, 0, len(token))
	i := k.hash() >> t.shift
	for ; t.slots[i].length != 0; i = (i + 1) & uint64(len(t.slots)-1) {
		if s := t.slots[i]; s.low == k.low && s.high == k.high && s.length == k.length {
			return false
		}
	}
	t.slots[i] = pieceSlot{k.low, k.high, k.length, id}
	return true
}

// short finds a token of at most shortBytes bytes.
func (t *pieceTable) short(k shortKey, hash uint64) (uint32, bool) {
	for i := hash >> t.shift; ; i = (i + 1) & uint64(len(t.slots)-1) {
		s := &t.slots[i]
		if s.low == k.low && s.high == k.high && s.length == k.length {
			return s.id, true
		}
		if s.length == 0 {
			return 0, false
		}
	}
}

// find finds a token of any length.
func (t *pieceTable) find(token []byte) (uint32, bool) {
	if len(token) > shortBytes {
		id, ok := t.long[string(token)]
		return id, ok
	}
	k := keyOf(token, 0, len(token))
	return t.short(k, k.hash())
}

// pairTable finds the token that two tokens merge into. It uses open addressing and is at most half full. A filter of
// one bit for each hash is small enough for the cache and rejects most pairs that do not merge.
type pairTable struct {
	slots  []pairSlot
	shift  uint
	filter []uint64
	bits   uint // of an index into the filter's bits
}

type pairSlot struct {
	left, right uint32
	id          uint32 // plus one; 0: free
}

func newPairTable(size int) *pairTable {
	width := max(uint(bits.Len(uint(2*size))), 6) // at least a word of the filter
	return &pairTable{slots: make([]pairSlot, 1<<width), shift: 64 - width, filter: make([]uint64, 1<<(width-3)),
		bits: width + 3}
}

func pairHash(left, right uint32) uint64 {
	return (uint64(left)<<32 | uint64(right)) * 0x9e3779b97f4a7c15
}

func (t *pairTable) set(left, right, id uint32) {
	h := pairHash(left, right)
	f := h >> (64 - t.bits)
	t.filter[f/64] |= 1 << (f % 64)
	i := h >> t.shift
	for t.slots[i].id != 0 {
		i = (i + 1) & uint64(len(t.slots)-1)
	}
	t.slots[i] = pairSlot{left, right, id + 1}
}

// get returns the token, or none.
func (t *pairTable) get(left, right uint32) uint32 {
	h := pairHash(left, right)
	if f := h >> (64 - t.bits); t.filter[f/64]>>(f%64)&1 == 0 {
		return none
	}
	for i := h >> t.shift; ; i = (i + 1) & uint64(len(t.slots)-1) {
		switch s := &t.slots[i]; {
		case s.left == left && s.right == right && s.id != 0:
			return s.id - 1
		case s.id == 0:
			return none
		}
	}
}
