package main

import (
	"path/filepath"
	"strings"
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

// What is only read needs no permission to write: an archive can be verified.
func TestAReadOnlyDataDirectoryIsVerified(t *testing.T) {
	w := newWorld(t)
	dir := mount(t, "size=64m", 0)
	w.data = filepath.Join(dir, "data")
	w.must("pipeline", tiny()...)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	w.must("pipeline", "verify")
}

// A disk that stays full ends the run with a message. Once there is room, the run goes on and makes the same artifacts.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	dir := mount(t, "size=4m", 0)
	w.data = filepath.Join(dir, "data")
	w.refuses(1, []string{"no space left on device", "same command again"}, "pipeline", tiny("--outage", "2s")...)
	if left, _ := filepath.Glob(filepath.Join(w.data, "tmp", "*")); len(left) > 0 {
		t.Errorf("half-written files are left: %v", left)
	}
	enlarge(t, dir)
	w.must("pipeline", tiny()...)
	w.sameAsReference()
}

// A disk that is full for a short time does not end the run.
func TestFullDiskThatHasRoomAgain(t *testing.T) {
	w := newWorld(t)
	dir := mount(t, "size=4m", 0)
	w.data = filepath.Join(dir, "data")
	l := w.start(tiny("--outage", "5m")...)
	l.until("a full disk", func(m message) bool {
		return m.Type == "warning" && strings.Contains(m.Text, "no space left on device")
	})
	enlarge(t, dir)
	if o := l.wait(); o.status != 0 {
		t.Fatalf("status %d: %s", o.status, o.stderr)
	}
	w.sameAsReference()
}

func enlarge(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1g"); err != nil {
		t.Fatal(err)
	}
}
