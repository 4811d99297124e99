package parquet

import (
	"errors"
	"fmt"
	"math"
)

// chunkInfo is the place of the values of a column in a row group.
type chunkInfo struct {
	start, size int64 // in bytes
	values      int64 // nulls included
	codec       int8
	kind        Type
	problem     problem
}

// problem is the reason why a chunk cannot be read. It becomes an error only if the column is read.
type problem int8

const (
	problemNone problem = iota
	problemEncrypted
	problemElsewhere
	problemNoMetadata
)

func (p problem) error() error {
	switch p {
	case problemEncrypted:
		return errors.New("the column is encrypted: encrypted columns are not supported")
	case problemElsewhere:
		return errors.New("the column lies in another file: that is not supported")
	case problemNoMetadata:
		return errors.New("the column has no metadata: the file is corrupt")
	}
	return nil
}

// element is a node of the schema. The file lists the nodes in depth-first order.
type element struct {
	name       string
	kind       int64 // physical type, -1 for a group
	width      int64
	repetition int64 // 0 required, 1 optional, 2 repeated
	children   int64
	logical    Logical
}

func (f *File) readFooter(data []byte) error {
	t := &thrift{data: data}
	var elements []element
	encrypted, grouped := false, false
	f.rows = -1
	t.fields(func(id int16, kind byte) bool {
		switch {
		case id == 2 && kind == typeList:
			t.structs(maxColumns, func() { elements = append(elements, readElement(t)) })
			if t.err == nil {
				if err := f.readSchema(elements); err != nil {
					t.fail(err)
				}
			}
		case id == 3 && kind == typeI64:
			f.rows = t.int()
		case id == 4 && kind == typeList:
			if f.schema == nil {
				t.fail(errors.New("row groups before a schema"))
				return true
			}
			grouped = true
			t.structs(maxChunks/max(len(f.columns), 1), func() { f.readGroup(t) })
		case id == 8:
			encrypted = true
			return false
		default:
			return false
		}
		return true
	})
	switch {
	case t.err != nil:
		return fmt.Errorf("%w: the file is corrupt", t.err)
	case encrypted && len(f.columns) == 0:
		return errors.New("the file is encrypted: encrypted files are not supported")
	case f.schema == nil:
		return errors.New("no schema: the file is corrupt")
	case f.rows < 0 || !grouped:
		return errors.New("no number of rows, or no row groups: the file is corrupt")
	}
	return f.checkRows()
}

// checkRows compares the rows of the row groups with those of the file.
func (f *File) checkRows() error {
	var rows int64
	for i, g := range f.groups {
		if g.rows < 0 || g.rows > math.MaxInt64-rows {
			return fmt.Errorf("row group %d claims %d rows: the file is corrupt", i, g.rows)
		}
		rows += g.rows
	}
	if rows != f.rows {
		return fmt.Errorf("%d rows in row groups but %d in all: the file is corrupt", rows, f.rows)
	}
	return nil
}

func readElement(t *thrift) element {
	e := element{kind: -1}
	converted, scale := int64(-1), int64(0)
	t.fields(func(id int16, kind byte) bool {
		switch {
		case id == 1 && kind == typeI32:
			e.kind = t.int()
		case id == 2 && kind == typeI32:
			e.width = t.int()
		case id == 3 && kind == typeI32:
			e.repetition = t.int()
		case id == 4 && kind == typeBinary:
			e.name = string(t.binary())
		case id == 5 && kind == typeI32:
			e.children = t.int()
		case id == 6 && kind == typeI32:
			converted = t.int()
		case id == 7 && kind == typeI32:
			scale = t.int()
		case id == 10 && kind == typeStruct:
			e.logical = readLogical(t)
		default:
			return false
		}
		return true
	})
	if e.logical.Kind == None { // an integer, or nothing said in the newer way
		e.logical = convertedTypes[converted]
		e.logical.Scale = int(scale)
	}
	return e
}

// readSchema makes a tree of the elements.
func (f *File) readSchema(elements []element) error {
	if len(elements) == 0 || elements[0].children < 0 {
		return errors.New("a schema without a root")
	}
	s := walker{elements: elements[1:]}
	root := &Node{Column: -1}
	for range elements[0].children {
		child, err := s.walk("", 0, 0, 0)
		if err != nil {
			return err
		}
		root.Children = append(root.Children, child)
	}
	if len(s.elements) > 0 {
		return fmt.Errorf("%d elements of the schema belong to no group", len(s.elements))
	}
	f.schema, f.columns = root, s.columns
	return nil
}

