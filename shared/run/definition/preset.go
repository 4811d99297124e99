package definition

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed presets/*.yml
var presets embed.FS

// Preset is what a preset says of stages: sections by stage. A preset is a YAML file with the key stages, and perhaps
// about.
type Preset map[string]Section

// ReadPreset reads the content of a preset; path is what messages call it.
func ReadPreset(path string, content []byte) (Preset, error) {
	r := Reader{Path: path}
	p := Preset{}
	r.Read(content, []string{"about", "stages"}, func(key, value *yaml.Node) {
		switch key.Value {
		case "about":
			if value.Decode(new(string)) != nil {
				r.Problem(value, errors.New("about: give one sentence of text"))
			}
		case "stages":
			_, p = r.Stages(value)
		}
	})
	return p, r.Err()
}

// Presets lists the presets of this project.
func Presets() []string {
	entries, _ := presets.ReadDir("presets") // it is part of the program
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yml"))
	}
	return names
}

// OpenPreset returns a preset of this project.
func OpenPreset(name string) (Preset, error) {
	file := path.Join("presets", name+".yml")
	content, err := presets.ReadFile(file)
	if err != nil {
		return nil, NoSuchPreset(name, Presets())
	}
	return ReadPreset(file, content)
}

// NoSuchPreset is the error for a preset that is not among those there are. It names all: a size that does not exist is
// no typing error, and the one that is spelled most alike may be thirty times as large.
func NoSuchPreset(name string, names []string) error {
	return fmt.Errorf("--preset %s: there is no such preset: there are %s", name, strings.Join(names, ", "))
}

// PresetSection is what a preset of this project says of a stage: JSON, nil for nothing.
func PresetSection(name, stage string) ([]byte, error) {
	p, err := OpenPreset(name)
	if err != nil || len(p[stage]) == 0 {
		return nil, err
	}
	return p[stage].Encode()
}
