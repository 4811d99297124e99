package bit2

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"bitnet1/kernels/float16"
	"bitnet1/shared/checkpoint"

	"github.com/zeebo/blake3"
)

// Read reads the packed model at path. Its weights come back as -1 and +1, everything else as it was in the checkpoint.
// A damaged, truncated or contradictory file is refused; memory for a tensor is taken only when its bytes are there.
func Read(path string) (checkpoint.Model, error) {
	f, err := os.Open(path)
	if err != nil {
		return checkpoint.Model{}, fmt.Errorf("reading packed model: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return checkpoint.Model{}, fmt.Errorf("reading packed model: %w", err)
	}
	m, err := read(f, info.Size())
	if err != nil {
		return checkpoint.Model{}, fmt.Errorf("reading packed model %s: %w", path, err)
	}
	return m, nil
}

func read(source io.ReaderAt, size int64) (m checkpoint.Model, err error) {
	headerSize, err := checkPrefix(source, size)
	if err != nil {
		return m, err
	}
	if err := checkDigest(source, size); err != nil {
		return m, err
	}
	text := make([]byte, headerSize)
	if _, err := source.ReadAt(text, prefixSize); err != nil {
		return m, err
	}
	dataSize := size - prefixSize - headerSize - digestSize
	m, list, err := parseHeader(text, dataSize)
	if err != nil {
		return m, fmt.Errorf("header: %w", err)
	}
	data := io.NewSectionReader(source, prefixSize+headerSize, dataSize)
	for i, e := range list {
		if m.Parameters[i].Data, err = readTensor(data, e); err != nil {
			return m, fmt.Errorf("tensor %q: %w", e.Name, err)
		}
	}
	return m, nil
}

// checkPrefix checks the fixed part and returns the header's length.
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

// parseHeader returns the model without data and its directory, which must be the one that the configuration implies.
func parseHeader(text []byte, dataSize int64) (m checkpoint.Model, list []entry, err error) {
	var header struct {
		Config   json.RawMessage   `json:"config"`
		Metadata map[string]string `json:"metadata"`
		Tensors  []entry           `json:"tensors"`
	}
	if err := json.Unmarshal(text, &header); err != nil {
		return m, nil, err
	}
	if m.Config, err = checkpoint.ParseConfig(header.Config); err != nil {
		return m, nil, err
	}
	if m.Provenance, err = checkpoint.ParseProvenance(header.Metadata); err != nil {
		return m, nil, err
	}
	m.Parameters = m.Config.Parameters()
	if len(header.Tensors) != len(m.Parameters) {
		return m, nil, fmt.Errorf("%d tensors where the configuration has %d", len(header.Tensors), len(m.Parameters))
	}
	for i, e := range header.Tensors {
		if !slices.Contains(kinds(m.Parameters[i]), e.Kind) {
			return m, nil, fmt.Errorf("tensor %q is stored as %q, want one of %q", e.Name, e.Kind, kinds(m.Parameters[i]))
		}
	}
	list, size := directory(m.Parameters, func(i int) string { return header.Tensors[i].Kind })
	for i, e := range header.Tensors {
		if e.Name != list[i].Name || !slices.Equal(e.Shape, list[i].Shape) || e.Offset != list[i].Offset {
			return m, nil, fmt.Errorf("tensor %+v where the configuration implies %+v", e, list[i])
		}
	}
	if size != dataSize {
		return m, nil, fmt.Errorf("tensors take %d bytes, the file holds %d", size, dataSize)
	}
	return m, list, nil
}

// readTensor reads one tensor and its padding, which must be zero.
func readTensor(r io.Reader, e entry) ([]float32, error) {
	b := make([]byte, padded(e.size()))
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if len(bytes.Trim(b[e.size():], "\x00")) != 0 {
		return nil, errors.New("padding is not zero")
	}
	b = b[:e.size()]
	switch e.Kind {
	case kindSign:
		return signs(b, e.Shape[0], e.Shape[1])
	case kindFloat16:
		out := make([]float32, e.Shape[0])
		for i := range out {
			out[i] = float16.ToFloat32(binary.LittleEndian.Uint16(b[2*i:]))
		}
		return out, nil
	}
	out := make([]float32, e.Shape[0])
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out, nil
}

// signs unpacks rows of n signs.
func signs(b []byte, rows, n int) ([]float32, error) {
	out := make([]float32, rows*n)
	for rest := out; len(rest) > 0; {
		row := rest[:n]
		rest = rest[n:]
		for part := range slices.Chunk(row, wordBits) {
			word := binary.LittleEndian.Uint64(b)
			b = b[8:]
			for j := range part {
				part[j] = float32(int(word&1)*2 - 1)
				word >>= 1
			}
			if word != 0 && len(part) < wordBits {
				return nil, errors.New("a row's padding bits are not zero")
			}
		}
	}
	return out, nil
}
