package dataset

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// levelsPerRead is how many values are decoded at once.
const levelsPerRead = 128

// parquetReader reads rows with the low-level parquet reader, whose panics on damaged files can be recovered, and
// compares what it got with the file's metadata: damaged data may otherwise look like an early end.
type parquetReader struct {
	file    *file.Reader
	size    int64 // of the file
	limit   int   // longest text
	id      *leaf // nil: none
	text    []*leaf
	compose func(p *parquetReader, columns [][][]byte) []byte // makes a row's text of the values in p.text

	group, groups int
	groupRows     int64 // rows left in the current group
	number        int64
	columns       [][][]byte
	buffer        []byte
}

func openParquet(f *os.File, size int64, limit int) (*parquetReader, error) {
	p := &parquetReader{size: size, limit: limit}
	err := guard(func() error {
		properties := parquet.NewReaderProperties(memory.NewGoAllocator())
		properties.BufferedStreamEnabled = true
		reader, err := file.NewParquetReader(readerAt{f}, file.WithReadProps(properties))
		if err != nil {
			return fmt.Errorf("%w: the file may be truncated: fetch it again", err)
		}
		p.file, p.groups = reader, reader.NumRowGroups()
		var rows int64
		for i := range p.groups {
			n := reader.RowGroup(i).NumRows()
			if n < 0 {
				return fmt.Errorf("row group %d claims %d rows: the file is corrupt", i, n)
			}
			rows += n
		}
		if rows != reader.NumRows() {
			return fmt.Errorf("%d rows in row groups but %d in the footer: the file is corrupt", rows, reader.NumRows())
		}
		return p.chooseColumns(reader.MetaData().Schema)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// readerAt hides the file's Close from the parquet reader.
type readerAt struct{ f *os.File }

func (r readerAt) ReadAt(p []byte, off int64) (int, error)      { return r.f.ReadAt(p, off) }
func (r readerAt) Seek(offset int64, whence int) (int64, error) { return r.f.Seek(offset, whence) }

// guard turns a panic of the parquet reader into an error.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file is corrupt or of an unsupported kind: %v", r)
		}
	}()
	return f()
}

func (p *parquetReader) chooseColumns(s *schema.Schema) error {
	var names []string
	byPath := map[string]*leaf{}
	for i := range s.NumColumns() {
		c := s.Column(i)
		names = append(names, c.Path())
		byPath[c.Path()] = &leaf{index: i, path: c.Path(), column: c}
	}
	p.id = byPath["id"]
	if p.id != nil && (p.id.column.MaxRepetitionLevel() > 0 || !p.id.isKey()) {
		p.id = nil
	}
	turnLists := func(list, role, text string) []*leaf {
		var found []*leaf
		for _, field := range []string{role, text} {
			for _, name := range names {
				if strings.HasPrefix(name, list+".") && strings.HasSuffix(name, "."+field) && byPath[name].column.MaxRepetitionLevel() == 1 {
					found = append(found, byPath[name])
					break
				}
			}
		}
		return found
	}
	conversations, messages := turnLists("conversations", "from", "value"), turnLists("messages", "role", "content")
	switch {
	case byPath["text"] != nil:
		p.text, p.compose = []*leaf{byPath["text"]}, (*parquetReader).plain
	case len(conversations) == 2:
		p.text, p.compose = conversations, (*parquetReader).conversation
	case len(messages) == 2:
		p.text, p.compose = messages, (*parquetReader).conversation
	case byPath["input"] != nil && byPath["output"] != nil:
		p.text, p.compose = []*leaf{byPath["input"], byPath["output"]}, (*parquetReader).answer
	default:
		return missingText(names)
	}
	for _, l := range p.text {
		if l.column.PhysicalType() != parquet.Types.ByteArray {
			return fmt.Errorf("column %s is %v and not a string: the columns are %s", l.path, l.column.PhysicalType(), strings.Join(names, ", "))
		}
		if l.column.MaxRepetitionLevel() > 1 || strings.IndexByte(l.path, '.') < 0 && l.column.MaxRepetitionLevel() > 0 {
			return fmt.Errorf("column %s is a list where a plain string is expected: the columns are %s", l.path, strings.Join(names, ", "))
		}
	}
	p.columns = make([][][]byte, len(p.text))
	return nil
}

