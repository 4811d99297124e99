package pipeline

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/param"
)

// File is a pipeline file as its author wrote it:
//
//	name: v76
//	about: one sentence
//	seed: 42
//	sources: [sample]
//	stages:
//	  train: {steps: 600}
//	commands: {mystage: [./mystage]}
//	workers: {tokenize: 2}
type File struct {
	Name     string
	About    string
	Seed     uint64
	Sources  []string            // files, globs, or "sample"
	Commands map[string][]string // how to start stages that are not the project's own
	Workers  map[string]int      // processes of a stage; 1 where absent

	order    []string
	sections map[string]section
	problems []error
}

// section is what a file, a preset and overrides say about one stage.
type section map[string]setting

// setting is one parameter and where it was given.
type setting struct {
	value json.RawMessage
	where string // "pipelines/v76.yml:12" or "--set train.steps=3"
}

var fileKeys = []string{"name", "about", "seed", "sources", "stages", "commands", "workers"}

// Load reads a pipeline file. All of its mistakes are reported together, with
// their lines.
func Load(path string) (*File, error) {
	f := &File{sections: map[string]section{}, Commands: map[string][]string{}, Workers: map[string]int{}}
	if err := f.read(path, fileKeys); err != nil {
		return nil, err
	}
	if f.Name == "" {
		f.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	if len(f.order) == 0 {
		f.problems = append(f.problems, fmt.Errorf("%s: no stages: list at least one under the key stages", path))
	}
	return f, errors.Join(f.problems...)
}

// AddPreset overlays the preset's sections under the file's own: where both
// give a parameter, the pipeline file wins.
func (f *File) AddPreset(path string) error {
	p := &File{sections: map[string]section{}}
	if err := p.read(path, []string{"about", "stages"}); err != nil {
		return err
	}
	if err := errors.Join(p.problems...); err != nil {
		return err
	}
	for stage, settings := range p.sections {
		own, takesPart := f.sections[stage]
		if !takesPart {
			continue // a preset speaks to more stages than a pipeline may have
		}
		for key, s := range settings {
			if _, given := own[key]; !given {
				own[key] = s
			}
		}
	}
	return nil
}

// Set overrides one parameter, given as "stage.key=value".
func (f *File) Set(text string, fields map[string][]param.Field) error {
	path, value, ok := strings.Cut(text, "=")
	stage, key, ok2 := strings.Cut(path, ".")
	if !ok || !ok2 {
		return fmt.Errorf("--set %s: write stage.key=value, e.g. train.steps=100", text)
	}
	own, takesPart := f.sections[stage]
	if !takesPart {
		return fmt.Errorf("--set %s: %w", text, param.UnknownKey(stage, f.order))
	}
	i := slices.IndexFunc(fields[stage], func(p param.Field) bool { return p.Key == key })
	if i < 0 {
		return fmt.Errorf("--set %s: %w", text, param.UnknownKey(key, keysOf(fields[stage])))
	}
	own[key] = setting{value: param.Value(fields[stage][i].Type, value), where: "--set " + text}
	return nil
}

// Check compares every parameter with what the stages say they take.
func (f *File) Check(fields map[string][]param.Field) error {
	var problems []error
	for _, stage := range f.order {
		for _, key := range slices.Sorted(maps.Keys(f.sections[stage])) {
			s := f.sections[stage][key]
			i := slices.IndexFunc(fields[stage], func(p param.Field) bool { return p.Key == key })
			switch {
			case i < 0:
				problems = append(problems, fmt.Errorf("%s: stage %s: %w", s.where, stage, param.UnknownKey(key, keysOf(fields[stage]))))
			case !param.Conforms(fields[stage][i].Type, s.value):
				problems = append(problems, fmt.Errorf("%s: stage %s: %w", s.where, stage, param.WrongType(key, s.value, fields[stage][i].Type)))
			}
		}
	}
	return errors.Join(problems...)
}

// Stages lists the stages in the order of the file.
func (f *File) Stages() []string { return f.order }

// Resolve makes the definition of a run. Stages that take a seed and are given
// none get the file's.
func (f *File) Resolve(preset string, sources []Source, fields map[string][]param.Field) (Definition, error) {
	d := Definition{Name: f.Name, Preset: preset, Seed: f.Seed, Sources: sources, Stages: map[string]json.RawMessage{}}
	for _, stage := range f.order {
		values := map[string]json.RawMessage{}
		for key, s := range f.sections[stage] {
			values[key] = s.value
		}
		takesSeed := slices.ContainsFunc(fields[stage], func(p param.Field) bool { return p.Key == "seed" })
		if _, given := values["seed"]; takesSeed && !given {
			values["seed"] = json.RawMessage(fmt.Sprint(f.Seed))
		}
		b, err := json.Marshal(values) // sorts the keys
		if err != nil {
			return Definition{}, err
		}
		d.Stages[stage] = b
	}
	return d, nil
}

func keysOf(fields []param.Field) []string {
	keys := make([]string, len(fields))
	for i, p := range fields {
		keys[i] = p.Key
	}
	return keys
}

func (f *File) read(path string, valid []string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("pipeline file: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(b, &document); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(document.Content) == 0 {
		return fmt.Errorf("%s is empty: it needs at least the key stages", path)
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: a pipeline file is a mapping of keys to values", path, root.Line)
	}
	for key, value := range pairs(root) {
		if !slices.Contains(valid, key.Value) {
			f.problem(path, key, param.UnknownKey(key.Value, valid))
			continue
		}
		f.readKey(path, key, value)
	}
	return nil
}

func (f *File) readKey(path string, key, value *yaml.Node) {
	var err error
	switch key.Value {
	case "name":
		err = value.Decode(&f.Name)
		if err == nil && !validName(f.Name) {
			err = fmt.Errorf("name %q: use letters, digits, - and _", f.Name)
		}
	case "about":
		err = value.Decode(&f.About)
	case "seed":
		if value.Tag != "!!int" || value.Decode(&f.Seed) != nil {
			err = fmt.Errorf("seed: %q is not an integer from 0 to 2^64-1", value.Value)
		}
	case "sources":
		if value.Decode(&f.Sources) != nil {
			err = fmt.Errorf("sources: give a list of files or patterns, e.g. [sample] or [\"data/*.parquet\"]")
		}
	case "commands":
		if value.Decode(&f.Commands) != nil {
			err = fmt.Errorf("commands: give each stage a list of words, e.g. {mystage: [./mystage]}")
		}
	case "workers":
		if value.Decode(&f.Workers) != nil {
			err = fmt.Errorf("workers: give each stage a number of processes, e.g. {tokenize: 2}")
		}
	case "stages":
		err = f.readStages(path, value)
	}
	if err != nil {
		f.problem(path, value, err)
	}
}

func (f *File) readStages(path string, node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("stages: give a mapping of stages to their parameters, e.g. {train: {steps: 100}}")
	}
	for key, value := range pairs(node) {
		if !validName(key.Value) {
			f.problem(path, key, fmt.Errorf("stage %q: use letters, digits, - and _", key.Value))
			continue
		}
		settings := section{}
		if value.Kind == yaml.MappingNode {
			for k, v := range pairs(value) {
				raw, err := toJSON(v)
				if err != nil {
					f.problem(path, v, fmt.Errorf("stage %s: %s: %w", key.Value, k.Value, err))
					continue
				}
				settings[k.Value] = setting{value: raw, where: fmt.Sprintf("%s:%d", path, k.Line)}
			}
		} else if value.Tag != "!!null" {
			f.problem(path, value, fmt.Errorf("stage %s: give a mapping of parameters, or nothing", key.Value))
		}
		f.order = append(f.order, key.Value)
		f.sections[key.Value] = settings
	}
	return nil
}

func (f *File) problem(path string, at *yaml.Node, err error) {
	f.problems = append(f.problems, fmt.Errorf("%s:%d: %w", path, at.Line, err))
}

// pairs iterates over the keys and values of a mapping.
func pairs(m *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(m.Content); i += 2 {
			if !yield(m.Content[i], m.Content[i+1]) {
				return
			}
		}
	}
}

func toJSON(node *yaml.Node) (json.RawMessage, error) {
	var v any
	if err := node.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

func validName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) < 0
}

// Presets lists the presets beside a pipeline file.
func Presets(pipelineFile string) []string {
	files, _ := filepath.Glob(PresetPath(pipelineFile, "*"))
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".yml"))
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(a, b) })
	return names
}

// PresetPath is where the preset of a pipeline file is.
func PresetPath(pipelineFile, preset string) string {
	return filepath.Join(filepath.Dir(pipelineFile), "presets", preset+".yml")
}
