package seal

import "github.com/zeebo/xxh3"

// What the tests of the package see of its inside.

const TextBytes = textBytes

type TextList = textList

func (t *textList) Has(text xxh3.Uint128) (bool, error) { return t.has(text) }
func (t *textList) Close()                              { t.close() }

var (
	WriteTexts = writeTexts
	OpenTexts  = openTexts
	Normalize  = normalize
	Jaccard    = jaccard
)

func Shingles(text string) []uint64 { return new(words).shingles([]byte(text)) }
