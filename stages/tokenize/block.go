package main

import (
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/documents"
	"bitnet1/shared/data/tokenizer"
)

// A block ends after the document with which it has blockBytes of texts and ids, or blockDocuments documents.
const (
	blockBytes     = 1 << 20
	blockDocuments = 1 << 13
)

// maxBlock bounds the bytes of a block: its last document may have a text and an id of maxDocument bytes each.
const maxBlock = blockBytes + 2*maxDocument

// maxDocument is the most bytes of a text.
const maxDocument = 16 << 20

// block is a number of successive documents and their tokens.
type block struct {
	documents []entry
	text      []byte
	tokens    []uint32
	count     documents.Count // of the rows since the block before
	next      int64           // first row of the next block
	odd       []oddRow        // the first odd rows since the block before
	done      chan struct{}   // closed when tokens, or pieces, is complete

	pieces *tokenizer.Pieces // of the texts, in place of tokens where a tokenizer is trained
}

// entry is a document of a block. Its text and its tokens begin where those of the entry before end.
type entry struct {
	dataset.BatchDocument
	counted           int64 // number of tokens that the file states, or -1
	textEnd, tokenEnd int
}

// readBlocks copies the documents of a file into blocks, until give returns an error. It reuses the memory of a block
// for the next one.
func readBlocks(r *documents.Reader, give func(*block) error) error {
	b, size := &block{text: make([]byte, 0, blockBytes+blockBytes/4)}, 0
	var before documents.Count
	finish := func() error {
		b.count, b.next = r.Count().Sub(before), r.Next()
		before = r.Count()
		err := give(b)
		if cap(b.text) > 2*blockBytes {
			b.text = nil // one long document was in it
		}
		b.text, b.documents, size = b.text[:0], b.documents[:0], 0
		return err
	}
	for d, err := range r.All() {
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

// countPieces counts the pieces of the texts into p, which is empty.
func (b *block) countPieces(p *tokenizer.Pieces) {
	b.pieces = p
	start := 0
	for _, d := range b.documents {
		p.Add(b.text[start:d.textEnd])
		start = d.textEnd
	}
	b.text = nil
}
