package main

import (
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
