// Package pytorch reads state dicts that torch.save wrote: a zip archive of a pickle, which describes the tensors, and
// of their bytes. It executes no code of the pickle. It knows the few names of PyTorch that make tensors; all other
// names stay names.
//
// The package knows nothing of models and writes nothing. It reads neither TorchScript nor the format before PyTorch
// 1.6.
package pytorch

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"bitnet1/shared/lm/container"
	"bitnet1/shared/lm/safetensors"
)

// Limits on the pickle and on the directory of the archive, in bytes. A few hundred tensors take some tens of kilobytes
// of each, and the history of a long training some megabytes. The values of a pickle may take fifty times its size in
// memory.
const (
	maxPickle    = 16 << 20
	maxDirectory = 4 << 20
)

// File is an open state dict.
type File struct {
	name    string
	source  io.ReaderAt
	close   func() error
	size    int64
	entries map[string]*zip.File // by name in the folder of the archive
	names   []string
	tensors map[string]view
	beside  *dict // the dict that holds the state dict, or nil
	values  int   // limit on the values of the pickle
}

// view is a tensor whose place has been checked.
type view struct {
	dtype  safetensors.DType
	shape  []int
	entry  *zip.File
	offset int64 // in bytes
	bytes  int64
}

// legacy tells whether a file that begins with head has the format before PyTorch 1.6, a bare pickle.
func legacy(head []byte) bool { return len(head) > 1 && head[0] == 0x80 && head[1] <= 5 }

// Open opens the file at path. It checks the place of every tensor, and reads none.
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
	f := &File{name: name, source: source, close: func() error { return nil }, size: size}
	if err := f.open(); err != nil {
		return nil, f.errorf("%w", err)
	}
	return f, nil
}

// Close releases the file that Open opened.
func (f *File) Close() error { return f.close() }

// Names lists the tensors of the state dict in its order.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Shape returns the shape of the named tensor.
func (f *File) Shape(name string) ([]int, error) {
	v, ok := f.tensors[name]
	if !ok {
		return nil, f.errorf("has no tensor %q (it holds %d others)", name, len(f.tensors))
	}
	return slices.Clone(v.shape), nil
}

// Plain returns the entry of the file under key, if torch.save was given a dict that holds the state dict among other
// things. The entry is nil, bool, int64, float64, string, []any or map[string]any. A NumPy scalar is a number, and an
// object is the map of its attributes. Any other entry is an error. ok is false if there is no such key.
func (f *File) Plain(key string) (value any, ok bool, err error) {
	if f.beside == nil {
		return nil, false, nil
	}
	v, ok := f.beside.values[key]
	if !ok {
		return nil, false, nil
	}
	c := converter{left: f.values}
	if value, err = c.plain(v, 0); err != nil {
		err = f.errorf("entry %q: %w", key, err)
	}
	return value, true, err
}

// Float32 returns the named tensor, which must have a float type, as float32. float64 is rounded to nearest. If the
// tensor has a storage of its own, the checksum of the archive is verified.
func (f *File) Float32(name string) ([]float32, error) { return f.Float32In(nil, name) }

// Float32In is Float32 in the memory of buffer, if buffer is large enough.
func (f *File) Float32In(buffer []float32, name string) ([]float32, error) {
	if _, err := f.Shape(name); err != nil {
		return nil, err
	}
	v := f.tensors[name]
	source, err := v.open(f.source)
	if err != nil {
		return nil, f.errorf("tensor %q: %w", name, err)
	}
	out, err := safetensors.Float32s(buffer, source, v.dtype, int(v.bytes/v.dtype.Size()))
	if err == nil {
		// The checksum is compared at the end of the data.
		_, err = io.CopyN(io.Discard, source, 1)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, f.errorf("tensor %q: %w", name, err)
	}
	return out, nil
}

func (v view) open(source io.ReaderAt) (io.Reader, error) {
	if v.offset == 0 && v.bytes == int64(v.entry.UncompressedSize64) {
		return v.entry.Open()
	}
	at, err := v.entry.DataOffset()
	return io.NewSectionReader(source, at+v.offset, v.bytes), err
}

func (f *File) open() error {
	if err := f.openArchive(); err != nil {
		return err
	}
	pickle, err := f.small("data.pkl", maxPickle)
	if err != nil {
		return err
	}
	value, err := unpickle(pickle)
	if err != nil {
		return err
	}
	f.values = len(pickle)
	state, err := f.findState(value)
	if err != nil {
		return err
	}
	return f.place(state)
}

// openArchive lists the entries of the archive. Entries that torch.save does not write are an error.
func (f *File) openArchive() error {
	var head [2]byte
	if _, err := f.source.ReadAt(head[:], 0); err == nil && legacy(head[:]) {
		return errors.New("was written in the format of before PyTorch 1.6: load it there and torch.save it again")
	}
	bounded := &budget{source: f.source, left: maxDirectory}
	archive, err := zip.NewReader(bounded, f.size)
	bounded.left = math.MaxInt64
	if err != nil {
		return fmt.Errorf("%w (truncated, or not written by torch.save: copy it again)", err)
	}
	f.entries = map[string]*zip.File{}
	var folder string
	for _, e := range archive.File {
		top, rest, ok := strings.Cut(e.Name, "/")
		if folder == "" {
			folder = top
		}
		if !ok || top != folder || f.entries[rest] != nil {
			return fmt.Errorf("entry %q is where torch.save puts none", e.Name)
		}
		if e.Method != zip.Store || e.CompressedSize64 != e.UncompressedSize64 ||
			e.UncompressedSize64 > uint64(f.size) {
			return fmt.Errorf("entry %q is compressed or larger than the file; torch.save compresses nothing", e.Name)
		}
		f.entries[rest] = e
	}
	if f.entries["constants.pkl"] != nil {
		return errors.New("is TorchScript: save the model's state_dict() with torch.save instead")
	}
	if f.entries["byteorder"] != nil {
		order, err := f.small("byteorder", 16)
		if err != nil {
			return err
		}
		if string(order) != "little" {
			return fmt.Errorf("has byte order %q, want little", order)
		}
	}
	return nil
}

