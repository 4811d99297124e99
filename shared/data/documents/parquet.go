package documents

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bitnet1/shared/data/parquet"
)

// parquetReader reads rows of a parquet file. It reads only the columns of the shape, of the id and of the filters.
type parquetReader struct {
	file   *parquet.File
	at     func(group int, row int64)
	limit  int // longest text
	shape  shape
	leaves []*leaf // the columns that are read
	id     *leaf   // nil: none
	text   [2]*leaf
	tokens *leaf   // nil: none
	cells  []*leaf // one for each filter

	group  int   // the next row group
	left   int64 // rows left in the current row group
	number int64
	row    row
}

func openParquet(in io.ReaderAt, size int64, o Options) (*parquetReader, error) {
	p := &parquetReader{limit: o.MaxDocument, at: o.at}
	err := guard(func() (err error) {
		// A text that is too long makes a row odd. The file is still good.
		limits := parquet.Options{MaxValue: 2 * o.MaxDocument, MaxWork: o.maxWork}
		if p.file, err = parquet.Open(in, size, limits); err != nil {
			return fmt.Errorf("%w: fetch it again", err)
		}
		if p.file.Rows() == 0 {
			return nil // an empty file need not have the columns of others
		}
		return p.chooseColumns(o)
	})
	return p, err
}

func (p *parquetReader) chooseColumns(o Options) error {
	var names []string
	for _, c := range p.file.Columns() {
		names = append(names, c.Path)
	}
	plain := func(name string) bool { return slices.Contains(names, name) }
	lists := func(name, role, says string) bool {
		r, s := findTurns(p.file.Schema(), name, role, says)
		return r >= 0 && s >= 0
	}
	s, err := o.Fields.choose(func() []string { return names }, plain, lists)
	if err != nil {
		return err
	}
	p.shape = s
	switch {
	case s.text != "":
		p.text[0] = p.leaf(slices.Index(names, s.text))
	case s.turns != "":
		role, says := findTurns(p.file.Schema(), s.turns, s.role, s.says)
		p.text = [2]*leaf{p.leaf(role), p.leaf(says)}
	default:
		p.text = [2]*leaf{p.leaf(slices.Index(names, s.prompt)), p.leaf(slices.Index(names, s.response))}
	}
	for _, l := range p.text {
		if l == nil {
			continue
		}
		c, all := l.column, strings.Join(names, ", ")
		if c.Binary() || s.text != "" && o.Fields.Text == "" && !c.Text() && c.Logical.Kind != parquet.Null {
			return fmt.Errorf("column %s is %s and not a string: the columns are %s", c.Path, c.TypeName(), all)
		}
		if s.turns == "" && c.MaxRep > 0 {
			return fmt.Errorf("column %s is a list where a plain string is expected: the columns are %s", c.Path, all)
		}
	}
	if err := p.chooseID(o.Fields.ID, names); err != nil {
		return err
	}
	if i := slices.Index(names, countColumn); i >= 0 && p.file.Columns()[i].MaxRep == 0 {
		if kind := p.file.Columns()[i].Type; kind == parquet.Int64 || kind == parquet.Int32 {
			p.tokens = p.leaf(i)
		}
	}
	return p.chooseCells(o.Filters, names)
}

