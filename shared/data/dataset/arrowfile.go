package dataset

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arrowFile is an uncompressed Arrow IPC file that is mapped into memory. The values of a record batch are slices of
// the mapping. Only the types of token batches and shards are understood: docs/decisions/own-arrow-reader.md.
//
// Format: "ARROW1", padding, messages, footer, length of the footer, "ARROW1". The footer and the headers of messages
// are flatbuffers. See the Arrow columnar format, section on the IPC file format.
type arrowFile struct {
	data     []byte // the mapping
	columns  string // the schema, as describe writes it
	metadata map[string]string
	blocks   []arrowBlock
	fields   fieldCounts
}

// arrowBlock is where a record batch lies.
type arrowBlock struct{ offset, header, body int64 }

// fieldCounts is the number of nodes and of buffers of a record batch, as the schema implies them.
type fieldCounts struct{ nodes, buffers int }

// recordBatch is the content of a record batch: the length and the buffers of every field. The fields are in the order
// of the schema, parents before children.
type recordBatch struct {
	rows    int
	lengths []int
	buffers [][]byte
}

const arrowMagic = "ARROW1"

// maxNesting limits the nesting of a schema's fields. Our fields nest three deep.
const maxNesting = 8

// ErrCorrupt is wrapped by the errors of files whose bytes contradict one another.
var ErrCorrupt = errors.New("the file is corrupt or truncated")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// openArrow maps a file and reads its footer.
func openArrow(path string) (*arrowFile, error) {
	data, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	a, err := parseArrow(data)
	if err != nil {
		_ = unix.Munmap(data)
		return nil, err
	}
	return a, nil
}

func mapFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return nil, corrupt("it is empty or not a regular file")
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping it into memory: %w", err)
	}
	return data, nil
}

// close unmaps the file. What was read from it is no longer valid.
func (a *arrowFile) close() error {
	data := a.data
	a.data, a.blocks = nil, nil
	if data == nil {
		return nil
	}
	return unix.Munmap(data)
}

func parseArrow(data []byte) (*arrowFile, error) {
	const tail = 4 + len(arrowMagic)
	n := len(data)
	if n < 8+tail || string(data[:len(arrowMagic)]) != arrowMagic || string(data[n-len(arrowMagic):]) != arrowMagic {
		return nil, corrupt("it does not begin and end with %s", arrowMagic)
	}
	length := flatbuffer{buf: data}
	size := length.i32(n - tail)
	if size <= 0 || size > n-tail-8 {
		return nil, corrupt("a footer of %d bytes in a file of %d", size, n)
	}
	f := &flatbuffer{buf: data[n-tail-size : n-tail]}
	footer := f.follow(0)
	a := &arrowFile{data: data, metadata: map[string]string{}}
	a.readSchema(f, f.table(footer, 1))
	if _, dictionaries := f.vector(footer, 2, 24); dictionaries > 0 {
		return nil, corrupt("it has dictionaries")
	}
	start, blocks := f.vector(footer, 3, 24)
	last := int64(8)
	for i := range blocks {
		pos := start + 24*i
		b := arrowBlock{offset: f.i64(pos), header: int64(f.i32(pos + 8)), body: f.i64(pos + 16)}
		end := int64(n - tail - size)
		if b.offset < 8 || b.header < 8 || b.body < 0 || b.offset > end || b.header > end-b.offset ||
			b.body > end-b.offset-b.header {
			return nil, corrupt("record batch %d lies outside the file", i)
		}
		if b.offset < last { // batches that overlap could take much longer to read than the file
			return nil, corrupt("record batch %d lies in the one before it", i)
		}
		last = b.offset + b.header + b.body
		a.blocks = append(a.blocks, b)
	}
	if f.bad {
		return nil, corrupt("its footer points outside itself")
	}
	return a, nil
}

func (a *arrowFile) readSchema(f *flatbuffer, schema int) {
	var list []string
	start, n := f.vector(schema, 1, 4)
	for i := range n {
		list = append(list, a.describe(f, f.follow(start+4*i), 0))
	}
	a.columns = strings.Join(list, ", ")
	start, n = f.vector(schema, 2, 4)
	for i := range n {
		pair := f.follow(start + 4*i)
		a.metadata[f.string(pair, 0)] = f.string(pair, 1)
	}
}

// describe writes the name and type of a field, and adds its nodes and buffers to a.fields.
func (a *arrowFile) describe(f *flatbuffer, field, depth int) string {
	if depth > maxNesting || f.bad {
		f.bad = true
		return "?"
	}
	a.fields.nodes++
	var children []string
	start, n := f.vector(field, 5, 4)
	typ := f.table(field, 3)
	description := "?"
	switch f.byte(field, 2) {
	case 2:
		a.fields.buffers += 2
		description = fmt.Sprintf("int%d", f.int32(typ, 0))
		if f.byte(typ, 1) == 0 {
			description = "u" + description
		}
	case 5:
		a.fields.buffers += 3
		description = "utf8"
	case 12:
		a.fields.buffers += 2
		description = "list"
	case 13:
		a.fields.buffers++
		description = "struct"
	case 16:
		a.fields.buffers++
		description = fmt.Sprintf("fixed_size_list[%d]", f.int32(typ, 0))
	}
	for i := range n {
		children = append(children, a.describe(f, f.follow(start+4*i), depth+1))
	}
	if len(children) > 0 {
		description += "<" + strings.Join(children, ", ") + ">"
	}
	return f.string(field, 0) + ": " + description
}

