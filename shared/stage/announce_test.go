package stage

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/bus"
	"bitnet1/shared/event"
	"bitnet1/shared/journal"
)

// forgetful is a world whose server does not recognise what it has for longer
// than a moment, as any server does after its window for duplicates.
func forgetful(t *testing.T) *world {
	t.Helper()
	server, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	address := server.Address()
	conn, err := nats.Connect(address.URL, nats.UserInfo(address.User, address.Password))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: bus.EventStream, Subjects: []string{"bitnet1.*.*.*"}, Storage: jetstream.FileStorage, Duplicates: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return newWorldAt(t, address)
}

func TestAnEventIsAnnouncedOnceHoweverLateItIsAnnouncedAgain(t *testing.T) {
	t.Parallel()
	w := forgetful(t)
	e := w.announce("r", event.Part{}, event.PackWritten{Step: 1})
	time.Sleep(300 * time.Millisecond)
	w.announce("r", event.Part{}, event.PackWritten{Step: 1}) // by another process, with nothing in memory
	again := NewAnnouncer(w.journal(), w.bus)
	for range 2 {
		e.Time++
		if err := again.Announce(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if events := w.history("r", "*.*"); len(events) != 1 {
		t.Errorf("announced %d times", len(events))
	}
}

func TestWhatACrashKeptFromTheBusIsAnnouncedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, err := event.New("r", "test", "", event.Part{}, event.PackWritten{Step: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := NewAnnouncer(w.journal(), nil).Announce(t.Context(), e); err != nil { // and then the process died
		t.Fatal(err)
	}
	if n := len(w.history("r", "*.*")); n != 0 {
		t.Fatalf("%d on the bus", n)
	}
	if err := NewAnnouncer(w.journal(), w.bus).Announce(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if n := len(w.history("r", "*.*")); n != 1 {
		t.Errorf("announced %d times", n)
	}
}

func TestWhatCannotBeKeptIsNotAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, err := event.New("r", "test", "", event.Part{}, event.PackWritten{Step: 1})
	if err != nil {
		t.Fatal(err)
	}
	nowhere := journal.Open("/dev/null")
	if err := NewAnnouncer(nowhere, w.bus).Announce(t.Context(), e); err == nil {
		t.Error("no error")
	}
	if n := len(w.history("r", "*.*")); n != 0 {
		t.Errorf("announced %d times", n)
	}
}
