package bus

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// After a failed write the server's store stays closed until the server is restarted. After the restart clients
// reconnect, and all stored messages are there.
func TestAServerIsMendedWhenItsDiskHasRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small file system cannot be mounted here (it needs root): %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s, err := StartServer(filepath.Join(dir, "nats"), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	b := connect(t, s)
	b.Patience = 300 * time.Millisecond
	publish(t, b, packed(t, "r", 0))
	if err := s.Mend(); err != nil {
		t.Fatalf("a server that is well: %v", err)
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	taken := 1
	for err = nil; err == nil && taken < 10_000; taken++ {
		err = b.Publish(t.Context(), packed(t, "r", taken))
	}
	if !IsUnusable(err) {
		t.Fatalf("after %d events on a full disk: %v", taken, err)
	}
	if err := s.Mend(); err == nil {
		t.Fatal("mended without room")
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	if err := s.Mend(); err != nil {
		t.Fatal(err)
	}
	b.Patience = Patience
	publish(t, b, packed(t, "r", -1))
	if events, _, err := b.History(t.Context(), "r", "*.*", 0); err != nil || len(events) < taken-1 {
		t.Errorf("%d events of %d, %v", len(events), taken, err)
	}
}
