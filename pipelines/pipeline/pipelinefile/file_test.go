package pipelinefile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
)

type trainParams struct {
	Steps  int     `json:"steps"`
	Rate   float64 `json:"learning_rate"`
	Layers []int   `json:"kshift_layers"`
	Seed   uint64  `json:"seed"`
	Alibi  bool    `json:"alibi"`
	Label  string  `json:"label"`
}

func fields() map[string][]param.Field {
	return map[string][]param.Field{"train": param.Fields(trainParams{}), "pack": param.Fields(struct{}{})}
}

// file writes text as a pipeline file and returns its path.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.yml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const good = `name: mine
about: a test
seed: 18446744073709551615
sources: [sample, "data/*.parquet"]
stages:
  train: {steps: 7, learning_rate: 1e-3, kshift_layers: [0, 2], label: 2001-02-03}
  pack:
commands: {pack: [./my pack, --x]}
workers: {train: 2}
`

func TestLoadReadsAFile(t *testing.T) {
	f, err := Load(file(t, good))
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "mine" || f.Seed != 1<<64-1 || len(f.Sources) != 2 || f.Sources[0].Location != "sample" ||
		f.Sources[1].Location != "data/*.parquet" ||
		!slices.Equal(f.Stages(), []string{"train", "pack"}) || f.Commands["pack"][0] != "./my pack" ||
		f.Workers["train"] != 2 {
		t.Errorf("%+v", f)
	}
	if err := f.Check(fields()); err != nil {
		t.Error(err)
	}
	d, err := f.Resolve("nano", nil, fields())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"kshift_layers":[0,2],"label":"2001-02-03","learning_rate":0.001,"seed":18446744073709551615,"steps":7}`
	if string(d.Stages["train"]) != want || string(d.Stages["pack"]) != `{}` {
		t.Errorf("%s, %s", d.Stages["train"], d.Stages["pack"])
	}
}

func TestANamelessFileIsCalledAsItsFile(t *testing.T) {
	f, err := Load(file(t, "stages: {train: }"))
	if err != nil || f.Name != "p" {
		t.Errorf("%v, %v", f, err)
	}
}

func TestLoadSaysWhatIsWrongAndWhere(t *testing.T) {
	for text, wants := range map[string][]string{
		"":                           {"is empty"},
		"# nothing\n":                {"is empty"},
		"- a\n- b\n":                 {"p.yml:1", "is a mapping of keys"},
		"just text":                  {"is a mapping of keys"},
		"stages: {train: {steps: 1}": {"p.yml", "yaml"},
		"\x00\x01\x02":               {"p.yml"},
		"name: x\n":                  {"no stages"},
		"stages: {}\n":               {"no stages"},
		"stages: [train]\n":          {"p.yml:1", "give a mapping of stages"},
		"stages:\n" +
			"  train: 7\n": {"p.yml:2", "give a mapping of parameters, or nothing"},
		"stages:\n  tr ain: {}\n":                             {"p.yml:2", `stage "tr ain"`},
		"stages:\n  ../up: {}\n":                              {`stage "../up"`},
		"stage:\n  train: {}\n":                               {"p.yml:1", `did you mean "stages"`},
		"stages: {train: }\nseeds: 3\n":                       {"p.yml:2", `did you mean "seed"`},
		"stages: {train: }\nseed: many\n":                     {"p.yml:2", `"many" is not an integer`},
		"stages: {train: }\nseed: -1\n":                       {"is not an integer from 0"},
		"stages: {train: }\nseed: 1.5\n":                      {"is not an integer"},
		"stages: {train: }\nsources: {}\n":                    {"give a list of files"},
		"stages: {train: }\nsources: []\n":                    {"give a list of files"},
		"stages: {train: }\nsources: one\n":                   {"give a list of files"},
		"stages: {train: }\ncommands: x\n":                    {"give each stage a list of words"},
		"stages: {train: }\ncommands: {train: []}\n":          {"give each stage a list of words"},
		"stages: {train: }\ncommands: {trian: [x]}\n":         {`did you mean "train"`},
		"stages: {train: }\nworkers: {train: many}\n":         {"number of processes"},
		"stages: {train: }\nworkers: {train: 0}\n":            {"from 1 to"},
		"stages: {train: }\nworkers: {train: 99999}\n":        {"from 1 to"},
		"stages: {train: }\nworkers: {trian: 2}\n":            {`did you mean "train"`},
		"stages: {train: }\nname: [x]\n":                      {"name"},
		"stages: {train: }\nname: a/b\n":                      {`name "a/b"`},
		"stages: {train: }\nabout: [x]\n":                     {"about"},
		"stages: {train: }\nname: " + strings.Repeat("x", 41): {"at most 40"},
		"stages: {train: }\n" +
			"stages: {pack: }\n": {"p.yml:2", `key "stages" is given twice, first on line 1`},
		"stages:\n  train: {}\n" +
			"  train: {}\n": {"p.yml:3", `key "train" is given twice, first on line 2`},
		"stages:\n  train:\n    steps: 1\n" +
			"    steps: 2\n": {"p.yml:4", `key "steps" is given twice, first on line 3`},
		"stages:\n  train: &a {}\n  pack: *a\n":                       {"p.yml:3", "aliases are not taken"},
		"stages:\n  train: {<<: {steps: 1}}\n":                        {"p.yml:2", "write the value out"},
		"stages:\n  train: {[1, 2]: 3}\n":                             {"p.yml:2", "keys are words"},
		"stages:\n  train: {learning_rate: .nan}\n":                   {"p.yml:2", "learning_rate"},
		"seed: x\nstages: {train: }\nsead: 3\nworkers: {train: -2}\n": {"p.yml:1", "p.yml:3", "p.yml:4"},
	} {
		_, err := Load(file(t, text))
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v, want %q in it", text, err, want)
			}
		}
	}
	_, err := Load("no/such.yml")
	if err == nil || !strings.Contains(err.Error(), "no/such.yml") {
		t.Errorf("missing: %v", err)
	}
}

