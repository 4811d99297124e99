package model

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// fixed is a source of a number's own index.
type fixed struct{}

func (fixed) Read(dst []float32, from int) error {
	for i := range dst {
		dst[i] = float32(from + i)
	}
	return nil
}

// A parameter is read in parts, from its data or from its source, and not beyond its end.
func TestReadParameter(t *testing.T) {
	data := Parameter{Name: "a.weight", Shape: []int{2, 3}, Data: []float32{0, 1, 2, 3, 4, 5}}
	for _, p := range []Parameter{data, {Name: "a.weight", Shape: []int{2, 3}, From: fixed{}}} {
		if p.Size() != 6 || p.Check(Parameter{Name: "a.weight", Shape: []int{2, 3}}) != nil {
			t.Errorf("%+v is not as it should be", p)
		}
		for from := range 6 {
			part := make([]float32, 6-from)
			if err := p.Read(part, from); err != nil || part[0] != float32(from) || part[len(part)-1] != 5 {
				t.Errorf("from %d: %v, %v", from, part, err)
			}
		}
	}
	if err := data.Read(make([]float32, 3), 4); err == nil ||
		!strings.Contains(err.Error(), "a.weight has 1 values fewer") {
		t.Errorf("beyond the end: %v", err)
	}
	for what, due := range map[string]Parameter{
		"name":  {Name: "b.weight", Shape: []int{2, 3}},
		"shape": {Name: "a.weight", Shape: []int{3, 2}},
	} {
		if data.Check(due) == nil {
			t.Errorf("another %s was taken", what)
		}
	}
	if (Parameter{Name: "a", Shape: []int{7}, Data: data.Data}).Check(Parameter{Name: "a", Shape: []int{7}}) == nil {
		t.Error("too little data was taken")
	}
}

func TestFirstNotFinite(t *testing.T) {
	for want, values := range map[int][]float32{
		-1: {0, -1, math.MaxFloat32, math.SmallestNonzeroFloat32}, 0: {float32(math.NaN()), 1},
		2: {1, 2, float32(math.Inf(-1))},
	} {
		if got := FirstNotFinite(values); got != want {
			t.Errorf("%v: %d, want %d", values, got, want)
		}
	}
	if got := (Parameter{Name: "a", Data: []float32{1,
		float32(math.Inf(1))}}).NotFinite(); got != "a holds +Inf, at 1" {
		t.Errorf("%q", got)
	}
}

// The parameters are the reference's, in its order; a sequence of them may be left early.
func TestParametersOfAModel(t *testing.T) {
	c := Config{Vocab: 5, D: 2, Layers: 1, FF: 3}
	var got []string
	for p, err := range Each(c.Parameters()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p.Name)
		if p.Name == "blocks.0.attn.q.theta" {
			break
		}
	}
	want := strings.Fields("norm_out codebook.weight codebook.alpha codebook.theta blocks.0.norm_attn blocks.0.norm_ffn" +
		" blocks.0.attn.q.weight blocks.0.attn.q.alpha blocks.0.attn.q.theta")
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	shapes := map[string][]int{}
	for _, p := range c.Parameters() {
		shapes[p.Name] = p.Shape
	}
	for name, want := range map[string][]int{
		"norm_out": {2}, "codebook.weight": {5, 2}, "codebook.alpha": {5}, "blocks.0.up.weight": {3, 2},
		"blocks.0.up.theta":    {3},
		"blocks.0.down.weight": {2, 3}, "blocks.0.down.alpha": {2}, "blocks.0.attn.o.weight": {2, 2},
		"blocks.0.norm_ffn": {2},
	} {
		if !slices.Equal(shapes[name], want) {
			t.Errorf("%s is %v, want %v", name, shapes[name], want)
		}
	}
	if len(shapes) != 1+3+2+3*6 {
		t.Errorf("%d parameters", len(shapes))
	}
}

// Weights pass through 16 MiB at most, or a row where one is larger, and no more than the largest weight.
func TestStaging(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   int
	}{
		{Config{Vocab: 5, D: 2, Layers: 1, FF: 3}, 10},
		{Config{Vocab: 50304, D: 1024, Layers: 1, FF: 4096}, 1 << 22},
		{Config{Vocab: 1 << 20, D: 4, Layers: 1, FF: 1 << 10}, 1 << 22},
		{Config{Vocab: 2, D: 2, Layers: 1, FF: 1 << 23}, 1 << 23},
	} {
		if got := c.config.staging(); got != c.want {
			t.Errorf("%+v: %d, want %d", c.config, got, c.want)
		}
	}
}
