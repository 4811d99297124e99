package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
)

// wrappers are the parts that programs add to the names of parameters: torch.compile, DataParallel,
// DistributedDataParallel, FSDP and activation checkpointing.
var wrappers = []string{"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}

// averages is a counter that torch.optim.swa_utils.AveragedModel saves among the parameters.
const averages = "n_averaged"

// roots are the first parts of the names of parameters.
func roots() []string {
	c := model.Config{Vocab: 1, D: 1, Layers: 1, Heads: 1, FF: 1}
	var first []string
	for _, p := range c.Parameters() {
		root, _, _ := strings.Cut(p.Name, ".")
		first = append(first, root)
	}
	return slices.Compact(first) // parameters of a module are consecutive
}

// unwrapped are the tensors of a file under the names of the model.
type unwrapped struct {
	tensors
	order []string
	names map[string]string // names of the file, by names of the model
}

// unwrap removes prefixes that other programs add to names: wrappers anywhere in a name, and everything before the
// first part that the model knows.
func unwrap(t tensors) (tensors, error) {
	if metadataOf(t)["format"] == StateFormat { // whose tensors have names of the model behind prefixes, too
		return nil, errors.New("it is the training state beside a checkpoint: " + theCheckpoint)
	}
	u := &unwrapped{tensors: t, names: map[string]string{}}
	known, belongs := roots(), false
	for _, name := range t.Names() {
		parts := slices.DeleteFunc(strings.Split(name, "."),
			func(part string) bool { return slices.Contains(wrappers, part) })
		if len(parts) == 1 && parts[0] == averages {
			continue
		}
		if root := slices.IndexFunc(parts, func(part string) bool { return slices.Contains(known, part) }); root >= 0 {
			parts, belongs = parts[root:], true
		}
		own := strings.Join(parts, ".")
		if other, twice := u.names[own]; twice {
			return nil, fmt.Errorf("tensors %q and %q are both %q of the model: save one of the two", other, name, own)
		}
		u.order, u.names[own] = append(u.order, own), name
	}
	if !belongs {
		return nil, notOurs(t.Names())
	}
	return u, nil
}

// metadataOf is the metadata of a safetensors file.
func metadataOf(t tensors) map[string]string {
	switch t := t.(type) {
	case *unwrapped:
		return metadataOf(t.tensors)
	case *safetensors.File:
		return t.Metadata()
	}
	return nil
}

func (u *unwrapped) Names() []string { return u.order }

func (u *unwrapped) Shape(name string) ([]int, error) { return u.tensors.Shape(u.inFile(name)) }

func (u *unwrapped) Float32In(buffer []float32, name string) ([]float32, error) {
	return u.tensors.Float32In(buffer, u.inFile(name))
}

// inFile is the name of a tensor in the file.
func (u *unwrapped) inFile(name string) string {
	if own, ok := u.names[name]; ok {
		return own
	}
	return name
}
