// Package resultsfile reads and writes results files: JSON lines, a line for each training run, with all of its
// configuration and what came of it. Experiments add to the file, and tables are made of it without running anything.
// The package knows no parameter and no result; docs/formats/results.md describes the lines.
package resultsfile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"bitnet1/shared/run/artifact"
)

// Run is one line.
type Run struct {
	Model    string `json:"model"` // what people call it
	Seed     uint64 `json:"seed"`
	Hardware string `json:"hardware,omitempty"` // that it was trained on

	Parameters map[string]json.RawMessage `json:"parameters,omitempty"` // of the training, without the seed
	Dataset    string                     `json:"dataset,omitempty"`    // digest of the manifest
	Definition string                     `json:"definition,omitempty"` // digest of the run's definition
	Checkpoint string                     `json:"checkpoint,omitempty"` // digest of the checkpoint that was measured

	Steps   int                `json:"steps,omitempty"`
	Tokens  int64              `json:"tokens"`            // trained on
	Seconds float64            `json:"seconds,omitempty"` // of training
	Results map[string]float64 `json:"results"`
}

// Same is equal for runs that differ in their seed alone.
func (r Run) Same() string {
	b, _ := json.Marshal([]any{r.Model, r.Hardware, r.Parameters, r.Dataset}) // parameters were read from JSON
	return string(b)
}

// Key is equal for lines of the same run.
func (r Run) Key() string { return fmt.Sprint(r.Seed, " ", r.Same()) }

func (r Run) check() error {
	switch {
	case r.Model == "":
		return errors.New(`"model" is missing: the name of the row in tables`)
	case r.Tokens <= 0:
		return errors.New(`"tokens" is missing or not positive: how many the run was trained on`)
	case r.Steps < 0 || r.Seconds < 0:
		return errors.New(`"steps" or "seconds" is negative`)
	case len(r.Results) == 0:
		return errors.New(`"results" is missing or empty: what was measured, such as {"validation_bits": 6.25}`)
	}
	return nil
}

// Read returns the runs of a file in its order. A run that is there twice is an error.
func Read(path string) ([]Run, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("results file: %w", err)
	}
	var runs []Run
	at := map[string]int{} // lines of runs
	number := 0
	for line := range bytes.Lines(b) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		r, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("results file %s, line %d: %w", path, number, err)
		}
		if first := at[r.Key()]; first > 0 {
			return nil, fmt.Errorf("results file %s: line %d has the model, parameters and seed of line %d: remove one, "+
				"or give each its seed", path, number, first)
		}
		at[r.Key()] = number
		runs = append(runs, r)
	}
	return runs, nil
}

func parse(line []byte) (r Run, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields() // a misspelt key would be lost
	if err := d.Decode(&r); err != nil {
		return r, err
	}
	if d.More() {
		return r, errors.New("more than one object in the line")
	}
	return r, r.check()
}

// Add writes runs into the file at path, which it makes where it is missing. A run takes the place of the same run.
// Lines are sorted, so that equal runs make equal files whatever their order. Programs that add to a file at the same
// time wait for one another.
func Add(path string, runs ...Run) (added, replaced int, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, 0, err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, 0, err
	}
	defer folder.Close()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		return 0, 0, fmt.Errorf("locking %s: %w", filepath.Dir(path), err)
	}
	all, err := Read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, err
	}
	at := map[string]int{}
	for i, r := range all {
		at[r.Key()] = i
	}
	for _, r := range runs {
		if err := r.check(); err != nil {
			return 0, 0, fmt.Errorf("run of %q, seed %d: %w", r.Model, r.Seed, err)
		}
		if i, known := at[r.Key()]; known {
			if r.Seconds == 0 && r.Checkpoint == all[i].Checkpoint { // it is the same work, whose times others have
				r.Seconds = all[i].Seconds
			}
			all[i], replaced = r, replaced+1
			continue
		}
		at[r.Key()], all, added = len(all), append(all, r), added+1
	}
	slices.SortFunc(all, compare)
	var b bytes.Buffer
	for _, r := range all {
		line, err := json.Marshal(r)
		if err != nil {
			return 0, 0, fmt.Errorf("run of %q, seed %d: %w", r.Model, r.Seed, err)
		}
		b.Write(append(line, '\n'))
	}
	return added, replaced, artifact.WriteFile(path, b.Bytes())
}

// compare sorts by model, then by what tells its runs apart, then by seed.
func compare(a, b Run) int {
	return cmp.Or(cmp.Compare(a.Model, b.Model), cmp.Compare(a.Same(), b.Same()), cmp.Compare(a.Seed, b.Seed))
}

// Differing lists the parameters that differ between runs, sorted. A run without parameters, of another program, does
// not count.
func Differing(runs []Run) []string {
	var keys []string
	var first *Run
	for i, r := range runs {
		if len(r.Parameters) == 0 {
			continue
		}
		if first == nil {
			first = &runs[i]
		}
		for _, parameters := range []map[string]json.RawMessage{first.Parameters, r.Parameters} {
			for key := range maps.Keys(parameters) {
				if !bytes.Equal(first.Parameters[key], r.Parameters[key]) && !slices.Contains(keys, key) {
					keys = append(keys, key)
				}
			}
		}
	}
	slices.Sort(keys)
	return keys
}
