package main

import (
	"embed"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/param"
	"bitnet1/shared/pipeline"
	"bitnet1/shared/stage"
)

//go:embed presets/*.yml
var builtIn embed.FS

// presetFiles are the presets that a pipeline file can be run with, by name: those of this project, and those in the
// folder presets beside the file, which win.
func presetFiles(pipelineFile string) map[string]func() (path string, content []byte, err error) {
	found := map[string]func() (string, []byte, error){}
	entries, _ := builtIn.ReadDir("presets") // it is part of the program
	for _, e := range entries {
		path := "presets/" + e.Name()
		found[presetName(path)] = func() (string, []byte, error) {
			b, err := builtIn.ReadFile(path)
			return path, b, err
		}
	}
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(pipelineFile), "presets", "*.yml"))
	for _, path := range files {
		found[presetName(path)] = func() (string, []byte, error) {
			b, err := pipeline.ReadFile(path)
			return path, b, err
		}
	}
	return found
}

func presetName(path string) string { return strings.TrimSuffix(filepath.Base(path), ".yml") }

// addPreset overlays the named preset.
func addPreset(file *pipeline.File, pipelineFile, preset string) error {
	all := presetFiles(pipelineFile)
	read, ok := all[preset]
	if !ok {
		names := slices.Sorted(maps.Keys(all))
		if near, ok := param.Nearest(preset, names); ok {
			return stage.UsageError(fmt.Errorf("--preset %s: there is no such preset: did you mean %s?", preset, near))
		}
		return stage.UsageError(fmt.Errorf("--preset %s: there is no such preset: there are %s", preset, strings.Join(names, ", ")))
	}
	path, content, err := read()
	if err != nil {
		return err
	}
	return file.AddPreset(path, content)
}
