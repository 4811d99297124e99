package bus

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/bus/bustest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// desk is a journal, and the event server on which the journal's events are announced.
type desk struct {
	*testing.T
	journal journal.Journal
	js      jetstream.JetStream // another connection
	bus     *Bus
	server  *Server
}

// newDesk starts a server. If window is not 0, the server recognises repeated messages for that long only.
func newDesk(t *testing.T, window time.Duration) *desk {
	t.Helper()
	server := serve(t)
	a := server.Address()
	d := &desk{T: t, server: server, journal: journal.Open(t.TempDir()), js: bustest.Connect(t, a.URL, a.User, a.Password)}
	if window > 0 {
		_, err := d.js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: EventStream, Subjects: []string{"bitnet1.*.*.*"}, Storage: jetstream.FileStorage, Duplicates: window,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	d.bus = connect(t, server)
	return d
}

// announce announces e as a new process does, which remembers no event of the run.
func (d *desk) announce(e event.Envelope) {
	d.Helper()
	if err := NewAnnouncer(d.journal, d.bus).Announce(d.Context(), e); err != nil {
		d.Fatal(err)
	}
}

// write writes e to the journal alone, as a process does that dies before it announces e.
func (d *desk) write(e event.Envelope) {
	d.Helper()
	if err := NewAnnouncer(d.journal, nil).Announce(d.Context(), e); err != nil {
		d.Fatal(err)
	}
}

// wantAnnounced makes sure how many events of run r the bus has.
func (d *desk) wantAnnounced(n int) {
	d.Helper()
	events, _, err := d.bus.History(d.Context(), "r", "*.*", 0)
	if err != nil || len(events) != n {
		d.Errorf("%d events are announced (%v), want %d", len(events), err, n)
	}
}

func TestAnEventIsAnnouncedOnceHoweverLateItIsAnnouncedAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t, 100*time.Millisecond)
	e := packed(t, "r", 1)
	d.announce(e)
	time.Sleep(300 * time.Millisecond)
	d.announce(packed(t, "r", 1))
	again := NewAnnouncer(d.journal, d.bus)
	for range 2 {
		e.Time++
		if err := again.Announce(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	d.wantAnnounced(1)
}

func TestWhatACrashKeptFromTheBusIsAnnouncedLater(t *testing.T) {
	t.Parallel()
	d := newDesk(t, 0)
	e := packed(t, "r", 1)
	d.write(e)
	d.wantAnnounced(0)
	d.announce(e)
	d.wantAnnounced(1)
}

func TestWhatCannotBeKeptIsNotAnnounced(t *testing.T) {
	t.Parallel()
	d := newDesk(t, 0)
	if err := NewAnnouncer(journal.Open("/dev/null"), d.bus).Announce(t.Context(), packed(t, "r", 1)); err == nil {
		t.Error("no error")
	}
	d.wantAnnounced(0)
}

// A server that has lost its stream gets all events again. That takes no consumer for each event: the number of
// consumers of a stream is limited.
func TestALostStreamIsAnnouncedAgainWithFewConsumers(t *testing.T) {
	t.Parallel()
	d := newDesk(t, 0)
	const events = 1500
	var all []event.Envelope
	for step := range events {
		e := packed(t, "r", step)
		d.write(e)
		all = append(all, e)
	}
	publish(t, d.bus, all[7])
	var created atomic.Int32
	if _, err := d.js.Conn().Subscribe("$JS.EVENT.ADVISORY.CONSUMER.CREATED."+EventStream+".*",
		func(*nats.Msg) { created.Add(1) }); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{events - 1, 0} {
		if missing, err := NewAnnouncer(d.journal, d.bus).Restore(t.Context(), "r"); err != nil || missing != want {
			t.Fatalf("time %d: %d announced again, %v; want %d", i, missing, err, want)
		}
	}
	// A stage announces again, one by one, the events of its earlier jobs. Meanwhile other stages announce on the same
	// subject.
	alone := NewAnnouncer(d.journal, d.bus)
	for i, e := range all {
		if i%500 == 0 {
			d.announce(packed(t, "r", -1-i))
		}
		if err := alone.Announce(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	d.wantAnnounced(events + 3)
	if err := d.js.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if n := created.Load(); n > 20 {
		t.Errorf("%d consumers were made", n)
	}
	stream, err := d.js.Stream(t.Context(), EventStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Consumers; n != 0 {
		t.Errorf("%d consumers are left", n)
	}
}

// Events that a process knows of are removed from the server with their run, or lost with the stream. The process
// announces the next event of the run all the same, and what it announced before.
func TestAnEventIsAnnouncedAlthoughThoseBeforeAreGone(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(d *desk) error{
		"the run": func(d *desk) error { return d.bus.ForgetRun(t.Context(), "r") },
		"the stream": func(d *desk) error {
			if err := d.js.DeleteStream(t.Context(), EventStream); err != nil {
				return err
			}
			return d.bus.ensureStreams(t.Context(), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, 0)
			ctx, cancel := context.WithTimeout(t.Context(), processtest.Patience)
			defer cancel()
			a := NewAnnouncer(d.journal, d.bus)
			announce := func(step int) {
				t.Helper()
				e := packed(t, "r", step)
				d.write(e)
				if err := a.Announce(ctx, e); err != nil {
					t.Fatal(err)
				}
			}
			announce(1)
			announce(2)
			if err := remove(d); err != nil {
				t.Fatal(err)
			}
			announce(3)
			announce(1)
			d.wantAnnounced(2)
		})
	}
}

// A message on the subject that is no event does not keep events from being announced.
func TestGarbageOnASubjectKeepsNothingBack(t *testing.T) {
	t.Parallel()
	d := newDesk(t, 0)
	e := packed(t, "r", 1)
	d.write(e)
	if _, err := d.js.Conn().Request(e.Subject(), []byte("hello"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	d.announce(e)
	d.wantAnnounced(1)
}

// A process writes an event to the journal, and its message gets lost. Before the process sends the message again, a
// launcher announces what the server lacks, and the server forgets the ids that it has seen.
func TestAnEventIsAnnouncedOnceHoweverLongItsFirstAnnouncementTakes(t *testing.T) {
	t.Parallel()
	const window = 200 * time.Millisecond
	d := newDesk(t, window)
	a := d.server.Address()
	var sent atomic.Int32
	a.URL = bustest.NewRelay(t, a.URL, func(subject string, _ []byte) bustest.Verdict {
		if !strings.HasPrefix(subject, "bitnet1.") || sent.Add(1) > 1 {
			return bustest.Pass
		}
		if n, err := NewAnnouncer(d.journal, d.bus).Restore(t.Context(), "r"); n != 1 || err != nil {
			t.Errorf("%d events were missing (%v), want one", n, err)
		}
		time.Sleep(2 * window)
		return bustest.Cut
	}).URL
	slow, err := Connect(t.Context(), a, "slow")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := NewAnnouncer(d.journal, slow).Announce(t.Context(), packed(t, "r", 1)); err != nil {
		t.Fatal(err)
	}
	if sent.Load() < 2 {
		t.Error("the message was not sent again")
	}
	d.wantAnnounced(1)
}
