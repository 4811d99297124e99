package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
)

// patterns are those of split.go, as tokenizer.json has them, by the name of their vocabulary.
var patterns = map[string]string{
	"gpt2": `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
	"cl100k": `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|` +
		`\s+(?!\S)|\s+`,
	"o200k": `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
	"qwen": `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|` +
		`\s+(?!\S)|\s+`, // Qwen 2, 2.5 and 3
	"tekken": `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|` +
		`\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`, // Mistral's Tekken
}

// ErrNoHuggingFace says that Hugging Face's files cannot describe a tokenizer.
var ErrNoHuggingFace = errors.New("tokenizer.json has no vocabularies of its kind")

// EndOfTextName is how files of Hugging Face's call the end of text of t.
func EndOfTextName(t Tokenizer) string { return string(t.Decode(nil, []uint32{t.EndOfText()})) }

// HuggingFace returns t as the tokenizer.json of Hugging Face's package tokenizers, which gives texts the same tokens:
// texts that are UTF-8, since that package knows no others. The merges of a vocabulary are those that its ranks imply.
// The file of a tokenizer that comes from one is that file, without what would add or take tokens away.
// The error is ErrNoHuggingFace for vocabularies of symbols.
func HuggingFace(t Tokenizer) ([]byte, error) {
	vocab, merges, pattern := map[string]int{}, []string{}, ""
	switch t := t.(type) {
	case byteTokenizer:
		for b := range 256 {
			vocab[visible([]byte{byte(b)})] = b
		}
	case *bpe:
		for id, m := range t.merges.tokens {
			vocab[visible(t.tokens.token(uint32(id)))] = id
			if m.left != uint32(id) { // a token that merging makes
				merges = append(merges, visible(t.tokens.token(m.left))+" "+visible(t.tokens.token(m.right)))
			}
		}
		pattern = patterns[t.name]
	case *imported:
		return t.plain()
	default:
		return nil, fmt.Errorf("tokenizer %s: %w", t.Name(), ErrNoHuggingFace)
	}
	// A piece that is a token becomes that token: see bpe.
	return encodeFile(vocab, merges, pattern, t.EndOfText(), true)
}

// encodeFile is the tokenizer.json of a vocabulary, to which it adds the end of text. A text is split by the pattern;
// empty: not at all.
func encodeFile(vocab map[string]int, merges []string, pattern string, endOfText uint32, ignoreMerges bool) ([]byte,
	error) {
	steps := []any{}
	if pattern != "" {
		steps = append(steps, map[string]any{"type": "Split", "pattern": map[string]string{"Regex": pattern},
			"behavior": "Isolated", "invert": false})
	}
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
	vocab[endOfTextBytes] = int(endOfText)
	return json.Marshal(map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil, "normalizer": nil, "post_processor": nil,
		"added_tokens": []any{map[string]any{"id": endOfText, "content": endOfTextBytes, "special": true,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false}},
		"pre_tokenizer": map[string]any{"type": "Sequence", "pretokenizers": append(steps, byteLevel)},
		"decoder":       byteLevel,
		"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil,
			"end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignoreMerges,
			"vocab": vocab, "merges": merges},
	})
}

// visible writes each byte as a character that can be seen, as GPT-2's vocabulary has it: printable characters of
// Latin-1 stand for themselves, and all other bytes are the characters from U+0100 on.
func visible(token []byte) string {
	out := make([]rune, len(token))
	for i, b := range token {
		out[i] = visibleBytes[b]
	}
	return string(out)
}

var visibleBytes = func() (table [256]rune) {
	next := rune(0x100)
	for b := range table {
		if r := rune(b); r > ' ' && r <= '~' || r >= 0xa1 && r != 0xad {
			table[b] = r
			continue
		}
		table[b] = next
		next++
	}
	return table
}()
