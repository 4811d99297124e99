package definition

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/run/param"
)

// Section is what a pipeline file, a preset and the command line say of one stage: settings by the parameter's key.
type Section map[string]Setting

// Setting is one parameter and where it was given.
type Setting struct {
	Value json.RawMessage
	Where string // "pipelines/v76.yml:12" or "--set train.steps=3"
}

// Encode returns the section's values as JSON, sorted by key.
func (s Section) Encode() ([]byte, error) {
	values := map[string]json.RawMessage{}
	for key, setting := range s {
		values[key] = setting.Value
	}
	return json.Marshal(values)
}

// Reader reads a YAML file that gives stages their parameters. It goes on after a mistake, so that all mistakes are
// reported together, each with its line.
type Reader struct {
	Path     string // what messages call the file
	problems []error
}

// Problem reports a mistake at a place in the file.
func (r *Reader) Problem(at *yaml.Node, err error) {
	r.problems = append(r.problems, fmt.Errorf("%s:%d: %w", r.Path, at.Line, err))
}

// Err returns all mistakes so far, nil for none.
func (r *Reader) Err() error { return errors.Join(r.problems...) }

// Read calls do for every key of a file that is one mapping. A key that is not among the known ones is a mistake.
func (r *Reader) Read(content []byte, known []string, do func(key, value *yaml.Node)) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		r.problems = append(r.problems, fmt.Errorf("%s: %w", r.Path, err))
		return
	}
	if len(document.Content) == 0 {
		r.problems = append(r.problems, fmt.Errorf("%s is empty: it needs at least the key stages", r.Path))
		return
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		r.Problem(root, errors.New("a pipeline file is a mapping of keys to values"))
		return
	}
	r.eachKey(root, func(key, value *yaml.Node) {
		if !slices.Contains(known, key.Value) {
			r.Problem(key, param.UnknownKey(key.Value, known))
			return
		}
		do(key, value)
	})
}

// eachKey calls do for every key of a mapping. Of a key that is there twice only the first counts; the others are
// mistakes, as are aliases.
func (r *Reader) eachKey(mapping *yaml.Node, do func(key, value *yaml.Node)) {
	lines := map[string]int{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		first, twice := lines[key.Value]
		switch {
		case twice:
			r.Problem(key, fmt.Errorf("key %q is given twice, first on line %d", key.Value, first))
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || value.Kind == yaml.AliasNode:
			r.Problem(key, errors.New("keys are words, and aliases are not taken here: write the value out"))
		default:
			lines[key.Value] = key.Line
			do(key, value)
		}
	}
}

// Stages reads a mapping of stages to their sections, and lists the stages in the order of the file.
func (r *Reader) Stages(node *yaml.Node) (order []string, sections map[string]Section) {
	sections = map[string]Section{}
	if node.Kind != yaml.MappingNode {
		r.Problem(node, errors.New("stages: give a mapping of stages to their parameters, e.g. {train: {steps: 100}}"))
		return nil, sections
	}
	r.eachKey(node, func(key, value *yaml.Node) {
		if !ValidName(key.Value) {
			r.Problem(key, fmt.Errorf("stage %q: use letters, digits, - and _ (at most %d)", key.Value, MaxName))
			return
		}
		order = append(order, key.Value)
		sections[key.Value] = r.Section("stage "+key.Value, value)
	})
	return order, sections
}

// Section reads a mapping of parameters. Messages call the mapping of, such as "stage train".
func (r *Reader) Section(of string, node *yaml.Node) Section {
	section := Section{}
	if node.Tag == "!!null" {
		return section
	}
	if node.Kind != yaml.MappingNode {
		r.Problem(node, fmt.Errorf("%s: give a mapping of parameters, or nothing", of))
		return section
	}
	r.eachKey(node, func(key, value *yaml.Node) {
		raw, err := toJSON(value)
		if err != nil {
			r.Problem(value, fmt.Errorf("%s: %s: %w", of, key.Value, err))
			return
		}
		section[key.Value] = Setting{Value: raw, Where: fmt.Sprintf("%s:%d", r.Path, key.Line)}
	})
	return section
}

func toJSON(node *yaml.Node) (json.RawMessage, error) {
	if node.Tag == "!!timestamp" { // parameters are not dates
		return json.Marshal(node.Value)
	}
	var v any
	if err := node.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// MaxName bounds the name of a pipeline or a stage, in bytes: the name becomes part of a run's id.
const MaxName = 40

// ValidName reports whether s can be the name of a pipeline or a stage.
func ValidName(s string) bool {
	return s != "" && len(s) <= MaxName && strings.IndexFunc(s, func(r rune) bool {
		return !(r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) < 0
}
