package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Dataset is an open sealed dataset. It is safe for concurrent use until Close.
type Dataset struct {
	Manifest   *Manifest
	Train      *Split
	Validation *Split
}

// Open maps the shards of a dataset. locate returns the path of a shard. Open checks the structure of every file
// against the manifest, and reading checks the values that it returns, so that a damaged file gives an error. Open does
// not check digests: that is the task of the store.
func Open(m *Manifest, locate func(Shard) (path string, err error)) (*Dataset, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	d := &Dataset{
		Manifest:   m,
		Train:      &Split{name: "train", manifest: m},
		Validation: &Split{name: "validation", manifest: m},
	}
	err := errors.Join(d.Train.open(m.Splits.Train, locate), d.Validation.open(m.Splits.Validation, locate))
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close ends the mappings.
func (d *Dataset) Close() error { return errors.Join(d.Train.close(), d.Validation.close()) }

// Split holds the sequences of a split, in the order of its stream of tokens.
type Split struct {
	name      string
	manifest  *Manifest
	sequences int
	chunks    []shardChunk
	chunkOf   []int32 // for each sequence, the index of its chunk: finding any sequence takes constant time
	files     []*arrowFile
}

// shardChunk is one record batch of a shard.
type shardChunk struct {
	shard           string
	first           int // index of its first sequence in the split
	tokens          Tokens
	valid           []int32
	lists           []int32 // offsets into the ranges
	ranges          int
	starts, lengths []int32
	ids             []int32 // offsets into idBytes
	idBytes         []byte
	sources         []int32
	rows, offsets   []int64
}

func (s *Split) open(info SplitInfo, locate func(Shard) (string, error)) error {
	for _, shard := range info.Shards {
		if err := s.openShard(shard, locate); err != nil {
			return fmt.Errorf("dataset: shard %s: %w", shard.Name, err)
		}
	}
	return nil
}

func (s *Split) openShard(shard Shard, locate func(Shard) (string, error)) error {
	path, err := locate(shard)
	if err != nil {
		return err
	}
	file, err := openArrow(path)
	if err != nil {
		return fmt.Errorf("%s: %w: make the dataset's shards again", path, err)
	}
	s.files = append(s.files, file)
	first := s.sequences
	err = s.check(shard, file)
	if err == nil {
		err = s.readChunks(shard, file)
	}
	if got := int64(s.sequences - first); err == nil && got != shard.Sequences {
		err = corrupt("it has %d sequences where the manifest says %d", got, shard.Sequences)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: make the dataset's shards again", path, err)
	}
	return nil
}

// check compares a shard's size and schema with the manifest.
func (s *Split) check(shard Shard, file *arrowFile) error {
	m := s.manifest
	if int64(len(file.data)) != shard.Size {
		return corrupt("it has %d bytes where the manifest says %d", len(file.data), shard.Size)
	}
	t, err := tokenizerOf(file, ShardFormat)
	if err != nil {
		return err
	}
	length, split := file.metadata[keySequenceLength], file.metadata[keySplit]
	if t != m.Tokenizer || length != strconv.Itoa(m.SequenceLength) || split != s.name {
		return fmt.Errorf("it belongs to another dataset: split %s, %s tokens, sequences of %s", split, t.Name, length)
	}
	var names []string
	if err := json.Unmarshal([]byte(file.metadata[keySources]), &names); err != nil {
		return corrupt("its list of sources: %v", err)
	}
	if !slices.EqualFunc(names, m.Sources, func(n string, s Source) bool { return n == s.Name }) {
		return errors.New("it belongs to another dataset: its sources are not those of the manifest")
	}
	if want := shardColumns(t, m.SequenceLength); file.columns != want {
		return fmt.Errorf("its columns are %s and not %s", file.columns, want)
	}
	return nil
}

func (s *Split) readChunks(shard Shard, file *arrowFile) error {
	for i := range file.blocks {
		r, err := file.batch(i)
		if err != nil {
			return err
		}
		c, err := newShardChunk(r, s.manifest.Tokenizer.Wide(), s.manifest.SequenceLength+1)
		if err != nil {
			return fmt.Errorf("record batch %d: %w", i, err)
		}
		c.shard, c.first = shard.Name, s.sequences
		s.sequences += r.rows
		s.chunkOf = slices.Grow(s.chunkOf, r.rows)
		for range r.rows {
			s.chunkOf = append(s.chunkOf, int32(len(s.chunks)))
		}
		s.chunks = append(s.chunks, c)
	}
	return nil
}

// newShardChunk reads the fields in the order of ShardFormat. width is the number of tokens of a sequence.
func newShardChunk(r recordBatch, wide bool, width int) (shardChunk, error) {
	var c shardChunk
	n := r.rows
	columns := columnReader{batch: r}
	columns.nested(n)
	c.tokens = columns.tokens(n*width, wide)
	c.valid = numbers[int32](&columns, n)
	c.lists, c.ranges = columns.list(n)
	columns.nested(c.ranges)
	c.starts = numbers[int32](&columns, c.ranges)
	c.lengths = numbers[int32](&columns, c.ranges)
	c.ids, c.idBytes = columns.text(c.ranges)
	c.sources = numbers[int32](&columns, c.ranges)
	c.rows = numbers[int64](&columns, c.ranges)
	c.offsets = numbers[int64](&columns, c.ranges)
	return c, columns.err
}

// Len is the number of sequences.
func (s *Split) Len() int { return s.sequences }

// locate finds the chunk of sequence i.
func (s *Split) locate(i int) (c *shardChunk, k int, err error) {
	if i < 0 || i >= s.sequences {
		return nil, 0, fmt.Errorf("dataset: no sequence %d among the %d of split %s", i, s.sequences, s.name)
	}
	c = &s.chunks[s.chunkOf[i]]
	return c, i - c.first, nil
}

// Stored returns the T+1 tokens of sequence i in [0, Len), as they lie in the mapped shard. They are not copied and not
// checked, and they are valid until Close.
func (s *Split) Stored(i int) (Tokens, error) {
	c, k, err := s.locate(i)
	if err != nil {
		return Tokens{}, err
	}
	width := s.manifest.SequenceLength + 1
	return c.tokens.Slice(k*width, (k+1)*width), nil
}

// Sequence returns the T+1 tokens of sequence i in [0, Len) with 32 bits each. It uses dst if dst is large enough.
// valid is the number of targets that count: target k is tokens[k+1], for k < valid. All tokens are less than the
// vocabulary.
func (s *Split) Sequence(i int, dst []int32) (tokens []int32, valid int, err error) {
	c, k, err := s.locate(i)
	if err != nil {
		return nil, 0, err
	}
	t := s.manifest.SequenceLength
	ids := c.tokens.Slice(k*(t+1), (k+1)*(t+1))
	dst = slices.Grow(dst[:0], t+1)[:t+1]
	var top uint32
	for j, id := range ids.U16 {
		dst[j] = int32(id)
		top = max(top, uint32(id))
	}
	for j, id := range ids.U32 {
		dst[j] = int32(id)
		top = max(top, id)
	}
	valid = int(c.valid[k])
	if int64(top) >= int64(s.manifest.Tokenizer.Vocab) || valid < 1 || valid > t || valid < t && i != s.sequences-1 {
		return nil, 0, s.damaged(c, i, corrupt("token %d of a vocabulary of %d, %d valid targets of %d", top,
			s.manifest.Tokenizer.Vocab, valid, t))
	}
	return dst, valid, nil
}

// Ranges returns the documents that the tokens of sequence i come from, in order. See ShardFormat.
func (s *Split) Ranges(i int) ([]Range, error) {
	c, k, err := s.locate(i)
	if err != nil {
		return nil, err
	}
	start, end, err := span(c.lists, k, c.ranges)
	if err != nil {
		return nil, s.damaged(c, i, err)
	}
	list := make([]Range, 0, end-start)
	for j := start; j < end; j++ {
		a, b, err := span(c.ids, j, len(c.idBytes))
		r := Range{
			Start: int(c.starts[j]), Length: int(c.lengths[j]), Document: string(c.idBytes[a:b]),
			Source: int(c.sources[j]), Row: c.rows[j], Offset: c.offsets[j],
		}
		if err == nil && (r.Start < 0 || r.Length < 1 || r.Start+r.Length > s.manifest.SequenceLength+1 ||
			r.Source < 0 || r.Source >= len(s.manifest.Sources)) {
			err = corrupt("range %d to %d of source %d", r.Start, r.Start+r.Length, r.Source)
		}
		if err != nil {
			return nil, s.damaged(c, i, err)
		}
		list = append(list, r)
	}
	return list, nil
}

func (s *Split) damaged(c *shardChunk, i int, err error) error {
	return fmt.Errorf("dataset: shard %s: sequence %d of split %s: %w: make the dataset's shards again", c.shard, i,
		s.name, err)
}

func (s *Split) close() error {
	var err error
	for _, f := range s.files {
		err = errors.Join(err, f.close())
	}
	s.files, s.chunks, s.chunkOf, s.sequences = nil, nil, nil, 0
	return err
}
