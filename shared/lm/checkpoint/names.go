package checkpoint

import (
	"fmt"
	"slices"
	"strings"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
)

// wrappers are what programs put into the names of parameters: torch.compile, DataParallel and its distributed kin,
// FSDP, activation checkpointing.
var wrappers = []string{"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}

// averages is a counter that torch.optim.swa_utils.AveragedModel keeps among the parameters.
const averages = "n_averaged"

// roots are how the names of parameters begin, each once.
func roots() []string {
	c := model.Config{Vocab: 1, D: 1, Layers: 1, Heads: 1, FF: 1}
	var first []string
	for _, p := range c.Parameters() {
		root, _, _ := strings.Cut(p.Name, ".")
		first = append(first, root)
	}
	return slices.Compact(first) // those of one module follow one another
}

// unwrapped are tensors under the names that the model has for them.
type unwrapped struct {
	tensors
	order []string
	names map[string]string // of the file, by the model's
}

// unwrap takes the prefixes off the names that other programs put there, in any order and number: what stands before
// the first part of a name that the model knows, and wrappers anywhere.
func unwrap(t tensors) (tensors, error) {
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
	if !belongs && metadataOf(t)["format"] != StateFormat {
		return nil, notOurs(t.Names())
	}
	return u, nil
}

// metadataOf is what a safetensors file says beside its tensors.
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

// inFile is the name that the file has for a tensor.
func (u *unwrapped) inFile(name string) string {
	if own, ok := u.names[name]; ok {
		return own
	}
	return name
}
