package model

import "fmt"

// The ways a sequence of several documents is read.
const (
	Packed   = "packed"   // positions read across the ends of documents
	Separate = "separate" // every document is read by itself
)

// Documents says how sequences of several documents are read. The zero value is Packed.
//
// A document is an end-of-text token and the tokens up to the next one. The first token of a document is predicted from
// the end of text before it. That end of text, where it ends another document, is predicted from that other document.
// So tokens alone tell where documents begin. The tokens before the first end of text of a sequence are a document,
// too: one that began in an earlier sequence.
type Documents struct {
	Separate  bool
	EndOfText int32 // the token that documents begin with; only Separate looks at it
}

// String is Packed or Separate.
func (d Documents) String() string {
	if d.Separate {
		return Separate
	}
	return Packed
}

func (d Documents) validate(c Config) error {
	if d.Separate && (d.EndOfText < 0 || int(d.EndOfText) >= c.Vocab) {
		return fmt.Errorf("model options: end of text is token %d of a vocabulary of %d: "+
			"separate documents need the token that they begin with", d.EndOfText, c.Vocab)
	}
	return nil
}

// Starts returns, for each token of whole sequences of seq, the position in its sequence of the first token that it may
// read.
func (d Documents) Starts(tokens []int32, seq int) []int32 {
	starts := make([]int32, len(tokens))
	if !d.Separate {
		return starts
	}
	before := int32(0)
	for i, id := range tokens {
		before = d.Start(id, i%seq, before)
		starts[i] = before
	}
	return starts
}

// Start returns the same for token id at position at of its sequence. before is that of the token before.
func (d Documents) Start(id int32, at int, before int32) int32 {
	switch {
	case d.Separate && id == d.EndOfText:
		return int32(at)
	case at > 0:
		return before
	}
	return 0
}
