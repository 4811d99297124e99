package model

import (
	"math"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
)

func TestFreezePatterns(t *testing.T) {
	c := small() // two layers
	for _, test := range []struct {
		patterns string
		frozen   []string
		trained  []string
	}{
		{"codebook.*", []string{"codebook.weight", "codebook.theta"}, []string{"norm_out", "blocks.0.up.weight"}},
		{"blocks.*.attn.*", []string{"blocks.0.attn.q.weight", "blocks.1.attn.o.theta"},
			[]string{"blocks.0.norm_attn", "blocks.1.up.weight"}},
		{"* !blocks.-1.*", []string{"norm_out", "codebook.alpha", "blocks.0.up.weight"},
			[]string{"blocks.1.up.weight", "blocks.1.norm_ffn"}},
		{"*.theta *.alpha", []string{"blocks.1.down.alpha", "codebook.theta"}, []string{"codebook.weight", "norm_out"}},
		{"blocks.-2.*", []string{"blocks.0.attn.v.alpha"}, []string{"blocks.1.attn.v.alpha"}},
	} {
		frozen, err := c.Frozen(strings.Fields(test.patterns))
		if err != nil {
			t.Errorf("%s: %v", test.patterns, err)
			continue
		}
		for i, p := range c.Parameters() {
			if slices.Contains(test.frozen, p.Name) && !frozen[i] || slices.Contains(test.trained, p.Name) &&
				frozen[i] {
				t.Errorf("%s: %s is frozen: %v", test.patterns, p.Name, frozen[i])
			}
		}
	}
	for patterns, want := range map[string]string{
		"blocks.2.*": "matches no parameter", "*": "nothing to train", "blocks.[": "syntax error",
		"codbook.*": "matches no parameter",
	} {
		if _, err := c.Frozen(strings.Fields(patterns)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", patterns, err, want)
		}
	}
}

// Frozen parameters keep every bit, through weight decay and the rounding of scales; all others move.
func TestFrozenParametersStayAsTheyAre(t *testing.T) {
	for _, patterns := range []string{"codebook.*", "*.alpha", "blocks.*.attn.q.*", "* !blocks.-1.down.* !norm_out"} {
		for _, o := range []Options{{ScaleBits: 16}, {ScaleBits: 32}, {Muon: true}} {
			o.Batch, o.Freeze = 2, strings.Fields(patterns)
			m := build(t, small(), 2, o)
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

// What trains gets the gradients that it would get if everything did, and nothing is computed for what does not.
func TestFreezingChangesNoOtherGradient(t *testing.T) {
	for _, patterns := range []string{
		"codebook.*", "codebook.weight", "blocks.*.attn.*", "* !blocks.-1.*", "* !norm_out", "* !codebook.theta",
		"*.theta",
		"* !blocks.0.norm_attn", "blocks.0.attn.q.*", "* !codebook.weight",
	} {
		for _, bits := range []int{kernels.FloatBits, 4} {
			whole := build(t, small(), 2, Options{Batch: 2, GradBits: bits})
			part := build(t, small(), 2, Options{Batch: 2, GradBits: bits, Freeze: strings.Fields(patterns)})
			frozen, err := part.Config().Frozen(part.Options().Freeze)
			if err != nil {
				t.Fatal(err)
			}
			tokens, targets := sequences(small(), 4, 3)
			var lists [2][]Parameter
			for i, m := range []*Model{whole, part} {
				if err := m.Backward(tokens, targets, Settings{Gamma: 0.5}); err != nil {
					t.Fatal(err)
				}
				if lists[i], err = m.Gradients(); err != nil {
					t.Fatal(err)
				}
			}
			for i, p := range lists[1] {
				if !frozen[i] && !slices.Equal(p.Data, lists[0][i].Data) {
					t.Errorf("freeze %s, gradients of %d bits: that of %s differs", patterns, bits, p.Name)
				}
			}
			if l := part.layers[0]; frozen[part.store.index["blocks.0.up.weight"]] &&
				frozen[part.store.index["blocks.0.up.alpha"]] && l.dUp.Weight != nil {
				t.Errorf("freeze %s: weights' gradients are computed where none trains", patterns)
			}
		}
	}
}

// The first value that is not finite is named: a gradient before a parameter.
func TestNotFinite(t *testing.T) {
	m := build(t, small(), 2, Options{Batch: 2})
	tokens, targets := sequences(small(), 2, 3)
	look := func(want string) {
		t.Helper()
		if err := m.Backward(tokens, targets, Settings{Gamma: 0.5}); err != nil {
			t.Fatal(err)
		}
		if got, err := m.NotFinite(); err != nil || !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q is not finite (%v), want %q", got, err, want)
		}
	}
	look("")
	nan := []float32{float32(math.NaN())}
	m.dev.Upload(m.store.slice(m.store.param, "blocks.1.down.weight", 20).Slice(17, 18),
		nan) // its sign is still a sign
	look("parameter blocks.1.down.weight holds NaN, at 17")
	m.dev.Upload(m.store.slice(m.store.param, "blocks.1.norm_ffn", 1), nan)
	look("the gradient of ")
	if err := m.Load(Each(parametersOf(t, m))); err == nil || !strings.Contains(err.Error(), "holds NaN") {
		t.Errorf("loading NaN gave %v", err)
	}
}
