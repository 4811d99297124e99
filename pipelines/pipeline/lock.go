package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/lease"
	"bitnet1/shared/run/overview"
)

// lockWait is how long a launcher waits for a lock: others have it for a moment, to see whether a launcher has it.
var lockWait = time.Second

// lockData makes sure that one launcher at a time uses a data directory.
func lockData(dir string) (*os.File, error) {
	path := filepath.Join(dir, overview.LockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) { // verify only reads
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	for limit := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return f, nil
		}
		if time.Now().After(limit) {
			f.Close()
			return nil, fmt.Errorf("data directory %s is in use by another launcher: let it end, or choose "+
				"another directory with --data", dir)
		}
	}
}

// leaseRun makes sure that one launcher at a time drives a run, among all hosts that share the bucket of the data
// directory; nil without a bucket. It waits for a launcher that may be dead.
func leaseRun(dir, run string) (*lease.Lease, error) {
	b := bucket.Of(dir)
	if b == nil {
		return nil, nil
	}
	for limit := time.Now().Add(lease.Expiry + 5*time.Second); ; time.Sleep(time.Second) {
		l, err := lease.Read(b, path.Join("runs", run, "launcher"))
		if err == nil {
			err = l.Take()
		}
		switch {
		case err == nil:
			return l, nil
		case !errors.Is(err, lease.ErrHeld):
			return nil, fmt.Errorf("run %s: %w", run, err)
		case time.Now().After(limit):
			return nil, fmt.Errorf("run %s is driven by the launcher of another host: let it end", run)
		}
	}
}

// giveBack ends the lease of a run; nil is none.
func giveBack(held *lease.Lease) {
	if held != nil {
		held.Release()
	}
}

// lost is closed when the launcher of another host has taken the run over; nil where that cannot happen.
func (l *launcher) lost() <-chan struct{} {
	if l.lease == nil {
		return nil
	}
	return l.lease.Lost()
}

// confirm makes sure that the run is still this launcher's. A launcher that was paused may not have noticed yet that
// another one has taken the run over.
func (l *launcher) confirm() error {
	if l.lease == nil {
		return nil
	}
	err := l.lease.Write(nil)
	if errors.Is(err, lease.ErrLost) {
		return errSuperseded
	}
	return err
}

// seize locks a data directory that no program uses.
func seize(dir string) (release func(), err error) {
	if _, err := artifact.Recognize(dir); err != nil {
		return nil, err
	}
	use, err := artifact.Seize(dir)
	if err != nil {
		return nil, err
	}
	launcher, err := lockData(dir) // one of a version that knew no marks
	if err != nil {
		use.Close()
		return nil, err
	}
	return func() { launcher.Close(); use.Close() }, nil
}
