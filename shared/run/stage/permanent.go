package stage

import (
	"context"
	"errors"
	"fmt"
)

// permanent marks an error that trying again cannot mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent marks err as one that every further attempt would meet: the job is not tried again.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanent{err}
}

// Permanentf is Permanent of a formatted error.
func Permanentf(format string, args ...any) error { return Permanent(fmt.Errorf(format, args...)) }

// Deterministic is work, a Work or a Gather, that does the same whenever it is done: what fails once would fail again,
// and is not tried again. What the device, the disk, the event server or a signal does to it is no such failure.
func Deterministic[P, E any](work func(context.Context, *Job[P], E) error) func(context.Context, *Job[P], E) error {
	return func(ctx context.Context, job *Job[P], in E) error { return Permanent(work(ctx, job, in)) }
}

func isPermanent(err error) bool { return errors.As(err, new(permanent)) }

// unfit says whether err leaves this process unable to do any job, while another may do this one: a device that is
// lost. Errors say so by a method Unfit. Serving ends with such an error, and whoever started the process starts it
// again.
func unfit(err error) bool {
	var u interface{ Unfit() bool }
	return errors.As(err, &u) && u.Unfit()
}
