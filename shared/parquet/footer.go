package parquet

import (
	"errors"
	"fmt"
	"math"
)

// chunkInfo says where the values of a column in a row group are.
type chunkInfo struct {
	start, size int64 // in bytes
	values      int64 // nulls included
	codec       int8
	kind        Type
	problem     problem
}

// problem is why a chunk cannot be read. It is reported when somebody wants the column.
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

// element is a node of the schema, which is kept as a list in depth-first order.
type element struct {
	name       string
	kind       int64 // physical type, -1 for a group
	width      int64
	repetition int64 // 0 required, 1 optional, 2 repeated
	children   int64
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
			if len(f.columns) == 0 {
				t.fail(errors.New("row groups before a schema with columns"))
				return true
			}
			grouped = true
			t.structs(maxChunks/len(f.columns), func() { f.readGroup(t) })
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
	case len(f.columns) == 0:
		return errors.New("a schema without columns: the file is corrupt")
	case f.rows < 0 || !grouped:
		return errors.New("no number of rows, or no row groups: the file is corrupt")
	}
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
		default:
			return false
		}
		return true
	})
	return e
}

// readSchema finds the leaves.
func (f *File) readSchema(elements []element) error {
	if len(elements) == 0 || elements[0].children < 1 {
		return errors.New("a schema without columns")
	}
	s := walker{elements: elements[1:]}
	for range elements[0].children {
		if err := s.walk("", 0, 0, 0); err != nil {
			return err
		}
	}
	if len(s.elements) > 0 {
		return fmt.Errorf("%d elements of the schema belong to no group", len(s.elements))
	}
	f.columns = s.columns
	return nil
}

// walker walks the list of elements.
type walker struct {
	elements []element // not yet visited
	columns  []Column
}

// walk takes an element and all below it.
func (s *walker) walk(path string, def, rep, depth int) error {
	if len(s.elements) == 0 {
		return errors.New("a schema that ends early")
	}
	if depth > maxNesting {
		return errors.New("a schema nested too deep")
	}
	e := s.elements[0]
	s.elements = s.elements[1:]
	if path += e.name; len(path) > 1<<12 {
		return errors.New("the path of a column is too long")
	}
	switch e.repetition {
	case 0:
	case 1:
		def++
	case 2:
		def, rep = def+1, rep+1
	default:
		return fmt.Errorf("column %s has repetition %d", path, e.repetition)
	}
	if e.kind >= 0 && e.children == 0 {
		if e.kind > int64(FixedLenByteArray) || e.width < 0 || e.width > 1<<20 {
			return fmt.Errorf("column %s has type %d of %d bytes", path, e.kind, e.width)
		}
		s.columns = append(s.columns, Column{Path: path, Type: Type(e.kind), MaxDef: def, MaxRep: rep, width: int(e.width)})
		return nil
	}
	if e.children < 0 || e.children > int64(len(s.elements)) {
		return fmt.Errorf("%s claims %d children", path, e.children)
	}
	for range e.children {
		if err := s.walk(path+".", def, rep, depth+1); err != nil {
			return err
		}
	}
	return nil
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
		t.fail(fmt.Errorf("row group %d has %d columns where the schema has %d", len(f.groups), len(g.chunks), len(f.columns)))
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
