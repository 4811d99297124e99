package param

import (
	"strings"
	"testing"
)

type sample struct {
	Steps  int      `json:"steps" usage:"optimizer steps"`
	Rate   float64  `json:"learning_rate" usage:"peak learning rate"`
	Alibi  bool     `json:"alibi"`
	Layers []int    `json:"kshift_layers"`
	Names  []string `json:"names"`
	Seed   uint64   `json:"seed"`
	Kind   string   `json:"kind"`
	Hidden int      `json:"-"`
}

func TestDecodeOverlaysOnlyTheKeysGiven(t *testing.T) {
	p := sample{Steps: 10, Rate: 0.5, Seed: 7}
	if err := Decode([]byte(`{"learning_rate": 0.25, "kshift_layers": [0, 2], "seed": 18446744073709551615}`), &p); err != nil {
		t.Fatal(err)
	}
	if p.Steps != 10 || p.Rate != 0.25 || len(p.Layers) != 2 || p.Seed != 1<<64-1 {
		t.Fatalf("got %+v", p)
	}
}

func TestDecodeNamesTheProblem(t *testing.T) {
	for section, want := range map[string]string{
		`{"step": 3}`:            `did you mean "steps"`,
		`{"learnig_rate": 3}`:    `did you mean "learning_rate"`,
		`{"zzzzzzzzzzzz": 3}`:    `the keys here are`,
		`{"steps": "many"}`:      `steps: "many" is not an integer`,
		`{"steps": 1.5}`:         `is not an integer`,
		`{"alibi": 1}`:           `is not true or false`,
		`{"kshift_layers": "0"}`: `is not a list of integers`,
		`{"seed": -1}`:           `is not an integer`,
		`[1]`:                    `must be a mapping`,
	} {
		var p sample
		if err := Decode([]byte(section), &p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", section, err, want)
		}
	}
}

func TestSetReadsFlagText(t *testing.T) {
	var p sample
	for key, text := range map[string]string{
		"steps": "12", "learning_rate": "1e-3", "alibi": "true", "kshift_layers": "0,3", "names": "a, b", "kind": "true",
	} {
		if err := Set(&p, key, text); err != nil {
			t.Errorf("%s=%s: %v", key, text, err)
		}
	}
	if p.Steps != 12 || p.Rate != 1e-3 || !p.Alibi || p.Layers[1] != 3 || p.Names[1] != "b" || p.Kind != "true" {
		t.Fatalf("got %+v", p)
	}
	if err := Set(&p, "kshift_layers", "none"); err != nil || len(p.Layers) != 0 {
		t.Errorf("none: %v, %v", p.Layers, err)
	}
	for key, text := range map[string]string{"steps": "x", "kshift_layers": "a", "alibi": "yes", "stps": "1"} {
		if err := Set(&p, key, text); err == nil {
			t.Errorf("%s=%s was accepted", key, text)
		}
	}
}

func TestCanonicalSeesEveryValue(t *testing.T) {
	a, _ := Canonical(sample{Steps: 1})
	b, _ := Canonical(&sample{Steps: 1})
	c, _ := Canonical(sample{Steps: 2})
	if string(a) != string(b) || string(a) == string(c) {
		t.Fatalf("%s / %s / %s", a, b, c)
	}
}
