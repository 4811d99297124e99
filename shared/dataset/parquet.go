package dataset

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"bitnet1/shared/parquet"
)

// parquetReader reads rows of a parquet file: the columns of a shape, of the id and of the filters, side by side.
type parquetReader struct {
	file   *parquet.File
	at     func(group int, row int64)
	limit  int // longest text
	shape  shape
	leaves []*leaf // all that are read, each once
	id     *leaf   // nil: none
	text   [2]*leaf
	tokens *leaf   // nil: none
	cells  []*leaf // one a filter

	group  int   // the next one
	left   int64 // rows left in the current one
	number int64
	row    row
}

func openParquet(in io.ReaderAt, size int64, o DocumentOptions) (*parquetReader, error) {
	p := &parquetReader{limit: o.MaxDocument, at: o.at}
	err := guard(func() (err error) {
		if p.file, err = parquet.Open(in, size, parquet.Options{MaxValue: o.MaxDocument}); err != nil {
			return fmt.Errorf("%w: fetch it again", err)
		}
		return p.chooseColumns(o)
	})
	return p, err
}

func (p *parquetReader) chooseColumns(o DocumentOptions) error {
	var names []string
	for _, c := range p.file.Columns() {
		names = append(names, c.Path)
	}
	plain := func(name string) bool { return slices.Contains(names, name) }
	lists := func(name, role, says string) bool { return p.find(name, role) >= 0 && p.find(name, says) >= 0 }
	s, err := o.Fields.choose(names, plain, lists)
	if err != nil {
		return err
	}
	p.shape = s
	switch {
	case s.text != "":
		p.text[0] = p.leaf(slices.Index(names, s.text))
	case s.turns != "":
		p.text = [2]*leaf{p.leaf(p.find(s.turns, s.role)), p.leaf(p.find(s.turns, s.says))}
	default:
		p.text = [2]*leaf{p.leaf(slices.Index(names, s.prompt)), p.leaf(slices.Index(names, s.response))}
	}
	for _, l := range p.text {
		if l != nil && l.column.Type != parquet.ByteArray {
			return fmt.Errorf("column %s is %v and not a string: the columns are %s", l.column.Path, l.column.Type, strings.Join(names, ", "))
		}
		if l != nil && s.turns == "" && l.column.MaxRep > 0 {
			return fmt.Errorf("column %s is a list where a plain string is expected: the columns are %s", l.column.Path, strings.Join(names, ", "))
		}
	}
	if err := p.chooseID(o.Fields.ID, names); err != nil {
		return err
	}
	if i := slices.Index(names, countColumn); i >= 0 && p.file.Columns()[i].Type == parquet.Int64 && p.file.Columns()[i].MaxRep == 0 {
		p.tokens = p.leaf(i)
	}
	for _, f := range o.Filters {
		i := slices.Index(names, f.Column)
		if i < 0 {
			return fmt.Errorf("filter %v: %w", f, missing(f.Column, names))
		}
		l := p.leaf(i)
		if l.column.MaxRep > 0 {
			return fmt.Errorf("filter %v: column %s is a list", f, f.Column)
		}
		p.cells = append(p.cells, l)
	}
	p.row.cells = make([]cell, len(p.cells))
	return nil
}

func (p *parquetReader) chooseID(name string, names []string) error {
	i := slices.Index(names, name)
	if name == "" {
		i = slices.Index(names, "id")
	} else if i < 0 {
		return fmt.Errorf("id: %w", missing(name, names))
	}
	if i < 0 {
		return nil
	}
	c := p.file.Columns()[i]
	if c.MaxRep == 0 && (c.Type == parquet.ByteArray || c.Type == parquet.Int32 || c.Type == parquet.Int64) {
		p.id = p.leaf(i)
	} else if name != "" {
		return fmt.Errorf("id: column %s is %v: a plain string or integer is needed", name, c.Type)
	}
	return nil
}

// find is the index of a field of the structures in a list, or -1.
func (p *parquetReader) find(list, field string) int {
	return slices.IndexFunc(p.file.Columns(), func(c parquet.Column) bool {
		return c.MaxRep == 1 && strings.HasPrefix(c.Path, list+".") && strings.HasSuffix(c.Path, "."+field)
	})
}

// leaf returns the reader of a column.
func (p *parquetReader) leaf(index int) *leaf {
	for _, l := range p.leaves {
		if l.index == index {
			return l
		}
	}
	l := &leaf{index: index, column: p.file.Columns()[index], limit: p.limit}
	p.leaves = append(p.leaves, l)
	return l
}

func (p *parquetReader) total() int64 { return p.file.Rows() }

