package pipeline

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/run/param"
)

// File is a pipeline file as its author wrote it:
//
//	name: v76
//	about: one sentence
//	seed: 42
//	sources: [sample]
//	stages:
//	  train: {steps: 600}
//	commands: {mystage: [./mystage]}
//	workers: {tokenize: 2}
//	deadline: {train: 2h}
//	attempts: {train: 2}
//	metrics: {train: "127.0.0.1:9100"}
type File struct {
	Name     string
	About    string
	Seed     uint64
	Sources  []Input
	Commands map[string][]string // how to start stages that are not the project's own
	Workers  map[string]int      // processes of a stage; 1 where absent

	serving  map[string]map[string]string // stage -> one of ServingKeys -> value
	order    []string
	sections map[string]section
	problems []error
}

// Input is an entry of sources: a file, a pattern, a URL or a name such as sample, and what differs for its files
// alone.
type Input struct {
	Location   string
	Parameters map[string]json.RawMessage // of the stage tokenize; nil: nothing differs
	where      string                     // "pipelines/v76.yml:4"
}

// section is what a file, a preset and overrides say about one stage.
type section map[string]setting

// setting is one parameter and where it was given.
type setting struct {
	value json.RawMessage
	where string // "pipelines/v76.yml:12" or "--set train.steps=3"
}

var fileKeys = []string{"name", "about", "seed", "sources", "stages", "commands", "workers", "deadline", "attempts", "metrics"}

// Load reads a pipeline file. All of its mistakes are reported together, with
// their lines.
func Load(path string) (*File, error) {
	f := &File{sections: map[string]section{}, Commands: map[string][]string{}, Workers: map[string]int{}, serving: map[string]map[string]string{}}
	content, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := f.read(path, content, fileKeys); err != nil {
		return nil, err
	}
	if f.Name == "" {
		f.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	if len(f.order) == 0 && len(f.problems) == 0 {
		f.problems = append(f.problems, fmt.Errorf("%s: no stages: list at least one under the key stages", path))
	}
	f.problems = append(f.problems, checkStageNames(path, "commands", f.Commands, f.order), checkStageNames(path, "workers", f.Workers, f.order),
		checkStageNames(path, strings.Join(ServingKeys, ", "), f.serving, f.order))
	return f, errors.Join(f.problems...)
}

// checkStageNames makes sure that a mapping of stages speaks of the file's own.
func checkStageNames[V any](path, key string, mapping map[string]V, stages []string) error {
	var problems []error
	for _, stage := range slices.Sorted(maps.Keys(mapping)) {
		if !slices.Contains(stages, stage) {
			problems = append(problems, fmt.Errorf("%s: %s: %w", path, key, param.UnknownKey(stage, stages)))
		}
	}
	return errors.Join(problems...)
}

// AddPreset overlays the preset's sections under the file's own: where both
// give a parameter, the pipeline file wins.
// path is what messages call the content.
func (f *File) AddPreset(path string, content []byte) error {
	p := &File{sections: map[string]section{}}
	if err := p.read(path, content, []string{"about", "stages"}); err != nil {
		return err
	}
	if err := errors.Join(p.problems...); err != nil {
		return err
	}
	for stage, settings := range p.sections {
		own, takesPart := f.sections[stage]
		if !takesPart {
			continue // a preset speaks to more stages than a pipeline may have
		}
		for key, s := range settings {
			if _, given := own[key]; !given {
				own[key] = s
			}
		}
	}
	return nil
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
	own[key] = setting{value: param.Value(fields[stage][i].Type, value), where: "--set " + text}
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
				s.value = param.Normalize(fields[stage][i].Type, s.value)
				f.sections[stage][key] = s
			}
			switch {
			case i < 0:
				problems = append(problems, fmt.Errorf("%s: stage %s: %w", s.where, stage, param.UnknownKey(key, keysOf(fields[stage]))))
			case !param.Conforms(fields[stage][i].Type, s.value):
				problems = append(problems, fmt.Errorf("%s: stage %s: %w", s.where, stage, param.WrongType(key, s.value, fields[stage][i].Type)))
			}
		}
	}
	return errors.Join(append(problems, f.checkSources(fields["tokenize"]))...)
}