// chooseCells finds the columns of the filters.
func (p *parquetReader) chooseCells(filters []Filter, names []string) error {
	for _, f := range filters {
		i := slices.Index(names, f.Column)
		if i < 0 {
			return fmt.Errorf("filter %v: %w", f, missing(f.Column, names))
		}
		l := p.leaf(i)
		if l.column.MaxRep > 0 || l.column.Binary() {
			what := l.column.TypeName()
			if l.column.MaxRep > 0 {
				what = "a list"
			}
			return fmt.Errorf("filter %v: column %s is %s, which has no order and no text to compare with", f, f.Column,
				what)
		}
		if err := f.check(cellKindOf(l.column)); err != nil {
			return err
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
	if c.MaxRep > 0 || c.Binary() {
		if name != "" {
			return fmt.Errorf("id: column %s is a list or %s: a plain string or number is needed", name, c.TypeName())
		}
		return nil
	}
	if kind := cellKindOf(c); name != "" || kind == cellText || kind == cellNumber || kind == cellUUID {
		p.id = p.leaf(i)
	}
	return nil
}

// findTurns finds the columns of the roles and of the texts of a list of turns, or -1. Both columns are fields of the
// list's elements. The texts can also be in a list of parts within an element.
func findTurns(root *parquet.Node, name, role, says string) (roleColumn, saysColumn int) {
	list := findNode(root, name)
	if list == nil {
		return -1, -1
	}
	element := elementOf(list)
	if element == nil {
		return -1, -1
	}
	roleColumn, saysColumn = -1, -1
	for _, field := range element.Children {
		switch field.Name {
		case role:
			if !field.Repeated {
				roleColumn = field.Column
			}
		case says:
			saysColumn = findContent(field)
		}
	}
	return roleColumn, saysColumn
}

// findContent finds the column of the text of a turn: a string, a structure with the field text, or a list of either.
func findContent(n *parquet.Node) int {
	if part := elementOf(n); part != nil {
		n = part
	}
	if n.Column >= 0 {
		return n.Column
	}
	for _, field := range n.Children {
		if field.Name == "text" && !field.Repeated {
			return field.Column
		}
	}
	return -1
}

// findNode finds the node at a path of names, without entering lists. A name may contain dots.
func findNode(n *parquet.Node, path string) *parquet.Node {
	for _, child := range n.Children {
		if child.Name == path {
			return child
		}
		if rest, ok := strings.CutPrefix(path, child.Name+"."); ok && !child.Repeated {
			if found := findNode(child, rest); found != nil {
				return found
			}
		}
	}
	return nil
}

// elementOf is the element of a list, or nil. The rules are those of the format for lists of three levels and for the
// two of older writers: https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists.
func elementOf(list *parquet.Node) *parquet.Node {
	if list.Repeated {
		return list
	}
	if list.Logical == parquet.Map || len(list.Children) != 1 || !list.Children[0].Repeated {
		return nil
	}
	repeated := list.Children[0]
	if len(repeated.Children) != 1 || repeated.Children[0].Repeated || repeated.Name == "array" ||
		repeated.Name == list.Name+"_tuple" {
		return repeated
	}
	return repeated.Children[0]
}

// leaf returns the reader of a column.
func (p *parquetReader) leaf(index int) *leaf {
	for _, l := range p.leaves {
		if l.index == index {
			return l
		}
	}
	c := p.file.Columns()[index]
	l := &leaf{index: index, column: c, limit: p.limit, plain: c.Text(), kind: cellKindOf(c)}
	p.leaves = append(p.leaves, l)
	return l
}

func (p *parquetReader) total() int64 { return p.file.Rows() }

// skip skips whole row groups without reading their pages, and then single rows.
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
				err = fmt.Errorf("row group %d: column %s ends %d rows early: the file is corrupt: fetch it again",
					p.group-1, l.column.Path, p.left)
			}
			return row{}, err
		}
	}
	group, number := p.group-1, p.number
	p.left--
	p.number++
	p.row.number = number
	if err := p.compose(); err != nil {
		return p.row, fmt.Errorf("row group %d: row %d: %w", group, number, err)
	}
	return p.row, nil
}

// compose makes the row from the current values of the leaves.
func (p *parquetReader) compose() (err error) {
	p.row.id, p.row.text, p.row.turns, p.row.tokens = nil, nil, p.row.turns[:0], -1
	if p.id != nil {
		if p.row.id, err = p.id.text(); err != nil {
			return err
		}
	}
	if p.tokens != nil && p.tokens.there {
		p.row.tokens = p.tokens.batch.Values.Ints[p.tokens.at]
	}
	for i, l := range p.cells {
		if p.row.cells[i], err = l.cell(); err != nil {
			return err
		}
	}
	switch s := p.shape; {
	case s.text != "":
		p.row.text, err = p.text[0].text()
		return err
	case s.turns != "":
		return p.composeTurns(p.text[0], p.text[1])
	}
	prompt, err1 := p.text[0].text()
	response, err2 := p.text[1].text()
	if prompt != nil && response != nil {
		p.row.turns = append(p.row.turns, turn{[]byte("user"), prompt}, turn{[]byte("assistant"), response})
	}
	return cmp.Or(err1, err2)
}