// The compose functions make a row's text of its columns' values. A list has one value an element.

func (p *parquetReader) plain(columns [][][]byte) []byte { return columns[0][0] }

func (p *parquetReader) answer(columns [][][]byte) []byte {
	input, output := columns[0][0], columns[1][0]
	if input == nil || output == nil {
		return nil
	}
	p.buffer = turns(p.buffer[:0], []turn{{[]byte("user"), input}, {[]byte("assistant"), output}})
	return p.buffer
}

func (p *parquetReader) conversation(columns [][][]byte) []byte {
	list := make([]turn, 0, len(columns[0]))
	for i := range columns[0] {
		if columns[1][i] != nil {
			list = append(list, turn{columns[0][i], columns[1][i]})
		}
	}
	if len(list) == 0 {
		return nil
	}
	p.buffer = turns(p.buffer[:0], list)
	return p.buffer
}

func (p *parquetReader) total() int64 { return p.file.NumRows() }

func (p *parquetReader) next() (row, error) {
	r := row{number: p.number}
	err := guard(func() error {
		for p.groupRows == 0 {
			if err := p.openGroup(); err != nil {
				return err
			}
		}
		for i, l := range p.text {
			var err error
			if p.columns[i], err = l.row(p.columns[i][:0]); err != nil {
				return p.lost(l, err)
			}
			if len(p.columns[i]) != len(p.columns[0]) {
				return fmt.Errorf("row %d: %s has %d elements but %s %d: the file is corrupt", p.number, p.text[0].path, len(p.columns[0]), l.path, len(p.columns[i]))
			}
		}
		if p.id != nil {
			var one [1][]byte
			id, err := p.id.row(one[:0])
			if err != nil {
				return p.lost(p.id, err)
			}
			r.id = id[0]
		}
		r.text = p.compose(p, p.columns)
		if len(r.text) > p.limit {
			return fmt.Errorf("row %d: a text of %d bytes, more than the limit of %d", p.number, len(r.text), p.limit)
		}
		return nil
	})
	if err == nil {
		p.groupRows--
		p.number++
	}
	return r, err
}

// lost explains a column that ends too early.
func (p *parquetReader) lost(l *leaf, err error) error {
	if err == io.EOF {
		return fmt.Errorf("row group %d: column %s ends %d rows early: the file is corrupt: fetch it again", p.group-1, l.path, p.groupRows)
	}
	return fmt.Errorf("row group %d, column %s: %w: the file is corrupt: fetch it again", p.group-1, l.path, err)
}

// openGroup goes on to the next row group, or returns io.EOF.
func (p *parquetReader) openGroup() error {
	leaves := p.text
	if p.id != nil {
		leaves = append(slices.Clone(leaves), p.id)
	}
	if p.group > 0 {
		for _, l := range leaves {
			if !l.done() {
				return fmt.Errorf("row group %d: column %s has more values than rows: the file is corrupt", p.group-1, l.path)
			}
		}
	}
	if p.group == p.groups {
		return io.EOF
	}
	group := p.file.RowGroup(p.group)
	for _, l := range leaves {
		chunk, err := group.MetaData().ColumnChunk(l.index)
		if err != nil {
			return fmt.Errorf("row group %d, column %s: %w", p.group, l.path, err)
		}
		start, size := chunk.DataPageOffset(), chunk.TotalCompressedSize()
		if chunk.HasDictionaryPage() && chunk.DictionaryPageOffset() > 0 {
			start = min(start, chunk.DictionaryPageOffset())
		}
		if start < 4 || size < 0 || start > p.size-8 || size > p.size-8-start {
			return fmt.Errorf("row group %d: column %s lies at %d+%d, outside a file of %d bytes: the file is corrupt", p.group, l.path, start, size, p.size)
		}
		if l.column.MaxRepetitionLevel() == 0 && chunk.NumValues() != group.NumRows() {
			return fmt.Errorf("row group %d: column %s has %d values for %d rows: the file is corrupt", p.group, l.path, chunk.NumValues(), group.NumRows())
		}
		reader, err := group.Column(l.index)
		if err != nil {
			return fmt.Errorf("row group %d, column %s: %w", p.group, l.path, err)
		}
		l.open(reader)
	}
	p.groupRows = group.NumRows()
	p.group++
	return nil
}