// Value is what a stage's parameter is given or, where it is not, its default among fields; nil if there is none.
func (f *File) Value(stage, key string, fields []param.Field) json.RawMessage {
	if s, given := f.sections[stage][key]; given {
		return s.value
	}
	i := slices.IndexFunc(fields, func(p param.Field) bool { return p.Key == key })
	if i < 0 {
		return nil
	}
	b, _ := json.Marshal(fields[i].Default) // it has come as JSON
	return b
}

// Stages lists the stages in the order of the file.
func (f *File) Stages() []string { return f.order }

// Resolve makes the definition of a run. Stages that take a seed and are given
// none get the file's, unless it is their own: which documents validate does not depend on the file's seed.
func (f *File) Resolve(preset string, sources []Source, fields map[string][]param.Field) (Definition, error) {
	d := Definition{Name: f.Name, Preset: preset, Seed: f.Seed, Sources: sources, Stages: map[string]json.RawMessage{}}
	for _, stage := range f.order {
		values := map[string]json.RawMessage{}
		for key, s := range f.sections[stage] {
			values[key] = s.value
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
			return Definition{}, err
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

// maxFile bounds a pipeline file, in bytes.
const maxFile = 1 << 20

func (f *File) read(path string, content []byte, valid []string) error {
	root, err := parse(path, content)
	if err != nil {
		return err
	}
	f.eachKey(path, root, func(key, value *yaml.Node) {
		if !slices.Contains(valid, key.Value) {
			f.problem(path, key, param.UnknownKey(key.Value, valid))
			return
		}
		f.readKey(path, key, value)
	})
	return nil
}

// ReadFile returns the content of a pipeline file or preset, unless it is too large to be one.
func ReadFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pipeline file: %w%s", err, nearby(path))
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("pipeline file: %w%s", err, nearby(path))
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes: is it a pipeline file?", path, maxFile)
	}
	return b, nil
}

// nearby names the pipeline files in the folder that path is or is in, for who has named none of them.
func nearby(path string) string {
	dir := path
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		dir = filepath.Dir(path)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "pipelines", "*.yml"))
	if len(files) == 0 {
		files, _ = filepath.Glob(filepath.Join(dir, "*.yml"))
	}
	if len(files) == 0 {
		return ""
	}
	return ": there are " + strings.Join(files, ", ")
}

// parse reads YAML whose content is one mapping.
func parse(path string, content []byte) (*yaml.Node, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(document.Content) == 0 {
		return nil, fmt.Errorf("%s is empty: it needs at least the key stages", path)
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: a pipeline file is a mapping of keys to values", path, root.Line)
	}
	return root, nil
}

// eachKey calls do for every key of a mapping. Of a key that is there twice only
// the first counts; the others are problems, as are aliases.
func (f *File) eachKey(path string, mapping *yaml.Node, do func(key, value *yaml.Node)) {
	lines := map[string]int{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		first, twice := lines[key.Value]
		switch {
		case twice:
			f.problem(path, key, fmt.Errorf("key %q is given twice, first on line %d", key.Value, first))
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || value.Kind == yaml.AliasNode:
			f.problem(path, key, errors.New("keys are words, and aliases are not taken here: write the value out"))
		default:
			lines[key.Value] = key.Line
			do(key, value)
		}
	}
}

