package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bitnet1/shared/run/artifact"
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
