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
	Parameters map[string]json.RawMessage // of the stage tokenize; nil: nothing differs
	where      string                     // "pipelines/v76.yml:4"
}

// readSources takes a list of locations. Where a source has parameters of its own, its entry is a mapping.
func (f *File) readSources(r *definition.Reader, node *yaml.Node) error {
	usage := errors.New(`sources: give a list of files or patterns, e.g. [sample], ["data/*.parquet"] or [{path: "old/*.csv", text_column: body}]`)
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
			for key, s := range r.Section("tokenize", item) {
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

// sharedParameters are those of tokenize that cannot differ by source.
var sharedParameters = []string{"tokenizer", "on_bad_file"}

// checkSources compares the parameters of sources with what the stage tokenize says it takes.
func (f *File) checkSources(fields []param.Field) error {
	var problems []error
	for _, in := range f.Sources {
		if len(in.Parameters) > 0 && !slices.Contains(f.order, "tokenize") {
			problems = append(problems, fmt.Errorf("%s: source %s: its parameters are for a stage tokenize, which this pipeline has not", in.where, in.Location))
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(in.Parameters)) {
			i := slices.IndexFunc(fields, func(p param.Field) bool { return p.Key == key })
			switch {
			case i < 0:
				problems = append(problems, fmt.Errorf("%s: source %s: %w", in.where, in.Location, param.UnknownKey(key, append(keysOf(fields), "path"))))
			case slices.Contains(sharedParameters, key):
				problems = append(problems, fmt.Errorf("%s: source %s: %s is the same for all sources: give it under stages", in.where, in.Location, key))
			case !param.Conforms(fields[i].Type, in.Parameters[key]):
				problems = append(problems, fmt.Errorf("%s: source %s: %w", in.where, in.Location, param.WrongType(key, in.Parameters[key], fields[i].Type)))
			}
		}
	}
	return errors.Join(problems...)
}
