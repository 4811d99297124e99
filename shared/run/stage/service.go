package stage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
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
	sets        map[string]*set                   // of a gathering stage, by run
	failures    map[string]int                    // by job key, or by event where it has none yet
	unended     map[string]unended                // by delivery, of those that could not be ended
	busy        map[string]*rate.Sometimes        // by job that another process works on: how often the log says so
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
			if err := s.handBack(d, err); err != nil {
				return err
			}
		}
	}
	return nil
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
	end := s.metrics.begin()
	key, outcome, err := s.handle(ctx, e)
	end()
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
		s.log.Info("another process works on this job: the event will come again", "run", e.Run, "event", e.Kind, "job",
			digest.Short(key))
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
	// Who announced it may know nothing of the journal: a stage in another language needs only the bus.
	if _, err := s.journal.Write(e); err != nil {
		return "", "", err
	}
	in, err := s.inputs(e)
	if err != nil {
		return "", "", Permanent(err)
	}
	if !in.ready {
		return "", event.Waiting, nil
	}
	if in.job != "" {
		return in.job, event.Done, nil
	}
	t := task[P, E]{run: e.Run, params: params}
	if err := t.answer(s.spec, definition, in.events); err != nil {
		return "", "", Permanent(err)
	}
	res, err := s.perform(ctx, t)
	if err == nil {
		s.log.Info("job done", "run", e.Run, "event", e.Kind, "job", digest.Short(res.key), "outputs", len(res.outputs),
			"recorded", res.cached)
		s.answered(e, in, res.key)
	}
	return res.key, event.Done, err
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
