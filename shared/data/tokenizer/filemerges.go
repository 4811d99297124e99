package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// merges are the merges of a tokenizer.json, and the ids of the tokens that they make, by rank: first the 256 bytes, by
// their ids, then the others in the order of the merges.
//
// A file may have several merges for one token, and some that never come about: the two parts of a token, encoded
// together by the merges before, are one sequence of tokens, so that at most one merge finds exactly its two parts.
// Only this one counts, and ranks with it alone give the same tokens as all merges.
func (f *jsonFile) merges() (*merges, []uint32, error) {
	v, ids, err := f.byteTokens()
	if err != nil {
		return nil, nil, err
	}
	m := &merges{vocabulary: v, pairs: newPairTable(len(f.Model.Merges))}
	made := make(map[string]uint32, len(f.Model.Vocab)) // ranks
	for rank := range uint32(len(ids)) {
		m.tokens = append(m.tokens, merged{left: rank, right: rank, shorter: none, length: 1})
		made[string(v.token(rank))] = rank
	}
	early := map[string]int{} // tokens that a merge names before they are made, and which merge
	for i, given := range f.Model.Merges {
		l, r, id, err := f.merge(given)
		if err != nil {
			return nil, nil, fmt.Errorf("merge %d: %w", i, err)
		}
		left, leftMade := made[l]
		right, rightMade := made[r]
		for part, there := range map[string]bool{l: leftMade, r: rightMade} {
			if _, before := early[part]; !there && !before {
				early[part] = i
			}
		}
		token := l + r
		if _, there := made[token]; there || !leftMade || !rightMade || !m.follows(left, right) {
			continue
		}
		if before, there := early[token]; there {
			return nil, nil, fmt.Errorf("merge %d takes the token %q, which only merge %d makes", before, token, i)
		}
		rank := uint32(len(m.tokens))
		m.tokens = append(m.tokens, merged{left: left, right: right, shorter: none, length: uint32(len(token))})
		m.pairs.set(left, right, rank)
		made[token] = rank
		v.add([]byte(token)...)
		ids = append(ids, id)
	}
	m.plant(v.all())
	return m, ids, nil
}

// byteTokens are the tokens of single bytes, ordered by id.
func (f *jsonFile) byteTokens() (*vocabulary, []uint32, error) {
	type byteToken struct {
		value byte
		id    uint32
	}
	var all []byteToken
	for b := range 256 {
		id, there := f.Model.Vocab[visible([]byte{byte(b)})]
		if !there {
			return nil, nil, fmt.Errorf("no token is the byte %#02x, %q in the vocabulary: texts with it could not be encoded",
				b, visible([]byte{byte(b)}))
		}
		all = append(all, byteToken{byte(b), uint32(id)})
	}
	slices.SortFunc(all, func(a, b byteToken) int { return cmp.Compare(a.id, b.id) })
	v := new(vocabulary)
	var ids []uint32
	for _, t := range all {
		v.add(t.value)
		ids = append(ids, t.id)
	}
	return v, ids, nil
}

// merge reads a merge: two texts, or one with a space between the two tokens. It returns the bytes of the tokens and
// the id of what they make.
func (f *jsonFile) merge(given json.RawMessage) (left, right string, id uint32, err error) {
	var parts []string
	if given[0] == '"' {
		var text string
		if err := json.Unmarshal(given, &text); err != nil {
			return "", "", 0, err
		}
		l, r, _ := bytes.Cut([]byte(text), []byte(" "))
		parts = []string{string(l), string(r)}
	} else if err := json.Unmarshal(given, &parts); err != nil {
		return "", "", 0, err
	}
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return "", "", 0, fmt.Errorf("%s does not name two tokens", given)
	}
	for _, token := range []string{parts[0], parts[1], parts[0] + parts[1]} {
		is, there := f.Model.Vocab[token]
		if !there {
			return "", "", 0, fmt.Errorf("%s: %q is not in the vocabulary", given, token)
		}
		id = uint32(is)
	}
	l, leftFits := fromVisible(parts[0])
	r, rightFits := fromVisible(parts[1])
	if !leftFits || !rightFits {
		return "", "", 0, fmt.Errorf("%s has characters that stand for no byte", given)
	}
	return string(l), string(r), id, nil
}

// fromVisible is the inverse of visible. It reports false for a text with other characters.
func fromVisible(token string) ([]byte, bool) {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		b, ok := bytesOfVisible[r]
		if !ok {
			return nil, false
		}
		out = append(out, b)
	}
	return out, true
}

var bytesOfVisible = func() map[rune]byte {
	m := make(map[rune]byte, len(visibleBytes))
	for b, r := range visibleBytes {
		m[r] = byte(b)
	}
	return m
}()
