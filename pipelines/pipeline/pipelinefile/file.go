// Package pipelinefile reads pipeline files: YAML that says which stages a run has, with which parameters, on which
// sources. File.Resolve makes the definition of a run from a file, a preset and the command line. The package starts
// nothing; the launcher does.
package pipelinefile

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/run/definition"
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
	sections map[string]definition.Section
}

var fileKeys = []string{"name", "about", "seed", "sources", "stages", "commands", "workers", "deadline", "attempts",
	"metrics"}

// Load reads a pipeline file. All of its mistakes are reported together, with their lines.
func Load(path string) (*File, error) {
	content, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &File{Commands: map[string][]string{}, Workers: map[string]int{}, serving: map[string]map[string]string{}}
	r := &definition.Reader{Path: path}
	r.Read(content, fileKeys, func(key, value *yaml.Node) {
		if err := f.readKey(r, key.Value, value); err != nil {
			r.Problem(value, err)
		}
	})
	if f.Name == "" {
		f.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	problems := []error{r.Err()}
	if len(f.order) == 0 && r.Err() == nil {
		problems = append(problems, fmt.Errorf("%s: no stages: list at least one under the key stages", path))
	}
	problems = append(problems,
		checkStageNames(path, "commands", f.Commands, f.order), checkStageNames(path, "workers", f.Workers, f.order),
		checkStageNames(path, strings.Join(ServingKeys, ", "), f.serving, f.order))
	return f, errors.Join(problems...)
}

// Stages lists the stages in the order of the file.
func (f *File) Stages() []string { return f.order }

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

// readKey takes one key of the file.
func (f *File) readKey(r *definition.Reader, key string, value *yaml.Node) error {
	switch key {
	case "name":
		if value.Tag != "!!str" || !definition.ValidName(value.Value) {
			return fmt.Errorf("name %q: use letters, digits, - and _ (at most %d; in quotes if it is a number)", value.Value,
				definition.MaxName)
		}
		f.Name = value.Value
	case "about":
		if value.Decode(&f.About) != nil {
			return errors.New("about: give one sentence of text")
		}
	case "seed":
		if value.Tag != "!!int" || value.Decode(&f.Seed) != nil {
			return fmt.Errorf("seed: %q is not an integer from 0 to 2^64-1", value.Value)
		}
	case "sources":
		return f.readSources(r, value)
	case "commands":
		if value.Decode(&f.Commands) != nil || slices.ContainsFunc(slices.Collect(maps.Values(f.Commands)), isNone) {
			return errors.New("commands: give each stage a list of words, e.g. {mystage: [./mystage]}")
		}
	case "workers":
		if value.Decode(&f.Workers) != nil || slices.ContainsFunc(slices.Collect(maps.Values(f.Workers)), isNoCount) {
			return fmt.Errorf("workers: give each stage a number of processes from 1 to %d, e.g. {tokenize: 2}", maxWorkers)
		}
	case "deadline", "attempts", "metrics":
		return f.readServing(key, value)
	case "stages":
		f.order, f.sections = r.Stages(value)
	}
	return nil
}

func isNone(words []string) bool { return len(words) == 0 || words[0] == "" }

// maxWorkers bounds the processes of one stage.
const maxWorkers = 256

func isNoCount(n int) bool { return n < 1 || n > maxWorkers }

// maxFile bounds a pipeline file, in bytes.
const maxFile = 1 << 20

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

// nearby lists the pipeline files in or beside path, for the message about a path that is no pipeline file.
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
