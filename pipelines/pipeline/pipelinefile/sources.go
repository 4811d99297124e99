package pipelinefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/param"
)

// Input is an entry of sources: a file, a pattern, a URL or a name such as sample, and what differs for its files
// alone.
type Input struct {
	Location   string
	Parameters map[string]json.RawMessage // of the stage that reads sources; nil: nothing differs
	where      string                     // "pipelines/v76.yml:4"
}

// readSources takes a list of locations. Where a source has parameters of its own, its entry is a mapping.
func (f *File) readSources(r *definition.Reader, node *yaml.Node) error {
	usage := errors.New(`sources: give a list of files or patterns, e.g. [sample], ["data/*.parquet"] ` +
		`or [{path: "old/*.csv", text_column: body}]`)
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 {
		return usage
	}
	for _, item := range node.Content {
		in := Input{where: fmt.Sprintf("%s:%d", r.Path, item.Line)}
		switch item.Kind {
		case yaml.ScalarNode:
			if item.Tag == "!!null" {
				return usage
			}
			in.Location = item.Value
		case yaml.MappingNode:
			in.Parameters = map[string]json.RawMessage{}
			for key, s := range r.Section("sources", item) {
				in.Parameters[key] = s.Value
			}
			if json.Unmarshal(in.Parameters["path"], &in.Location) != nil || in.Location == "" {
				return fmt.Errorf("sources: an entry that is a mapping needs a path, e.g. {path: \"old/*.csv\", text_column: body}")
			}
			delete(in.Parameters, "path")
		default:
			return usage
		}
		f.Sources = append(f.Sources, in)
	}
	return nil
}

// checkSources compares the parameters of sources with what the stages that read sources take.
func (f *File) checkSources(fields map[string][]param.Field) error {
	var problems []error
	for _, in := range f.Sources {
		if len(in.Parameters) > 0 && len(fields) == 0 {
			problems = append(problems,
				fmt.Errorf("%s: source %s: its parameters are for a stage that reads sources, which this pipeline has not",
					in.where, in.Location))
		}
		for _, stage := range slices.Sorted(maps.Keys(fields)) {
			for _, key := range slices.Sorted(maps.Keys(in.Parameters)) {
				if err := checkSourceParameter(key, in.Parameters[key], stage, fields[stage]); err != nil {
					problems = append(problems, fmt.Errorf("%s: source %s: %w", in.where, in.Location, err))
				}
			}
		}
	}
	return errors.Join(problems...)
}

func checkSourceParameter(key string, value json.RawMessage, stage string, fields []param.Field) error {
	i := slices.IndexFunc(fields, func(p param.Field) bool { return p.Key == key })
	switch {
	case i < 0:
		return param.UnknownKey(key, append(keysOf(fields), "path"))
	case fields[i].Same:
		return fmt.Errorf("%s is the same for all sources: give it under stages, to %s", key, stage)
	case !param.Conforms(fields[i].Type, value):
		return param.WrongType(key, value, fields[i].Type)
	}
	return nil
}
