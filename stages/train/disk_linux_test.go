package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A disk that fills up while a checkpoint is written beside the training ends the run with that message, and what was
// there before is enough to go on once there is room.
func TestFullDiskEndsTheRun(t *testing.T) {
	manifest, whole, dir := writeDataset(t, 16, proverbs()...), t.TempDir(), t.TempDir()
	trainWith(t, small(manifest, whole)...)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=600k"); err != nil {
		t.Skipf("this test mounts a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	cmd, said := program(t, small(manifest, dir)...)
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "the disk is full") {
		t.Fatalf("600 kB were enough (%v):\n%s", err, said)
	}
	if n := len(checkpoints(t, dir)); n == 0 || n >= len(checkpoints(t, whole)) {
		t.Fatalf("%d checkpoints fit", n)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	trainWith(t, small(manifest, dir)...)
	sameFiles(t, whole, dir, []string{"a full disk"})
}

// A pause file that cannot be written is said to be missing, with the step that is lost.
func TestPauseThatCannotBeWritten(t *testing.T) {
	manifest, dir := writeDataset(t, 16, proverbs()...), t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("this test mounts a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	flags := small(manifest, dir)
	stopAt(t, 5, 0, dir, flags)
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	for err == nil {
		var n int
		n, err = filler.Write(make([]byte, 4096))
		size += int64(n)
	}
	if err := filler.Truncate(size - 64<<10); err != nil { // room for what is smaller than a pause file
		t.Fatal(err)
	}
	filler.Close()
	cmd, said := program(t, append(flags, "--stop-at", "9")...)
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "keeping step 9 to go on from: ") ||
		!strings.Contains(said.String(), "the disk is full") || strings.Contains(said.String(), "msg=paused") {
		t.Errorf("%v:\n%s", err, said)
	}
}
