package main

import (
	"path/filepath"
	"syscall"
	"testing"
)

// mount gives the test a file system of its own.
func mount(t *testing.T, options string, flags uintptr) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Skipf("cannot mount a file system for the test: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestReadOnlyDataDirectory(t *testing.T) {
	w := newWorld(t)
	w.data = filepath.Join(mount(t, "size=1m", syscall.MS_RDONLY), "data")
	w.refuses(1, []string{"read-only", "--data"}, "pipeline", tiny()...)
}

// A disk that fills up ends the run with a message; with room it goes on to the same artifacts.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	dir := mount(t, "size=4m", 0)
	w.data = filepath.Join(dir, "data")
	w.refuses(1, []string{"no space left on device"}, "pipeline", tiny()...)
	if left, _ := filepath.Glob(filepath.Join(w.data, "tmp", "*")); len(left) > 0 {
		t.Errorf("half-written files are left: %v", left)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1g"); err != nil {
		t.Fatal(err)
	}
	w.must("pipeline", tiny()...)
	w.sameAsReference()
}
