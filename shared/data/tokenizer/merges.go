package tokenizer

// merges encodes a piece in time proportional to its length, whatever its bytes.
//
// Byte pair encoding is defined by merging: among the adjacent pairs whose concatenation is a token, the pair of the
// lowest rank is merged, the leftmost of several, until no pair is left. Merging takes at least n log n steps for a
// piece of n bytes. But merging never looks across a token that stays. The result is therefore the only sequence of
// tokens in which any two neighbours, encoded by themselves, give the same two tokens; follows checks that for two
// tokens. So encode takes the longest token that may follow the last one. If no token may follow, it takes the last
// token back and tries a shorter one. It remembers places that led nowhere, so that no place is tried twice.
//
// The idea is from van Antwerpen and Neubeck, "So many tokens, so little time" (2024).
type merges struct {
	vocabulary *vocabulary // by rank
	tokens     []merged    // by rank
	pairs      *pairTable
	tree       *prefixTree
}

// merged is what encoding needs to know of a token.
type merged struct {
	left, right uint32 // the two tokens that it is merged from; for a single byte the token itself
	shorter     uint32 // the longest shorter token that it begins with, or none
	length      uint32 // in bytes
}

// none stands for no token.
const none = ^uint32(0)

func newMerges(v *vocabulary, pieces *pieceTable) *merges {
	n := v.size()
	m := &merges{vocabulary: v, tokens: make([]merged, n), pairs: newPairTable(n)}
	for id := range m.tokens {
		token := v.token(uint32(id))
		m.tokens[id] = merged{left: uint32(id), right: uint32(id), shorter: none, length: uint32(len(token))}
	}
	var made []uint32
	for id := range uint32(n) {
		if token := v.token(id); len(token) == 1 || m.split(id, token, pieces) {
			made = append(made, id)
		}
	}
	m.plant(made)
	return m
}

// plant makes the tree of the tokens that merging makes.
func (m *merges) plant(made []uint32) {
	v := m.vocabulary
	m.tree = newPrefixTree(v, made)
	for id := range m.tokens {
		if token := v.token(uint32(id)); len(token) > 1 {
			m.tokens[id].shorter = m.tree.longest(token[:len(token)-1])
		}
	}
}

// split finds the two tokens that a token is merged from. It reports false for a token that merging never makes: it
// comes out only where it is a whole piece.
func (m *merges) split(id uint32, token []byte, pieces *pieceTable) bool {
	for i := 1; i < len(token); i++ {
		left, ok := pieces.find(token[:i])
		if !ok || left >= id {
			continue
		}
		right, ok := pieces.find(token[i:])
		if ok && right < id && m.made(left) && m.made(right) && m.follows(left, right) {
			m.tokens[id].left, m.tokens[id].right = left, right
			m.pairs.set(left, right, id)
			return true
		}
	}
	return false
}

// made tells whether merging makes the token.
func (m *merges) made(id uint32) bool { return m.tokens[id].length == 1 || m.tokens[id].left != id }

// follows tells whether the bytes of left and right, encoded together, give these two tokens.
//
// It undoes merges beside the border of the two, the latest first. The tokens stay apart if at no moment the two tokens
// at the border would have merged before the merge that is undone. Of merges with the same rank the leftmost comes
// first, so that a merge to the right of the border comes after an equal merge across it.
func (m *merges) follows(left, right uint32) bool {
	limit := none // a merge across the border with a lower rank would have come first
	for {
		if m.pairs.get(left, right) < limit {
			return false
		}
		leftEnd, rightStart := m.tokens[left].right, m.tokens[right].left
		switch {
		case leftEnd != left && (left > right || rightStart == right):
			limit, left = left, leftEnd
		case rightStart != right:
			limit, right = right+1, rightStart
		default:
			return true
		}
	}
}

// path is the scratch memory of encode.
type path struct {
	dead []uint64 // a bit for each place of the piece: it leads nowhere

	// known remembers answers of follows: a place has room for one, (left+1)<<32 | right<<1 | answer, and the latest has
	// it. Zero is no answer.
	known [1 << knownBits]uint64
}

const knownBits = 14

// follows is merges.follows with a memory.
func (p *path) follows(m *merges, left, right uint32) bool {
	question := uint64(left+1)<<32 | uint64(right)<<1
	place := &p.known[question*0x9e3779b97f4a7c15>>(64-knownBits)]
	if *place&^1 == question {
		return *place&1 != 0
	}
	*place = question
	if m.follows(left, right) {
		*place |= 1
		return true
	}
	return false
}

// encode appends the tokens of a piece that is not a token itself.
func (m *merges) encode(dst []uint32, piece []byte, p *path) []uint32 {
	p.dead = append(p.dead[:0], make([]uint64, len(piece)/64+1)...)
	start := len(dst)
	at, candidate := 0, m.tree.longest(piece)
	for at < len(piece) {
		end := at + int(m.tokens[candidate].length)
		if p.dead[end/64]>>(end%64)&1 == 0 && (len(dst) == start || p.follows(m, dst[len(dst)-1], candidate)) {
			dst = append(dst, candidate)
			if at = end; at < len(piece) {
				candidate = m.tree.longest(piece[at:])
			}
			continue
		}
		if candidate = m.tokens[candidate].shorter; candidate != none {
			continue
		}
		// Nothing may follow the last token: it was too long.
		p.dead[at/64] |= 1 << (at % 64)
		candidate = dst[len(dst)-1]
		dst = dst[:len(dst)-1]
		at -= int(m.tokens[candidate].length)
	}
	return dst
}
