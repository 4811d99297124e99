package tokenizer

import (
	"fmt"
	"strconv"
	"strings"
)

// A vocabulary of symbols is for synthetic tasks: the first N printable characters of ASCII, from ! on, and an end of
// text. Its name is symbols-N. It is lossless for texts of these characters; any other byte becomes one of them.
const (
	symbolsPrefix = "symbols-"
	firstSymbol   = '!'
	maxSymbols    = '~' - firstSymbol + 1
)

type symbolTokenizer int

func newSymbols(name string) (Tokenizer, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(name, symbolsPrefix))
	if err != nil || n < 2 || n > maxSymbols || name != symbolTokenizer(n).Name() {
		return nil, fmt.Errorf("tokenizer %q is unknown: symbols go from %s2 to %s%d", name, symbolsPrefix,
			symbolsPrefix, maxSymbols)
	}
	return symbolTokenizer(n), nil
}

func (s symbolTokenizer) Name() string      { return symbolsPrefix + strconv.Itoa(int(s)) }
func (s symbolTokenizer) Vocab() int        { return int(s) + 1 }
func (s symbolTokenizer) EndOfText() uint32 { return uint32(s) }

func (s symbolTokenizer) Encode(dst []uint32, text []byte) []uint32 {
	for _, b := range text {
		dst = append(dst, uint32(b-firstSymbol)%uint32(s))
	}
	return dst
}

func (s symbolTokenizer) Decode(dst []byte, tokens []uint32) []byte {
	for _, t := range tokens {
		switch {
		case t < uint32(s):
			dst = append(dst, firstSymbol+byte(t))
		case t == uint32(s):
			dst = append(dst, endOfTextBytes...)
		default:
			dst = append(dst, unknownBytes...)
		}
	}
	return dst
}
