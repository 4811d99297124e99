package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

// service answers events from a queue until its context ends.
type service[P any, E event.Body] struct {
	*performer[P, E]
	bus     *bus.Bus
	queue   *bus.Queue
	metrics *metrics
	overlay func(*P) error // parameters given on the command line

	retryPause time.Duration // before the second attempt
	outage     time.Duration // how long the event server or the disk may be unusable

	mu          sync.Mutex
	definitions map[string]*definition.Definition // of runs; nil where a run has none
	parts       map[string]*journal.Parts         // of a gathering stage, by run
	failures    map[string]int                    // by job key, or by event where it has none yet
	unended     map[string]unended                // by delivery, of those that could not be ended
	busy        map[string]*rate.Sometimes        // by job that another process works on: how often the log says so
}

// unended is a delivery that could not be ended: neither its answer nor its
// failure could be written or announced.
type unended struct {
	since time.Time
	times int
}

// serve runs the given number of workers.
func (s *service[P, E]) serve(ctx context.Context, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			if err := s.work(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

func (s *service[P, E]) work(ctx context.Context) error {
	for ctx.Err() == nil {
		d, err := s.queue.Next(ctx)
		if err != nil {
			return fmt.Errorf("consumer of stage %s: %w", s.spec.Name, err)
		}
		if d == nil {
			continue
		}
		s.metrics.deliveries.Inc()
		err = s.answer(ctx, d)
		switch {
		case err == nil, ctx.Err() != nil:
			s.ended(d)
		case unfit(err), bus.IsUnusable(err):
			return err
		default:
			if err := s.later(d, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// later hands back a delivery that could not be ended. When it could not be for
// as long as s.outage, the error says that the process is of no use.
func (s *service[P, E]) later(d *bus.Delivery, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := digest.Bytes(d.Data)
	u := s.unended[id]
	if u.times == 0 {
		u.since = time.Now()
	}
	u.times++
	s.unended[id] = u
	if time.Since(u.since) > s.outage {
		return bus.Unusable(fmt.Errorf("tried for %s: %w", s.outage, cause))
	}
	s.log.Error("could not finish a delivery: the event will come again", "subject", d.Subject, "error", command.Advised(cause))
	_ = d.Nak(s.backOff(u.times)) // it comes again anyway, when the server misses signs of life
	return nil
}

func (s *service[P, E]) ended(d *bus.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unended) > 0 {
		delete(s.unended, digest.Bytes(d.Data))
	}
}

// answer works on one delivery, giving signs of life meanwhile, and ends it.
func (s *service[P, E]) answer(ctx context.Context, d *bus.Delivery) error {
	alive, stop := context.WithCancel(ctx)
	var heart sync.WaitGroup
	heart.Go(func() { s.heartbeat(alive, d) })
	defer heart.Wait()
	defer stop()

	started := time.Now()
	e, err := event.Decode(d.Data)
	if err == nil && e.Subject() != d.Subject {
		err = fmt.Errorf("event says it belongs on %s but came on %s", e.Subject(), d.Subject)
	}
	if err != nil {
		s.metrics.jobs.WithLabelValues(event.Failed).Inc()
		return s.bury(ctx, d, err)
	}
	key, outcome, err := s.handle(ctx, e)
	s.metrics.seconds.Observe(time.Since(started).Seconds())
	switch {
	case ctx.Err() != nil:
		return d.Nak(0)
	case errors.Is(err, record.ErrBusy):
		s.sayBusy(e, key)
		return d.Nak(time.Second)
	case unfit(err), bus.IsUnusable(err):
		return errors.Join(err, d.Nak(0))
	case artifact.Unwritable(err):
		return err // it would be as hard to write that the job has failed
	case err != nil:
		tries := s.countFailure(e, key)
		if isPermanent(err) || errors.Is(err, bus.ErrTooLarge) || tries >= s.attempts {
			return s.fail(ctx, d, e, key, err)
		}
		s.metrics.jobs.WithLabelValues("retried").Inc()
		s.log.Warn("job failed and will be tried again", "run", e.Run, "event", e.Kind, "error", err)
		return d.Nak(s.backOff(tries))
	}
	s.forgetFailures(e, key)
	s.metrics.jobs.WithLabelValues(outcome).Inc()
	if err := s.finish(ctx, e, event.JobFinished{Key: key, Outcome: outcome}); err != nil {
		return err
	}
	return d.Ack(ctx)
}

// sayBusy logs, at most once a minute for each job, that another process works on it.
func (s *service[P, E]) sayBusy(e event.Envelope, key string) {
	s.mu.Lock()
	if s.busy[key] == nil {
		s.busy[key] = &rate.Sometimes{Interval: time.Minute}
	}
	limit := s.busy[key]
	s.mu.Unlock()
	limit.Do(func() {
		s.log.Info("another process works on this job: the event will come again", "run", e.Run, "event", e.Kind, "job", digest.Short(key))
	})
}

func (s *service[P, E]) heartbeat(ctx context.Context, d *bus.Delivery) {
	tick := time.NewTicker(s.queue.AckWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = d.InProgress() // a lost sign of life costs a redelivery, which the job's lock makes harmless
		}
	}
}

// handle performs the event's job.
func (s *service[P, E]) handle(ctx context.Context, e event.Envelope) (key, outcome string, err error) {
	params, definition, err := s.params(ctx, e.Run)
	if err != nil {
		return "", "", Permanent(err)
	}
	// Who announced it may know nothing of the journal: a stage in another
	// language needs only the bus.
	if _, err := s.journal.Write(e); err != nil {
		return "", "", err
	}
	events, ready, err := s.inputs(e)
	if err != nil {
		return "", "", Permanent(err)
	}
	if !ready {
		return "", event.Waiting, nil
	}
	t := task[P, E]{run: e.Run, params: params}
	if err := t.answer(s.spec, definition, events); err != nil {
		return "", "", Permanent(err)
	}
	res, err := s.perform(ctx, t)
	if err == nil {
		s.log.Info("job done", "run", e.Run, "event", e.Kind, "job", digest.Short(res.key), "outputs", len(res.outputs), "recorded", res.cached)
	}
	return res.key, event.Done, err
}

// inputs returns the events a job for e works on, and whether they are all
// there. A gathering stage reads the other parts from the run's journal.
func (s *service[P, E]) inputs(e event.Envelope) ([]event.Envelope, bool, error) {
	if s.spec.Gather == nil || e.Part.Count == 0 {
		return []event.Envelope{e}, true, nil
	}
	s.mu.Lock()
	if s.parts[e.Run] == nil {
		s.parts[e.Run] = s.journal.NewParts(e.Run, e.Kind)
	}
	known := s.parts[e.Run]
	s.mu.Unlock()
	parts, err := known.Read(e.Part.Count)
	if err != nil {
		return nil, false, err
	}
	events, ready := gathered[E](parts, e.Part.Count)
	return events, ready, nil
}

// gathered returns parts 0 to count-1, if they are all there. Of several events
// for one part the last one counts that is an E.
func gathered[E event.Body](parts []event.Envelope, count int) ([]event.Envelope, bool) {
	if count > len(parts) { // count is what an event claims: allocate nothing for it
		return nil, false
	}
	events := make([]event.Envelope, count)
	there := make([]bool, count)
	for _, p := range parts {
		if p.Part.Count != count {
			continue // of another set
		}
		if there[p.Part.Index] {
			if _, err := event.Into[E](p); err != nil {
				continue // the one before is sound
			}
		}
		events[p.Part.Index], there[p.Part.Index] = p, true
	}
	return events, !slices.Contains(there, false)
}

// params are the stage's defaults, overlaid by its section in the run's
// definition, overlaid by the command line.
func (s *service[P, E]) params(ctx context.Context, run string) (params P, def *definition.Definition, err error) {
	s.mu.Lock()
	def, known := s.definitions[run]
	s.mu.Unlock()
	if !known {
		if def, err = definition.OfRun(s.journal, s.space, run); err != nil {
			return s.spec.Defaults, nil, err
		}
		if def == nil {
			if err := s.checkDirectory(ctx, run); err != nil {
				return s.spec.Defaults, nil, err
			}
		}
		if err := results.Declare(s.journal, run, s.spec.declaration()); err != nil {
			return s.spec.Defaults, nil, err
		}
		s.mu.Lock()
		s.definitions[run] = def
		s.mu.Unlock()
	}
	params, err = resolve(s.spec, sectionOf(def, s.spec.Name), s.overlay)
	return params, def, err
}

// sectionOf is what a definition, which may be nil, says of a stage.
func sectionOf(def *definition.Definition, stage string) []byte {
	if def == nil {
		return nil
	}
	return def.Stages[stage]
}

// checkDirectory makes sure that a run of which the journal has no beginning was
// not begun in another data directory: its parameters and artifacts are there.
func (s *service[P, E]) checkDirectory(ctx context.Context, run string) error {
	events, _, err := s.bus.History(ctx, run, event.RunStarted{}.Kind(), 0)
	if err != nil {
		return err
	}
	for _, k := range events {
		if started, err := event.Into[event.RunStarted](k.Envelope); err == nil && started.Data != "" {
			return elsewhere{fmt.Errorf("run %s keeps its data in %s, and this stage serves %s: give the stage that directory with --data or BITNET1_DATA",
				run, started.Data, artifact.DirectoryName(filepath.Dir(s.records)))}
		}
	}
	return nil
}

// elsewhere is the error of a process that was given the wrong data directory.
type elsewhere struct{ error }

// Unfit says that no later job of the process can do better.
func (elsewhere) Unfit() bool { return true }

// resolve makes a stage's parameters of its defaults, a section and flags.
func resolve[P any, E event.Body](spec Spec[P, E], section []byte, overlay func(*P) error) (P, error) {
	params := spec.Defaults
	if err := param.Decode(section, &params); err != nil {
		return params, fmt.Errorf("stage %s: %w", spec.Name, err)
	}
	if overlay != nil {
		if err := overlay(&params); err != nil {
			return params, err
		}
	}
	if spec.Check != nil {
		if err := spec.Check(params); err != nil {
			return params, fmt.Errorf("stage %s: %w", spec.Name, err)
		}
	}
	if spec.Complete != nil {
		if err := spec.Complete(&params); err != nil {
			return params, fmt.Errorf("stage %s: %w", spec.Name, err)
		}
	}
	return params, nil
}

// countFailure notes that a job failed and returns how often it did. The count
// on disk survives the process; the one in memory counts when the disk is full.
func (s *service[P, E]) countFailure(e event.Envelope, key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := cmp.Or(key, e.ID)
	s.failures[id]++
	if key == "" {
		return s.failures[id]
	}
	return max(s.failures[id], record.AttemptsAt(s.records, key))
}

func (s *service[P, E]) forgetFailures(e event.Envelope, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failures, e.ID)
	delete(s.failures, key)
}

// backOff is the pause after the given number of failures.
func (s *service[P, E]) backOff(failures int) time.Duration {
	return min(s.retryPause<<min(failures-1, 10), max(s.retryPause, 30*time.Second))
}

// fail gives an event up: it is kept as a dead letter with the cause, the run
// is told, and only then is it taken out of the queue.
func (s *service[P, E]) fail(ctx context.Context, d *bus.Delivery, e event.Envelope, key string, cause error) error {
	s.metrics.jobs.WithLabelValues(event.Failed).Inc()
	cause = command.Advised(cause)
	s.log.Error("job failed", "run", e.Run, "event", e.Kind, "error", cause)
	s.forgetFailures(e, key) // the next start of the run may try again
	if key != "" {
		record.ClearAttempts(s.records, key)
	}
	if err := s.bus.Bury(ctx, s.spec.Name, d.Subject, d.Data, cause.Error()); err != nil {
		return fmt.Errorf("%w (and to say so failed: %w)", cause, err)
	}
	failure := event.JobFinished{Key: key, Outcome: event.Failed, Cause: brief(cause), At: time.Now().UnixMilli()}
	if err := s.finish(ctx, e, failure); err != nil {
		return fmt.Errorf("%w (and to say so failed: %w)", cause, err)
	}
	return d.Term("dead letter kept")
}

// brief is the text of an error, short enough for an event: causes can be a
// list of parameters or a stack.
func brief(err error) string {
	const most = 4000
	text := err.Error()
	if len(text) > most {
		text = text[:most] + " …"
	}
	return strings.ToValidUTF8(text, "?")
}

// bury gives up a message that is no event.
func (s *service[P, E]) bury(ctx context.Context, d *bus.Delivery, cause error) error {
	s.log.Error("not an event", "subject", d.Subject, "error", cause)
	if err := s.bus.Bury(ctx, s.spec.Name, d.Subject, d.Data, cause.Error()); err != nil {
		return err
	}
	return d.Term("dead letter kept")
}

func (s *service[P, E]) finish(ctx context.Context, in event.Envelope, f event.JobFinished) error {
	f.Listener, f.Input = s.spec.Name, in.ID
	e, err := event.New(in.Run, s.spec.Name, f.Key, event.Part{}, f)
	if err != nil {
		return err
	}
	err = s.announcer.Announce(ctx, e)
	if errors.Is(err, bus.ErrTooLarge) {
		return bus.Unusable(err) // no smaller answer can be made
	}
	return err
}
