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

// lockData makes sure that one launcher at a time uses a data directory.
func lockData(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, overview.LockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("data directory %s is in use by another launcher: let it end, or choose "+
			"another directory with --data", dir)
	}
	return f, nil
}

// leaseRun makes sure that one launcher at a time drives a run, among all hosts that share the bucket of the data
// directory. It waits for a launcher that may be dead. lost is closed when another launcher has taken the run over.
func leaseRun(dir, run string) (release func(), lost <-chan struct{}, err error) {
	b := bucket.Of(dir)
	if b == nil {
		return func() {}, nil, nil
	}
	for limit := time.Now().Add(lease.Expiry + 5*time.Second); ; time.Sleep(time.Second) {
		l, err := lease.Read(b, path.Join("runs", run, "launcher"))
		if err == nil {
			err = l.Take()
		}
		switch {
		case err == nil:
			return l.Release, l.Lost(), nil
		case !errors.Is(err, lease.ErrHeld):
			return nil, nil, fmt.Errorf("run %s: %w", run, err)
		case time.Now().After(limit):
			return nil, nil, fmt.Errorf("run %s is driven by the launcher of another host: let it end", run)
		}
	}
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
