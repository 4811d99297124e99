package model

import "fmt"

// Parameter is one named tensor, row-major. Names are those of the PyTorch reference's named_parameters.
type Parameter struct {
	Name  string
	Shape []int
	Data  []float32 // nil where only the layout is described
}

// Size is the number of elements that Shape describes.
func (p Parameter) Size() int {
	n := 1
	for _, s := range p.Shape {
		n *= s
	}
	return n
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
