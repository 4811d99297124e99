package model

import (
	"slices"
	"strings"
	"testing"
)

func TestFreezePatterns(t *testing.T) {
	c := small() // two layers
	for _, test := range []struct {
		patterns string
		frozen   []string
		trained  []string
	}{
		{"codebook.*", []string{"codebook.weight", "codebook.theta"}, []string{"norm_out", "blocks.0.up.weight"}},
		{"blocks.*.attn.*", []string{"blocks.0.attn.q.weight", "blocks.1.attn.o.theta"}, []string{"blocks.0.norm_attn", "blocks.1.up.weight"}},
		{"* !blocks.-1.*", []string{"norm_out", "codebook.alpha", "blocks.0.up.weight"}, []string{"blocks.1.up.weight", "blocks.1.norm_ffn"}},
		{"*.theta *.alpha", []string{"blocks.1.down.alpha", "codebook.theta"}, []string{"codebook.weight", "norm_out"}},
		{"blocks.-2.*", []string{"blocks.0.attn.v.alpha"}, []string{"blocks.1.attn.v.alpha"}},
	} {
		frozen, err := c.Frozen(strings.Fields(test.patterns))
		if err != nil {
			t.Errorf("%s: %v", test.patterns, err)
			continue
		}
		for i, p := range c.Parameters() {
			if slices.Contains(test.frozen, p.Name) && !frozen[i] || slices.Contains(test.trained, p.Name) && frozen[i] {
				t.Errorf("%s: %s is frozen: %v", test.patterns, p.Name, frozen[i])
			}
		}
	}
	for patterns, want := range map[string]string{
		"blocks.2.*": "matches no parameter", "*": "nothing to train", "blocks.[": "syntax error", "codbook.*": "matches no parameter",
	} {
		if _, err := c.Frozen(strings.Fields(patterns)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", patterns, err, want)
		}
	}
}

// Frozen parameters keep every bit, through weight decay and the rounding of scales; all others move.
func TestFrozenParametersStayAsTheyAre(t *testing.T) {
	for _, patterns := range []string{"codebook.*", "*.alpha", "blocks.*.attn.q.*", "* !blocks.-1.down.* !norm_out"} {
		for _, bits := range []int{16, 32} {
			m := build(t, small(), 2, Options{Batch: 2, ScaleBits: bits, Freeze: strings.Fields(patterns)})
			frozen, err := m.Config().Frozen(m.Options().Freeze)
			if err != nil {
				t.Fatal(err)
			}
			before := parametersOf(t, m)
			train(t, m, 0, 3)
			for i, p := range parametersOf(t, m) {
				if slices.Equal(p.Data, before[i].Data) != frozen[i] {
					t.Errorf("%s: %s is frozen: %v, and it moved or stayed the other way", patterns, p.Name, frozen[i])
				}
			}
		}
	}
}

// The norm that clipping goes by is that of the gradients that are used.
func TestFrozenGradientsDoNotCount(t *testing.T) {
	m := build(t, small(), 2, Options{Batch: 2, Freeze: []string{"codebook.*"}})
	train(t, m, 0, 1)
	r, err := m.Result()
	if err != nil {
		t.Fatal(err)
	}
	gradients, err := m.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	var all []float64
	for _, g := range gradients {
		if !strings.HasPrefix(g.Name, "codebook.") {
			all = append(all, widen(g.Data)...)
		}
	}
	if want := norm(all); r.Norm < 0.9999*want || r.Norm > 1.0001*want {
		t.Errorf("the norm is %v, want %v", r.Norm, want)
	}
}
