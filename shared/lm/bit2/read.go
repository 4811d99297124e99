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

	"bitnet1/kernels"
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

	version  version
	name     string
	sections []section // from version 2 on
	list     []entry
	data     io.ReaderAt
	dataAt   int64 // where data begin in the file
	close    func() error
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
	headerSize, err := f.parsePrefix(source, size)
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
	f.dataAt = prefixSize + headerSize
	f.data = io.NewSectionReader(source, f.dataAt, dataSize)
	if err := f.checkPadding(); err != nil {
		return err
	}
	f.TokenizerFile, err = f.section(tokenizerSection)
	return err
}

// section returns the bytes of the section of that name; nil: there is none.
func (f *File) section(name string) ([]byte, error) {
	i := slices.IndexFunc(f.sections, func(s section) bool { return s.Name == name })
	if i < 0 {
		return nil, nil
	}
	b := make([]byte, f.sections[i].Size)
	if _, err := f.data.ReadAt(b, f.sections[i].Offset); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// Parameters reads the parameters in the order of Config.Parameters: weights as -1 and +1, or for a codebook of levels
// as weights that the model quantizes to these levels, and all others as in the checkpoint. The data of a parameter is
// valid until the next one. An error ends the sequence.
func (f *File) Parameters() iter.Seq2[model.Parameter, error] {
	return func(yield func(model.Parameter, error) bool) {
		var stored []byte
		var data []float32
		for _, e := range f.list {
			stored = grow(stored, int(f.version.padded(e.size())))
			p := model.Parameter{Name: e.Name, Shape: e.Shape}
			_, err := f.data.ReadAt(stored, e.Offset)
			if err == nil || err == io.EOF { // io.EOF at the end of the last tensor
				data = grow(data, p.Size())
				err = e.decode(data, stored, f.Config.Codebook())
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

// Stored is a parameter as the file has it. The elements of a weight matrix stay where they are, and Data is nil. All
// other parameters have Data.
type Stored struct {
	model.Parameter
	At, Size int64 // a matrix takes the Size bytes from byte At of the file on: see docs/formats/bit2.md
}

// Stored returns the parameters in the order of Config.Parameters, without reading weights. An error ends the sequence.
func (f *File) Stored() iter.Seq2[Stored, error] {
	return func(yield func(Stored, error) bool) {
		for _, e := range f.list {
			s := Stored{Parameter: model.Parameter{Name: e.Name, Shape: e.Shape}, At: f.dataAt + e.Offset, Size: e.size()}
			var err error
			if len(e.Shape) == 1 {
				s.Data = make([]float32, s.Parameter.Size())
				stored := make([]byte, e.size())
				if _, err = f.data.ReadAt(stored, e.Offset); err == nil || err == io.EOF {
					err = e.decode(s.Data, stored, f.Config.Codebook())
				}
			}
			if err != nil {
				err = f.error(fmt.Errorf("tensor %q: %w", e.Name, err))
			}
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

// Inference loads the model onto a device: see checkpoint.Inference.
func (f *File) Inference(dev kernels.Device, batch, seq int) (*model.Model, model.Settings, error) {
	return checkpoint.Inference(dev, f.Config, f.Provenance, f.Parameters(), batch, seq)
}

// grow returns n values of any content. It uses the memory of a if a is large enough.
func grow[T any](a []T, n int) []T {
	if cap(a) < n {
		return make([]T, n)
	}
	return a[:n]
}

// parsePrefix checks the first bytes and returns the length of the header.
func (f *File) parsePrefix(source io.ReaderAt, size int64) (int64, error) {
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
	f.version = version(binary.LittleEndian.Uint32(prefix[4:]))
	if f.version < v1 || f.version > newest {
		return 0, fmt.Errorf("has version %d, and this program reads versions up to %d: update this program, or pack "+
			"the checkpoint with this program", f.version, newest)
	}
	n := binary.LittleEndian.Uint64(prefix[8:])
	if n > maxHeader || int64(n) != f.version.headerSize(int64(n)) || int64(n) > size-prefixSize-digestSize {
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
		Sections []section         `json:"sections"`
		Tensors  []entry           `json:"tensors"`
	}
	err := json.Unmarshal(text, &header)
	if err != nil {
		return err
	}
	if f.Config, err = checkpoint.ParseConfig(header.Config); err != nil {
		return err
	}
	if least := leastVersion(f.Config); f.version < least {
		return fmt.Errorf("the configuration has options that version %d does not have: %s", f.version, header.Config)
	}
	if f.Provenance, err = checkpoint.ParseProvenance(header.Metadata); err != nil {
		return err
	}
	size, err := f.parseDirectory(header.Tensors)
	if err != nil {
		return err
	}
	if f.sections = header.Sections; f.version == v1 {
		f.sections = []section{{Name: tensorSection, Size: size}}
	}
	return f.checkSections(size, dataSize)
}

// parseDirectory returns how many bytes the tensors take.
func (f *File) parseDirectory(given []entry) (size int64, err error) {
	due := f.Config.Parameters()
	if len(given) != len(due) {
		return 0, fmt.Errorf("%d tensors where the configuration has %d", len(given), len(due))
	}
	for i, e := range given {
		if kinds := kinds(f.Config, due[i]); !slices.Contains(kinds, e.Kind) {
			return 0, fmt.Errorf("tensor %q is stored as %q, want one of %q", e.Name, e.Kind, kinds)
		}
	}
	f.list, size = f.version.directory(f.Config, func(i int, _ model.Parameter) string { return given[i].Kind })
	for i, e := range given {
		if !e.equals(f.list[i]) {
			return 0, fmt.Errorf("tensor %+v where the configuration implies %+v", e, f.list[i])
		}
	}
	return size, nil
}

// checkSections wants the tensors, of so many bytes, and other sections one after another, and all of the data to be of
// a section. It takes sections of any name: later programs may add some.
func (f *File) checkSections(tensors, dataSize int64) error {
	if len(f.sections) == 0 || f.sections[0] != (section{Name: tensorSection, Size: tensors}) {
		return fmt.Errorf("tensors take %d bytes, and the first section is not theirs: %+v", tensors, f.sections)
	}
	names := map[string]bool{}
	at := int64(0)
	for _, s := range f.sections {
		if names[s.Name] || s.Offset != at || s.Size < 0 || s.Size > dataSize-at {
			return fmt.Errorf("section %+v does not begin at %d of %d bytes, or there are two of the name", s, at, dataSize)
		}
		names[s.Name] = true
		at += f.version.padded(s.Size)
	}
	if at != dataSize {
		return fmt.Errorf("the sections take %d bytes, the file holds %d", at, dataSize)
	}
	return nil
}

// checkPadding wants zeros behind the sections; Parameters looks behind tensors.
func (f *File) checkPadding() error {
	for _, s := range f.sections {
		rest := make([]byte, f.version.padded(s.Size)-s.Size)
		if _, err := f.data.ReadAt(rest, s.Offset+s.Size); err != nil && err != io.EOF {
			return err
		}
		if len(bytes.Trim(rest, "\x00")) != 0 {
			return fmt.Errorf("section %q: %w", s.Name, errPadding)
		}
	}
	return nil
}

var errPadding = errors.New("padding is not zero")

// decode turns a tensor's bytes into its elements. The padding must be zero.
func (e entry) decode(out []float32, b []byte, codebook kernels.Quantization) error {
	if len(bytes.Trim(b[e.size():], "\x00")) != 0 {
		return errPadding
	}
	switch e.Kind {
	case kindSign:
		return e.rows(out, b, signs)
	case kindPlanes:
		return e.rows(out, b, func(row []float32, b []byte) error { return latents(row, b, codebook) })
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

// rows unpacks each row of a matrix.
func (e entry) rows(out []float32, b []byte, unpack func(row []float32, b []byte) error) error {
	width, size := e.Shape[1], int(e.size())/e.Shape[0]
	for r := range e.Shape[0] {
		if err := unpack(out[r*width:][:width], b[r*size:][:size]); err != nil {
			return fmt.Errorf("row %d: %w", r, err)
		}
	}
	return nil
}

// signs unpacks a row of signs.
func signs(out []float32, b []byte) error {
	for part := range slices.Chunk(out, wordBits) {
		word := binary.LittleEndian.Uint64(b)
		b = b[8:]
		for j := range part {
			part[j] = float32(int(word&1)*2 - 1)
			word >>= 1
		}
		if word != 0 && len(part) < wordBits {
			return errPadding
		}
	}
	return nil
}
