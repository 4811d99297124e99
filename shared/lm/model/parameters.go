package model

import (
	"fmt"
	"iter"
	"slices"
)

// Parameter is one named tensor, row-major. Names are those of the PyTorch reference's named_parameters.
type Parameter struct {
	Name  string
	Shape []int
	Data  []float32 // nil where only the layout is described, or where From has it
	From  Source    // in place of Data: gives a part at a time, where no copy of all is to exist
}

// Source gives the values of a parameter.
type Source interface {
	// Read copies the len(dst) values from number `from` on.
	Read(dst []float32, from int) error
}

// Size is the number of elements that Shape describes.
func (p Parameter) Size() int {
	n := 1
	for _, s := range p.Shape {
		n *= s
	}
	return n
}

// Check reports how p, with its data, differs from due in name, shape or the number of elements.
func (p Parameter) Check(due Parameter) error {
	switch {
	case p.Name != due.Name:
		return fmt.Errorf("parameter %q where %q is due", p.Name, due.Name)
	case !slices.Equal(p.Shape, due.Shape):
		return fmt.Errorf("parameter %q has shape %v, want %v", p.Name, p.Shape, due.Shape)
	case p.From == nil && len(p.Data) != due.Size():
		return fmt.Errorf("parameter %q of shape %v has %d elements", p.Name, p.Shape, len(p.Data))
	}
	return nil
}

// Read copies the len(dst) values from number `from` on.
func (p Parameter) Read(dst []float32, from int) error {
	if p.From != nil {
		return p.From.Read(dst, from)
	}
	if n := copy(dst, p.Data[from:]); n < len(dst) {
		return fmt.Errorf("parameter %s has %d values fewer than are read", p.Name, len(dst)-n)
	}
	return nil
}

// NotFinite says where the data of p holds NaN or an infinity; "" where there is none.
func (p Parameter) NotFinite() string {
	if i := FirstNotFinite(p.Data); i >= 0 {
		return fmt.Sprintf("%s holds %v, at %d", p.Name, p.Data[i], i)
	}
	return ""
}

// FirstNotFinite is the index of the first NaN or infinity among values, or -1.
func FirstNotFinite(values []float32) int {
	return slices.IndexFunc(values, func(v float32) bool { return v-v != 0 })
}

// Each returns list as a sequence, for functions that take parameters one at a time.
func Each(list []Parameter) iter.Seq2[Parameter, error] {
	return func(yield func(Parameter, error) bool) {
		for _, p := range list {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// Parameters lists every parameter of a model with configuration c, without data, in the order of the reference's
// named_parameters. c must be valid.
func (c Config) Parameters() []Parameter {
	list := []Parameter{{Name: "norm_out", Shape: []int{c.D}}}
	list = append(list, bitLinear("codebook", c.D, c.Vocab)...)
	for l := range c.Layers {
		block := fmt.Sprintf("blocks.%d.", l)
		list = append(list,
			Parameter{Name: block + "norm_attn", Shape: []int{c.D}},
			Parameter{Name: block + "norm_ffn", Shape: []int{c.D}})
		for _, name := range []string{"q", "k", "v", "o"} {
			list = append(list, bitLinear(block+"attn."+name, c.D, c.D)...)
		}
		list = append(list, bitLinear(block+"up", c.D, c.FF)...)
		list = append(list, bitLinear(block+"down", c.FF, c.D)...)
	}
	return list
}

// bitLinear lists the three parameters of one binary linear.
func bitLinear(name string, in, out int) []Parameter {
	return []Parameter{
		{Name: name + ".weight", Shape: []int{out, in}},
		{Name: name + ".alpha", Shape: []int{out}},
		{Name: name + ".theta", Shape: []int{out}},
	}
}
