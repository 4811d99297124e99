package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/overview"
)

// Whoever looks whether a launcher is at work does not keep launchers off.
func TestAGlanceKeepsNoLauncherOff(t *testing.T) {
	before := lockWait
	t.Cleanup(func() { lockWait = before })
	lockWait = processtest.Patience
	dir := t.TempDir()
	glance, err := os.Create(filepath.Join(dir, overview.LockName))
	if err == nil {
		err = unix.Flock(int(glance.Fd()), unix.LOCK_SH)
	}
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { glance.Close() })
	lock, err := lockData(dir)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
}
