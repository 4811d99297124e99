package main

import (
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/pipelines/pipeline/pipelinefile"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
)

// openPreset reads the named preset: a file in the folder presets beside the pipeline file, or one of this project's.
func openPreset(pipelineFile, name string) (definition.Preset, error) {
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(pipelineFile), "presets", "*.yml"))
	names := definition.Presets()
	for _, path := range files {
		own := strings.TrimSuffix(filepath.Base(path), ".yml")
		if own == name {
			content, err := pipelinefile.ReadFile(path)
			if err != nil {
				return nil, err
			}
			return definition.ReadPreset(path, content)
		}
		names = append(names, own)
	}
	if !slices.Contains(names, name) {
		slices.Sort(names)
		return nil, command.UsageError(definition.NoSuchPreset(name, slices.Compact(names)))
	}
	return definition.OpenPreset(name)
}
