package lineage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vmihailenco/msgpack/v5"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/stage"
)

// Repetition does the jobs of a graph again, each as a run of its own in a fresh data directory.
type Repetition struct {
	History *History
	Dir     string                             // the fresh data directory
	Program func(stage string) (string, error) // finds the program of a stage

	// Tell is called after each job that made the same again, with the number of artifacts. The key of the job is another
	// one if its stage has a later version.
	Tell func(job *Job, artifacts int, sameKey bool)

	done int // jobs
}

// DifferenceError says that a job, done again, made something else than before.
type DifferenceError struct{ error }

// Repeat does all jobs of a graph again, those first whose artifacts others read. The error is a DifferenceError at the
// first job that makes something else. A job that cannot be repeated is an error before any job is begun.
func (r *Repetition) Repeat(ctx context.Context, g *Graph) error {
	if entries, err := os.ReadDir(r.Dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: jobs are repeated in a fresh folder", r.Dir)
	}
	var order []*Job
	for i := range slices.Backward(g.Jobs) { // a job is behind those that read what it made
		order = append(order, &g.Jobs[i])
	}
	return r.repeat(ctx, sorted(g, order, func(string) bool { return true }))
}

// repeat does jobs again, in their order.
func (r *Repetition) repeat(ctx context.Context, order []*Job) error {
	for _, job := range order {
		switch {
		case job.record == nil:
			return fmt.Errorf("job %s of %s: %s", digest.Short(job.Key), job.Stage, job.Problem)
		case len(job.answered) == 0:
			return fmt.Errorf("job %s of %s answered files and no event of a run: the command of its one-shot run, with "+
				"another --out, repeats it", digest.Short(job.Key), job.Stage)
		}
	}
	for _, job := range order {
		if err := r.once(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

// once does a job again, and compares what it makes.
func (r *Repetition) once(ctx context.Context, job *Job) error {
	fresh, err := artifact.Open(r.Dir)
	if err != nil {
		return err
	}
	j := journal.Open(r.Dir)
	run, err := r.perform(ctx, job, fresh, j)
	if err != nil {
		return err
	}
	sameKey, err := r.compare(job, fresh, j, run)
	if err != nil {
		return err
	}
	r.Tell(job, len(job.record.Own()), sameKey)
	return nil
}

// perform does a job in a run of its own, which it names.
func (r *Repetition) perform(ctx context.Context, job *Job, fresh *artifact.Store, j journal.Journal) (run string,
	err error) {
	r.done++
	run = fmt.Sprintf("%03d-%s", r.done, job.Stage)
	if err := r.prepare(job, fresh, j, run); err != nil {
		return "", err
	}
	return run, r.do(ctx, job, run)
}

// sorted are jobs in an order in which each comes after the jobs that made what it reads, of what is wanted.
func sorted(g *Graph, jobs []*Job, wanted func(sum string) bool) (order []*Job) {
	done := map[string]bool{}
	var visit func(*Job)
	visit = func(job *Job) {
		if job == nil || done[job.Key] {
			return
		}
		done[job.Key] = true
		for _, sum := range append(slices.Clone(job.Artifacts), job.Named...) {
			if a := g.artifact(sum); a != nil && wanted(sum) {
				visit(g.job(a.Job))
			}
		}
		order = append(order, job)
	}
	for _, job := range jobs {
		visit(job)
	}
	return order
}

// prepare makes a run of a job: a definition with the job's parameters, and the events that it answered. Artifacts that
// no repeated job made are copied.
func (r *Repetition) prepare(job *Job, fresh *artifact.Store, j journal.Journal, run string) error {
	section, err := r.section(job, fresh)
	if err != nil {
		return err
	}
	d := definition.Definition{Name: "repeat", Stages: map[string]json.RawMessage{job.Stage: section}}
	ref, err := d.Store(j, fresh, run)
	if err != nil {
		return err
	}
	started, err := event.New(run, "lineage", "", event.Part{}, event.RunStarted{Pipeline: d.Name, Definition: ref,
		Stages: []string{job.Stage}, Data: artifact.DirectoryName(r.Dir)})
	if err != nil {
		return err
	}
	if _, err := j.Write(started); err != nil {
		return err
	}
	for _, in := range job.answered {
		for _, ref := range record.Mentioned(in.Body) {
			if slices.Contains(job.record.Inputs, ref.Digest) && !fresh.Has(ref) {
				if err := r.copy(ref, fresh); err != nil {
					return err
				}
			}
		}
		again, err := event.Wrap(run, in.Stage, in.Job, in.Part, in.Kind, in.Body)
		if err != nil {
			return err
		}
		if _, err := j.Write(again); err != nil {
			return err
		}
	}
	return nil
}

// section are the parameters of a job as a definition has them: those of its record. An older record lacks those that
// are no part of the job's key, such as paths: then the run's definition has them, unless they were given to a rerun. A
// path whose artifact was made again leads to that.
func (r *Repetition) section(job *Job, fresh *artifact.Store) ([]byte, error) {
	section := map[string]json.RawMessage{}
	def, err := definition.OfRun(r.History.journal, r.History.store, job.Run)
	if err == nil && def != nil {
		if own := def.Stages[job.Stage]; len(own) > 0 {
			err = json.Unmarshal(own, &section)
		}
		if err != nil {
			return nil, fmt.Errorf("definition of run %s: stage %s: %w", job.Run, job.Stage, err)
		}
	}
	for _, recorded := range []string{job.record.Params, cmp.Or(job.record.Unkeyed, "{}")} {
		if err := json.Unmarshal([]byte(recorded), &section); err != nil {
			return nil, fmt.Errorf("record of job %s: its parameters: %w", digest.Short(job.Key), err)
		}
	}
	for key, value := range section {
		if path, ok := r.again(value, fresh); ok {
			section[key] = path
		}
	}
	return json.Marshal(section)
}

// again is the path of an artifact that was made again, in the place of a path to the artifact.
func (r *Repetition) again(value json.RawMessage, fresh *artifact.Store) (json.RawMessage, bool) {
	var path string
	if json.Unmarshal(value, &path) != nil || path == "" {
		return nil, false
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil || !digest.Valid(filepath.Base(real)) {
		return nil, false
	}
	sum := filepath.Base(real)
	made := filepath.Join(fresh.Dir(), "objects", sum[:2], sum)
	if _, err := os.Stat(made); err != nil {
		return nil, false
	}
	b, err := json.Marshal(made)
	return b, err == nil
}

// copy copies an artifact that no job made, its digest checked.
func (r *Repetition) copy(ref artifact.Ref, fresh *artifact.Store) error {
	path, err := r.History.store.Path(ref)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = artifact.Put(fresh, ref.Kind, ref.MediaType, ref.Name, b)
	return err
}

// do starts the stage's program over the job's run.
func (r *Repetition) do(ctx context.Context, job *Job, run string) error {
	program, err := r.Program(job.Stage)
	if err != nil {
		return err
	}
	args := []string{"run", "--data", r.Dir, "--run", run}
	if flag, err := chosenBy(ctx, program); err != nil {
		return err
	} else if flag != "" {
		args = append(args, "--"+flag, "all")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = bus.WithoutAddress(os.Environ())
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("repeating job %s of %s: %w: %s", digest.Short(job.Key), job.Stage, err,
			strings.TrimSpace(said.String()))
	}
	return nil
}

// chosenBy is the flag by which a stage chooses among the events of a run; "" if it answers all.
func chosenBy(ctx context.Context, program string) (string, error) {
	said, err := exec.CommandContext(ctx, program, "describe").Output()
	if err != nil {
		return "", fmt.Errorf("%s describe: %w", program, err)
	}
	var d stage.Description
	if err := json.Unmarshal(said, &d); err != nil {
		return "", fmt.Errorf("%s describe: %w", program, err)
	}
	return d.ChosenBy, nil
}

// compare looks for the first output of a job that is not what it was. The job may have another key now, of a later
// version of its stage, say: then its artifacts count, and sameKey is false.
func (r *Repetition) compare(job *Job, fresh *artifact.Store, j journal.Journal, run string) (sameKey bool, err error) {
	again, err := record.Find(record.Root(fresh), job.Key)
	sameKey = err == nil
	if !sameKey {
		if again, err = made(fresh, j, run, job.Stage); err != nil {
			return false, err
		}
	}
	now := again.Own()
	for i, ref := range job.record.Own() {
		switch {
		case i >= len(now):
			return sameKey, differs(job, "%s is missing", ref.Name)
		case now[i].Digest != ref.Digest:
			return sameKey, differs(job, "%s had digest %s and has %s", ref.Name, digest.Short(ref.Digest),
				digest.Short(now[i].Digest))
		}
	}
	if more := len(now) - len(job.record.Own()); more > 0 {
		return sameKey, differs(job, "%s is new", now[len(now)-more].Name)
	}
	for i, was := range job.record.Outputs {
		if sameKey && (i >= len(again.Outputs) || !saysAsMuch(again.Outputs[i].Body, was.Body)) {
			return sameKey, differs(job, "%s says something else", was.Kind)
		}
	}
	return sameKey, nil
}

// saysAsMuch reports whether the body of an event has all fields of another, with the same values. It may have more: a
// later program adds fields.
func saysAsMuch(now, was []byte) bool {
	var more, fields map[string]msgpack.RawMessage
	if event.Unmarshal(now, &more) != nil || event.Unmarshal(was, &fields) != nil {
		return bytes.Equal(now, was)
	}
	for key, value := range fields {
		if !bytes.Equal(more[key], value) {
			return false
		}
	}
	return true
}

// made is the record of the job that a stage did in a run.
func made(fresh *artifact.Store, j journal.Journal, run, stage string) (*record.Record, error) {
	events, err := j.All(run)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if e.Stage == stage && digest.Valid(e.Job) {
			if r, err := record.Find(record.Root(fresh), e.Job); err == nil {
				return r, nil
			}
		}
	}
	return nil, fmt.Errorf("%s has done no job in %s, run %s", stage, fresh.Dir(), run)
}

func differs(job *Job, format string, args ...any) error {
	return DifferenceError{fmt.Errorf("job %s of %s, repeated, made something else: %s", digest.Short(job.Key), job.Stage,
		fmt.Sprintf(format, args...))}
}