// skip passes over whole row groups without touching their pages, then row by row.
func (p *parquetReader) skip(n int64) error {
	for p.left == 0 && p.group < p.file.Groups() && p.number+p.file.GroupRows(p.group) <= n {
		p.number += p.file.GroupRows(p.group)
		p.group++
	}
	for p.number < n {
		if _, err := p.next(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
	return nil
}

func (p *parquetReader) next() (row, error) {
	for p.left == 0 {
		if err := p.openGroup(); err != nil {
			return row{}, err
		}
	}
	if p.number%atRows == 0 {
		p.at(p.group-1, p.number)
	}
	for _, l := range p.leaves {
		if err := l.next(); err != nil {
			if err == io.EOF {
				err = fmt.Errorf("row group %d: column %s ends %d rows early: the file is corrupt: fetch it again", p.group-1, l.column.Path, p.left)
			}
			return row{}, err
		}
	}
	p.row.number, p.row.id, p.row.text, p.row.turns = p.number, nil, nil, p.row.turns[:0]
	if p.id != nil {
		p.row.id = p.id.name()
	}
	p.row.tokens = -1
	if p.tokens != nil && p.tokens.number.isNumber {
		p.row.tokens = int64(p.tokens.number.number)
	}
	for i, l := range p.cells {
		p.row.cells[i] = l.cell()
	}
	if err := p.compose(); err != nil {
		return row{}, fmt.Errorf("row group %d: row %d: %w", p.group-1, p.number, err)
	}
	p.left--
	p.number++
	return p.row, nil
}

// compose makes the row's text or turns.
func (p *parquetReader) compose() error {
	first := p.text[0].values
	switch s := p.shape; {
	case s.text != "":
		p.row.text = first[0]
	case s.turns != "":
		second := p.text[1].values
		if len(first) != len(second) {
			return fmt.Errorf("%d roles for %d texts: the file is corrupt", len(first), len(second))
		}
		for i := range first {
			if second[i] != nil {
				p.row.turns = append(p.row.turns, turn{first[i], second[i]})
			}
		}
	default:
		prompt, response := first[0], p.text[1].values[0]
		if prompt != nil && response != nil {
			p.row.turns = append(p.row.turns, turn{[]byte("user"), prompt}, turn{[]byte("assistant"), response})
		}
	}
	return nil
}

// openGroup goes on to the next row group, or returns io.EOF.
func (p *parquetReader) openGroup() error {
	for _, l := range p.leaves {
		if l.chunk != nil {
			if err := l.done(); err != nil {
				return fmt.Errorf("row group %d: column %s: %w", p.group-1, l.column.Path, err)
			}
		}
	}
	if p.group == p.file.Groups() {
		return io.EOF
	}
	p.at(p.group, p.number)
	for _, l := range p.leaves {
		chunk, err := p.file.Read(p.group, l.index)
		if err != nil {
			return err
		}
		l.open(chunk)
	}
	p.left = p.file.GroupRows(p.group)
	p.group++
	return nil
}

// leaf reads a column row by row.
type leaf struct {
	index  int
	column parquet.Column
	limit  int // bytes of a row
	chunk  *parquet.Chunk
	batch  parquet.Batch
	level  int // levels of the batch that are used
	value  int // and values

	// The current row. A plain column has one value, a list one an element; an absent or empty list is one null.
	values [][]byte // of byte arrays; nil for a null
	number cell     // of other types
}

func (l *leaf) open(c *parquet.Chunk) {
	l.close()
	l.chunk, l.level, l.value = c, 0, 0
	l.batch.Levels = 0
}

func (l *leaf) close() {
	if l.chunk != nil {
		l.chunk.Close()
		l.chunk = nil
	}
}

// next reads the next row. It returns io.EOF at the end of the row group.
func (l *leaf) next() error {
	l.values = l.values[:0]
	size := 0
	for first := true; ; first = false {
		if l.level == l.batch.Levels {
			l.level, l.value = 0, 0
			if err := l.chunk.Read(&l.batch); err != nil {
				if err == io.EOF && !first {
					return nil
				}
				return err
			}
		}
		starts := l.batch.Rep == nil || l.batch.Rep[l.level] == 0
		if first && !starts {
			return errors.New("a row begins in the middle of a list: the file is corrupt")
		}
		if !first && starts {
			return nil
		}
		l.take()
		if l.column.MaxRep == 0 {
			return nil
		}
		if size += len(l.values[len(l.values)-1]) + 24; size > 2*l.limit {
			return fmt.Errorf("a list of more than %d bytes, the limit", 2*l.limit)
		}
	}
}

// take uses a level, and the value that belongs to it if there is one.
func (l *leaf) take() {
	there := l.batch.Def == nil || int(l.batch.Def[l.level]) == l.column.MaxDef
	l.level++
	l.number = cell{}
	if !there {
		l.values = append(l.values, nil)
		return
	}
	i, v := l.value, &l.batch.Values
	l.value++
	switch {
	case l.column.Type == parquet.ByteArray:
		value := v.Bytes[i]
		if value == nil {
			value = []byte{}
		}
		l.values = append(l.values, value)
		return
	case len(v.Ints) > 0:
		l.number = cell{number: float64(v.Ints[i]), isNumber: true}
	default:
		l.number = cell{number: v.Floats[i], isNumber: true}
	}
	l.values = append(l.values, nil)
}

// name is the current row's value as a document's id.
func (l *leaf) name() []byte {
	if l.number.isNumber {
		return strconv.AppendInt(nil, l.batch.Values.Ints[l.value-1], 10)
	}
	return l.values[0]
}

func (l *leaf) cell() cell {
	if l.number.isNumber {
		return l.number
	}
	return cell{text: l.values[0]}
}

// done makes sure that the row group holds no further value.
func (l *leaf) done() error {
	if l.level < l.batch.Levels {
		return errors.New("more values than rows: the file is corrupt")
	}
	if err := l.chunk.Read(&l.batch); err != io.EOF {
		if err == nil {
			err = errors.New("more values than rows: the file is corrupt")
		}
		return err
	}
	return nil
}