// composeTurns joins roles and texts. A turn can have several parts of text.
func (p *parquetReader) composeTurns(roles, says *leaf) error {
	if roles.long || says.long {
		return oddRow{fmt.Errorf("a list of more than %d bytes, the limit", 2*p.limit)}
	}
	if err := cmp.Or(roles.err, says.err); err != nil {
		return err
	}
	turns := 0
	var text []byte
	for i, part := range says.values {
		if says.reps[i] < 2 {
			turns++
			text = nil
		}
		if turns > len(roles.values) {
			break
		}
		if part != nil && text == nil {
			text = slices.Clip(part)
			p.row.turns = append(p.row.turns, turn{roles.values[turns-1], text})
		} else if part != nil {
			text = append(text, part...)
			p.row.turns[len(p.row.turns)-1].text = text
		}
	}
	if turns != len(roles.values) {
		return fmt.Errorf("%d roles for %d texts: the file is corrupt", len(roles.values), turns)
	}
	return nil
}

// openGroup opens the next row group, or returns io.EOF.
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
	plain  bool     // the values are strings
	kind   cellKind // of the values
	limit  int      // of the bytes of a row
	chunk  *parquet.Chunk
	batch  parquet.Batch
	level  int // the next level of the batch
	value  int // the next value of the batch
	buffer []byte

	// The current row of a plain column.
	there bool // the value is not null
	at    int  // the index of the value in the batch

	// The current row of a list: a text for each element, nil for a null. A missing or empty list is one null.
	values [][]byte
	reps   []uint8
	size   int
	long   bool // the list is too long, and values is incomplete
	err    error
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
	l.values, l.reps, l.size, l.long, l.err = l.values[:0], l.reps[:0], 0, false, nil
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
		l.keep()
	}
}

// take advances by one level, and by one value if the level has a value.
func (l *leaf) take() {
	l.there = l.batch.Def == nil || int(l.batch.Def[l.level]) == l.column.MaxDef
	l.level++
	if l.there {
		l.at = l.value
		l.value++
		l.there = l.kind != cellNull
	}
}

// keep appends the element of a list.
func (l *leaf) keep() {
	text, err := l.text()
	l.err = cmp.Or(l.err, err)
	if text != nil && !l.plain {
		text = bytes.Clone(text)
	}
	if l.size += len(text) + 24; l.size > 2*l.limit {
		l.long, l.values, l.reps = true, l.values[:0], l.reps[:0]
		return
	}
	l.values, l.reps = append(l.values, text), append(l.reps, l.batch.Rep[l.level-1])
}

// text is the current value as text, nil for a null.
func (l *leaf) text() ([]byte, error) {
	if !l.there {
		return nil, nil
	}
	if l.plain {
		if v := l.batch.Values.Bytes[l.at]; v != nil {
			return v, nil
		}
		return []byte{}, nil
	}
	var err error
	if l.buffer, err = l.column.AppendText(l.buffer[:0], &l.batch.Values, l.at); err != nil {
		return nil, oddRow{err}
	}
	return l.buffer, nil
}

// cell is the current value as filters see it.
func (l *leaf) cell() (c cell, err error) {
	if !l.there {
		return c, nil
	}
	c.kind = l.kind
	switch l.kind {
	case cellTruth:
		c.truth = l.batch.Values.Ints[l.at] != 0
	case cellFloat:
		c.float, c.bits = l.column.Float(&l.batch.Values, l.at)
	case cellMoment, cellClock:
		c.moment, _ = l.column.Moment(&l.batch.Values, l.at)
	default:
		c.text, err = l.text()
	}
	return c, err
}

// cellKindOf is what filters see in a column.
func cellKindOf(c parquet.Column) cellKind {
	switch c.Logical.Kind {
	case parquet.Null:
		return cellNull
	case parquet.Date, parquet.Timestamp:
		return cellMoment
	case parquet.Time:
		return cellClock
	case parquet.UUID:
		return cellUUID
	case parquet.Decimal:
		return cellNumber
	case parquet.Float16:
		return cellFloat
	case parquet.Interval:
		return cellText
	}
	switch c.Type {
	case parquet.Boolean:
		return cellTruth
	case parquet.Int32, parquet.Int64:
		return cellNumber
	case parquet.Float, parquet.Double:
		return cellFloat
	}
	return cellText
}

// done checks that the row group has no further values.
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
