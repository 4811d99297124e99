// Package tokenizer turns text into token ids and back.
//
// It has three vocabularies of byte pair encoding, gpt2 (r50k), cl100k (GPT-4) and o200k (GPT-4o), and plain bytes.
// They are a part of the program, so that no network is needed. All are lossless for any bytes, valid UTF-8 or not. For
// synthetic tasks there are small vocabularies of symbols (symbols-64), which are lossless for texts of their symbols.
// Vocabularies of one's own are read from a tokenizer.json of Hugging Face's.
//
// The package knows nothing of paths, of documents and of the padding of embedding tables. Special tokens in a text are
// ordinary text.
package tokenizer

import (
	"fmt"
	"slices"
	"strings"
)

// Tokenizer converts between bytes and token ids. Implementations are safe for concurrent use.
type Tokenizer interface {
	// Name identifies the vocabulary in files: one of Names, symbols-N, or FileName.
	Name() string
	// Vocab is the number of token ids, with the end of text. Models may have larger embedding tables.
	Vocab() int
	// EndOfText is the id that ends a document. Encode never returns it.
	EndOfText() uint32
	// Encode appends the tokens of text to dst. Decode(Encode(text)) is text for all byte strings, or their normalization
	// form C where a tokenizer.json asks for that.
	Encode(dst []uint32, text []byte) []uint32
	// Decode appends the bytes of tokens to dst. The end of text becomes "<|endoftext|>", and an id outside the vocabulary
	// U+FFFD.
	Decode(dst []byte, tokens []uint32) []byte
}

const (
	endOfTextBytes = "<|endoftext|>"
	unknownBytes   = "\uFFFD"
)

// Names are the tokenizers that New knows.
func Names() []string { return []string{"gpt2", "cl100k", "o200k", "bytes"} }

// New returns the tokenizer of that name. Building the tables of gpt2 takes some tens of milliseconds, of the larger
// vocabularies some hundreds.
func New(name string) (Tokenizer, error) {
	switch name {
	case "gpt2":
		return newBPE(name, "r50k_base.tiktoken", 50256, 50256, (*classes).splitGPT2)
	case "cl100k":
		return newBPE(name, "cl100k_base.tiktoken", 100256, 100257, (*classes).splitCL100K)
	case "o200k":
		return newBPE(name, "o200k_base.tiktoken", 199998, 199999, (*classes).splitO200K)
	case "bytes":
		return byteTokenizer{}, nil
	}
	if strings.HasPrefix(name, symbolsPrefix) {
		return newSymbols(name)
	}
	return nil, Check(name)
}

// Check reports a name that New does not know, without building anything.
func Check(name string) error {
	if slices.Contains(Names(), name) {
		return nil
	}
	if strings.HasPrefix(name, symbolsPrefix) {
		_, err := newSymbols(name)
		return err
	}
	if strings.HasPrefix(name, FilePrefix) {
		return fmt.Errorf("tokenizer %s is that of a file: give the tokenizer.json", name)
	}
	return fmt.Errorf("tokenizer %q is unknown: choose one of %s, or a tokenizer.json", name, strings.Join(Names(), ", "))
}

// byteTokenizer has one token per byte value and an end of text.
type byteTokenizer struct{}

func (byteTokenizer) Name() string      { return "bytes" }
func (byteTokenizer) Vocab() int        { return 257 }
func (byteTokenizer) EndOfText() uint32 { return 256 }

func (byteTokenizer) Encode(dst []uint32, text []byte) []uint32 {
	n := len(dst)
	dst = append(dst, make([]uint32, len(text))...)
	for i, b := range text {
		dst[n+i] = uint32(b)
	}
	return dst
}

func (byteTokenizer) Decode(dst []byte, tokens []uint32) []byte {
	for _, t := range tokens {
		switch {
		case t < 256:
			dst = append(dst, byte(t))
		case t == 256:
			dst = append(dst, endOfTextBytes...)
		default:
			dst = append(dst, unknownBytes...)
		}
	}
	return dst
}
