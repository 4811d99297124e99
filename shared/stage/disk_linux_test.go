package stage

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"bitnet1/shared/artifact"
	"bitnet1/shared/event"
)

func TestAFullDiskFailsTheJobAndTheRunIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := os.MkdirAll(w.data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.data, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small file system cannot be mounted here (it needs root): %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(w.data, syscall.MNT_DETACH) })
	if _, err := artifact.Open(w.data); err != nil { // the disk fills up later
		t.Fatal(err)
	}
	w.sources("r", "one")
	filler, err := os.Create(filepath.Join(w.data, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	w.serve("shout")
	failed := w.outcomes("r", "shout", 1, event.Failed)[0]
	wantText(t, "cause", failed.Cause, "the disk is full", "make room")
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	w.sources("r2", "two")
	w.outcomes("r2", "shout", 1, event.Done)
}
