package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// ShardFormat is the version of the shard format: an uncompressed Arrow IPC file with one row for each sequence of T
// targets,
//
//	tokens: fixed_size_list<uint16>[T+1]    (uint32 if the vocabulary is larger)
//	valid:  int32
//	ranges: list<struct<start: int32, length: int32, document: utf8, source: int32, row: int64, offset: int64>>
//
// A split is one stream of tokens: an end of text, and then every document, each followed by an end of text. Sequence i
// holds the tokens i*T to i*T+T of the stream. The last token of a sequence is therefore the first token of the next
// sequence, and every token but the opening end of text is a target exactly once: target k, tokens[k+1], is predicted
// from tokens[0..k]. Only the last sequence of a split can be short: its first valid targets count, and ends of text
// pad it.
//
// A range says that the tokens start to start+length of the sequence are the tokens offset to offset+length of a
// document. The end of text is the last token of its document. The padding and the opening end of text are in no range.
// source is an index into the names of sources in the metadata.
const ShardFormat = "bitnet1.shard.v1"

// Range is a run of tokens of a sequence that come from one document.
type Range struct {
	Start, Length int    // in the sequence
	Document      string // id
	Source        int    // index into the manifest's sources
	Row           int64  // in the source
	Offset        int64  // of the first token in the document
}

// recordBytes is about the bytes of tokens in a record batch of a shard. It bounds the memory of the writer.
const recordBytes = 4 << 20

// shardColumns is the schema as arrowFile describes it.
func shardColumns(t TokenizerInfo, length int) string {
	return fmt.Sprintf("tokens: fixed_size_list[%d]<item: %s>, valid: int32, ranges: list<item: struct<start: int32, "+
		"length: int32, document: utf8, source: int32, row: int64, offset: int64>>", length+1, t.arrow())
}

// ShardInfo is the metadata of a shard.
type ShardInfo struct {
	Tokenizer      TokenizerInfo
	SequenceLength int      // T
	Split          string   // train or validation
	Sources        []string // names, which ranges refer to by index
}

// schema is the Arrow schema of a shard.
func (i ShardInfo) schema() (*arrow.Schema, error) {
	names, err := json.Marshal(i.Sources)
	if err != nil {
		return nil, err
	}
	keys, values := i.Tokenizer.metadata(ShardFormat)
	metadata := arrow.NewMetadata(append(keys, keySequenceLength, keySplit, keySources),
		append(values, strconv.Itoa(i.SequenceLength), i.Split, string(names)))
	var id arrow.DataType = arrow.PrimitiveTypes.Uint16
	if i.Tokenizer.Wide() {
		id = arrow.PrimitiveTypes.Uint32
	}
	return arrow.NewSchema([]arrow.Field{
		{Name: "tokens", Type: arrow.FixedSizeListOf(int32(i.SequenceLength+1), id)},
		{Name: "valid", Type: arrow.PrimitiveTypes.Int32},
		{Name: "ranges", Type: arrow.ListOfNonNullable(arrow.StructOf(
			arrow.Field{Name: "start", Type: arrow.PrimitiveTypes.Int32},
			arrow.Field{Name: "length", Type: arrow.PrimitiveTypes.Int32},
			arrow.Field{Name: "document", Type: arrow.BinaryTypes.String},
			arrow.Field{Name: "source", Type: arrow.PrimitiveTypes.Int32},
			arrow.Field{Name: "row", Type: arrow.PrimitiveTypes.Int64},
			arrow.Field{Name: "offset", Type: arrow.PrimitiveTypes.Int64},
		))},
	}, &metadata), nil
}

// ShardWriter writes the sequences of one shard. Its bytes depend on nothing but what is appended.
type ShardWriter struct {
	file      *arrowWriter
	record    *array.RecordBuilder
	perRecord int // sequences in a record batch
	pending   int
	sequences int64
	narrow    []uint16
}

// NewShardWriter begins a shard. The caller closes w after closing the writer.
func NewShardWriter(w io.Writer, i ShardInfo) (*ShardWriter, error) {
	schema, err := i.schema()
	if err != nil {
		return nil, err
	}
	file, err := newArrowWriter(w, schema)
	if err != nil {
		return nil, err
	}
	size := 2 * (i.SequenceLength + 1)
	if i.Tokenizer.Wide() {
		size *= 2
	}
	record := array.NewRecordBuilder(memory.NewGoAllocator(), schema)
	return &ShardWriter{file: file, record: record, perRecord: max(1, recordBytes/size)}, nil
}

// Append adds a sequence of T+1 tokens. Its first valid targets count. Tokens and ranges are copied.
func (s *ShardWriter) Append(tokens []uint32, valid int, ranges []Range) error {
	list := s.record.Field(0).(*array.FixedSizeListBuilder)
	list.Append(true)
	switch ids := list.ValueBuilder().(type) {
	case *array.Uint16Builder:
		s.narrow = narrow(s.narrow[:0], tokens)
		ids.AppendValues(s.narrow, nil)
	case *array.Uint32Builder:
		ids.AppendValues(tokens, nil)
	}
	s.record.Field(1).(*array.Int32Builder).Append(int32(valid))
	lists := s.record.Field(2).(*array.ListBuilder)
	lists.Append(true)
	item := lists.ValueBuilder().(*array.StructBuilder)
	for _, r := range ranges {
		item.Append(true)
		item.FieldBuilder(0).(*array.Int32Builder).Append(int32(r.Start))
		item.FieldBuilder(1).(*array.Int32Builder).Append(int32(r.Length))
		item.FieldBuilder(2).(*array.StringBuilder).Append(r.Document)
		item.FieldBuilder(3).(*array.Int32Builder).Append(int32(r.Source))
		item.FieldBuilder(4).(*array.Int64Builder).Append(r.Row)
		item.FieldBuilder(5).(*array.Int64Builder).Append(r.Offset)
	}
	s.sequences++
	if s.pending++; s.pending >= s.perRecord {
		return s.flush()
	}
	return nil
}

// Sequences is the number of sequences appended.
func (s *ShardWriter) Sequences() int64 { return s.sequences }

func (s *ShardWriter) flush() error {
	if s.pending == 0 {
		return nil
	}
	s.pending = 0
	return s.file.write(s.record)
}

// Close writes what is left and the footer.
func (s *ShardWriter) Close() error {
	err := s.flush()
	s.record.Release()
	return errors.Join(err, s.file.close())
}
