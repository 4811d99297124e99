package dataset

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"bitnet1/shared/filetype"
)

// BatchFormat is the version of the token batch format: an uncompressed Arrow IPC file with one row a document,
//
//	id: utf8, source: utf8, row: int64, bytes: int64, tokens: list<uint16>    (uint32 if the vocabulary is larger)
//
// and the tokenizer in the schema's metadata. The tokens are those of the text, without an end of text.
const BatchFormat = "bitnet1.tokens.v1"

// BatchDocument describes a document of a token batch.
type BatchDocument struct {
	ID     string
	Source string
	Row    int64
	Bytes  int64 // of the text
}

// A record batch is written when it has so many tokens or documents, which bounds the memory of the writer.
const (
	batchTokens    = 1 << 20
	batchDocuments = 1 << 14
)

// BatchWriter writes a token batch. Its bytes depend on nothing but what is appended.
type BatchWriter struct {
	tokenizer TokenizerInfo
	file      *arrowWriter
	record    *array.RecordBuilder
	documents int
	tokens    int
	narrow    []uint16
}

// NewBatchWriter begins a token batch. The caller closes w after closing the writer.
func NewBatchWriter(w io.Writer, t TokenizerInfo) (*BatchWriter, error) {
	if err := t.validate(); err != nil {
		return nil, fmt.Errorf("token batch: %w", err)
	}
	var id arrow.DataType = arrow.PrimitiveTypes.Uint16
	if t.Wide() {
		id = arrow.PrimitiveTypes.Uint32
	}
	metadata := arrow.NewMetadata(t.metadata(BatchFormat))
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.BinaryTypes.String},
		{Name: "source", Type: arrow.BinaryTypes.String},
		{Name: "row", Type: arrow.PrimitiveTypes.Int64},
		{Name: "bytes", Type: arrow.PrimitiveTypes.Int64},
		{Name: "tokens", Type: arrow.ListOfNonNullable(id)},
	}, &metadata)
	file, err := newArrowWriter(w, schema)
	if err != nil {
		return nil, fmt.Errorf("token batch: %w", err)
	}
	return &BatchWriter{tokenizer: t, file: file, record: array.NewRecordBuilder(memory.NewGoAllocator(), schema)}, nil
}

// Append adds a document. Tokens are copied.
func (b *BatchWriter) Append(d BatchDocument, tokens []uint32) error {
	if !utf8.ValidString(d.ID) || !utf8.ValidString(d.Source) {
		return fmt.Errorf("token batch: document %q of %q: id or source is not valid UTF-8", d.ID, d.Source)
	}
	if len(tokens) >= 1<<31-batchTokens {
		return fmt.Errorf("token batch: document %q has %d tokens, too many for one row: split it", d.ID, len(tokens))
	}
	for i, id := range tokens {
		if int64(id) >= int64(b.tokenizer.Vocab) {
			return fmt.Errorf("token batch: token %d of document %q is %d, outside the %d ids of %s", i, d.ID, id,
				b.tokenizer.Vocab, b.tokenizer.Name)
		}
	}
	b.record.Field(0).(*array.StringBuilder).Append(d.ID)
	b.record.Field(1).(*array.StringBuilder).Append(d.Source)
	b.record.Field(2).(*array.Int64Builder).Append(d.Row)
	b.record.Field(3).(*array.Int64Builder).Append(d.Bytes)
	list := b.record.Field(4).(*array.ListBuilder)
	list.Append(true)
	switch ids := list.ValueBuilder().(type) {
	case *array.Uint16Builder:
		b.narrow = narrow(b.narrow[:0], tokens)
		ids.AppendValues(b.narrow, nil)
	case *array.Uint32Builder:
		ids.AppendValues(tokens, nil)
	}
	b.documents++
	b.tokens += len(tokens)
	if b.tokens >= batchTokens || b.documents >= batchDocuments {
		return b.flush()
	}
	return nil
}

func (b *BatchWriter) flush() error {
	if b.documents == 0 {
		return nil
	}
	b.documents, b.tokens = 0, 0
	if err := b.file.write(b.record); err != nil {
		return fmt.Errorf("token batch: %w", err)
	}
	return nil
}

// Close writes what is left and the footer. A batch without documents is valid.
func (b *BatchWriter) Close() error {
	err := b.flush()
	b.record.Release()
	if err := errors.Join(err, b.file.close()); err != nil {
		return fmt.Errorf("token batch: %w", err)
	}
	return nil
}

// Batch is an open token batch. It is safe for concurrent use until Close.
type Batch struct {
	path      string
	tokenizer TokenizerInfo
	file      *arrowFile
	chunks    []batchChunk
	documents int
	tokens    int64
}

