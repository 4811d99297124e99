package tokenizer

import (
	"encoding/json"
	"slices"
)

// imported is a tokenizer that a tokenizer.json describes: bpe on what lies between added tokens.
type imported struct {
	*bpe
	file            []byte
	nfc             bool
	raw, normalized *addedTokens // those looked for in the text, and in the normalized text
}

// plain is the file without what puts special tokens around texts, cuts them and pads them: models here are not trained
// on that.
func (t *imported) plain() ([]byte, error) {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(t.file, &parts); err != nil {
		return nil, err
	}
	file := t.file
	for _, key := range []string{"post_processor", "truncation", "padding"} {
		if value, there := parts[key]; there && string(value) != "null" {
			parts[key] = json.RawMessage("null")
			file = nil
		}
	}
	if file != nil {
		return file, nil
	}
	return json.Marshal(parts)
}

func (t *imported) Encode(dst []uint32, text []byte) []uint32 {
	if t.raw == nil && t.normalized == nil && !t.nfc {
		return t.bpe.Encode(dst, text)
	}
	for {
		start, end, id := t.raw.find(text)
		dst = t.encodeNormalized(dst, text[:start])
		if start == len(text) {
			return dst
		}
		dst = append(dst, id)
		text = text[end:]
	}
}

// encodeNormalized encodes a text without added tokens of the first kind.
func (t *imported) encodeNormalized(dst []uint32, text []byte) []uint32 {
	if t.nfc && !ascii(text) {
		text = appendNFC(nil, text)
	}
	for {
		start, end, id := t.normalized.find(text)
		dst = t.bpe.Encode(dst, text[:start])
		if start == len(text) {
			return dst
		}
		dst = append(dst, id)
		text = text[end:]
	}
}

// addedTokens finds the added tokens of a file in texts. A special token is ordinary text, but what overlaps it is no
// added token.
type addedTokens struct {
	first [256]bool // bytes that tokens begin with
	tree  *prefixTree
	sizes []int    // of the tokens of the tree
	ids   []uint32 // of added tokens; none: a byte
	keep  []bool   // those that are not special
}

// newAddedTokens returns nil if no token would ever be found.
func newAddedTokens(all []addedToken) *addedTokens {
	if !slices.ContainsFunc(all, func(a addedToken) bool { return !a.Special }) {
		return nil
	}
	t := new(addedTokens)
	v := new(vocabulary)
	add := func(text string, id uint32, keep bool) {
		v.add([]byte(text)...)
		t.sizes, t.ids, t.keep = append(t.sizes, len(text)), append(t.ids, id), append(t.keep, keep)
	}
	for b := range 256 {
		add(string([]byte{byte(b)}), none, false)
	}
	for _, a := range all {
		t.first[a.Content[0]] = true
		if len(a.Content) == 1 {
			t.ids[a.Content[0]], t.keep[a.Content[0]] = uint32(a.ID), !a.Special
			continue
		}
		add(a.Content, uint32(a.ID), !a.Special)
	}
	t.tree = newPrefixTree(v, v.all())
	return t
}

// find returns where the first added token of text lies, the longest that begins there. Without one, start and end are
// the length of the text.
func (t *addedTokens) find(text []byte) (start, end int, id uint32) {
	if t == nil {
		return len(text), len(text), none
	}
	for i := 0; i < len(text); {
		if !t.first[text[i]] {
			i++
			continue
		}
		found := t.tree.longest(text[i:])
		switch {
		case t.ids[found] == none:
			i++
		case t.keep[found]:
			return i, i + t.sizes[found], t.ids[found]
		default:
			i += t.sizes[found]
		}
	}
	return len(text), len(text), none
}
