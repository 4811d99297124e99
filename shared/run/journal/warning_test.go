package journal

import (
	"io"
	"os"
	"strings"
	"testing"

	"bitnet1/shared/run/event"
)

// By default a journal warns of a damaged event on standard error, once.
func TestDamageIsSaidOnStandardError(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stderr
	os.Stderr = write
	defer func() { os.Stderr = old }()
	j := Open(t.TempDir())
	e, err := event.New("r", "s", "", event.Part{}, event.PackWritten{Step: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Write(e); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(j.path("r", e.Kind, e.ID), []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if events, err := j.Read("r", e.Kind); err != nil || len(events) != 0 {
			t.Errorf("%v, %v", events, err)
		}
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(read)
	if err != nil || strings.Count(string(said), "warning: ") != 1 || !strings.Contains(string(said), e.ID) {
		t.Errorf("said %q, %v", said, err)
	}
}
