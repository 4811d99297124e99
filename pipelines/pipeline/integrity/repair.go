package integrity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/pipelines/pipeline/lineage"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

// Repair makes damaged files of a data directory again.
type Repair struct {
	Dir     string
	Fresh   string                             // an empty folder, in which jobs are done again
	Program func(stage string) (string, error) // finds the program of a stage
	Bus     *bus.Bus                           // nil: there is no event server

	// Tell is called for each finding with what was done about it, or with why nothing could be done.
	Tell func(f Finding, done string, err error)

	store   *artifact.Store
	journal journal.Journal
}

// Do repairs what was found to be damaged, and to be missing where missing is set. What cannot be repaired is told and
// left as it is.
func (r *Repair) Do(ctx context.Context, found *Report, missing bool) (err error) {
	if r.store, err = artifact.Open(r.Dir); err != nil {
		return err
	}
	r.journal = journal.Open(r.Dir).Telling(func(error) {})
	var events, jobs, links []Finding
	for _, f := range found.Findings {
		switch f.Kind {
		case Event:
			events = append(events, f)
		case Record, Artifact:
			jobs = append(jobs, f)
		case Link:
			links = append(links, f)
		default:
			done, err := r.file(f)
			r.Tell(f, done, err)
		}
	}
	for _, ref := range found.Missing {
		if missing {
			jobs = append(jobs, Finding{Kind: Artifact, Path: artifact.ObjectPath(r.Dir, ref.Digest),
				Problem: artifact.ErrMissing.Error(), digest: ref.Digest})
		}
	}
	// Each needs what stands before it.
	if err := r.events(ctx, events); err != nil {
		return err
	}
	if err := r.lend(jobs); err != nil {
		return err
	}
	if err := r.jobs(ctx, jobs); err != nil {
		return err
	}
	for _, f := range links {
		r.Tell(f, "linked again", r.link(f))
	}
	return nil
}

// file repairs a file that no job makes.
func (r *Repair) file(f Finding) (done string, err error) {
	switch f.Kind {
	case Mark:
		return "written again", artifact.RepairMark(r.Dir)
	case Unfinished:
		return "removed: the job is done again from what it made before, when its run goes on", os.Remove(f.Path)
	case Declaration:
		return "written again, as the stage's program says it", r.declare(f)
	case Commands:
		return "removed: the command of the run that is given next takes its place", os.Remove(f.Path)
	default:
		return "set aside: its events are announced again from the journals", nil
	}
}

// declare asks a stage's program what it says of its results.
func (r *Repair) declare(f Finding) error {
	name := strings.TrimSuffix(filepath.Base(f.Path), ".json")
	program, err := r.Program(name)
	if err != nil {
		return err
	}
	d, ok := results.Ask(filepath.Dir(program))(name)
	if !ok {
		return fmt.Errorf("%s describe says nothing of its results", program)
	}
	return results.Declare(r.journal, f.Run, d)
}

// link makes a link in a run's folder again, to the one artifact of its stage that has its name.
func (r *Repair) link(f Finding) error {
	events, err := r.journal.All(f.Run)
	if err != nil {
		return err
	}
	inside, err := filepath.Rel(r.journal.RunDir(f.Run), f.Path)
	if err != nil {
		return err
	}
	found := map[string]artifact.Ref{}
	for _, e := range events {
		for _, ref := range record.Mentioned(e.Body) {
			if ref.Name == filepath.Base(f.Path) {
				found[ref.Digest] = ref
			}
		}
	}
	if len(found) != 1 {
		return fmt.Errorf("the run has %d artifacts of that name: remove the link, and give the run's command again",
			len(found))
	}
	for _, ref := range found {
		err = r.journal.Link(f.Run, filepath.Dir(inside), ref)
	}
	return err
}

// events writes damaged events again: as the event server has them, or as the records of their jobs say.
func (r *Repair) events(ctx context.Context, all []Finding) error {
	there := map[string]map[string]event.Envelope{} // by run and id
	for _, f := range all {
		if there[f.Run] != nil {
			continue
		}
		there[f.Run] = map[string]event.Envelope{}
		if r.Bus == nil {
			continue
		}
		events, _, err := r.Bus.History(ctx, f.Run, "*.*", 0)
		if err != nil {
			return err
		}
		for _, k := range events {
			there[f.Run][k.ID] = k.Envelope
		}
	}
	records, err := record.Finished(record.Root(r.store))
	if err != nil {
		return err
	}
	for _, f := range all {
		done := "written again, as the event server has it"
		e, ok := there[f.Run][f.event.id]
		if !ok || f.event.job != "" && f.event.job != e.Job {
			done = "written again, as the record of its job says"
			e, ok = r.recorded(f, records)
		}
		err := fmt.Errorf("neither the event server nor a record has it: %s", r.command(f.Run))
		if ok {
			_, err = r.journal.Write(e)
		} else if removed := os.Remove(f.Path); removed != nil { // then it is announced again
			err = removed
		}
		r.Tell(f, done, err)
	}
	return nil
}

