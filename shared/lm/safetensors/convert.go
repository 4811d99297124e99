package safetensors

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"bitnet1/kernels/number/bfloat16"
	"bitnet1/kernels/number/float16"
)

// chunk is the number of bytes that are converted at a time.
const chunk = 1 << 18

// Float32 returns the named tensor, which must be F64, F32, F16 or BF16, as float32. F64 is rounded to nearest.
func (f *File) Float32(name string) ([]float32, error) { return f.Float32In(nil, name) }

// Float32In is Float32 in the memory of buffer, if that is large enough.
func (f *File) Float32In(buffer []float32, name string) ([]float32, error) {
	return convert(f, buffer, name, "a float type", float32Decoder)
}

// Float32s reads n elements of a float type, little-endian, as float32, into buffer if that is large enough. F64 is
// rounded to nearest.
func Float32s(buffer []float32, source io.Reader, dtype DType, n int) ([]float32, error) {
	decode := float32Decoder(dtype)
	if decode == nil {
		return nil, fmt.Errorf("is %s, want a float type", dtype)
	}
	return elements(buffer, source, dtype, n, decode)
}

func float32Decoder(dtype DType) func([]byte) float32 {
	switch dtype {
	case F64:
		return func(b []byte) float32 { return float32(math.Float64frombits(binary.LittleEndian.Uint64(b))) }
	case F32:
		return func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }
	case F16:
		return func(b []byte) float32 { return float16.ToFloat32(binary.LittleEndian.Uint16(b)) }
	case BF16:
		return func(b []byte) float32 { return bfloat16.ToFloat32(binary.LittleEndian.Uint16(b)) }
	}
	return nil
}

// Float64 returns the named tensor, which must be F64, F32, F16 or BF16, as float64; nothing is rounded.
func (f *File) Float64(name string) ([]float64, error) {
	return convert(f, nil, name, "a float type", func(dtype DType) func([]byte) float64 {
		switch dtype {
		case F64:
			return func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }
		case F32:
			return func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))) }
		case F16:
			return func(b []byte) float64 { return float64(float16.ToFloat32(binary.LittleEndian.Uint16(b))) }
		case BF16:
			return func(b []byte) float64 {
				return float64(bfloat16.ToFloat32(binary.LittleEndian.Uint16(b)))
			}
		}
		return nil
	})
}

// Int64 returns the named tensor, which must be I64, I32, I16, I8 or U8, as int64.
func (f *File) Int64(name string) ([]int64, error) {
	return convert(f, nil, name, "an integer type", func(dtype DType) func([]byte) int64 {
		switch dtype {
		case I64:
			return func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }
		case I32:
			return func(b []byte) int64 { return int64(int32(binary.LittleEndian.Uint32(b))) }
		case I16:
			return func(b []byte) int64 { return int64(int16(binary.LittleEndian.Uint16(b))) }
		case I8:
			return func(b []byte) int64 { return int64(int8(b[0])) }
		case U8:
			return func(b []byte) int64 { return int64(b[0]) }
		}
		return nil
	})
}

// convert reads a tensor. decoder returns the function that reads an element of a type, or nil for a type that cannot
// be converted.
func convert[N any](f *File, buffer []N, name, want string, decoder func(DType) func([]byte) N) ([]N, error) {
	t, err := f.Tensor(name)
	if err != nil {
		return nil, err
	}
	decode := decoder(t.DType)
	if decode == nil {
		return nil, f.errorf("tensor %q is %s, want %s", name, t.DType, want)
	}
	out, err := elements(buffer, f.section(t), t.DType, t.Len(), decode)
	if err != nil {
		return nil, f.errorf("tensor %q: %w", name, err)
	}
	return out, nil
}

// elements reads n elements in chunks, into out if that is large enough.
func elements[N any](out []N, source io.Reader, dtype DType, n int, decode func([]byte) N) ([]N, error) {
	if out == nil || cap(out) < n {
		out = make([]N, n)
	}
	out = out[:n]
	width := int(dtype.Size())
	bytes := make([]byte, min(chunk, n*width))
	for rest := out; len(rest) > 0; {
		n := min(len(rest), len(bytes)/width)
		if _, err := io.ReadFull(source, bytes[:n*width]); err != nil {
			return nil, fmt.Errorf("%w (did the file shrink?)", err)
		}
		for i := range rest[:n] {
			rest[i] = decode(bytes[i*width : (i+1)*width])
		}
		rest = rest[n:]
	}
	return out, nil
}

// Read returns the named tensor in the form that Write takes. Write must know its dtype.
func (f *File) Read(name string) (Tensor, error) {
	t, err := f.Tensor(name)
	if err != nil {
		return Tensor{}, err
	}
	out := Tensor{Name: name, Shape: t.Shape}
	switch t.DType {
	case F64:
		out.Data, err = f.Float64(name)
	case F32:
		out.Data, err = f.Float32(name)
	case I64:
		out.Data, err = f.Int64(name)
	case I32:
		out.Data, err = convert(f, nil, name, "", func(DType) func([]byte) int32 {
			return func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) }
		})
	case I16:
		out.Data, err = convert(f, nil, name, "", func(DType) func([]byte) int16 {
			return func(b []byte) int16 { return int16(binary.LittleEndian.Uint16(b)) }
		})
	case I8:
		out.Data, err = convert(f, nil, name, "", func(DType) func([]byte) int8 {
			return func(b []byte) int8 { return int8(b[0]) }
		})
	case U8:
		out.Data, err = f.Bytes(name)
	default:
		err = f.errorf("tensor %q is %s, which Read has no Go type for", name, t.DType)
	}
	return out, err
}
