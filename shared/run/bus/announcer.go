package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// Announcer writes events to the journal and then announces them on the bus, each of them once however often it is
// asked to. Without a bus it only writes.
type Announcer struct {
	journal journal.Journal
	bus     *Bus // nil: journal only

	mu    sync.Mutex
	known map[string]*announced // by subject
}

// announced is what the bus has on one subject, as far as it was read.
type announced struct {
	ids  map[string]bool
	last uint64 // sequence of the last event that was read
}

// NewAnnouncer returns an Announcer. b may be nil: then events are written to the journal alone.
func NewAnnouncer(j journal.Journal, b *Bus) *Announcer {
	return &Announcer{journal: j, bus: b, known: map[string]*announced{}}
}

// Announce keeps e and announces it unless that was done before.
func (a *Announcer) Announce(ctx context.Context, e event.Envelope) error {
	since := time.Now()
	isNew, err := a.journal.Write(e)
	if err != nil {
		return err
	}
	return a.publish(ctx, e, isNew, since)
}

// Renew is Announce for what was found anew: the journal takes it for the latest.
func (a *Announcer) Renew(ctx context.Context, e event.Envelope) error {
	since := time.Now()
	isNew, err := a.journal.Renew(e)
	if err != nil {
		return err
	}
	return a.publish(ctx, e, isNew, since)
}

func (a *Announcer) publish(ctx context.Context, e event.Envelope, isNew bool, since time.Time) error {
	if a.bus == nil {
		return nil
	}
	// An event that the journal did not have cannot have been announced before. An event that it had may have been, unless
	// the process died in between or the server has lost the event.
	if isNew {
		if err := a.bus.PublishFirst(ctx, e, since); !errors.Is(err, ErrLate) {
			return err
		}
	}
	return a.announceAgain(ctx, e)
}

// Restore announces the events of a run's journal that the bus lacks, and returns their number. It reads what the bus
// has once, however many events are missing.
func (a *Announcer) Restore(ctx context.Context, run string) (missing int, err error) {
	kept, err := a.journal.All(run)
	if err != nil {
		return 0, err
	}
	there, _, err := a.bus.History(ctx, run, "*.*", 0)
	if err != nil {
		return 0, err
	}
	a.mu.Lock()
	for _, k := range there {
		a.note(k)
	}
	a.mu.Unlock()
	for _, e := range kept {
		if a.knows(e) {
			continue
		}
		missing++
		if err := a.announceAgain(ctx, e); err != nil {
			return missing, err
		}
	}
	return missing, nil
}

// announceAgain announces e unless the bus has it. The server is told which event is the last that this process knows
// of on the subject. It refuses e where another process was faster, for that may have announced e.
func (a *Announcer) announceAgain(ctx context.Context, e event.Envelope) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		known := a.on(e.Subject())
		if known.ids[e.ID] {
			return nil
		}
		last := known.last
		sequence, err := a.bus.PublishAfter(ctx, e, last)
		if err == nil {
			a.note(Kept{Envelope: e, Sequence: sequence})
			return nil
		}
		if !errors.Is(err, ErrBehind) {
			return err
		}
		if err := a.readOn(ctx, e); err != nil {
			return err
		}
		if known.last == last { // the server has no other events, but fewer: they were removed, or lost
			delete(a.known, e.Subject())
		}
	}
}

// readOn reads what the bus has on e's subject beyond what is known.
func (a *Announcer) readOn(ctx context.Context, e event.Envelope) error {
	events, last, err := a.bus.Since(ctx, e.Run, e.Kind, a.on(e.Subject()).last)
	if err != nil {
		return err
	}
	for _, k := range events {
		a.note(k)
	}
	known := a.on(e.Subject())
	known.last = max(known.last, last)
	return nil
}

func (a *Announcer) on(subject string) *announced {
	if a.known[subject] == nil {
		a.known[subject] = &announced{ids: map[string]bool{}}
	}
	return a.known[subject]
}

func (a *Announcer) note(k Kept) {
	known := a.on(k.Subject())
	known.ids[k.ID] = true
	known.last = max(known.last, k.Sequence)
}

func (a *Announcer) knows(e event.Envelope) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.on(e.Subject()).ids[e.ID]
}
