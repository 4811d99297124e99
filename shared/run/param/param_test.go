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
	Until  int      `json:"until" digest:"-"`
	Hidden int      `json:"-"`
}

func TestDecodeOverlaysOnlyTheKeysGiven(t *testing.T) {
	p := sample{Steps: 10, Rate: 0.5, Seed: 7}
	if err := Decode([]byte(`{"learning_rate": 0.25, "kshift_layers": [0, 2], "seed": 18446744073709551615}`),
		&p); err != nil {
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
		`{"seed": -1}`:           `seed: -1 is an integer out of range`,
		`[1]`:                    `must be a mapping`,
	} {
		var p sample
		if err := Decode([]byte(section), &p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", section, err, want)
		}
	}
}

// listing has the usage of kind from a method, and that of steps from a tag.
type listing struct {
	Steps int    `json:"steps" usage:"optimizer steps"`
	Kind  string `json:"kind"`
}

func (listing) Usage(key string) string { return key + " has values of its own" }

func TestUsageComesFromTheTagOrTheStruct(t *testing.T) {
	for _, params := range []any{listing{}, &listing{}} {
		fields := Fields(params)
		if fields[0].Usage != "optimizer steps" || fields[1].Usage != "kind has values of its own" {
			t.Errorf("%T: %+v", params, fields)
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

// A parameter that was added later is left out of the canonical bytes while it has the value that changes nothing.
func TestCanonicalLeavesLaterParametersOut(t *testing.T) {
	type before struct {
		Steps int `json:"steps"`
	}
	type after struct {
		Steps int     `json:"steps"`
		Kind  string  `json:"kind" digest:"unless=plain"`
		Share float64 `json:"share" digest:"unless=0.2"`
	}
	old, _ := Canonical(before{3})
	if b, _ := Canonical(after{3, "plain", 0.2}); string(b) != string(old) {
		t.Errorf("%s, want %s", b, old)
	}
	for _, p := range []after{{3, "other", 0.2}, {3, "plain", 0.25}, {3, "", 0.2}} {
		if b, _ := Canonical(p); string(b) == string(old) {
			t.Errorf("%+v is not seen", p)
		}
	}
	if differing := Overrides(after{3, "plain", 0.2}, after{3, "plain", 0.5}); len(differing) != 1 ||
		differing["share"] != "0.5" {
		t.Errorf("differing: %v", differing)
	}
}

// Parameters that are no part of the canonical bytes are told apart from a base, and no others.
func TestUnkeyedAreThePassingParametersThatDiffer(t *testing.T) {
	base := sample{}
	for _, c := range []struct {
		params sample
		want   string
	}{
		{base, ""},
		{sample{Until: 5}, `{"until":5}`},
		{sample{Steps: 9}, ""},
	} {
		if got, err := Unkeyed(base, c.params); err != nil || got != c.want {
			t.Errorf("%+v: %s, %v; want %s", c.params, got, err, c.want)
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
	if d, _ := Canonical(sample{Steps: 1, Until: 9}); string(d) != string(a) {
		t.Errorf("%s: what is no part of the digest is in it", d)
	}
}

func TestSpreadGivesSwitchesTheirValues(t *testing.T) {
	for given, want := range map[string]string{
		"--alibi":            "--alibi=true",
		"--no-alibi":         "--alibi=false",
		"--alibi false":      "--alibi false",
		"--alibi=false":      "--alibi=false",
		"--alibi --steps 3":  "--alibi=true --steps 3",
		"--no-steps --steps": "--no-steps --steps",
	} {
		if got := strings.Join(Spread(strings.Fields(given), sample{}), " "); got != want {
			t.Errorf("%s became %s, want %s", given, got, want)
		}
	}
}

// The defaults of a stage are shared by all runs that it serves.
func TestDecodeLeavesTheListsOfTheDefaultsAlone(t *testing.T) {
	defaults := sample{Layers: []int{0, 1}, Names: []string{"a"}}
	for _, section := range []string{`{"kshift_layers": [7]}`, `{"names": ["z"]}`, `{"kshift_layers": [8, 9]}`} {
		p := defaults
		if err := Decode([]byte(section), &p); err != nil {
			t.Fatal(err)
		}
	}
	p := defaults
	if err := Set(&p, "kshift_layers", "5"); err != nil {
		t.Fatal(err)
	}
	if defaults.Layers[0] != 0 || defaults.Layers[1] != 1 || defaults.Names[0] != "a" {
		t.Errorf("the defaults are now %+v", defaults)
	}
}

func TestHostileSectionsChangeNothingAndAreNamedBriefly(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for section, want := range map[string]string{
		`{"steps": null}`:                `steps: null is not an integer`,
		`{"alibi": null}`:                `alibi: null is not true or false`,
		`{"kind": null}`:                 `kind: null is not text`,
		`{"kshift_layers": null}`:        `null is not a list of integers`,
		`{"kshift_layers": [0, null]}`:   `is not a list of integers`,
		`{"names": [null]}`:              `is not a list of texts`,
		`{"kshift_layers": [[1]]}`:       `is not a list of integers`,
		`{"kshift_layers": [1.5]}`:       `is not a list of integers`,
		`{"steps": 9223372036854775808}`: `is an integer out of range`,
		`{"steps": 1e30}`:                `steps: 1e30 is an integer out of range`,
		`{"learning_rate": 1e400}`:       `is a number out of range`,
		`{"learning_rate": "NaN"}`:       `is not a number`,
		`{"steps": {}}`:                  `steps: {} is not an integer`,
		`{"steps": "` + long + `"}`:      `steps: "xxx`,
		`{"` + long + `": 1}`:            `unknown key "xxx`,
		`{"steps": 1`:                    `must be a mapping`,
		`"steps"`:                        `must be a mapping`,
		`{"-": 1, "Hidden": 2}`:          `unknown key "Hidden"`,
		`{"kind": 3, "seed": -1}`:        "kind: 3 is not text\nseed: -1 is an integer out of range",
	} {
		p := sample{Steps: 10, Kind: "k", Layers: []int{4}}
		err := Decode([]byte(section), &p)
		if len(section) > 60 {
			section = section[:60] + "…"
		}
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 {
			t.Errorf("%s: error %.1000v, want %q in it", section, err, want)
		}
		if p.Steps != 10 || p.Kind != "k" || len(p.Layers) != 1 || p.Layers[0] != 4 {
			t.Errorf("%s: now %+v", section, p)
		}
	}
}

func TestConformsAgreesWithDecode(t *testing.T) {
	values := []string{"null", "true", "1", "-1", "1.5", "18446744073709551615", "1e3", `"x"`, "[]", "[1]", `["x"]`,
		"[null]", "[1, null]", "{}"}
	for _, f := range Fields(sample{}) {
		for _, value := range values {
			var p sample
			decoded := Decode([]byte(`{"`+f.Key+`": `+value+`}`), &p) == nil
			conforms := Conforms(f.Type, []byte(value))
			// The type "integer" stands for signed and for unsigned fields.
			if decoded && !conforms || conforms && !decoded && f.Type != "integer" {
				t.Errorf("%s (%s) = %s: decoded %v, conforms %v", f.Key, f.Type, value, decoded, conforms)
			}
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"steps", "learning_rate", "seed"}
	for word, want := range map[string]string{
		"step": "steps", "stpes": "steps", "learning-rate": "learning_rate", "sed": "seed", "x": "", "": "",
		strings.Repeat("steps", 1000): "", "STEPS": "",
	} {
		if got, ok := Nearest(word, keys); got != want || ok != (want != "") {
			t.Errorf("nearest to %.20q is %q, want %q", word, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, section := range []string{`{}`, `null`, `{"steps": 3, "kshift_layers": [1], "names": ["a"], "seed": 1}`,
		`{"learning_rate": 1e-3, "alibi": true, "kind": "é"}`, `[`, ``} {
		f.Add(section)
	}
	f.Fuzz(func(t *testing.T, section string) {
		var p sample
		if Decode([]byte(section), &p) != nil {
			return
		}
		canonical, err := Canonical(p)
		if err != nil {
			t.Fatal(err)
		}
		var q sample
		if err := Decode(canonical, &q); err != nil {
			t.Fatalf("%s: %v", canonical, err)
		}
		again, err := Canonical(q)
		if err != nil || string(again) != string(canonical) {
			t.Fatalf("%s came back as %s (%v)", canonical, again, err)
		}
	})
}
