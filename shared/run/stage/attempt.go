package stage

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/record"
)

// attempt runs the author's function once and commits the record.
func (p *performer[P, E]) attempt(ctx context.Context, t task[P, E], r *record.Record) error {
	n := r.Attempts() + 1
	if p.attempts > 0 && n > p.attempts {
		return Permanentf("job %s was begun %d times and got nowhere: the process died each time (out of memory?) or "+
			"hung beyond its deadline", digest.Short(r.Key), n-1)
	}
	if err := r.SetAttempts(n); err != nil {
		return err
	}
	work := ctx
	if p.deadline > 0 {
		var cancel context.CancelFunc
		work, cancel = context.WithTimeoutCause(ctx, p.deadline,
			fmt.Errorf("the job took longer than --deadline %s", p.deadline))
		defer cancel()
	}
	work, stop := unlessSuperseded(work, r)
	defer stop()
	job := p.newJob(t, r)
	err := p.abandonable(ctx, work, func() error { return p.call(work, job, t.in) })
	if err == nil {
		err = r.Commit()
	}
	if cause := context.Cause(work); errors.Is(err, record.ErrSuperseded) || errors.Is(cause, record.ErrSuperseded) {
		p.log.Warn("another process has taken this job over, and this one leaves it", "run", t.run, "job",
			digest.Short(r.Key))
		return record.ErrSuperseded
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil { // interrupted, not failed
		_ = r.SetAttempts(n - 1)
		return context.Cause(ctx)
	}
	if work.Err() != nil && !unfit(err) { // where the next attempt goes on, whatever ended this one
		return fmt.Errorf("%w (%s)", context.Cause(work), err.Error())
	}
	if artifact.Unwritable(err) || bus.IsUnusable(err) { // not the job's failure
		_ = r.SetAttempts(n - 1)
	}
	return err
}

// unlessSuperseded returns a context that ends, beside when ctx does, when another process has taken the job over.
func unlessSuperseded(ctx context.Context, r *record.Record) (context.Context, func()) {
	work, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-r.Superseded():
			cancel(record.ErrSuperseded)
		case <-work.Done():
		}
	}()
	return work, func() { cancel(nil) }
}

// hangGrace is how long a job may take to end once its deadline is over: as long as it takes to save what was done.
const hangGrace = 5 * time.Minute

// hungError is a job that does not end. Its process cannot be used any more: nobody knows what the job still does.
type hungError struct{ error }

func (hungError) Unfit() bool { return true }

// abandonable calls do, which ends soon after work, and leaves it behind when it does not although its deadline is
// over. While the process is asked to end, it is waited for: it saves what was done.
func (p *performer[P, E]) abandonable(ctx, work context.Context, do func() error) error {
	if p.deadline == 0 {
		return do()
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-work.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(p.grace):
	}
	if ctx.Err() != nil {
		return <-done
	}
	return hungError{fmt.Errorf("the job hangs: it has not ended %s after its deadline, and its process ends instead",
		p.grace)}
}

// call runs the author's function and turns a panic into an error, so that one bad input cannot take the other jobs of
// the process down.
func (p *performer[P, E]) call(ctx context.Context, job *Job[P], in []E) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("panic", "value", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in stage %s: %v (a defect: the log has the stack)", p.spec.Name, v)
		}
	}()
	if p.spec.Gather != nil {
		return p.spec.Gather(ctx, job, in)
	}
	return p.spec.Work(ctx, job, in[0])
}
