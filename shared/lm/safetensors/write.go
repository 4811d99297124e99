package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
	"unsafe"
)

// Tensor is a tensor to write. The Go type of Data gives the dtype: []float64, []float32, []int64, []int32, []int16,
// []int8 or []uint8 (F64, F32, I64, I32, I16, I8, U8), or Float32Source.
type Tensor struct {
	Name  string
	Shape []int // its product is the length of Data; empty for a scalar
	Data  any
}

// Float32Source is data that is read in parts while it is written.
type Float32Source struct {
	Len  int
	Read func(dst []float32, from int) error // reads len(dst) values, beginning with value from
}

func (f Float32Source) write(w io.Writer) error {
	values := make([]float32, min(f.Len, chunk/4))
	for from := 0; from < f.Len; from += len(values) {
		values = values[:min(len(values), f.Len-from)]
		if err := f.Read(values, from); err != nil {
			return err
		}
		if err := writer(values)(w); err != nil {
			return err
		}
	}
	return nil
}

// Write writes the tensors and metadata to w. The bytes depend on the contents alone: tensors are sorted by decreasing
// element size, then by name. Each tensor is therefore aligned to its element size.
func Write(w io.Writer, metadata map[string]string, tensors []Tensor) error {
	list, err := layout(tensors)
	if err != nil {
		return fmt.Errorf("writing safetensors: %w", err)
	}
	header, err := formatHeader(metadata, list)
	if err != nil {
		return fmt.Errorf("writing safetensors header: %w", err)
	}
	var prefix [8]byte
	binary.LittleEndian.PutUint64(prefix[:], uint64(len(header)))
	if _, err := w.Write(append(prefix[:], header...)); err != nil {
		return fmt.Errorf("writing safetensors header: %w", err)
	}
	for _, t := range list {
		if err := t.write(w); err != nil {
			return fmt.Errorf("writing tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// placed is a tensor with a byte range.
type placed struct {
	Info
	write func(io.Writer) error
}

// layout checks the tensors and gives each its byte range.
func layout(tensors []Tensor) ([]placed, error) {
	list := make([]placed, len(tensors))
	seen := map[string]bool{metadataKey: true}
	for i, t := range tensors {
		if seen[t.Name] || !utf8.ValidString(t.Name) {
			return nil, fmt.Errorf("tensor name %q is taken, reserved or not UTF-8", t.Name)
		}
		seen[t.Name] = true
		p, err := place(t)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		list[i] = p
	}
	slices.SortFunc(list, func(a, b placed) int {
		return cmp.Or(-cmp.Compare(widths[a.DType], widths[b.DType]), cmp.Compare(a.Name, b.Name))
	})
	at := int64(0)
	for i := range list {
		size := list[i].end
		list[i].begin, list[i].end = at, at+size
		at += size
	}
	return list, nil
}

// place describes one tensor with begin 0.
func place(t Tensor) (placed, error) {
	p := placed{Info: Info{Name: t.Name, Shape: t.Shape}}
	var n int
	switch data := t.Data.(type) {
	case []float64:
		p.DType, n, p.write = F64, len(data), writer(data)
	case []float32:
		p.DType, n, p.write = F32, len(data), writer(data)
	case Float32Source:
		p.DType, n, p.write = F32, data.Len, data.write
	case []int64:
		p.DType, n, p.write = I64, len(data), writer(data)
	case []int32:
		p.DType, n, p.write = I32, len(data), writer(data)
	case []int16:
		p.DType, n, p.write = I16, len(data), writer(data)
	case []int8:
		p.DType, n, p.write = I8, len(data), writer(data)
	case []uint8:
		p.DType, n, p.write = U8, len(data), writer(data)
	default:
		return p, fmt.Errorf("cannot write data of type %T", t.Data)
	}
	size, err := byteSize(p.DType, t.Shape)
	if err != nil {
		return p, err
	}
	if size != int64(n)*p.DType.Size() {
		return p, fmt.Errorf("shape %v does not hold %d elements", t.Shape, n)
	}
	p.end = size
	return p, nil
}

type number interface {
	float64 | float32 | int64 | int32 | int16 | int8 | uint8
}

// writer returns a function that writes data as little-endian bytes, in chunks.
func writer[N number](data []N) func(io.Writer) error {
	return func(w io.Writer) error {
		var buffer []byte
		for part := range slices.Chunk(data, chunk/8) {
			var err error
			if buffer, err = littleEndian(buffer, part); err != nil {
				return err
			}
			if _, err := w.Write(buffer); err != nil {
				return err
			}
		}
		return nil
	}
}

// hostIsLittleEndian says whether numbers lie in memory as they do in files.
var hostIsLittleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// littleEndian returns the little-endian bytes of data. On a little-endian machine they are the memory of data,
// otherwise the memory of buffer.
func littleEndian[N number](buffer []byte, data []N) ([]byte, error) {
	if !hostIsLittleEndian {
		return binary.Append(buffer[:0], binary.LittleEndian, data)
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(data))), len(data)*int(unsafe.Sizeof(*new(N)))), nil
}

// formatHeader is the JSON header, metadata first, padded with spaces so that the data begins at a multiple of 8.
func formatHeader(metadata map[string]string, list []placed) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	entry := func(key string, value any) error {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(key)
		if err != nil {
			return err
		}
		v, err := json.Marshal(value)
		b.Write(append(append(k, ':'), v...))
		return err
	}
	for k, v := range metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, fmt.Errorf("metadata %q is not UTF-8", k)
		}
	}
	if len(metadata) > 0 {
		if err := entry(metadataKey, metadata); err != nil {
			return nil, err
		}
	}
	for _, t := range list {
		value := struct {
			DType   DType    `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{t.DType, append([]int{}, t.Shape...), [2]int64{t.begin, t.end}}
		if err := entry(t.Name, value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	b.Write(bytes.Repeat([]byte{' '}, -b.Len()&7))
	if b.Len() > maxHeader {
		return nil, errors.New("exceeds 100 MB: use fewer tensors or less metadata")
	}
	return b.Bytes(), nil
}