// budget is a reader with a limit on the bytes that are read.
type budget struct {
	source io.ReaderAt
	left   int64
}

func (b *budget) ReadAt(p []byte, at int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errors.New("the archive has more entries than a state dict")
	}
	return b.source.ReadAt(p, at)
}

// small reads a whole entry of at most limit bytes.
func (f *File) small(entry string, limit int64) ([]byte, error) {
	e := f.entries[entry]
	if e == nil {
		return nil, fmt.Errorf("has no entry %s: it was not written by torch.save", entry)
	}
	if int64(e.UncompressedSize64) > limit {
		return nil, fmt.Errorf("entry %s has %d bytes, want at most %d", entry, e.UncompressedSize64, limit)
	}
	r, err := e.Open()
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", entry, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", entry, err)
	}
	return b, nil
}

// stateKeys are the usual keys of a state dict in a larger dict.
var stateKeys = []string{"model", "state_dict", "model_state_dict", "module", "net", "weights"}

// findState finds the state dict: the saved object itself, or one of its entries.
func (f *File) findState(value any) (*dict, error) {
	all, ok := value.(*dict)
	if !ok {
		return nil, errors.New("holds no state dict: torch.save a model's state_dict(), not the model")
	}
	for _, key := range stateKeys {
		if state, ok := all.values[key].(*dict); ok {
			f.beside = all
			return state, nil
		}
	}
	for _, v := range all.values {
		if _, ok := v.(*tensor); ok {
			return all, nil
		}
	}
	return nil, fmt.Errorf("holds no state dict, neither directly nor under %s; its keys are %.200q",
		strings.Join(stateKeys, ", "), all.keys[:min(len(all.keys), 10)])
}

// converter turns values without tensors and code into values of Go. A pickle can refer to one value many times. All
// references together may become at most as many values as the pickle has bytes; without that limit their number could
// grow exponentially.
type converter struct{ left int }

func (c *converter) plain(v any, depth int) (any, error) {
	const deepest = 32
	if c.left--; c.left < 0 || depth > deepest {
		return nil, errors.New("is nested too deeply, or names the same value too often")
	}
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
		return v, nil
	case *dict:
		return c.plainDict(v, depth)
	case tuple:
		return c.plainList(v, depth)
	case *list:
		return c.plainList(v.items, depth)
	case *object:
		if state, ok := v.state.(*dict); ok {
			return c.plainDict(state, depth)
		}
		return nil, fmt.Errorf("is a %s.%s: save it as a number, a text, a list or a dict", v.class.module,
			v.class.name)
	case *tensor:
		return nil, errors.New("is a tensor: save it as a number or a list (.item(), .tolist())")
	}
	return nil, errors.New("is neither a number nor a text, list or dict")
}

func (c *converter) plainDict(d *dict, depth int) (any, error) {
	if d.others {
		return nil, errors.New("has a key that is no text")
	}
	out := map[string]any{}
	for _, k := range d.keys {
		value, err := c.plain(d.values[k], depth+1)
		if err != nil {
			return nil, fmt.Errorf("%q %w", k, err)
		}
		out[k] = value
	}
	return out, nil
}

func (c *converter) plainList(items []any, depth int) (any, error) {
	out := []any{}
	for _, item := range items {
		value, err := c.plain(item, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
	return out, nil
}

// place finds the bytes of every tensor. All tensors together may have at most the size of the file: names that share a
// storage could otherwise make a small file ask for any amount of memory.
func (f *File) place(state *dict) error {
	f.tensors = map[string]view{}
	var total int64
	for _, key := range state.keys {
		t, ok := state.values[key].(*tensor)
		if !ok {
			return fmt.Errorf("entry %q of the state dict is no tensor that can be read without running code", key)
		}
		v, err := f.view(t)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", key, err)
		}
		f.names, f.tensors[key] = append(f.names, key), v
		if total += v.bytes; total > f.size {
			return errors.New("tensors share storages and take more bytes than the file has")
		}
	}
	return nil
}

func (f *File) view(t *tensor) (view, error) {
	v := view{shape: t.shape}
	var ok bool
	if v.dtype, ok = dtypes[t.storage.class.name]; !ok || t.storage.class.module != "torch" {
		return v, fmt.Errorf("has element type %s.%s, want float64, float32, float16 or bfloat16",
			t.storage.class.module, t.storage.class.name)
	}
	n, err := t.elements(f.size)
	if err != nil {
		return v, err
	}
	if !t.contiguous() {
		return v, fmt.Errorf("has strides %v for shape %v: call contiguous() before saving", t.stride, t.shape)
	}
	if v.entry = f.entries["data/"+t.storage.key]; v.entry == nil {
		return v, fmt.Errorf("its storage %q is missing", t.storage.key)
	}
	if t.offset > f.size {
		return v, fmt.Errorf("begins at element %d of a smaller file", t.offset)
	}
	v.offset, v.bytes = t.offset*v.dtype.Size(), n*v.dtype.Size()
	if held := int64(v.entry.UncompressedSize64); v.offset+v.bytes > held {
		return v, fmt.Errorf("of shape %v at byte %d goes beyond its storage of %d bytes", t.shape, v.offset, held)
	}
	return v, nil
}

func (f *File) errorf(format string, a ...any) error {
	return fmt.Errorf("PyTorch file %s: "+format, append([]any{f.name}, a...)...)
}
