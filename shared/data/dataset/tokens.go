package dataset

import (
	"fmt"
	"strconv"
)

// TokenizerInfo identifies the vocabulary of a file of tokens.
type TokenizerInfo struct {
	Name      string `json:"name"`
	Vocab     int    `json:"vocab"` // ids are less than this
	EndOfText uint32 `json:"end_of_text"`
}

func (t TokenizerInfo) validate() error {
	if t.Name == "" || t.Vocab < 1 || t.Vocab > 1<<31-1 || int64(t.EndOfText) >= int64(t.Vocab) {
		return fmt.Errorf("a tokenizer named %q with %d ids, end of text %d, is not valid", t.Name, t.Vocab,
			t.EndOfText)
	}
	return nil
}

// Wide tells whether ids are stored in 32 bits instead of 16.
func (t TokenizerInfo) Wide() bool { return t.Vocab > 1<<16 }

// arrow is the Arrow type of an id.
func (t TokenizerInfo) arrow() string {
	if t.Wide() {
		return "uint32"
	}
	return "uint16"
}

// The keys of the schema metadata of batches and shards.
const (
	keyFormat         = "bitnet1.format"
	keyTokenizer      = "bitnet1.tokenizer"
	keyVocab          = "bitnet1.vocab"
	keyEndOfText      = "bitnet1.end_of_text"
	keySequenceLength = "bitnet1.sequence_length"
	keySplit          = "bitnet1.split"
	keySources        = "bitnet1.sources"
)

func (t TokenizerInfo) metadata(format string) (keys, values []string) {
	return []string{keyFormat, keyTokenizer, keyVocab, keyEndOfText},
		[]string{format, t.Name, strconv.Itoa(t.Vocab), strconv.FormatUint(uint64(t.EndOfText), 10)}
}

// tokenizerOf reads the metadata of a file of the given format.
func tokenizerOf(a *arrowFile, format string) (TokenizerInfo, error) {
	if got := a.metadata[keyFormat]; got != format {
		return TokenizerInfo{}, fmt.Errorf("its format is %q and not %q", got, format)
	}
	vocab, err := strconv.Atoi(a.metadata[keyVocab])
	if err != nil {
		return TokenizerInfo{}, corrupt("its vocabulary is %q", a.metadata[keyVocab])
	}
	end, err := strconv.ParseUint(a.metadata[keyEndOfText], 10, 32)
	if err != nil {
		return TokenizerInfo{}, corrupt("its end of text is %q", a.metadata[keyEndOfText])
	}
	t := TokenizerInfo{Name: a.metadata[keyTokenizer], Vocab: vocab, EndOfText: uint32(end)}
	return t, t.validate()
}

// Tokens is a run of token ids as a file stores them: U16 or U32 is set, the other is nil. The ids may lie in a
// mapping, and are then valid until the file is closed.
type Tokens struct {
	U16 []uint16
	U32 []uint32
}

// Len is the number of tokens.
func (t Tokens) Len() int { return len(t.U16) + len(t.U32) }

// Slice is the tokens from start to end.
func (t Tokens) Slice(start, end int) Tokens {
	if t.U32 != nil {
		return Tokens{U32: t.U32[start:end]}
	}
	return Tokens{U16: t.U16[start:end]}
}

// AppendTo appends the ids to dst.
func (t Tokens) AppendTo(dst []uint32) []uint32 {
	for _, id := range t.U16 {
		dst = append(dst, uint32(id))
	}
	return append(dst, t.U32...)
}

// narrow appends ids to dst as 16 bits. All ids must be less than 65,536.
func narrow(dst []uint16, ids []uint32) []uint16 {
	for _, id := range ids {
		dst = append(dst, uint16(id))
	}
	return dst
}