// recorded makes an event from the record of the job that announced it.
func (r *Repair) recorded(f Finding, records []*record.Record) (e event.Envelope, ok bool) {
	for _, rec := range records {
		if f.event.job != "" && f.event.job != rec.Key {
			continue
		}
		for _, out := range rec.Outputs {
			e, err := event.Wrap(f.Run, rec.Stage, rec.Key, event.Part{}, out.Kind, out.Body)
			if err == nil && e.ID == f.event.id {
				return r.answer(e), true
			}
		}
	}
	return e, false
}

// answer adds to an event what the answer to the same event says: what was answered, when, and with which parameters.
func (r *Repair) answer(e event.Envelope) event.Envelope {
	events, err := r.journal.All(e.Run)
	if err != nil {
		return e
	}
	byID := map[string]event.Envelope{}
	for _, other := range events {
		byID[other.ID] = other
	}
	for _, other := range events {
		if other.Job != e.Job {
			continue
		}
		e.Time = other.Time
		if f, err := event.Into[event.JobFinished](other); err == nil {
			e.Input = f.Input
			e.Part = byID[f.Input].Part
		} else { // another output of the job has all of it
			e.Input, e.Part, e.Overrides = other.Input, other.Part, other.Overrides
			return e
		}
	}
	return e
}

// command says what to type so that a run goes on.
func (r *Repair) command(run string) string {
	commands, err := overview.Commands(r.journal, run)
	if err != nil || len(commands) == 0 {
		return "give the command pipeline run of run " + run + " again"
	}
	return "give the run's command again: " + commands[len(commands)-1]
}

// lend links the sound artifacts into the fresh folder, where jobs read them. What a job makes takes the place of its
// link.
func (r *Repair) lend(damaged []Finding) error {
	if len(damaged) == 0 {
		return nil
	}
	if _, err := artifact.Open(r.Fresh); err != nil {
		return err
	}
	all, err := artifact.Objects(r.Dir)
	if err != nil {
		return err
	}
	for _, o := range all {
		if slices.ContainsFunc(damaged, func(f Finding) bool { return f.digest == o.Digest }) {
			continue
		}
		path, err := filepath.Abs(artifact.ObjectPath(r.Dir, o.Digest))
		if err != nil {
			return err
		}
		link := artifact.ObjectPath(r.Fresh, o.Digest)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(path, link); err != nil {
			return err
		}
	}
	return nil
}

// jobs does the jobs again whose records or artifacts are damaged, in one folder, so that each finds there what those
// before it made. One may need what another one mends, so it goes on as long as that helps.
func (r *Repair) jobs(ctx context.Context, all []Finding) error {
	again := &lineage.Repetition{Dir: r.Fresh, Program: r.Program, Tell: func(*lineage.Job, int, bool) {}}
	for {
		var err error
		if again.History, err = lineage.Open(r.Dir); err != nil {
			return err
		}
		var left []Finding
		var problems []error
		for _, f := range all {
			done, err := r.again(ctx, again, f)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil {
				r.Tell(f, done, nil)
				continue
			}
			left, problems = append(left, f), append(problems, err)
		}
		if len(left) == len(all) || len(left) == 0 {
			for i, f := range left {
				r.Tell(f, "", problems[i])
			}
			return nil
		}
		all = left
	}
}

func (r *Repair) again(ctx context.Context, again *lineage.Repetition, f Finding) (done string, err error) {
	const same = "the job that made it is done again, and has made the same"
	if f.Kind == Artifact {
		if err := again.RestoreArtifact(ctx, f.digest); err != nil {
			return "", r.advised(again.History, f, err)
		}
		return same, r.replace(f.digest)
	}
	b, err := again.RestoreRecord(ctx, f.key)
	if errors.Is(err, lineage.ErrNoJob) {
		return "removed: no run speaks of the job, which is done again when it is needed", os.Remove(f.Path)
	}
	if err != nil {
		return "", err
	}
	return same, artifact.WriteFile(f.Path, b)
}

// advised adds to the error of an artifact that no job made what to type: the launcher made it, say.
func (r *Repair) advised(h *lineage.History, f Finding, err error) error {
	if run := h.Mentions(f.digest); errors.Is(err, lineage.ErrNoJob) && run != "" {
		return fmt.Errorf("%w: %s", err, r.command(run))
	}
	return err
}

// replace puts an artifact that was made again into the place of the damaged one.
func (r *Repair) replace(sum string) error {
	path, err := artifact.ReadOnly(r.Fresh).Path(artifact.Ref{Digest: sum})
	if err != nil {
		return err
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	w, err := r.store.Create("artifact", "", digest.Short(sum))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, from); err != nil {
		return err
	}
	_, err = w.Commit()
	return err
}
