package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/vfs"
)

// rerun answers events of old runs again, or for the first time.
type rerun[P any, E event.Body] struct {
	*performer[P, E]
	command  *cli.Context
	store    *artifact.Store
	span     span
	datasets []artifact.Ref // manifests, other than the run's own
	progress *progressLine
}

// allRuns is what --run has for every run of the data directory. It is no run's id.
const allRuns = "*"

// runOver answers the events of an old run, or of all of them.
func runOver[P any, E event.Body](ctx context.Context, s Spec[P, E], c *cli.Context) error {
	progress := newProgressLine(c, s.Name)
	defer progress.end()
	log, err := logger(c, progress)
	if err != nil {
		return err
	}
	over, err := spanOf(c, s.Choice != nil)
	if err != nil {
		return err
	}
	if s.Gather != nil && over.every > 1 {
		return command.Usagef("--every %d: %s answers all parts of a set at once", over.every, s.Name)
	}
	if err := command.Attach(c); err != nil {
		return err
	}
	store, err := artifact.Open(c.String("data"))
	if err != nil {
		return err
	}
	b, err := optionalBus(ctx, s.Name)
	if err != nil {
		return err
	}
	if b != nil {
		defer b.Close()
	}
	space, datasets, err := otherDatasets(s, c, store)
	if err != nil {
		return err
	}
	j := journal.Open(store.Dir()).Telling(func(err error) { log.Warn(err.Error()) })
	r := &rerun[P, E]{
		performer: &performer[P, E]{
			spec: s, fs: vfs.OS, space: space, journal: j, records: record.Root(store), announcer: bus.NewAnnouncer(j, b),
			host: hostOf(c), log: log, deadline: c.Duration("deadline"), grace: hangGrace, report: progress.reporter(log),
		},
		command: c, store: store, span: over, datasets: datasets, progress: progress,
	}
	if run := c.String("run"); run != allRuns {
		return r.run(ctx, run)
	}
	return r.allRuns(ctx)
}

// allRuns answers the events of every run that has some in the span. What is wrong with one run keeps no other from its
// answers.
func (r *rerun[P, E]) allRuns(ctx context.Context) error {
	runs, err := r.journal.Runs()
	if err != nil {
		return err
	}
	var problems []error
	answered := 0
	for _, run := range runs {
		if !r.journal.Has(run, r.spec.kind()) {
			continue
		}
		err := r.run(ctx, run)
		switch {
		case ctx.Err() != nil:
			return err
		case errors.As(err, new(outsideError)):
			r.log.Info(err.Error())
		case err != nil:
			problems = append(problems, fmt.Errorf("run %s: %w", run, err))
		default:
			answered++
		}
	}
	if answered+len(problems) == 0 {
		return fmt.Errorf("no run in %s has a %s event%s", r.store.Dir(), r.spec.kind(), r.span)
	}
	return errors.Join(problems...)
}

// outsideError says that a run has no event in the span.
type outsideError struct{ error }

// run answers the events of one run.
func (r *rerun[P, E]) run(ctx context.Context, run string) error {
	c, s := r.command, r.spec
	jobs, err := jobsOver(r.log, s, r.store, r.journal, run, s.Choice.which(c, r.span), r.span)
	if err != nil {
		return err
	}
	def, err := definition.OfRun(r.journal, r.store, run)
	if err != nil {
		return err
	}
	params, err := resolve(s, sectionOf(def, s.Name), s.overlayOf(c))
	if err != nil {
		return err
	}
	if err := results.Declare(r.journal, run, s.declaration()); err != nil {
		return err
	}
	all := task[P, E]{run: run, params: params, force: c.Bool("force"), renew: true}
	if err := all.follow(r.journal, s.Emits); err != nil {
		return err
	}
	for _, in := range jobs {
		for _, dataset := range r.datasets {
			t := all
			if err := t.answer(s, def, in); err != nil {
				return err
			}
			if dataset.Digest != "" {
				t.onDataset(s, dataset)
			}
			res, err := r.performWhenFree(ctx, t)
			if err != nil {
				return err
			}
			r.progress.end()
			if err := printResult(c, s.Results, res, r.outputs(t)); err != nil {
				return err
			}
		}
	}
	return nil
}