func (f *File) readKey(path string, key, value *yaml.Node) {
	var err error
	switch key.Value {
	case "name":
		if value.Tag != "!!str" || !validName(value.Value) {
			err = fmt.Errorf("name %q: use letters, digits, - and _ (at most %d; in quotes if it is a number)", value.Value, maxName)
		}
		f.Name = value.Value
	case "about":
		if value.Decode(&f.About) != nil {
			err = errors.New("about: give one sentence of text")
		}
	case "seed":
		if value.Tag != "!!int" || value.Decode(&f.Seed) != nil {
			err = fmt.Errorf("seed: %q is not an integer from 0 to 2^64-1", value.Value)
		}
	case "sources":
		err = f.readSources(path, value)
	case "commands":
		if value.Decode(&f.Commands) != nil || slices.ContainsFunc(slices.Collect(maps.Values(f.Commands)), isNone) {
			err = fmt.Errorf("commands: give each stage a list of words, e.g. {mystage: [./mystage]}")
		}
	case "workers":
		if value.Decode(&f.Workers) != nil || slices.ContainsFunc(slices.Collect(maps.Values(f.Workers)), isNoCount) {
			err = fmt.Errorf("workers: give each stage a number of processes from 1 to %d, e.g. {tokenize: 2}", maxWorkers)
		}
	case "deadline", "attempts", "metrics":
		err = f.readServing(key.Value, value)
	case "stages":
		err = f.readStages(path, value)
	}
	if err != nil {
		f.problem(path, value, err)
	}
}

// readSources takes a list of locations. Where a source has parameters of its own, its entry is a mapping.
func (f *File) readSources(path string, node *yaml.Node) error {
	usage := errors.New(`sources: give a list of files or patterns, e.g. [sample], ["data/*.parquet"] or [{path: "old/*.csv", text_column: body}]`)
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 {
		return usage
	}
	for _, item := range node.Content {
		in := Input{where: fmt.Sprintf("%s:%d", path, item.Line)}
		switch item.Kind {
		case yaml.ScalarNode:
			if item.Tag == "!!null" {
				return usage
			}
			in.Location = item.Value
		case yaml.MappingNode:
			in.Parameters = map[string]json.RawMessage{}
			for key, s := range f.readSection(path, "tokenize", item) {
				in.Parameters[key] = s.value
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

func (f *File) readStages(path string, node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("stages: give a mapping of stages to their parameters, e.g. {train: {steps: 100}}")
	}
	f.eachKey(path, node, func(key, value *yaml.Node) {
		if !validName(key.Value) {
			f.problem(path, key, fmt.Errorf("stage %q: use letters, digits, - and _ (at most %d)", key.Value, maxName))
			return
		}
		f.order = append(f.order, key.Value)
		f.sections[key.Value] = f.readSection(path, key.Value, value)
	})
	return nil
}

func (f *File) readSection(path, stage string, node *yaml.Node) section {
	settings := section{}
	if node.Tag == "!!null" {
		return settings
	}
	if node.Kind != yaml.MappingNode {
		f.problem(path, node, fmt.Errorf("stage %s: give a mapping of parameters, or nothing", stage))
		return settings
	}
	f.eachKey(path, node, func(key, value *yaml.Node) {
		raw, err := toJSON(value)
		if err != nil {
			f.problem(path, value, fmt.Errorf("stage %s: %s: %w", stage, key.Value, err))
			return
		}
		settings[key.Value] = setting{value: raw, where: fmt.Sprintf("%s:%d", path, key.Line)}
	})
	return settings
}

func (f *File) problem(path string, at *yaml.Node, err error) {
	f.problems = append(f.problems, fmt.Errorf("%s:%d: %w", path, at.Line, err))
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

const (
	maxName    = 40  // bytes of a name, which becomes part of a run's id
	maxWorkers = 256 // processes of one stage
)

func validName(s string) bool {
	return s != "" && len(s) <= maxName && strings.IndexFunc(s, func(r rune) bool {
		return !(r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) < 0
}

func isNone(words []string) bool { return len(words) == 0 || words[0] == "" }

func isNoCount(n int) bool { return n < 1 || n > maxWorkers }
