// Package safetensors reads and writes the safetensors container: the length of a header in 8 little-endian bytes, a
// JSON header with the dtype, shape and byte range of every tensor, and the bytes of the tensors, row-major and
// little-endian. docs/decisions/own-safetensors-reader.md says why no module is used.
//
// The package knows nothing of models: names and metadata have the caller's meaning. It reads one tensor at a time, and
// converts between number types only in methods that say so.
package safetensors

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"

	"bitnet1/shared/lm/container"
)

// maxHeader is the format's own limit on the JSON header, in bytes.
const maxHeader = 100_000_000

// DType is the element type of a tensor, as the format spells it.
type DType string

// The element types that this package converts or writes. Tensors of other types can be read as bytes.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U8   DType = "U8"
)

// widths maps each element type that the format knows to its size in bits.
var widths = map[DType]int64{
	F64: 64, I64: 64, "U64": 64, "C64": 64,
	F32: 32, I32: 32, "U32": 32,
	F16: 16, BF16: 16, I16: 16, "U16": 16,
	I8: 8, U8: 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}

// Size is the size of an element in bytes. It is 0 for an unknown type and for a type smaller than a byte.
func (d DType) Size() int64 { return widths[d] / 8 }

// Info describes one tensor of a file.
type Info struct {
	Name  string
	DType DType
	Shape []int // empty for a scalar

	begin, end int64 // in bytes from the start of the data
}

// Len is the number of elements.
func (i Info) Len() int { return int((i.end - i.begin) * 8 / widths[i.DType]) }

// File is an open safetensors file. Its methods may be called from several goroutines.
type File struct {
	name     string
	source   io.ReaderAt
	close    func() error
	data     int64 // where the tensors' bytes begin
	metadata map[string]string
	tensors  map[string]Info
	order    []string // names as their bytes lie in the file
}

// Open opens the file at path and checks its header. The byte ranges of the tensors must tile the rest of the file
// exactly. A truncated or extended file is therefore refused here, before any tensor takes memory.
func Open(path string) (*File, error) {
	f, close, err := container.Open(path, New)
	if err != nil {
		return nil, err
	}
	f.close = close
	return f, nil
}

// New is Open for size bytes of source; name stands for them in errors.
func New(name string, source io.ReaderAt, size int64) (*File, error) {
	f := &File{name: name, source: source, close: func() error { return nil }}
	var prefix [8]byte
	if size < int64(len(prefix)) {
		return nil, f.errorf("is %d bytes long, too short to be a safetensors file", size)
	}
	if _, err := source.ReadAt(prefix[:], 0); err != nil {
		return nil, f.errorf("reading the header's length: %w", err)
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxHeader || int64(n) > size-int64(len(prefix)) {
		return nil, f.errorf("claims a header of %d bytes in a file of %d (truncated, or not safetensors)", n, size)
	}
	header := make([]byte, n)
	if _, err := source.ReadAt(header, int64(len(prefix))); err != nil && n > 0 {
		return nil, f.errorf("reading the header: %w", err)
	}
	f.data = int64(len(prefix)) + int64(n)
	var err error
	if f.metadata, f.tensors, err = parseHeader(header); err != nil {
		return nil, f.errorf("header: %w (damaged, or not safetensors: copy the file again)", err)
	}
	if f.order, err = tile(f.tensors, size-f.data); err != nil {
		return nil, f.errorf("%w", err)
	}
	return f, nil
}

// Close releases the file that Open opened.
func (f *File) Close() error { return f.close() }

// Metadata returns the free-form strings of the header.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// Names lists the tensors in the order their bytes have in the file.
func (f *File) Names() []string { return slices.Clone(f.order) }

// Has reports whether the file holds a tensor with this name.
func (f *File) Has(name string) bool {
	_, ok := f.tensors[name]
	return ok
}

// Tensor describes the named tensor.
func (f *File) Tensor(name string) (Info, error) {
	t, ok := f.tensors[name]
	if !ok {
		return Info{}, f.errorf("has no tensor %q (it holds %d others)", name, len(f.tensors))
	}
	t.Shape = slices.Clone(t.Shape)
	return t, nil
}

// Shape returns the shape of the named tensor.
func (f *File) Shape(name string) ([]int, error) {
	t, err := f.Tensor(name)
	return t.Shape, err
}

// Bytes returns the named tensor as it is stored.
func (f *File) Bytes(name string) ([]byte, error) {
	t, err := f.Tensor(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, t.end-t.begin)
	if _, err := io.ReadFull(f.section(t), b); err != nil {
		return nil, f.errorf("tensor %q: %w", name, err)
	}
	return b, nil
}

func (f *File) section(t Info) io.Reader {
	return io.NewSectionReader(f.source, f.data+t.begin, t.end-t.begin)
}

func (f *File) errorf(format string, a ...any) error {
	return fmt.Errorf("safetensors file %s: "+format, append([]any{f.name}, a...)...)
}
