package dataset

import (
	"fmt"
	"os"
	"strconv"

	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
)

// TokenizerInfo identifies the vocabulary of a file of tokens.
type TokenizerInfo struct {
	Name      string `json:"name"`
	Vocab     int    `json:"vocab"` // ids are less than this
	EndOfText uint32 `json:"end_of_text"`

	// Of the tokenizer.json; absent where the tokenizer is built in.
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"` // in bytes
}

// InfoOf is what files say of t.
func InfoOf(t tokenizer.Tokenizer) TokenizerInfo {
	info := TokenizerInfo{Name: t.Name(), Vocab: t.Vocab(), EndOfText: t.EndOfText()}
	if file := tokenizer.File(t); file != nil {
		info.Digest, info.Size = digest.Bytes(file), int64(len(file))
	}
	return info
}

// FileName is the name of the tokenizer.json where it lies beside the files of its tokens.
func (t TokenizerInfo) FileName() string { return t.Name + ".json" }

// Open opens the tokenizer. locate returns the path of its tokenizer.json, which a built-in one does not have.
func (t TokenizerInfo) Open(locate func(TokenizerInfo) (path string, err error)) (tokenizer.Tokenizer, error) {
	if t.Digest == "" {
		return tokenizer.New(t.Name)
	}
	path, err := locate(t)
	if err != nil {
		return nil, err
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if is := digest.Bytes(file); is != t.Digest {
		return nil, fmt.Errorf("tokenizer %s: the file has digest %s, and the tokens were made with %s: it is another "+
			"one, or damaged", path, is, t.Digest)
	}
	opened, err := tokenizer.Parse(file)
	if err == nil && InfoOf(opened) != t {
		err = fmt.Errorf("it is %+v, and the tokens were made with %+v", InfoOf(opened), t)
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", path, err)
	}
	return opened, nil
}

func (t TokenizerInfo) validate() error {
	if (t.Digest == "") != (t.Size == 0) || t.Digest != "" && (!digest.Valid(t.Digest) ||
		t.Name != tokenizer.FileName(t.Digest)) {
		return fmt.Errorf("a tokenizer named %q with a file of %d bytes and digest %q is not valid", t.Name, t.Size,
			t.Digest)
	}
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
	keyDigest         = "bitnet1.tokenizer_digest" // these two where the tokenizer has a file
	keySize           = "bitnet1.tokenizer_size"
)

func (t TokenizerInfo) metadata(format string) (keys, values []string) {
	keys = []string{keyFormat, keyTokenizer, keyVocab, keyEndOfText}
	values = []string{format, t.Name, strconv.Itoa(t.Vocab), strconv.FormatUint(uint64(t.EndOfText), 10)}
	if t.Digest != "" {
		keys, values = append(keys, keyDigest, keySize), append(values, t.Digest, strconv.FormatInt(t.Size, 10))
	}
	return keys, values
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
	t := TokenizerInfo{Name: a.metadata[keyTokenizer], Vocab: vocab, EndOfText: uint32(end),
		Digest: a.metadata[keyDigest]}
	if t.Digest != "" {
		if t.Size, err = strconv.ParseInt(a.metadata[keySize], 10, 64); err != nil {
			return t, corrupt("the size of its tokenizer is %q", a.metadata[keySize])
		}
	}
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
