package main

import (
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/tokenizer"
)

// A block is cut, between documents, when it has this much: about blockBytes of text and names, or blockDocuments.
const (
	blockBytes     = 1 << 20
	blockDocuments = 1 << 13
)

// maxBlock is the most that a block can have: its last document can be as long as a document may be, and so can its name.
const maxBlock = blockBytes + 2*maxDocument

// maxDocument is the longest text, in bytes.
const maxDocument = 16 << 20

// block is a run of documents and their tokens.
type block struct {
	documents []entry
	text      []byte
	tokens    []uint32
	count     dataset.Count // of the rows from the end of the block before it to its own end
	next      int64         // the row after its last
	odd       []oddRow      // the first of those between the block before it and its end
	done      chan struct{} // closed when tokens are there
}

// entry is a document in a block: its text and tokens end where the next one's begin.
type entry struct {
	dataset.BatchDocument
	counted           int64 // tokens that the file says it has, or -1
	textEnd, tokenEnd int
}

// readBlocks copies a file's documents into blocks until give returns an error. It uses the memory of a block again for the
// next.
func readBlocks(documents *dataset.Documents, give func(*block) error) error {
	b, size := &block{text: make([]byte, 0, blockBytes+blockBytes/4)}, 0
	var before dataset.Count
	finish := func() error {
		b.count, b.next = documents.Count().Sub(before), documents.Next()
		before = documents.Count()
		err := give(b)
		if cap(b.text) > 2*blockBytes {
			b.text = nil // one long document was in it
		}
		b.text, b.documents, size = b.text[:0], b.documents[:0], 0
		return err
	}
	for d, err := range documents.All() {
		if err != nil {
			return err
		}
		b.text = append(b.text, d.Text...)
		b.documents = append(b.documents, entry{
			BatchDocument: dataset.BatchDocument{ID: d.ID, Source: d.Source, Row: d.Row, Bytes: int64(len(d.Text))},
			counted:       d.Tokens, textEnd: len(b.text),
		})
		if size += len(d.Text) + len(d.ID); size >= blockBytes || len(b.documents) == blockDocuments {
			if err := finish(); err != nil {
				return err
			}
		}
	}
	return finish() // rows without documents count as well
}

func (b *block) encode(t tokenizer.Tokenizer) {
	b.tokens = make([]uint32, 0, len(b.text)/3)
	start := 0
	for i := range b.documents {
		d := &b.documents[i]
		b.tokens = t.Encode(b.tokens, b.text[start:d.textEnd])
		start, d.tokenEnd = d.textEnd, len(b.tokens)
	}
	b.text = nil
}
