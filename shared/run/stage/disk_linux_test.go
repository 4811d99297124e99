package stage

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

// fill mounts a small file system as the data directory and fills it; the function that it returns makes room again.
func (w *harness) fill() (room func()) {
	w.t.Helper()
	if err := os.MkdirAll(w.data, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.data, "tmpfs", 0, "size=256k"); err != nil {
		w.t.Skipf("a small file system cannot be mounted here (it needs root): %v", err)
	}
	w.t.Cleanup(func() { _ = syscall.Unmount(w.data, syscall.MNT_DETACH) })
	if _, err := artifact.Open(w.data); err != nil { // the disk fills up later
		w.t.Fatal(err)
	}
	w.sources("r", "one")
	filler, err := os.Create(filepath.Join(w.data, "filler"))
	if err != nil {
		w.t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	return func() {
		if err := os.Remove(filler.Name()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// A full disk is nobody's failure: the job is done when there is room.
func TestAStageWaitsForRoomOnTheDisk(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	room := w.fill()
	p := w.serve("shout", "--attempts", "1")
	w.eventually(func() bool { return strings.Count(p.log(), "could not finish") > 3 }, "several tries")
	wantText(t, "log", p.log(), "the disk is full", "make room")
	room()
	w.outcomes("r", "shout", 1, event.Done)
	if letters := w.deadLetters(); len(letters) != 0 {
		t.Errorf("%d dead letters", len(letters))
	}
}

func TestAStageEndsWhenTheDiskStaysFull(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	room := w.fill()
	p := w.serve("shout", "--outage", "200ms")
	if status := p.status(); status != command.Unusable {
		t.Errorf("status %d, want %d", status, command.Unusable)
	}
	lines := strings.Split(strings.TrimSpace(p.log()), "\n")
	wantText(t, "its last word", lines[len(lines)-1], "tried for 200ms", "the disk is full")
	room()
	w.serve("shout", "--attempts", "1") // the full disk was no attempt
	w.outcomes("r", "shout", 1, event.Done)
}