// otherDatasets returns where a rerun over a run finds its artifacts, and the datasets that --dataset names: one that
// is empty, for the run's own, without the flag.
func otherDatasets[P any, E event.Body](s Spec[P, E], c *cli.Context, store *artifact.Store) (
	artifact.Space, []artifact.Ref, error) {
	paths := datasetsOf(c)
	if s.OnDataset == nil || paths[0] == "" {
		return store, []artifact.Ref{{}}, nil
	}
	folder := artifact.NewInputs()
	var datasets []artifact.Ref
	for _, path := range paths {
		manifest, err := (&Files{Dataset: path, folder: folder}).AddDataset()
		if err != nil {
			return nil, nil, err
		}
		datasets = append(datasets, manifest)
	}
	return artifact.Beside{Store: store, Files: folder}, datasets, nil
}

// onDataset makes the task be about another dataset. A result on another dataset than the run's own stands beside the
// run's results, as one of other parameters does.
func (t *task[P, E]) onDataset(s Spec[P, E], manifest artifact.Ref) {
	for i, in := range t.in {
		other := s.OnDataset(in, manifest)
		if !slices.Equal(in.Inputs(), other.Inputs()) {
			t.overrides[s.Name+".dataset"] = digest.Short(manifest.Digest)
		}
		t.in[i] = other
	}
}

// jobsOver are the events of a run that a rerun is about, split into the inputs of jobs. Which is what the user has
// given to the flag of the stage's Choice.
func jobsOver[P any, E event.Body](
	log *slog.Logger, s Spec[P, E], store *artifact.Store, j journal.Journal, run, which string, over span,
) (jobs [][]event.Envelope, err error) {
	events, own, err := eventsOver[E](log, j, run, s.kind())
	if err != nil {
		return nil, err
	}
	switch {
	case s.Choice != nil:
		if events, err = s.Choice.choose(events, own, run, which, over); err == nil {
			events, err = s.Choice.there(log, store, run, events)
		}
	case s.Gather != nil && !over.includes(latest(own), 0):
		events = nil
	case s.Gather != nil:
		events = own
	default:
		events = over.events(own)
	}
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, outsideError{fmt.Errorf("run %s has no %s event%s", run, s.kind(), over)}
	}
	if count := latest(events).Part.Count; s.Gather != nil && count > 0 {
		set, ready := gathered[E](events, count)
		if !ready {
			return nil, fmt.Errorf("run %s: some of the %d %s events are missing: let the pipeline finish first", run, count,
				s.kind())
		}
		return [][]event.Envelope{set}, nil
	}
	for _, e := range events {
		jobs = append(jobs, []event.Envelope{e})
	}
	return jobs, nil
}

// latest is the event that was announced last, of one or more.
func latest(events []event.Envelope) event.Envelope {
	return slices.MaxFunc(events, func(a, b event.Envelope) int { return cmp.Compare(a.Time, b.Time) })
}

// eventsOver reads the events of a kind that a run has, one at least, and those among them that the run's own
// parameters gave. Where there is none of the latter, all are the run's own.
func eventsOver[E event.Body](log *slog.Logger, j journal.Journal, run,
	kind string) (events, own []event.Envelope, err error) {
	if events, err = j.Read(run, kind); err != nil {
		return nil, nil, err
	}
	events = slices.DeleteFunc(events, func(e event.Envelope) bool {
		_, err := event.Into[E](e)
		if err != nil {
			log.Warn("an event is left out", "error", err)
		}
		return err != nil
	})
	if len(events) == 0 {
		return nil, nil, noEvents(j, run, kind)
	}
	own = slices.DeleteFunc(slices.Clone(events), func(e event.Envelope) bool { return len(e.Overrides) > 0 })
	if len(own) == 0 {
		own = events
	}
	return events, own, nil
}

func noEvents(j journal.Journal, run, kind string) error {
	runs, err := j.Runs()
	if err != nil {
		return err
	}
	if slices.Contains(runs, run) {
		return fmt.Errorf("run %s has no %s event yet", run, kind)
	}
	return command.NoSuchRun(run, runs)
}

// optionalBus connects when NATS_URL is set.
func optionalBus(ctx context.Context, name string) (*bus.Bus, error) {
	a := bus.AddressFrom(os.Getenv)
	if a.URL == "" {
		return nil, nil
	}
	return bus.Connect(ctx, a, name)
}
