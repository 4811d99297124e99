package checkpoint

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/kernels"
	"bitnet1/shared/filetype"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/pytorch"
	"bitnet1/shared/lm/safetensors"
)

// File is an open model file. It holds one parameter at a time in memory.
type File struct {
	Config model.Config
	Provenance

	path    string
	tensors tensors
}

// tensors is a file of tensors of some format.
type tensors interface {
	Names() []string
	Shape(name string) ([]int, error)
	Float32In(buffer []float32, name string) ([]float32, error)
	Close() error
}

// Open opens the model file at path: a file of Write, or parameters that PyTorch saved with safetensors or torch.save,
// beside a description of the model (see DescriptionPath). It checks the shape of every tensor against the
// configuration, and reads none.
func Open(path string) (*File, error) {
	t, err := openTensors(path)
	if err != nil {
		return nil, fmt.Errorf("reading checkpoint: %w", err)
	}
	f := &File{path: path}
	if f.tensors, err = unwrap(t); err == nil {
		err = f.identify()
	}
	if err != nil {
		t.Close()
		return nil, f.error(err)
	}
	return f, nil
}

// Close ends the use of the file.
func (f *File) Close() error { return f.tensors.Close() }

// Parameters reads the parameters in the order of Config.Parameters. The tensors of the file may have any float type.
// The data of a parameter is valid until the next one. An error ends the sequence. A value that is not finite is an
// error that wraps ErrNotFinite.
func (f *File) Parameters() iter.Seq2[model.Parameter, error] {
	return func(yield func(model.Parameter, error) bool) {
		var buffer []float32
		for _, p := range f.Config.Parameters() {
			data, err := f.tensors.Float32In(buffer, p.Name)
			if err != nil {
				yield(p, f.error(err))
				return
			}
			if i := model.FirstNotFinite(data); i >= 0 {
				yield(p, f.error(fmt.Errorf("tensor %q: value %d is %v: %w (choose a checkpoint from before training "+
					"diverged)", p.Name, i, data[i], ErrNotFinite)))
				return
			}
			p.Data = data
			if !yield(p, nil) {
				return
			}
			buffer = data[:cap(data)]
		}
	}
}

// Inference loads the model onto a device for inference: see the function of that name.
func (f *File) Inference(dev kernels.Device, batch, seq int) (*model.Model, model.Settings, error) {
	return Inference(dev, f.Config, f.Provenance, f.Parameters(), batch, seq)
}

// Inference loads a model onto a device for inference, and returns it with its settings. batch is the number of
// sequences that are computed together, seq their length (0: that of the configuration).
func Inference(dev kernels.Device, c model.Config, p Provenance, parameters iter.Seq2[model.Parameter, error],
	batch, seq int) (*model.Model, model.Settings, error) {
	m, err := model.New(c, dev, model.Options{Batch: batch, Seq: seq, ScaleBits: 32, Inference: true, Bonsai: p.Mix < 1,
		Documents: p.Documents})
	if err != nil {
		return nil, model.Settings{}, err
	}
	return m, model.Settings{Gamma: p.Gamma, Mix: p.Mix}, m.Load(parameters)
}

func (f *File) error(err error) error { return fmt.Errorf("reading checkpoint %s: %w", f.path, err) }

// openTensors opens the file by its first bytes, whatever its name.
func openTensors(path string) (tensors, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a folder: name a file in it, %s for instance", path,
			filepath.Join(path, "step-000600.safetensors"))
	}
	is, err := filetype.OfFile(path)
	if err != nil {
		return nil, err
	}
	if err := refuse(path, is); err != nil {
		return nil, err
	}
	if is == filetype.ZIP || is == filetype.Pickle {
		return pytorch.Open(path)
	}
	return safetensors.Open(path)
}

// identify finds out which model the file holds, and checks that the tensors fit.
func (f *File) identify() (err error) {
	metadata := metadataOf(f.tensors)
	if format := metadata["format"]; strings.HasPrefix(format, "bitnet1.") {
		if format != Format {
			return fmt.Errorf("metadata format is %q, want %q: it is of a later version of bitnet1: update this "+
				"program", format, Format)
		}
		if f.Config, err = ParseConfig([]byte(metadata["config"])); err != nil {
			return err
		}
		if f.Provenance, err = ParseProvenance(metadata); err != nil {
			return err
		}
		if file, there := metadata[tokenizerKey]; there {
			f.TokenizerFile = []byte(file)
		}
	} else if f.Config, f.Provenance, err = describe(f.path, f.tensors); err != nil {
		return err
	}
	return match(f.tensors, f.Config)
}

// match checks that f holds exactly the parameters of c, in their shapes. The ALiBi slopes may be there or not.
func match(f tensors, c model.Config) error {
	known := map[string]bool{}
	for _, p := range c.Parameters() {
		known[p.Name] = true
		shape, err := f.Shape(p.Name)
		if err != nil {
			return err
		}
		if !slices.Equal(shape, p.Shape) {
			return fmt.Errorf("tensor %q has shape %v, the configuration asks for %v", p.Name, shape, p.Shape)
		}
	}
	for l := range c.Layers {
		known[slopesName(l)] = true
	}
	for _, name := range f.Names() {
		if !known[name] {
			return fmt.Errorf("tensor %q is none of this configuration's", name)
		}
	}
	return nil
}
