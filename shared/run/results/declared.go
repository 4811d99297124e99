package results

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// folder is where a run keeps what its stages say of their results, a file for each.
func folder(j journal.Journal, run string) string { return filepath.Join(j.RunDir(run), "results") }

// Declare keeps d with the run, in place of what the stage said before.
func Declare(j journal.Journal, run string, d Declaration) error {
	if err := d.Check(); err != nil || len(d.Results) == 0 {
		return err
	}
	if !event.ValidRun(run) || !event.ValidRun(d.Stage) { // names and runs are made of the same characters
		return fmt.Errorf("results of stage %q in run %q: not a name or not a run's id", d.Stage, run)
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	b = digest.AppendChecksum(b)
	path := filepath.Join(folder(j, run), d.Stage+".json")
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, b) {
		return nil
	}
	return artifact.WriteFile(path, b)
}

// Declared lists the declarations that a run has kept, in the run's order of stages, and after them those of stages
// that joined later. A run of an older version has kept none: for such a stage Declared calls ask, which may be nil.
func Declared(j journal.Journal, run string, ask func(stage string) (Declaration, bool)) ([]Declaration, error) {
	started, err := journal.Bodies[event.RunStarted](j, run)
	if err != nil {
		return nil, err
	}
	var order []string
	if len(started) > 0 {
		order = started[0].Stages
	}
	kept, err := os.ReadDir(folder(j, run))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range kept { // sorted by name
		if name, ok := strings.CutSuffix(entry.Name(), ".json"); ok && !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	var all []Declaration
	for _, stage := range order {
		d, known := read(filepath.Join(folder(j, run), stage+".json"))
		if !known && ask != nil {
			d, known = ask(stage)
		}
		if known {
			d.Stage = stage
			all = append(all, d)
		}
	}
	return all, nil
}

// Ask is for Declared: it asks the stages' programs in a folder.
func Ask(dir string) func(stage string) (Declaration, bool) {
	asked := map[string]Declaration{}
	return func(stage string) (Declaration, bool) {
		d, known := asked[stage]
		if !known {
			var said struct {
				Kind    string   `json:"kind"`
				Results []Result `json:"results"`
			}
			answer, err := Describe(context.Background(), stage, filepath.Join(dir, stage))
			if err == nil && json.Unmarshal(answer, &said) == nil {
				d = Declaration{Stage: stage, Answers: said.Kind, Results: said.Results}
			}
			asked[stage] = d
		}
		return d, len(d.Results) > 0 && d.Check() == nil
	}
}

// Describe returns what a stage says of itself, as JSON: the content of the file STAGE.json beside its program or,
// where there is none, what the program answers to `describe`. The command is the words that start the program; the
// file lies in the folder of any word that is a file.
func Describe(ctx context.Context, stage string, command ...string) ([]byte, error) {
	if path, ok := DescriptionFile(stage, command...); ok {
		return os.ReadFile(path)
	}
	cmd := exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), "describe")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	answer, err := cmd.Output()
	if err != nil {
		return nil, errors.New(cmp.Or(strings.TrimSpace(stderr.String()), err.Error()))
	}
	return answer, nil
}

// DescriptionFile finds the file STAGE.json beside a stage's program.
func DescriptionFile(stage string, command ...string) (path string, ok bool) {
	for _, word := range command {
		if _, err := os.Stat(word); err != nil && !strings.ContainsRune(word, filepath.Separator) {
			continue // no file: an argument, or a program that is found by PATH
		}
		path := filepath.Join(filepath.Dir(word), stage+".json")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}

// read reads a declaration. ok is false if the file is missing, damaged, or of a version with other formats.
func read(path string) (d Declaration, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil || digest.VerifyChecksum(b) != nil || json.Unmarshal(b, &d) != nil || d.Check() != nil {
		return Declaration{}, false
	}
	return d, true
}

// Of finds the declaration for an event: that of its own stage or, without one, that of any stage that announces its
// kind.
func Of(declared []Declaration, e event.Envelope) (Result, bool) {
	found, ok := Result{}, false
	for _, d := range declared {
		for _, r := range d.Results {
			if r.Kind == e.Kind && (!ok || d.Stage == e.Stage) {
				found, ok = r, true
			}
		}
	}
	return found, ok
}

// Headline is what the screen shows of an event, "" for nothing. It says with which parameters the event was found,
// where they are not the run's own.
func Headline(declared []Declaration, e event.Envelope) string {
	r, ok := Of(declared, e)
	body, err := Body(e.Body)
	if !ok || r.Headline == "" || err != nil {
		return ""
	}
	text := Template(r.Headline).Text(body)
	if len(e.Overrides) > 0 {
		text += " (with " + Label(e.Overrides) + ")"
	}
	return text
}

// Body decodes the body of an event for templates.
func Body(raw []byte) (map[string]any, error) {
	var body map[string]any
	err := event.Unmarshal(raw, &body)
	return body, err
}
