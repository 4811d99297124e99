package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/documents"
)

// The process that decodes a file sends frames: a byte for the kind, 32 bits for the length of the data, and the data,
// in which numbers are varints. The reader checks every number, because a hostile file may control the process.
const (
	frameRows  = 'r' // number of rows that the file states, or -1
	framePlace = 'p' // row group, or -1, and next row
	frameBlock = 'b' // documents
	frameOdd   = 'o' // a row that cannot be read: its number, and why
	frameBad   = 'f' // why the file cannot be read to its end
	frameError = 'e' // another error, such as one of the disk
	frameEnd   = 'z' // the file is read; microseconds that filters took
)

const (
	maxReason  = 400      // bytes of why a row is odd
	maxMessage = 64 << 10 // bytes of a reason
	maxFrame   = maxBlock + 16*10*blockDocuments
)

var errFrame = errors.New("the process that decodes the file does not make sense")

// frameWriter writes frames.
type frameWriter struct {
	out    *bufio.Writer
	buffer []byte
}

// write writes a frame and flushes it, because the reader may be waiting for it.
func (w *frameWriter) write(kind byte, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	head := binary.LittleEndian.AppendUint32([]byte{kind}, uint32(size))
	for _, p := range append([][]byte{head}, parts...) {
		if _, err := w.out.Write(p); err != nil {
			return err
		}
	}
	return w.out.Flush()
}

// numbers writes a frame of numbers.
func (w *frameWriter) numbers(kind byte, numbers ...int64) error {
	w.buffer = appendNumbers(w.buffer[:0], numbers...)
	return w.write(kind, w.buffer)
}

func (w *frameWriter) message(kind byte, text string) error {
	return w.write(kind, []byte(text[:min(len(text), maxMessage)]))
}

// odd writes a frame for an odd row.
func (w *frameWriter) odd(row int64, why string) error {
	w.buffer = appendNumbers(w.buffer[:0], row)
	return w.write(frameOdd, w.buffer, []byte(why[:min(len(why), maxReason)]))
}

// block writes a block without its tokens: the counts, then numbers and id of each document, then all texts.
func (w *frameWriter) block(b *block) error {
	n := b.count
	data := appendNumbers(w.buffer[:0], n.Rows, n.Documents, n.Bytes, n.Nulls, n.Filtered, n.Odd, n.InvalidUTF8, b.next,
		int64(len(b.documents)))
	for _, d := range b.documents {
		data = appendNumbers(data, int64(len(d.ID)), d.Row, d.Bytes, d.counted)
		data = append(data, d.ID...)
	}
	w.buffer = data[:0]
	return w.write(frameBlock, data, b.text)
}

func appendNumbers(dst []byte, numbers ...int64) []byte {
	for _, n := range numbers {
		dst = binary.AppendVarint(dst, n)
	}
	return dst
}

// readFrame reads the next frame.
func readFrame(in io.Reader) (kind byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.LittleEndian.Uint32(head[1:])
	if limit := map[bool]uint32{true: maxFrame, false: maxMessage}[head[0] == frameBlock]; size > limit {
		return 0, nil, fmt.Errorf("%w: %d bytes where %d are the limit", errFrame, size, limit)
	}
	data, err = readBytes(in, int(size))
	return head[0], data, err
}

// readBytes reads size bytes. It allocates more than a usual block needs only as the bytes come.
func readBytes(in io.Reader, size int) ([]byte, error) {
	data := make([]byte, min(size, 2*blockBytes))
	for read := 0; ; {
		n, err := io.ReadFull(in, data[read:])
		if read += n; err != nil || read == size {
			return data[:read], err
		}
		data = slices.Grow(data, min(size-read, read))[:read+min(size-read, read)]
	}
}

// fields parses the data of a frame. After a mistake it sets bad and returns zero values.
type fields struct {
	data []byte
	bad  bool
}

func (f *fields) number() int64 {
	n, size := binary.Varint(f.data)
	if size <= 0 || f.bad {
		f.bad = true
		return 0
	}
	f.data = f.data[size:]
	return n
}

// count is a number that is not negative.
func (f *fields) count() int64 {
	n := f.number()
	f.bad = f.bad || n < 0
	return n
}

func (f *fields) bytes(n int64) []byte {
	if f.bad || n < 0 || n > int64(len(f.data)) {
		f.bad = true
		return nil
	}
	b := f.data[:n]
	f.data = f.data[n:]
	return b
}

// readBlock parses a block. Its text shares memory with data. readBlock refuses rows that do not ascend from first on,
// and counts that do not add up.
func readBlock(data []byte, source string, first int64) (*block, error) {
	f := &fields{data: data}
	b := &block{count: documents.Count{
		Rows: f.count(), Documents: f.count(), Bytes: f.count(), Nulls: f.count(), Filtered: f.count(),
		Odd: f.count(), InvalidUTF8: f.count(),
	}, next: f.count()}
	n := f.count()
	if n > blockDocuments || n > int64(len(f.data)) || f.bad {
		return nil, errFrame
	}
	b.documents = make([]entry, n)
	var size int64
	for i := range b.documents {
		length := f.count()
		d := dataset.BatchDocument{Source: source, Row: f.count(), Bytes: f.count()}
		counted := f.number()
		d.ID = string(f.bytes(length))
		if f.bad || d.Row < first || d.Bytes > maxDocument || !utf8.ValidString(d.ID) {
			return nil, errFrame
		}
		first = d.Row + 1
		size += d.Bytes
		b.documents[i] = entry{BatchDocument: d, counted: counted, textEnd: int(size)}
	}
	b.text = f.bytes(size)
	c := b.count
	if f.bad || len(f.data) > 0 || b.next < first || c.Documents != n || c.Bytes != size || c.InvalidUTF8 > n ||
		c.Nulls > c.Rows || c.Filtered > c.Rows || c.Odd > c.Rows || c.Rows != n+c.Nulls+c.Filtered+c.Odd {
		return nil, errFrame
	}
	return b, nil
}
