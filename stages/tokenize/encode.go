package main

import (
	"context"
	"sync"

	"bitnet1/shared/dataset"
	"bitnet1/shared/tokenizer"
)

// blockBytes is about how much text is encoded at a time. Blocks are cut between documents, so one can be longer.
const blockBytes = 1 << 20

// block is a run of documents and their tokens.
type block struct {
	documents []entry
	text      []byte
	tokens    []uint32
	count     dataset.Count // of all rows read from the file by the end of the block
	next      int64         // the row after its last
	done      chan struct{} // closed when tokens are there
}

// entry is a document in a block: its text and tokens end where the next one's begin.
type entry struct {
	dataset.BatchDocument
	counted           int64 // tokens that the file says it has, or -1
	textEnd, tokenEnd int
}

// encode gives the blocks of a file, in order, to each, with threads goroutines encoding beside the one that reads. What
// it gives does not depend on threads.
func encode(ctx context.Context, t tokenizer.Tokenizer, documents *dataset.Documents, threads int, each func(*block) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	work, ordered := make(chan *block), make(chan *block, threads)
	for range threads {
		all.Go(func() {
			for b := range work {
				b.encode(t)
				close(b.done)
			}
		})
	}
	var readErr error
	all.Go(func() {
		defer close(ordered)
		defer close(work)
		readErr = readBlocks(documents, func(b *block) bool {
			b.done = make(chan struct{})
			for _, to := range []chan *block{work, ordered} {
				select {
				case to <- b:
				case <-ctx.Done():
					return false
				}
			}
			return true
		})
	})
	for b := range ordered {
		select {
		case <-b.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := each(b); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return readErr // written before ordered was closed
}

// readBlocks copies the file's documents into blocks until give returns false.
func readBlocks(documents *dataset.Documents, give func(*block) bool) error {
	b := new(block)
	finish := func() bool {
		b.count, b.next = documents.Count(), documents.Next()
		full := b
		b = new(block)
		return give(full)
	}
	for d, err := range documents.All() {
		if err != nil {
			return badFile{err}
		}
		b.text = append(b.text, d.Text...)
		b.documents = append(b.documents, entry{
			BatchDocument: dataset.BatchDocument{ID: d.ID, Source: d.Source, Row: d.Row, Bytes: int64(len(d.Text))},
			counted:       d.Tokens, textEnd: len(b.text),
		})
		if len(b.text) >= blockBytes && !finish() {
			return nil
		}
	}
	finish() // rows without documents count as well
	return nil
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
