package main

import (
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/run/pipeline"
	"bitnet1/shared/run/stage"
)

// addPreset overlays the named preset: a file in the folder presets beside the pipeline file, or one of this project's.
func addPreset(file *pipeline.File, pipelineFile, preset string) error {
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(pipelineFile), "presets", "*.yml"))
	names := pipeline.Presets()
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".yml")
		if name == preset {
			content, err := pipeline.ReadFile(path)
			if err != nil {
				return err
			}
			return file.AddPreset(path, content)
		}
		names = append(names, name)
	}
	path, content, err := pipeline.Preset(preset)
	if err != nil {
		slices.Sort(names)
		return stage.UsageError(pipeline.NoSuchPreset(preset, slices.Compact(names)))
	}
	return file.AddPreset(path, content)
}
