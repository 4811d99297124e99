package pipelinefile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

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

// example writes a parameter with its stage, for the message about one that was given without.
func (f *File) example(key, value string, fields map[string][]param.Field) string {
	for _, stage := range f.order {
		if slices.Contains(keysOf(fields[stage]), key) {
			return stage + "." + key + "=" + cmp.Or(value, "VALUE")
		}
	}
	return "train.steps=100"
}

// Check compares every parameter with what the stages say they take, and writes lists in one way. Readers are the
// stages that read sources.
func (f *File) Check(fields map[string][]param.Field, readers ...string) error {
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
				problems = append(problems,
					fmt.Errorf("%s: stage %s: %w", s.Where, stage, param.UnknownKey(key, keysOf(fields[stage]))))
			case !param.Conforms(fields[stage][i].Type, s.Value):
				problems = append(problems,
					fmt.Errorf("%s: stage %s: %w", s.Where, stage, param.WrongType(key, s.Value, fields[stage][i].Type)))
			}
		}
	}
	sources := maps.Clone(fields)
	maps.DeleteFunc(sources, func(stage string, _ []param.Field) bool { return !slices.Contains(readers, stage) })
	return errors.Join(append(problems, f.checkSources(sources))...)
}

// Value finds the first stage that takes a parameter, and what the parameter is given or, where it is not, its default.
func (f *File) Value(key string, fields map[string][]param.Field) (stage string, value json.RawMessage, ok bool) {
	for _, stage := range f.order {
		i := slices.IndexFunc(fields[stage], func(p param.Field) bool { return p.Key == key })
		if i < 0 {
			continue
		}
		if s, given := f.sections[stage][key]; given {
			return stage, s.Value, true
		}
		b, err := json.Marshal(fields[stage][i].Default)
		return stage, b, err == nil
	}
	return "", nil, false
}

// Given says where the parameters of a stage that a message names were given: "pipelines/v76.yml:12" or "--set
// train.steps=3".
func (f *File) Given(stage, message string) []string {
	words := strings.FieldsFunc(message,
		func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	var places []string
	for _, key := range slices.Sorted(maps.Keys(f.sections[stage])) {
		if slices.Contains(words, key) {
			places = append(places, f.sections[stage][key].Where)
		}
	}
	return slices.Compact(places)
}

// Resolve makes the definition of a run. A stage that takes a seed and is given none gets the file's. A seed that is
// the stage's own keeps its default: which documents validate does not depend on the file's seed.
func (f *File) Resolve(preset string, sources []definition.Source, fields map[string][]param.Field) (
	definition.Definition, error) {
	d := definition.Definition{Name: f.Name, Preset: preset, Seed: f.Seed, Sources: sources,
		Stages: map[string]json.RawMessage{}}
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
