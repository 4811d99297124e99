package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The wire types of Thrift's compact protocol.
const (
	typeTrue   = 1
	typeFalse  = 2
	typeByte   = 3
	typeI16    = 4
	typeI32    = 5
	typeI64    = 6
	typeDouble = 7
	typeBinary = 8
	typeList   = 9
	typeSet    = 10
	typeMap    = 11
	typeStruct = 12
	typeUUID   = 13
)

// maxDepth bounds nesting: parquet's own structures are five deep.
const maxDepth = 16

var errShort = errors.New("a Thrift structure ends early")

// thrift reads structures of the compact protocol. The first mistake is kept in err, and everything after it reads as
// nothing, so that callers check once. Work and memory are bounded by the bytes given.
type thrift struct {
	data  []byte
	at    int
	depth int
	err   error
}

func (t *thrift) fail(err error) {
	if t.err == nil {
		t.err = err
	}
	t.at = len(t.data)
}

func (t *thrift) byte() byte {
	if t.at >= len(t.data) {
		t.fail(errShort)
		return 0
	}
	t.at++
	return t.data[t.at-1]
}

func (t *thrift) varint() uint64 {
	v, n := binary.Uvarint(t.data[t.at:])
	if n <= 0 {
		t.fail(errShort)
		return 0
	}
	t.at += n
	return v
}

// int reads an integer of 16, 32 or 64 bits.
func (t *thrift) int() int64 {
	v := t.varint()
	return int64(v>>1) ^ -int64(v&1)
}

// binary reads bytes, which are those of the structure and not a copy.
func (t *thrift) binary() []byte {
	n := t.varint()
	if n > uint64(len(t.data)-t.at) {
		t.fail(errShort)
		return nil
	}
	t.at += int(n)
	return t.data[t.at-int(n) : t.at]
}

// list reads the head of a list. Every element takes a byte at least, so a length beyond the data is an error.
func (t *thrift) list() (element byte, n int) {
	head := t.byte()
	length := uint64(head >> 4)
	if length == 15 {
		length = t.varint()
	}
	if length > uint64(len(t.data)-t.at) {
		t.fail(errShort)
		return 0, 0
	}
	return head & 15, int(length)
}

// structs reads a list of structures.
func (t *thrift) structs(limit int, element func()) {
	kind, n := t.list()
	if n > 0 && kind != typeStruct {
		t.fail(fmt.Errorf("a list of Thrift type %d instead of structures", kind))
	}
	if n > limit {
		t.fail(fmt.Errorf("a list of %d structures, more than the limit of %d", n, limit))
	}
	for i := 0; i < n && t.err == nil; i++ {
		element()
	}
}

// fields reads a structure. field is called for every field and reads its value, or returns false to pass it over.
func (t *thrift) fields(field func(id int16, kind byte) bool) {
	if t.depth++; t.depth > maxDepth {
		t.fail(errors.New("Thrift structures nested too deep"))
		return
	}
	defer func() { t.depth-- }()
	var id int16
	for t.err == nil {
		head := t.byte()
		if head == 0 {
			return
		}
		if delta := head >> 4; delta > 0 {
			id += int16(delta)
		} else {
			id = int16(t.int())
		}
		if !field(id, head&15) {
			t.skip(head & 15)
		}
	}
}

// skip passes over a value.
func (t *thrift) skip(kind byte) {
	switch kind {
	case typeTrue, typeFalse: // the value is in the field's head
	case typeByte:
		t.byte()
	case typeI16, typeI32, typeI64:
		t.varint()
	case typeDouble:
		t.skipBytes(8)
	case typeUUID:
		t.skipBytes(16)
	case typeBinary:
		t.binary()
	case typeList, typeSet:
		t.skipList()
	case typeMap:
		t.skipMap()
	case typeStruct:
		t.fields(func(int16, byte) bool { return false })
	default:
		t.fail(fmt.Errorf("Thrift type %d is unknown", kind))
	}
}

func (t *thrift) skipBytes(n int) {
	if n > len(t.data)-t.at {
		t.fail(errShort)
		return
	}
	t.at += n
}

func (t *thrift) skipList() {
	kind, n := t.list()
	t.nested(func() {
		for i := 0; i < n && t.err == nil; i++ {
			t.skipElement(kind)
		}
	})
}

func (t *thrift) skipMap() {
	n := t.varint()
	if n == 0 {
		return
	}
	if n > uint64(len(t.data)-t.at) {
		t.fail(errShort)
		return
	}
	kinds := t.byte()
	t.nested(func() {
		for i := uint64(0); i < n && t.err == nil; i++ {
			t.skipElement(kinds >> 4)
			t.skipElement(kinds & 15)
		}
	})
}

// skipElement is skip for the element of a collection, where a truth value takes a byte of its own.
func (t *thrift) skipElement(kind byte) {
	if kind == typeTrue || kind == typeFalse {
		kind = typeByte
	}
	t.skip(kind)
}

func (t *thrift) nested(f func()) {
	if t.depth++; t.depth > maxDepth {
		t.fail(errors.New("Thrift structures nested too deep"))
		return
	}
	f()
	t.depth--
}