// walker walks through the list of elements.
type walker struct {
	elements []element // not yet visited
	columns  []Column
}

// walk returns the node of the next element, with all nodes below it.
func (s *walker) walk(path string, def, rep, depth int) (*Node, error) {
	if len(s.elements) == 0 {
		return nil, errors.New("a schema that ends early")
	}
	if depth > maxNesting {
		return nil, errors.New("a schema nested too deep")
	}
	e := s.elements[0]
	s.elements = s.elements[1:]
	if path += e.name; len(path) > 1<<12 {
		return nil, errors.New("the path of a column is too long")
	}
	switch e.repetition {
	case 0:
	case 1:
		def++
	case 2:
		def, rep = def+1, rep+1
	default:
		return nil, fmt.Errorf("column %s has repetition %d", path, e.repetition)
	}
	n := &Node{Name: e.name, Repeated: e.repetition == 2, Column: -1}
	if e.kind >= 0 && e.children == 0 {
		c, err := newColumn(e, path)
		if err != nil {
			return nil, err
		}
		c.MaxDef, c.MaxRep = def, rep
		n.Column = len(s.columns)
		s.columns = append(s.columns, c)
		return n, nil
	}
	if e.children < 0 || e.children > int64(len(s.elements)) {
		return nil, fmt.Errorf("%s claims %d children", path, e.children)
	}
	n.Logical = e.logical.Kind
	for range e.children {
		child, err := s.walk(path+".", def, rep, depth+1)
		if err != nil {
			return nil, err
		}
		n.Children = append(n.Children, child)
	}
	return n, nil
}

// newColumn makes the column of an element that is not a group.
func newColumn(e element, path string) (Column, error) {
	if e.kind > int64(FixedLenByteArray) || e.width < 0 || e.width > 1<<20 {
		return Column{}, fmt.Errorf("column %s has type %d of %d bytes", path, e.kind, e.width)
	}
	c := Column{Path: path, Type: Type(e.kind), width: int(e.width)}
	if c.Type == Int96 {
		c.width = 12
	}
	var err error
	if c.Logical, err = e.logical.check(c.Type, c.width); err != nil {
		return c, fmt.Errorf("column %s is %w", path, err)
	}
	return c, nil
}

func (f *File) readGroup(t *thrift) {
	g := group{rows: -1}
	t.fields(func(id int16, kind byte) bool {
		switch {
		case id == 1 && kind == typeList:
			g.chunks = make([]chunkInfo, 0, len(f.columns))
			t.structs(len(f.columns), func() { g.chunks = append(g.chunks, readChunkInfo(t)) })
		case id == 3 && kind == typeI64:
			g.rows = t.int()
		default:
			return false
		}
		return true
	})
	if t.err == nil && len(g.chunks) != len(f.columns) {
		t.fail(fmt.Errorf("row group %d has %d columns where the schema has %d", len(f.groups), len(g.chunks),
			len(f.columns)))
	}
	f.groups = append(f.groups, g)
}

func readChunkInfo(t *thrift) chunkInfo {
	c := chunkInfo{problem: problemNoMetadata}
	elsewhere, encrypted := false, false
	t.fields(func(id int16, kind byte) bool {
		switch {
		case id == 1 && kind == typeBinary:
			elsewhere = len(t.binary()) > 0
		case id == 3 && kind == typeStruct:
			readColumnMetadata(t, &c)
			c.problem = problemNone
		case id == 8 || id == 9:
			encrypted = true
			return false
		default:
			return false
		}
		return true
	})
	switch {
	case encrypted:
		c.problem = problemEncrypted
	case elsewhere:
		c.problem = problemElsewhere
	}
	return c
}

func readColumnMetadata(t *thrift, c *chunkInfo) {
	var data, dictionary int64
	t.fields(func(id int16, kind byte) bool {
		switch {
		case id == 1 && kind == typeI32:
			c.kind = Type(min(max(t.int(), -1), 127))
		case id == 4 && kind == typeI32:
			c.codec = int8(min(max(t.int(), -1), 127))
		case id == 5 && kind == typeI64:
			c.values = t.int()
		case id == 7 && kind == typeI64:
			c.size = t.int()
		case id == 9 && kind == typeI64:
			data = t.int()
		case id == 11 && kind == typeI64:
			dictionary = t.int()
		default:
			return false
		}
		return true
	})
	c.start = data
	if dictionary > 0 && dictionary < data {
		c.start = dictionary
	}
}