// leaf is a column of values, read row by row.
type leaf struct {
	index  int
	path   string
	column *schema.Column
	reader file.ColumnChunkReader

	values     [levelsPerRead]parquet.ByteArray
	def, rep   [levelsPerRead]int16
	levels     int // decoded, of which
	level      int // are used
	value      int // values used
	valuesRead int
}

// isKey tells whether the column can serve as a document's id.
func (l *leaf) isKey() bool {
	switch l.column.PhysicalType() {
	case parquet.Types.ByteArray, parquet.Types.Int32, parquet.Types.Int64:
		return true
	}
	return false
}

func (l *leaf) open(r file.ColumnChunkReader) {
	l.reader, l.levels, l.level, l.value, l.valuesRead = r, 0, 0, 0, 0
}

// row appends the values of the next row to dst, nil for a null: one value, or those of a list, where an absent or
// empty list is one null. It returns io.EOF at the end of the row group.
func (l *leaf) row(dst [][]byte) ([][]byte, error) {
	for first := true; ; first = false {
		if l.level == l.levels {
			if err := l.fill(); err != nil {
				if err == io.EOF && !first {
					return dst, nil
				}
				return dst, err
			}
		}
		if !first && (l.column.MaxRepetitionLevel() == 0 || l.rep[l.level] == 0) {
			return dst, nil
		}
		var value []byte
		if l.column.MaxDefinitionLevel() == 0 || l.def[l.level] == l.column.MaxDefinitionLevel() {
			if l.value == l.valuesRead {
				return dst, fmt.Errorf("fewer values than levels")
			}
			value = l.values[l.value]
			if value == nil {
				value = []byte{}
			}
			l.value++
		}
		dst = append(dst, value)
		l.level++
		if l.column.MaxRepetitionLevel() == 0 {
			return dst, nil
		}
	}
}

// done tells whether the row group holds no further value.
func (l *leaf) done() bool { return l.level == l.levels && l.fill() == io.EOF }

// fill decodes the next values. Values decoded before stay valid: pages are never reused.
func (l *leaf) fill() error {
	var levels int64
	var values int
	var err error
	switch r := l.reader.(type) {
	case *file.ByteArrayColumnChunkReader:
		levels, values, err = r.ReadBatch(levelsPerRead, l.values[:], l.def[:], l.rep[:])
	case *file.Int64ColumnChunkReader:
		var v [levelsPerRead]int64
		levels, values, err = r.ReadBatch(levelsPerRead, v[:], l.def[:], l.rep[:])
		for i := range values {
			l.values[i] = strconv.AppendInt(nil, v[i], 10)
		}
	case *file.Int32ColumnChunkReader:
		var v [levelsPerRead]int32
		levels, values, err = r.ReadBatch(levelsPerRead, v[:], l.def[:], l.rep[:])
		for i := range values {
			l.values[i] = strconv.AppendInt(nil, int64(v[i]), 10)
		}
	}
	if err == nil {
		err = l.reader.Err()
	}
	if err != nil {
		return err
	}
	if levels == 0 {
		return io.EOF
	}
	l.levels, l.level, l.value, l.valuesRead = int(levels), 0, 0, values
	return nil
}
