package bit2

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"

	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/container"
	"bitnet1/shared/lm/model"

	"github.com/zeebo/blake3"
)

// File is an open packed model. It holds one parameter at a time in memory.
type File struct {
	Config model.Config
	checkpoint.Provenance

	name  string
	list  []entry
	data  io.ReaderAt
	close func() error
}

// Open opens the packed model at path. A damaged, truncated or inconsistent file is refused.
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
	f := &File{name: name, close: func() error { return nil }}
	if err := f.open(source, size); err != nil {
		return nil, f.error(err)
	}
	return f, nil
}

// Close releases the file that Open opened.
func (f *File) Close() error { return f.close() }

func (f *File) error(err error) error { return fmt.Errorf("reading packed model %s: %w", f.name, err) }

func (f *File) open(source io.ReaderAt, size int64) error {
	headerSize, err := checkPrefix(source, size)
	if err != nil {
		return err
	}
	if err := checkDigest(source, size); err != nil {
		return err
	}
	text := make([]byte, headerSize)
	if _, err := source.ReadAt(text, prefixSize); err != nil {
		return err
	}
	dataSize := size - prefixSize - headerSize - digestSize
	if err := f.parseHeader(text, dataSize); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	f.data = io.NewSectionReader(source, prefixSize+headerSize, dataSize)
	return nil
}

// Parameters reads the parameters in the order of Config.Parameters: weights as -1 and +1, all others as in the
// checkpoint. The data of a parameter is valid until the next one. An error ends the sequence.
func (f *File) Parameters() iter.Seq2[model.Parameter, error] {
	return func(yield func(model.Parameter, error) bool) {
		var stored []byte
		var data []float32
		for _, e := range f.list {
			stored = grow(stored, int(padded(e.size())))
			p := model.Parameter{Name: e.Name, Shape: e.Shape}
			_, err := f.data.ReadAt(stored, e.Offset)
			if err == nil || err == io.EOF { // io.EOF at the end of the last tensor
				data = grow(data, p.Size())
				err = e.decode(data, stored)
			}
			if err != nil {
				yield(p, f.error(fmt.Errorf("tensor %q: %w", e.Name, err)))
				return
			}
			p.Data = data
			if !yield(p, nil) {
				return
			}
		}
	}
}

// grow returns n values of any content. It uses the memory of a if a is large enough.
func grow[T any](a []T, n int) []T {
	if cap(a) < n {
		return make([]T, n)
	}
	return a[:n]
}

// checkPrefix checks the first bytes and returns the length of the header.
func checkPrefix(source io.ReaderAt, size int64) (int64, error) {
	var prefix [prefixSize]byte
	if size < prefixSize+digestSize {
		return 0, fmt.Errorf("%d bytes are too few for a packed model", size)
	}
	if _, err := source.ReadAt(prefix[:], 0); err != nil {
		return 0, err
	}
	if string(prefix[:4]) != magic {
		return 0, fmt.Errorf("begins with %q, not with %q: not a packed model", prefix[:4], magic)
	}
	if v := binary.LittleEndian.Uint32(prefix[4:]); v != version {
		return 0, fmt.Errorf("has version %d, this program reads %d", v, version)
	}
	n := binary.LittleEndian.Uint64(prefix[8:])
	if n > maxHeader || n%align != 0 || int64(n) > size-prefixSize-digestSize {
		return 0, fmt.Errorf("claims a header of %d bytes in a file of %d (truncated?)", n, size)
	}
	return int64(n), nil
}

func checkDigest(source io.ReaderAt, size int64) error {
	digest, want := blake3.New(), make([]byte, digestSize)
	if _, err := io.Copy(digest, io.NewSectionReader(source, 0, size-digestSize)); err != nil {
		return err
	}
	if _, err := source.ReadAt(want, size-digestSize); err != nil && err != io.EOF {
		return err
	}
	if !bytes.Equal(digest.Sum(nil), want) {
		return errors.New("digest differs: the file is damaged or truncated, copy or pack it again")
	}
	return nil
}

// parseHeader reads the configuration. The directory must be the one that the configuration implies.
func (f *File) parseHeader(text []byte, dataSize int64) error {
	var header struct {
		Config   json.RawMessage   `json:"config"`
		Metadata map[string]string `json:"metadata"`
		Tensors  []entry           `json:"tensors"`
	}
	err := json.Unmarshal(text, &header)
	if err != nil {
		return err
	}
	if f.Config, err = checkpoint.ParseConfig(header.Config); err != nil {
		return err
	}
	if f.Provenance, err = checkpoint.ParseProvenance(header.Metadata); err != nil {
		return err
	}
	due := f.Config.Parameters()
	if len(header.Tensors) != len(due) {
		return fmt.Errorf("%d tensors where the configuration has %d", len(header.Tensors), len(due))
	}
	for i, e := range header.Tensors {
		if !slices.Contains(kinds(due[i]), e.Kind) {
			return fmt.Errorf("tensor %q is stored as %q, want one of %q", e.Name, e.Kind, kinds(due[i]))
		}
	}
	list, size := directory(due, func(i int) string { return header.Tensors[i].Kind })
	for i, e := range header.Tensors {
		if e.Name != list[i].Name || !slices.Equal(e.Shape, list[i].Shape) || e.Offset != list[i].Offset {
			return fmt.Errorf("tensor %+v where the configuration implies %+v", e, list[i])
		}
	}
	if size != dataSize {
		return fmt.Errorf("tensors take %d bytes, the file holds %d", size, dataSize)
	}
	f.list = list
	return nil
}

// decode turns a tensor's bytes into its elements. The padding must be zero.
func (e entry) decode(out []float32, b []byte) error {
	if len(bytes.Trim(b[e.size():], "\x00")) != 0 {
		return errors.New("padding is not zero")
	}
	switch e.Kind {
	case kindSign:
		return signs(out, b, e.Shape[1])
	case kindFloat16:
		for i := range out {
			out[i] = float16.ToFloat32(binary.LittleEndian.Uint16(b[2*i:]))
		}
	default:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	return nil
}

// signs unpacks rows of n signs.
func signs(out []float32, b []byte, n int) error {
	for row := range slices.Chunk(out, n) {
		for part := range slices.Chunk(row, wordBits) {
			word := binary.LittleEndian.Uint64(b)
			b = b[8:]
			for j := range part {
				part[j] = float32(int(word&1)*2 - 1)
				word >>= 1
			}
			if word != 0 && len(part) < wordBits {
				return errors.New("a row's padding bits are not zero")
			}
		}
	}
	return nil
}
