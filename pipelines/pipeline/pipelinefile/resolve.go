package pipelinefile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/param"
)

// AddPreset overlays a preset's sections under the file's own: where both give a parameter, the pipeline file wins. A
// preset speaks to more stages than a pipeline may have.
func (f *File) AddPreset(p definition.Preset) {
	for stage, own := range f.sections {
		for key, s := range p[stage] {
			if _, given := own[key]; !given {
				own[key] = s
			}
		}
	}
}

// Set overrides one parameter, given as "stage.key=value".
func (f *File) Set(text string, fields map[string][]param.Field) error {
	path, value, ok := strings.Cut(text, "=")
	stage, key, ok2 := strings.Cut(path, ".")
	if !ok || !ok2 {
		return fmt.Errorf("--set %s: write stage.key=value, e.g. %s", text, f.example(path, value, fields))
	}
	own, takesPart := f.sections[stage]
	if !takesPart {
		return fmt.Errorf("--set %s: %w", text, param.UnknownKey(stage, f.order))
	}
	i := slices.IndexFunc(fields[stage], func(p param.Field) bool { return p.Key == key })
	if i < 0 {
		return fmt.Errorf("--set %s: %w", text, param.UnknownKey(key, keysOf(fields[stage])))
	}
	own[key] = definition.Setting{Value: param.Value(fields[stage][i].Type, value), Where: "--set " + text}
	return nil
}

// example is how one might write a parameter that was written without its stage.
func (f *File) example(key, value string, fields map[string][]param.Field) string {
	for _, stage := range f.order {
		if slices.Contains(keysOf(fields[stage]), key) {
			return stage + "." + key + "=" + cmp.Or(value, "VALUE")
		}
	}
	return "train.steps=100"
}

// Check compares every parameter with what the stages say they take, and writes lists in one way.
func (f *File) Check(fields map[string][]param.Field) error {
	var problems []error
	for _, stage := range f.order {
		for _, key := range slices.Sorted(maps.Keys(f.sections[stage])) {
			s := f.sections[stage][key]
			i := slices.IndexFunc(fields[stage], func(p param.Field) bool { return p.Key == key })
			if i >= 0 {
				s.Value = param.Normalize(fields[stage][i].Type, s.Value)
				f.sections[stage][key] = s
			}
			switch {
			case i < 0:
				problems = append(problems, fmt.Errorf("%s: stage %s: %w", s.Where, stage, param.UnknownKey(key, keysOf(fields[stage]))))
			case !param.Conforms(fields[stage][i].Type, s.Value):
				problems = append(problems, fmt.Errorf("%s: stage %s: %w", s.Where, stage, param.WrongType(key, s.Value, fields[stage][i].Type)))
			}
		}
	}
	return errors.Join(append(problems, f.checkSources(fields["tokenize"]))...)
}

// Value is what a stage's parameter is given or, where it is not, its default among fields; nil if there is none.
func (f *File) Value(stage, key string, fields []param.Field) json.RawMessage {
	if s, given := f.sections[stage][key]; given {
		return s.Value
	}
	i := slices.IndexFunc(fields, func(p param.Field) bool { return p.Key == key })
	if i < 0 {
		return nil
	}
	b, _ := json.Marshal(fields[i].Default) // it has come as JSON
	return b
}

// Resolve makes the definition of a run. Stages that take a seed and are given
// none get the file's, unless it is their own: which documents validate does not depend on the file's seed.
func (f *File) Resolve(preset string, sources []definition.Source, fields map[string][]param.Field) (definition.Definition, error) {
	d := definition.Definition{Name: f.Name, Preset: preset, Seed: f.Seed, Sources: sources, Stages: map[string]json.RawMessage{}}
	for _, stage := range f.order {
		values := map[string]json.RawMessage{}
		for key, s := range f.sections[stage] {
			values[key] = s.Value
		}
		for _, p := range fields[stage] {
			if _, given := values["seed"]; p.Key != "seed" || given {
				continue
			}
			values["seed"] = json.RawMessage(fmt.Sprint(f.Seed))
			if p.Own {
				values["seed"] = json.RawMessage(param.Text(p.Default))
			}
		}
		b, err := json.Marshal(values) // sorts the keys
		if err != nil {
			return definition.Definition{}, err
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