// batchChunk is one record batch.
type batchChunk struct {
	first                int // index of its first document
	documents            int
	ids, sources, lists  []int32 // offsets
	idBytes, sourceBytes []byte
	rows, bytes          []int64
	tokens               Tokens
}

// OpenBatch maps a token batch. It must be closed.
func OpenBatch(path string) (*Batch, error) {
	b := &Batch{path: path}
	var err error
	if b.file, err = openArrow(path); err != nil {
		return nil, fmt.Errorf("token batch %s: %w", path, notBatch(err, path))
	}
	if err := b.readChunks(); err != nil {
		b.file.close()
		return nil, fmt.Errorf("token batch %s: %w", path,
			notBatch(fmt.Errorf("%w: tokenize its source again", err), path))
	}
	return b, nil
}

// notBatch explains the error of opening the token batch at path by what the file is.
func notBatch(err error, path string) error {
	is, unread := filetype.OfFile(path)
	if unread != nil || is == filetype.Empty {
		return err
	}
	return mistaken(err, is, filetype.TokenBatch, "name what tokenize writes, NAME.tokens.arrow")
}

func (b *Batch) readChunks() (err error) {
	if b.tokenizer, err = tokenizerOf(b.file, BatchFormat); err != nil {
		return err
	}
	want := "id: utf8, source: utf8, row: int64, bytes: int64, tokens: list<item: " + b.tokenizer.arrow() + ">"
	if b.file.columns != want {
		return fmt.Errorf("its columns are %s and not %s", b.file.columns, want)
	}
	for i := range b.file.blocks {
		r, err := b.file.batch(i)
		if err != nil {
			return err
		}
		c, err := newBatchChunk(r, b.tokenizer.Wide())
		if err != nil {
			return fmt.Errorf("record batch %d: %w", i, err)
		}
		c.first = b.documents
		b.documents += c.documents
		b.tokens += int64(c.tokens.Len())
		b.chunks = append(b.chunks, c)
	}
	return nil
}

func newBatchChunk(r recordBatch, wide bool) (batchChunk, error) {
	c := batchChunk{documents: r.rows}
	columns := columnReader{batch: r}
	c.ids, c.idBytes = columns.text(r.rows)
	c.sources, c.sourceBytes = columns.text(r.rows)
	c.rows = numbers[int64](&columns, r.rows)
	c.bytes = numbers[int64](&columns, r.rows)
	lists, n := columns.list(r.rows)
	c.lists = lists
	c.tokens = columns.tokens(n, wide)
	return c, columns.err
}

// Path is the batch's file.
func (b *Batch) Path() string { return b.path }

// Tokenizer is the tokenizer the batch was made with.
func (b *Batch) Tokenizer() TokenizerInfo { return b.tokenizer }

// Len is the number of documents.
func (b *Batch) Len() int { return b.documents }

// Tokens is the number of tokens of all documents.
func (b *Batch) Tokens() int64 { return b.tokens }

// Document returns document i in [0, Len) and its tokens. The tokens lie in the mapping and are valid until Close.
func (b *Batch) Document(i int) (BatchDocument, Tokens, error) {
	var d BatchDocument
	c, k, err := b.locate(i)
	if err != nil {
		return d, Tokens{}, err
	}
	id, err1 := c.text(c.ids, c.idBytes, k)
	source, err2 := c.text(c.sources, c.sourceBytes, k)
	start, end, err3 := span(c.lists, k, c.tokens.Len())
	if err := errors.Join(err1, err2, err3); err != nil {
		return d, Tokens{}, fmt.Errorf("token batch %s: document %d: %w: tokenize its source again", b.path, i, err)
	}
	d = BatchDocument{ID: string(id), Source: string(source), Row: c.rows[k], Bytes: c.bytes[k]}
	return d, c.tokens.Slice(start, end), nil
}

// locate finds the chunk of document i.
func (b *Batch) locate(i int) (c *batchChunk, k int, err error) {
	if i < 0 || i >= b.documents {
		return nil, 0, fmt.Errorf("token batch %s: no document %d among %d", b.path, i, b.documents)
	}
	n := sort.Search(len(b.chunks), func(n int) bool { return b.chunks[n].first > i }) - 1
	c = &b.chunks[n]
	return c, i - c.first, nil
}

func (c *batchChunk) text(offsets []int32, data []byte, k int) ([]byte, error) {
	start, end, err := span(offsets, k, len(data))
	return data[start:end], err
}

// Close ends the mapping.
func (b *Batch) Close() error {
	b.chunks, b.documents = nil, 0
	return b.file.close()
}
