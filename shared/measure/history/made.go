package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/stage"
)

// Data is the dataset of a run.
type Data struct {
	Manifest *dataset.Manifest // nil while no dataset is sealed
	Digest   string            // of the manifest
	Sources  []Source
}

// Source is a file of documents.
type Source struct {
	Name, Digest string
	Size         int64                // bytes of the file
	Tokens       *event.TokensWritten // nil while it is not tokenized
}

func (r *Run) readData(j journal.Journal, store *artifact.Store) error {
	added, err := journal.Bodies[event.SourceAdded](j, r.ID)
	if err != nil {
		return err
	}
	written, err := journal.Bodies[event.TokensWritten](j, r.ID)
	if err != nil {
		return err
	}
	for _, s := range added {
		source := Source{Name: s.Name, Digest: s.Digest, Size: s.Size}
		for _, w := range written {
			if w.Source == s.Name {
				source.Tokens = &w
			}
		}
		r.Data.Sources = append(r.Data.Sources, source)
	}
	sealed, err := journal.Bodies[event.DatasetSealed](j, r.ID)
	if err != nil {
		return err
	}
	if len(sealed) == 0 {
		return errors.New("the run has no dataset yet")
	}
	ref := sealed[len(sealed)-1].Manifest
	r.Data.Digest = ref.Digest
	path, err := store.Path(ref)
	if err != nil {
		return fmt.Errorf("the dataset's manifest: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	r.Data.Manifest, err = dataset.ParseManifest(text)
	return err
}

// JobTimes is what the steps of a job took, see package stage.
type JobTimes = stage.JobTimes

// readJobs reads the files of times beside what the stages made.
func (r *Run) readJobs(j journal.Journal, _ *artifact.Store) error {
	files, err := filepath.Glob(filepath.Join(escaped(j.RunDir(r.ID)), "*", stage.TimesFile("*")))
	if err != nil {
		return err
	}
	var problems []error
	for _, path := range files { // sorted
		text, err := os.ReadFile(path)
		var t JobTimes
		if err == nil {
			err = json.Unmarshal(text, &t)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("times of a job, %s: %w", path, err))
			continue
		}
		r.Jobs = append(r.Jobs, t)
	}
	return errors.Join(problems...)
}

// escaped is a folder as a part of a pattern.
func escaped(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// readMachine reads what stages log of what they compute on.
func (r *Run) readMachine(j journal.Journal, _ *artifact.Store) error {
	files, err := os.ReadDir(j.LogDir(r.ID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.Machine = map[string]string{}
	for _, f := range files {
		name, isLog := strings.CutSuffix(f.Name(), ".log")
		if !isLog {
			continue
		}
		device, err := deviceIn(filepath.Join(j.LogDir(r.ID), f.Name()))
		if err != nil {
			return err
		}
		if device != "" {
			r.Machine[name] = device
		}
	}
	if len(r.Machine) == 0 {
		return errors.New("no log says what device the run was computed on")
	}
	return nil
}

// deviceIn is the device that the last line of a log names that names one.
func deviceIn(path string) (device string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	for {
		text, err := lines.ReadBytes('\n')
		var line struct {
			Device string `json:"device"`
		}
		if json.Unmarshal(text, &line) == nil && line.Device != "" { // a log has other lines, too
			device = line.Device
		}
		if err != nil {
			return device, nil
		}
	}
}
