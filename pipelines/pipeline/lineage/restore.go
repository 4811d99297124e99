package lineage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
)

// ErrNoJob is the error of what no job that is known has made. Its text is part of a sentence.
var ErrNoJob = errors.New("no job that is known here made it")

// RestoreArtifact does the job again that made an artifact, and before it the jobs that made what it reads where that
// is damaged or gone. The artifact is then in the fresh data directory. The error is a DifferenceError if a job makes
// something else, and ErrNoJob.
func (r *Repetition) RestoreArtifact(ctx context.Context, sum string) error {
	fresh, err := artifact.Open(r.Dir)
	if err != nil || fresh.Has(r.History.refs[sum]) {
		return err
	}
	g, err := r.History.Of(sum, "")
	if err != nil {
		return err
	}
	job := g.job(g.artifact(sum).Job)
	if job == nil {
		return ErrNoJob
	}
	return r.repeat(ctx, sorted(g, []*Job{job}, func(in string) bool {
		_, err := r.History.store.Path(r.History.refs[in])
		return err != nil && !fresh.Has(r.History.refs[in])
	}))
}

// RestoreRecord does the job again whose record is damaged, and returns the record as a file. The error is a
// DifferenceError if the job announces something else than is in the journal, and ErrNoJob.
func (r *Repetition) RestoreRecord(ctx context.Context, key string) ([]byte, error) {
	e, ok := r.History.announcement(key, "")
	if !ok {
		return nil, ErrNoJob
	}
	job, err := r.History.lostJob(e)
	if err != nil {
		return nil, err
	}
	fresh, err := artifact.Open(r.Dir)
	if err != nil {
		return nil, err
	}
	if _, err := r.perform(ctx, job, fresh, journal.Open(r.Dir)); err != nil {
		return nil, err
	}
	again, err := record.Find(record.Root(fresh), key)
	if err != nil {
		return nil, differs(job, "%v", err)
	}
	if err := r.sameAnnounced(job, again); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(again.Dir(), record.FileName))
}

// sameAnnounced compares the outputs of a job with what the journal has of them.
func (r *Repetition) sameAnnounced(job *Job, again *record.Record) error {
	made := map[string]bool{}
	for _, out := range again.Outputs {
		e, err := event.Wrap(job.Run, job.Stage, job.Key, event.Part{}, out.Kind, out.Body)
		if err != nil {
			return err
		}
		made[e.ID] = true
	}
	for _, e := range r.History.announced[job.Key] {
		if e.Job == job.Key && e.Run == job.Run && e.Kind != (event.JobFinished{}).Kind() && !made[e.ID] {
			return differs(job, "%s %s is missing", e.Kind, digest.Short(e.ID))
		}
	}
	return nil
}

// lostJob is the job that announced e, whose record is lost: its parameters are those of the run's definition and those
// that e names. Whether that is right shows the key of the job, done again.
func (h *History) lostJob(e event.Envelope) (*Job, error) {
	if f, err := event.Into[event.JobFinished](e); err == nil { // a job without other outputs
		e.Input = f.Input
	}
	job := &Job{Key: e.Job, Stage: e.Stage, Run: e.Run}
	var err error
	if job.answered, err = h.answered(e, nil); err != nil {
		return nil, fmt.Errorf("job %s of %s: %w", digest.Short(e.Job), e.Stage, err)
	}
	given := map[string]json.RawMessage{}
	for key, value := range e.Overrides {
		if own, ok := strings.CutPrefix(key, e.Stage+"."); ok {
			given[own] = valueOf(value)
		}
	}
	params, err := json.Marshal(given)
	if err != nil {
		return nil, err
	}
	job.record = &record.Record{Stage: e.Stage, Key: e.Job, Params: string(params)}
	for _, in := range job.answered {
		for _, ref := range record.Mentioned(in.Body) {
			if !slices.Contains(job.record.Inputs, ref.Digest) {
				job.record.Inputs = append(job.record.Inputs, ref.Digest)
			}
		}
	}
	return job, nil
}

// valueOf is a parameter, written as text, as JSON.
func valueOf(text string) json.RawMessage {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	b, _ := json.Marshal(text) // text can always be written
	return b
}
