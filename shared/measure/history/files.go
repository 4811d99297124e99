package history

import (
	"encoding/json"
	"slices"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
)

// Files are the files of users that a rerun of a stage read, such as those of evaluation tasks. Results are told apart
// by the digests of files, so paths are in no table.
type Files struct {
	Stage     string
	Overrides map[string]string // how the rerun's parameters differ from the run's own, as in a results.Row
	Paths     map[string]any    // parameters that name the files
}

// readFiles reads the records of reruns. Older records name no files.
func (r *Run) readFiles(j journal.Journal, store *artifact.Store) error {
	events, err := j.All(r.ID)
	if err != nil {
		return err
	}
	var seen []string // keys of jobs
	for _, e := range events {
		if len(e.Overrides) == 0 || slices.Contains(seen, e.Job) {
			continue
		}
		seen = append(seen, e.Job)
		kept, err := record.Find(record.Root(store), e.Job)
		if err != nil || kept.Unkeyed == "" {
			continue
		}
		f := Files{Stage: e.Stage, Overrides: e.Overrides}
		if err := json.Unmarshal([]byte(kept.Unkeyed), &f.Paths); err != nil {
			return err
		}
		r.Files = append(r.Files, f)
	}
	return nil
}