func TestHugeFilesAreRefused(t *testing.T) {
	_, err := Load(file(t, "stages: {train: }\nabout: "+strings.Repeat("x", maxFile)))
	if err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large: %v", err)
	}
	bomb := "stages:\n  train:\n    x: &a [1,1,1,1,1,1,1,1,1]\n"
	for i := range 9 {
		name := string(rune('b' + i))
		before := string(rune('a' + i))
		bomb += "    k" + name + ": &" + name + " [" + strings.Repeat("*"+before+",", 9) + "]\n"
	}
	if _, err := Load(file(t, bomb)); err == nil || !strings.Contains(err.Error(), "alias") {
		t.Errorf("a bomb of aliases: %v", err)
	}
}

func TestCheckNamesStageKeyAndPlace(t *testing.T) {
	f, err := Load(file(t, "stages:\n  train:\n    stpes: 3\n    steps: many\n    kshift_layers: true\n    alibi:\n"+
		"    label: 7\n  pack: {x: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = f.Check(fields())
	for _, want := range []string{
		`p.yml:3: stage train: unknown key "stpes": did you mean "steps"`,
		`p.yml:4: stage train: steps: "many" is not an integer`,
		"p.yml:5: stage train: kshift_layers: true is not a list of integers",
		"p.yml:6: stage train: alibi: null is not true or false",
		"p.yml:7: stage train: label: 7 is not text", `p.yml:8: stage pack: unknown key "x": none is taken here`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant %q in it", err, want)
		}
	}
}

func TestAPresetFillsWhatTheFileLeavesOpen(t *testing.T) {
	path := file(t, "seed: 3\nstages:\n  train: {steps: 7}\n")
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	preset, err := definition.ReadPreset("small.yml",
		[]byte("stages:\n  train: {steps: 1, alibi: true}\n  probe: {x: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	f.AddPreset(preset)
	if err := f.Set("train.label=a=b", fields()); err != nil {
		t.Error(err)
	}
	d, err := f.Resolve("small", nil, fields())
	if err != nil || string(d.Stages["train"]) != `{"alibi":true,"label":"a=b","seed":3,"steps":7}` || len(d.Stages) != 1 {
		t.Errorf("%s, %v", d.Stages, err)
	}
}

func TestSetSaysWhatIsWrong(t *testing.T) {
	f, err := Load(file(t, "stages: {train: , pack: }"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"steps=3":        "write stage.key=value",
		"train.steps":    "write stage.key=value",
		"":               "write stage.key=value",
		"trian.steps=3":  `did you mean "train"`,
		"train.stpes=3":  `did you mean "steps"`,
		"pack.steps=3":   "none is taken here",
		"train.a.b=3":    "unknown key",
		"train.steps=\n": "",
	} {
		err := f.Set(text, fields())
		if err == nil {
			err = f.Check(fields()) // types are checked with the rest
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(good)
	f.Add("stages: {train: &a {x: *a}}")
	f.Add("stages:\n  ? [a]\n  : b\n")
	f.Add("!!binary x: 3\nstages: !!set {a}\n")
	path := filepath.Join(f.TempDir(), "p.yml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var file *File
		var err error
		alloctest.AtMost(t, 1<<20+4096*int64(len(text)), func() { file, err = Load(path) })
		if err != nil {
			return
		}
		_ = file.Check(fields())
		d, err := file.Resolve("p", nil, fields())
		if err != nil {
			t.Fatal(err)
		}
		if id, err := d.ID(); err != nil || !event.ValidRun(id) {
			t.Fatalf("%q: %v", id, err)
		}
	})
}

// The seed of a run does not choose the validation documents, so that runs of different seeds are compared on the same
// text.
func TestASeedOfItsOwnIsNotThePipelines(t *testing.T) {
	type shard struct {
		Seed uint64 `json:"seed" seed:"own"`
	}
	type train struct {
		Seed uint64 `json:"seed"`
	}
	fields := map[string][]param.Field{"shard": param.Fields(shard{Seed: 42}), "train": param.Fields(train{Seed: 1}),
		"fixed": param.Fields(shard{Seed: 42})}
	f, err := Load(file(t, "seed: 7\nstages: {shard: , train: , fixed: {seed: 3}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.Resolve("p", nil, fields)
	if err != nil {
		t.Fatal(err)
	}
	for stage, want := range map[string]string{"shard": `{"seed":42}`, "train": `{"seed":7}`, "fixed": `{"seed":3}`} {
		if got := string(d.Stages[stage]); got != want {
			t.Errorf("%s gets %s, want %s", stage, got, want)
		}
	}
}
