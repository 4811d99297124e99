package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
)

// question is what an experiment asks. The files of its answer have a name, which no other question may use.
type question struct {
	Of    string              `json:"of"`             // grid or curves
	Given []string            `json:"given"`          // the pipeline file and its flags, or runs
	Axes  map[string][]string `json:"axes,omitempty"` // of a grid, with their values
}

// name is a name for the experiment where the user gives none.
func (q question) name() string {
	b, _ := json.Marshal(q) // lists and maps of texts can be encoded
	return q.Of + "-" + digest.Bytes(b)[:8]
}

// covers reports whether q asks everything that old asked, and perhaps further values on an axis.
func (q question) covers(old question) bool {
	if q.Of != old.Of || !slices.Equal(q.Given, old.Given) || len(q.Axes) != len(old.Axes) {
		return false
	}
	for key, values := range old.Axes {
		for _, v := range values {
			if !slices.Contains(q.Axes[key], v) {
				return false
			}
		}
	}
	return true
}

// claim reserves the files NAME.* in dir for a question. It fails if they belong to another question.
func claim(dir, name string, q question, force bool) error {
	if name != filepath.Base(name) || name == "." || !filepath.IsLocal(name) {
		return command.Usagef("--name %s: a name is no path: use --out to choose the folder", name)
	}
	path := filepath.Join(dir, name+".json")
	b, err := os.ReadFile(path)
	var old question
	switch {
	case force:
	case err == nil && json.Unmarshal(b, &old) == nil && q.covers(old):
	case err == nil:
		return fmt.Errorf("%s has the answer to another question: give another --name, or none, or --force to replace it",
			path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		if _, err := os.Stat(filepath.Join(dir, name+".md")); err == nil {
			return fmt.Errorf("%s is there, and nothing says what it answers: give another --name, or none, "+
				"or --force to replace it", filepath.Join(dir, name+".md"))
		}
	}
	if b, err = json.MarshalIndent(q, "", "  "); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return artifact.WriteFile(path, append(b, '\n'))
}