// batch reads the header of record batch i and finds its buffers.
func (a *arrowFile) batch(i int) (recordBatch, error) {
	var r recordBatch
	block := a.blocks[i]
	message := a.data[block.offset : block.offset+block.header]
	body := a.data[block.offset+block.header:][:block.body]
	f := &flatbuffer{buf: message}
	if f.i32(0) != -1 {
		return r, corrupt("record batch %d has no message header", i)
	}
	f.buf = message[8:]
	table := f.follow(0)
	if f.byte(table, 1) != 3 {
		return r, corrupt("message %d is not a record batch", i)
	}
	header := f.table(table, 2)
	if f.field(header, 3) != 0 {
		return r, fmt.Errorf("record batch %d is compressed: write it uncompressed", i)
	}
	nodes, n := f.vector(header, 1, 16)
	buffers, m := f.vector(header, 2, 16)
	rows := f.int64(header, 0)
	if f.bad || n != a.fields.nodes || m != a.fields.buffers || rows < 0 || rows > int64(len(a.data)) {
		return r, corrupt("the header of record batch %d does not fit the schema", i)
	}
	r.rows = int(rows)
	for k := range n {
		length, nulls := f.i64(nodes+16*k), f.i64(nodes+16*k+8)
		if length < 0 || length > int64(len(a.data)) || nulls != 0 {
			return r, corrupt("field %d of record batch %d has %d values and %d nulls", k, i, length, nulls)
		}
		r.lengths = append(r.lengths, int(length))
	}
	for k := range m {
		start, size := f.i64(buffers+16*k), f.i64(buffers+16*k+8)
		if start < 0 || size < 0 || start > int64(len(body)) || size > int64(len(body))-start {
			return r, corrupt("buffer %d of record batch %d lies outside it", k, i)
		}
		r.buffers = append(r.buffers, body[start:start+size])
	}
	return r, nil
}

// columnReader reads the fields of a record batch in the order of the schema. After the first error, which err keeps,
// fields are empty.
type columnReader struct {
	batch        recordBatch
	node, buffer int
	err          error
}

// next begins a field. It must have n values and the given number of buffers.
func (c *columnReader) next(n, buffers int) [][]byte {
	got := c.batch.lengths[c.node]
	b := c.batch.buffers[c.buffer : c.buffer+buffers]
	c.node++
	c.buffer += buffers
	if got != n && c.err == nil {
		c.err = corrupt("field %d has %d values instead of %d", c.node-1, got, n)
	}
	return b
}

// nested begins a structure or a list of fixed size. Its children are read next.
func (c *columnReader) nested(n int) { c.next(n, 1) }

// list reads the offsets of n lists and returns the number of elements of the child, which is read next.
func (c *columnReader) list(n int) (offsets []int32, elements int) {
	b := c.next(n, 2)
	return c.offsets(b[1], n), c.batch.lengths[c.node]
}

// text reads n strings. String i is data[offsets[i]:offsets[i+1]].
func (c *columnReader) text(n int) (offsets []int32, data []byte) {
	b := c.next(n, 3)
	return c.offsets(b[1], n), b[2]
}

// tokens reads n token ids.
func (c *columnReader) tokens(n int, wide bool) Tokens {
	if wide {
		return Tokens{U32: numbers[uint32](c, n)}
	}
	return Tokens{U16: numbers[uint16](c, n)}
}

// offsets returns the n+1 offsets of n lists or strings. They are not checked; span checks the two that it uses.
func (c *columnReader) offsets(buf []byte, n int) []int32 {
	if n == 0 {
		return []int32{0}
	}
	v, err := view[int32](buf, n+1)
	if err != nil && c.err == nil {
		c.err = err
	}
	return v
}

// numbers reads n numbers.
func numbers[T uint16 | int32 | uint32 | int64](c *columnReader, n int) []T {
	b := c.next(n, 2)
	v, err := view[T](b[1], n)
	if err != nil && c.err == nil {
		c.err = err
	}
	return v
}

// view reinterprets a little-endian buffer as n numbers, without a copy.
func view[T uint16 | int32 | uint32 | int64](buf []byte, n int) ([]T, error) {
	var zero T
	if n == 0 {
		return nil, nil
	}
	if n < 0 || n > len(buf)/int(unsafe.Sizeof(zero)) {
		return nil, corrupt("a buffer of %d bytes for %d values", len(buf), n)
	}
	if uintptr(unsafe.Pointer(&buf[0]))%unsafe.Sizeof(zero) != 0 {
		return nil, corrupt("a buffer is not aligned")
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&buf[0])), n), nil
}

// span returns the elements from offsets[i] to offsets[i+1] of n.
func span(offsets []int32, i, n int) (start, end int, err error) {
	start, end = int(offsets[i]), int(offsets[i+1])
	if start < 0 || start > end || end > n {
		return 0, 0, corrupt("entry %d spans %d to %d of %d", i, start, end, n)
	}
	return start, end, nil
}
