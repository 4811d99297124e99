package journal

import (
	"os"
	"testing"

	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/event"
	"bitnet1/shared/s3/s3test"
)

// host returns the journal of another host that shares the server's bucket.
func host(t *testing.T, server *s3test.Server) Journal {
	t.Helper()
	dir := t.TempDir()
	if err := bucket.Attach(dir, server.URL("runs")); err != nil {
		t.Fatal(err)
	}
	return Open(dir).Telling(func(err error) { t.Error(err) })
}

func TestHostsShareEvents(t *testing.T) {
	server := s3test.Start(t)
	hosts := []Journal{host(t, server), host(t, server), host(t, server)}
	for i, j := range hosts {
		if isNew, err := j.Write(newEvent(t, "r", event.Part{Index: i, Count: 3}, int64(i),
			event.PackWritten{Step: i})); err != nil || !isNew {
			t.Fatalf("part %d: new %v, %v", i, isNew, err)
		}
	}
	for i, j := range append(hosts, host(t, server)) {
		events, err := j.NewParts("r", event.PackWritten{}.Kind()).Read(3)
		if err != nil || len(events) != 3 {
			t.Errorf("host %d gathers %d parts (%v)", i, len(events), err)
		}
		if all, err := j.All("r"); err != nil || len(all) != 3 {
			t.Errorf("host %d has %d events (%v)", i, len(all), err)
		}
		isNew, err := j.Write(newEvent(t, "r", event.Part{Index: 1, Count: 3}, 9, event.PackWritten{Step: 1}))
		if err != nil || isNew {
			t.Errorf("host %d takes an event for new that another one has announced (%v)", i, err)
		}
	}
}

func TestTheBucketMendsACopy(t *testing.T) {
	server := s3test.Start(t)
	first, second := host(t, server), host(t, server)
	e := newEvent(t, "r", event.Part{}, 1, event.RunStarted{})
	at := keep(t, first, e)
	if err := os.WriteFile(at, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if !first.Keeps(e) || !second.Keeps(e) {
		t.Error("the event is lost")
	}
	if runs, err := second.Runs(); err != nil || len(runs) != 1 {
		t.Errorf("runs %v (%v)", runs, err)
	}
	if err := second.Remove("r"); err != nil {
		t.Fatal(err)
	}
	if runs, err := host(t, server).Runs(); err != nil || len(runs) != 0 {
		t.Errorf("a run that was removed is there: %v (%v)", runs, err)
	}
}
