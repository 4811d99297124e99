package pipeline

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"bitnet1/shared/run/param"
)

//go:embed presets/*.yml
var presets embed.FS

// Presets lists the presets of this project.
func Presets() []string {
	entries, _ := presets.ReadDir("presets") // it is part of the program
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yml"))
	}
	return names
}

// Preset returns the path, as messages call it, and the content of a preset of this project.
func Preset(name string) (file string, content []byte, err error) {
	file = path.Join("presets", name+".yml")
	if content, err = presets.ReadFile(file); err != nil {
		return "", nil, NoSuchPreset(name, Presets())
	}
	return file, content, nil
}

// NoSuchPreset is the error for a preset that is not among those there are.
func NoSuchPreset(name string, names []string) error {
	if near, ok := param.Nearest(name, names); ok {
		return fmt.Errorf("--preset %s: there is no such preset: did you mean %s?", name, near)
	}
	return fmt.Errorf("--preset %s: there is no such preset: there are %s", name, strings.Join(names, ", "))
}

// PresetSection is what a preset of this project says of a stage: JSON, nil for nothing.
func PresetSection(name, stage string) ([]byte, error) {
	file, content, err := Preset(name)
	if err != nil {
		return nil, err
	}
	f := &File{sections: map[string]section{}}
	if err := errors.Join(append([]error{f.read(file, content, []string{"about", "stages"})}, f.problems...)...); err != nil {
		return nil, err
	}
	if len(f.sections[stage]) == 0 {
		return nil, nil
	}
	values := map[string]json.RawMessage{}
	for _, key := range slices.Sorted(maps.Keys(f.sections[stage])) {
		values[key] = f.sections[stage][key].value
	}
	return json.Marshal(values)
}
