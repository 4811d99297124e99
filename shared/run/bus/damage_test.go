package bus

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// store leaves the files of a server that had events, among them a removed one, a dead letter and a consumer.
func store(t *testing.T) (dir string, j journal.Journal) {
	t.Helper()
	dir = t.TempDir()
	s, err := StartServer(filepath.Join(dir, "nats"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	b := connect(t, s)
	j = journal.Open(dir)
	announcer := NewAnnouncer(j, b)
	for step := range 4 {
		for _, run := range []string{"r", "other"} {
			if err := announcer.Announce(t.Context(), packed(t, run, step)); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(t, b, packed(t, "gone", 1))
	if err := b.ForgetRun(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	listen(t, b, Listener{Stage: "stage", Run: "r", Kind: event.PackWritten{}.Kind()})
	bury(t, b)
	return dir, j
}

func bury(t *testing.T, b *Bus) {
	t.Helper()
	letter := &Delivery{Subject: event.Subject("r", event.PackWritten{}.Kind()), Data: []byte("x")}
	if err := b.Bury(t.Context(), "stage", letter, "cause"); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAFlippedBitInTheServersFilesIsNoticed flips bits of every file, one in each of the first and last 200 bytes.
func TestAFlippedBitInTheServersFilesIsNoticed(t *testing.T) {
	dir, _ := store(t)
	streams := filepath.Join(dir, "nats", "jetstream")
	if all, err := FindDamage(filepath.Join(dir, "nats")); err != nil || len(all) > 0 {
		t.Fatalf("before: %v, %v", all, err)
	}
	kinds := map[string]bool{}
	for _, path := range files(t, streams) {
		if filepath.Base(path) == "o.dat" { // a consumer's place in the stream: it has no hash, and no launcher uses it
			continue
		}
		kinds[filepath.Ext(path)] = true
		written, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range written {
			if i >= 200 && i < len(written)-200 {
				continue
			}
			b := slices.Clone(written)
			b[i] ^= 1 << (i % 8)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			all, err := FindDamage(filepath.Join(dir, "nats"))
			if err != nil || len(all) != 1 || !errors.Is(all[0], ErrFile) ||
				strings.TrimSuffix(all[0].Path, "inf") != strings.TrimSuffix(strings.TrimSuffix(path, "inf"), "sum") {
				t.Fatalf("byte %d of %s: %v, %v", i, path, all, err)
			}
		}
		if err := os.WriteFile(path, written, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{".inf", ".sum", ".blk", ".db"} {
		if !kinds[want] {
			t.Errorf("there was no file *%s: %v", want, kinds)
		}
	}
}

// A file that has lost all that was in it, as after a power cut, has lost messages where there were some.
func TestAnEmptiedFileOfTheServerIsNoticed(t *testing.T) {
	dir, _ := store(t)
	for _, stream := range []string{EventStream, DeadStream} {
		path := filepath.Join(dir, "nats", "jetstream", "$G", "streams", stream, "msgs", "1.blk")
		written, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		all, err := FindDamage(filepath.Join(dir, "nats"))
		if err != nil || len(all) != 1 || all[0].Path != path || !all[0].Lost {
			t.Errorf("%s without its messages: %v, %v", stream, all, err)
		}
		if err := os.WriteFile(path, written, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAServerStartsOnDamagedFiles damages each file in turn. The server starts, what was lost is announced again, and
// the streams that are sound keep what they have.
func TestAServerStartsOnDamagedFiles(t *testing.T) {
	for _, file := range []string{"BITNET1_EVENTS/meta.inf", "BITNET1_EVENTS/meta.sum", "BITNET1_EVENTS/msgs/1.blk",
		"BITNET1_EVENTS/msgs/index.db", "BITNET1_EVENTS/obs/stage--r/meta.inf", "BITNET1_DEAD/meta.inf"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			dir, j := store(t)
			path := filepath.Join(dir, "nats", "jetstream", "$G", "streams", file)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 4
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			startsOn(t, dir, j)
		})
	}
	for _, gone := range []string{"nats", "nats/jetstream/$G/streams/BITNET1_EVENTS/meta.inf"} {
		t.Run("without "+gone, func(t *testing.T) {
			t.Parallel()
			dir, j := store(t)
			if err := os.RemoveAll(filepath.Join(dir, gone)); err != nil {
				t.Fatal(err)
			}
			startsOn(t, dir, j)
		})
	}
}

// startsOn starts a server on damaged files, and makes sure that it has all events again. A server that was stopped
// before that was so is a server that lacks history.
func startsOn(t *testing.T, dir string, j journal.Journal) {
	t.Helper()
	restored := false
	for {
		s, err := StartServer(filepath.Join(dir, "nats"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		b := connect(t, s)
		if s.LacksHistory() && !restored {
			restored = true
			if _, err := NewAnnouncer(j, b).Restore(t.Context(), "other"); err != nil {
				t.Fatal(err)
			}
			b.Close()
			s.Stop()
			continue
		}
		if s.LacksHistory() != restored {
			t.Errorf("it lacks history: %v", s.LacksHistory())
		}
		if restored {
			if _, err := NewAnnouncer(j, b).Restore(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.HasHistory(); err != nil || s.LacksHistory() {
			t.Error(err, s.LacksHistory())
		}
		for _, run := range []string{"r", "other"} {
			if events, _, err := b.History(t.Context(), run, "*.*", 0); err != nil || len(events) != 4 {
				t.Errorf("%d events of run %s, %v", len(events), run, err)
			}
		}
		q := listen(t, b, Listener{Stage: "stage", Run: "r", Kind: event.PackWritten{}.Kind()})
		if d := next(t, q); stepOf(t, d) != 0 {
			t.Errorf("step %d comes first", stepOf(t, d))
		}
		bury(t, b)
		return
	}
}
