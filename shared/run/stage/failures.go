package stage

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
)

// unended is a delivery that could not be ended: neither its answer nor its failure could be written or announced.
type unended struct {
	since time.Time
	times int
}

// handBack returns a delivery that could not be ended to the queue. When the delivery could not be ended for as long as
// s.outage, the error says that the process is of no use.
func (s *service[P, E]) handBack(d *bus.Delivery, cause error) error {
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
	s.log.Error("could not finish a delivery: the event will come again", "subject", d.Subject, "error",
		command.Advised(cause))
	_ = d.Nak(s.backOff(u.times)) // the event comes again anyway, when AckWait is over
	return nil
}

func (s *service[P, E]) ended(d *bus.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unended) > 0 {
		delete(s.unended, digest.Bytes(d.Data))
	}
}

// countFailure notes that a job failed and returns how often it did. The count on disk survives the process; the one in
// memory counts when the disk is full.
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
	delete(s.busy, key)
}

// backOff is the pause after the given number of failures.
func (s *service[P, E]) backOff(failures int) time.Duration {
	return min(s.retryPause<<min(failures-1, 10), max(s.retryPause, 30*time.Second))
}

// fail gives an event up: it is kept as a dead letter with the cause, the run is told, and only then is it taken out of
// the queue.
func (s *service[P, E]) fail(ctx context.Context, d *bus.Delivery, e event.Envelope, key string, cause error) error {
	s.metrics.jobs.WithLabelValues(event.Failed).Inc()
	cause = command.Advised(cause)
	s.log.Error("job failed", "run", e.Run, "event", e.Kind, "error", cause)
	s.forgetFailures(e, key) // the next start of the run may try again
	if key != "" {
		record.ClearAttempts(s.records, key)
	}
	if err := s.bus.Bury(ctx, s.spec.Name, d, cause.Error()); err != nil {
		return fmt.Errorf("%w (and to say so failed: %w)", cause, err)
	}
	failure := event.JobFinished{Key: key, Outcome: event.Failed, Cause: brief(cause), At: time.Now().UnixMilli()}
	if err := s.finish(ctx, e, failure); err != nil {
		return fmt.Errorf("%w (and to say so failed: %w)", cause, err)
	}
	return d.Term("dead letter kept")
}

// brief is the text of an error, short enough for an event: causes can be a list of parameters or a stack.
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
	if err := s.bus.Bury(ctx, s.spec.Name, d, cause.Error()); err != nil {
		return err
	}
	return d.Term("dead letter kept")
}
