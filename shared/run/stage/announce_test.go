package stage

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
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

// A server that has lost its stream gets everything again, with no consumer for
// each event: a stream can have only so many.
func TestALostStreamIsAnnouncedAgainWithFewConsumers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const events = 1500
	silent := NewAnnouncer(w.journal(), nil)
	var all []event.Envelope
	for step := range events {
		e, err := event.New("r", "test", "", event.Part{Index: step, Count: events}, event.PackWritten{Step: step})
		if err != nil {
			t.Fatal(err)
		}
		if err := silent.Announce(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	if err := w.bus.Publish(t.Context(), all[7]); err != nil {
		t.Fatal(err)
	}
	conn, js := w.raw()
	var created atomic.Int32
	if _, err := conn.Subscribe("$JS.EVENT.ADVISORY.CONSUMER.CREATED."+bus.EventStream+".*", func(*nats.Msg) { created.Add(1) }); err != nil {
		t.Fatal(err)
	}
	announcer := NewAnnouncer(w.journal(), w.bus)
	if missing, err := announcer.Restore(t.Context(), "r"); err != nil || missing != events-1 {
		t.Fatalf("%d announced again, %v; want %d", missing, err, events-1)
	}
	if missing, err := NewAnnouncer(w.journal(), w.bus).Restore(t.Context(), "r"); err != nil || missing != 0 {
		t.Errorf("a second time: %d announced again, %v", missing, err)
	}
	// Stages announce one by one what they have made before; meanwhile others announce on the same subject.
	alone := NewAnnouncer(w.journal(), w.bus)
	for i, e := range all {
		if i%500 == 0 {
			w.announce("r", event.Part{}, event.PackWritten{Step: -1 - i})
		}
		if err := alone.Announce(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(w.history("r", "pack.written")); got != events+3 {
		t.Errorf("%d events, want %d", got, events+3)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := created.Load(); n > 20 {
		t.Errorf("%d consumers were made", n)
	}
	stream, err := js.Stream(t.Context(), bus.EventStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Consumers; n != 0 {
		t.Errorf("%d consumers are left", n)
	}
}

// What stands on the subject and is no event keeps nothing from being announced.
func TestGarbageOnASubjectKeepsNothingBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, err := event.New("r", "test", "", event.Part{}, event.PackWritten{Step: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := NewAnnouncer(w.journal(), nil).Announce(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	conn, _ := w.raw()
	if _, err := conn.Request(e.Subject(), []byte("hello"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := NewAnnouncer(w.journal(), w.bus).Announce(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if n := len(w.history("r", "*.*")); n != 1 {
		t.Errorf("announced %d times", n)
	}
}
