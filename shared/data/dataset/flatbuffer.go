package dataset

import "encoding/binary"

// flatbuffer reads the tables that describe an Arrow file. A position outside the buffer reads as zero and sets bad, so
// that a caller can read a whole structure and check once.
//
// The tables of a damaged buffer may refer to one another in circles. The vectors of a sound buffer do not overlap, so
// that all vectors together have no more bytes than the buffer. Reading more sets bad and yields empty vectors, which
// ends the reading.
type flatbuffer struct {
	buf  []byte
	bad  bool
	read int // bytes of the vectors read so far
}

// at returns n bytes at pos.
func (f *flatbuffer) at(pos, n int) []byte {
	if pos < 0 || n < 0 || pos > len(f.buf) || n > len(f.buf)-pos {
		f.bad = true
		return make([]byte, min(max(n, 0), 24)) // the largest structure read this way has 24 bytes
	}
	return f.buf[pos : pos+n]
}

func (f *flatbuffer) u16(pos int) int   { return int(binary.LittleEndian.Uint16(f.at(pos, 2))) }
func (f *flatbuffer) i32(pos int) int   { return int(int32(binary.LittleEndian.Uint32(f.at(pos, 4)))) }
func (f *flatbuffer) i64(pos int) int64 { return int64(binary.LittleEndian.Uint64(f.at(pos, 8))) }

// follow returns the position that the unsigned offset at pos points to.
func (f *flatbuffer) follow(pos int) int {
	return pos + int(binary.LittleEndian.Uint32(f.at(pos, 4)))
}

// field returns the position of a table's field, or 0 if the table leaves it at its default.
func (f *flatbuffer) field(table, index int) int {
	vtable := table - f.i32(table)
	slot := 4 + 2*index
	if slot+2 > f.u16(vtable) {
		return 0
	}
	offset := f.u16(vtable + slot)
	if offset == 0 {
		return 0
	}
	return table + offset
}

// table returns the table that a field refers to, or 0.
func (f *flatbuffer) table(table, index int) int {
	pos := f.field(table, index)
	if pos == 0 {
		return 0
	}
	return f.follow(pos)
}

// vector returns the position and the number of the elements of a field's vector. A vector outside the buffer is empty.
func (f *flatbuffer) vector(table, index, elementSize int) (start, n int) {
	pos := f.table(table, index)
	if pos == 0 {
		return 0, 0
	}
	n = f.i32(pos)
	if n < 0 || pos+4 > len(f.buf) || n > (len(f.buf)-pos-4)/elementSize {
		f.bad = true
		return 0, 0
	}
	if f.read += 4 + n*elementSize; f.read > len(f.buf) {
		f.bad = true
		return 0, 0
	}
	return pos + 4, n
}

func (f *flatbuffer) string(table, index int) string {
	start, n := f.vector(table, index, 1)
	return string(f.at(start, n)[:n])
}

// byte is a scalar field of one byte, 0 by default.
func (f *flatbuffer) byte(table, index int) byte {
	if pos := f.field(table, index); pos != 0 {
		return f.at(pos, 1)[0]
	}
	return 0
}

// int32 is a scalar field, 0 by default.
func (f *flatbuffer) int32(table, index int) int {
	if pos := f.field(table, index); pos != 0 {
		return f.i32(pos)
	}
	return 0
}

// int64 is a scalar field, 0 by default.
func (f *flatbuffer) int64(table, index int) int64 {
	if pos := f.field(table, index); pos != 0 {
		return f.i64(pos)
	}
	return 0
}
