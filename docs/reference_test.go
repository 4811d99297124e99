package docs

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/run/param"
	"bitnet1/shared/run/stage"
)

var update = flag.Bool("update", false, "write the reference page of the stages anew")

// order is the one in which a run meets the stages; others come after them.
var order = []string{"tokenize", "shard", "train", "evaluate", "probe", "pack", "generate"}

// TestStagesPageIsCurrent keeps docs/reference/stages.md equal to what the programs say of themselves and to the
// pipeline files. `go test ./docs -update` writes it anew.
func TestStagesPageIsCurrent(t *testing.T) {
	var page bytes.Buffer
	page.WriteString(stagesHead)
	for _, d := range describeStages(t) {
		writeStage(&page, d)
	}
	page.WriteString("# Pipelines\n\nWhat the files give; the stages' defaults above fill the rest.\n")
	for _, pattern := range []string{"../pipelines/*.yml", "../shared/run/definition/presets/*.yml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			writePipeline(t, &page, file)
		}
	}
	path := filepath.Join("reference", "stages.md")
	if *update {
		if err := os.WriteFile(path, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, page.Bytes()) {
		t.Errorf("docs/%s is not current: go test ./docs -update writes it", path)
	}
}

const stagesHead = `# Stages

<!-- Made by "go test ./docs -update" from "<stage> describe" and pipelines/*.yml. -->

Every stage is a program with the same forms (` + "`--help`" + ` explains the flags they share):

    <stage> serve                          answer events as they come
    <stage> run --in FILE … --out DIR      one shot, from files to a folder
    <stage> run --run RUN                  answer the events of an old run again
    <stage> describe                       print what follows here, as JSON

A parameter is a key of the stage's section in a pipeline file. It is also a flag, with dashes for underscores. Exit
statuses: 0 done, 1 failed, 2 wrong usage, 3 the event server or the disk was unusable for longer than --outage.
[events.md](events.md) describes the events, and the [glossary](../glossary.md) has the terms.

`

func describeStages(t *testing.T) []stage.Description {
	t.Helper()
	stages, err := os.ReadDir("../stages")
	if err != nil {
		t.Fatal(err)
	}
	var all []stage.Description
	for _, p := range stages {
		out, err := exec.Command(filepath.Join(programs(t), p.Name()), "describe").Output()
		if err != nil {
			t.Fatalf("%s: %v", p.Name(), err)
		}
		var d stage.Description
		if err := json.Unmarshal(out, &d); err != nil {
			t.Fatalf("%s: %v", p.Name(), err)
		}
		for _, p := range d.Parameters {
			if p.Usage == "" {
				t.Errorf("%s: the parameter %s has no usage", d.Name, p.Key)
			}
		}
		all = append(all, d)
	}
	slices.SortStableFunc(all, func(a, b stage.Description) int { return place(a.Name) - place(b.Name) })
	return all
}

func place(name string) int {
	if i := slices.Index(order, name); i >= 0 {
		return i
	}
	return len(order)
}

func writeStage(page *bytes.Buffer, d stage.Description) {
	fmt.Fprintf(page, "## %s\n\n%s%s. Answers `%s`", d.Name, strings.ToUpper(d.About[:1]), d.About[1:], d.Kind)
	for i, kind := range d.Emits {
		fmt.Fprintf(page, "%s `%s`", map[bool]string{true: ", announces", false: ","}[i == 0], kind)
	}
	fmt.Fprintf(page, ".\n\n    %s\n\n", d.Example)
	if len(d.Parameters) == 0 {
		page.WriteString("It takes no parameters.\n\n")
		return
	}
	page.WriteString("| parameter | type | default | meaning |\n|---|---|---|---|\n")
	for _, p := range d.Parameters {
		fmt.Fprintf(page, "| `%s` | %s | %s | %s |\n", p.Key, p.Type, defaultOf(p), p.Usage)
	}
	page.WriteString("\n")
}

func defaultOf(p param.Field) string {
	if list, ok := p.Default.([]any); ok && len(list) == 0 || p.Default == nil {
		return "none"
	}
	if p.Default == "" {
		return ""
	}
	if list, ok := p.Default.([]any); ok {
		return "`" + strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]") + "`"
	}
	return "`" + strings.ReplaceAll(param.Text(p.Default), "\n", "\\n") + "`"
}

func writePipeline(t *testing.T, page *bytes.Buffer, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var content struct {
		About  string
		Stages map[string]map[string]any
	}
	if err := yaml.Unmarshal(b, &content); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	path, err := filepath.Rel("..", file)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(page, "\n## %s\n\n", filepath.ToSlash(path))
	if content.About != "" {
		fmt.Fprintf(page, "%s%s.\n\n", strings.ToUpper(content.About[:1]), content.About[1:])
	}
	stages := slices.SortedFunc(maps.Keys(content.Stages), func(a, b string) int { return place(a) - place(b) })
	for _, name := range stages {
		var given []string
		for _, key := range slices.Sorted(maps.Keys(content.Stages[name])) {
			value, err := json.Marshal(content.Stages[name][key])
			if err != nil {
				t.Fatal(err)
			}
			given = append(given, fmt.Sprintf("`%s: %s`", key, value))
		}
		if len(given) > 0 {
			fmt.Fprintf(page, "- %s: %s\n", name, strings.Join(given, ", "))
		}
	}
}
