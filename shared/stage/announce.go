package stage

import (
	"context"
	"sync"

	"bitnet1/shared/bus"
	"bitnet1/shared/event"
	"bitnet1/shared/journal"
)

// Announcer writes events to the journal and then announces them on the bus,
// each of them once however often it is asked to. Without a bus it only writes.
type Announcer struct {
	journal journal.Journal
	bus     *bus.Bus // nil: journal only

	mu    sync.Mutex
	known map[string]*announced // by subject
}

// announced is what the bus has on one subject, as far as it was read.
type announced struct {
	ids   map[string]bool
	after uint64
}

// NewAnnouncer returns an Announcer; b may be nil.
func NewAnnouncer(j journal.Journal, b *bus.Bus) *Announcer {
	return &Announcer{journal: j, bus: b, known: map[string]*announced{}}
}

// Announce keeps e and announces it unless that was done before.
func (a *Announcer) Announce(ctx context.Context, e event.Envelope) error {
	isNew, err := a.journal.Write(e)
	if err != nil {
		return err
	}
	return a.publish(ctx, e, isNew)
}

// Renew is Announce for what was found anew: the journal takes it for the latest.
func (a *Announcer) Renew(ctx context.Context, e event.Envelope) error {
	isNew, err := a.journal.Renew(e)
	if err != nil {
		return err
	}
	return a.publish(ctx, e, isNew)
}

func (a *Announcer) publish(ctx context.Context, e event.Envelope, isNew bool) error {
	if a.bus == nil {
		return nil
	}
	// An event that the journal did not have cannot have been announced. One
	// that it had may have been, unless the process died in between.
	if !isNew {
		there, err := a.onBus(ctx, e)
		if err != nil || there {
			return err
		}
	}
	return a.bus.Publish(ctx, e)
}

func (a *Announcer) onBus(ctx context.Context, e event.Envelope) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.known[e.Subject()]
	if known == nil {
		known = &announced{ids: map[string]bool{}}
		a.known[e.Subject()] = known
	}
	if known.ids[e.ID] {
		return true, nil
	}
	events, _, err := a.bus.History(ctx, e.Run, e.Kind, known.after)
	if err != nil {
		return false, err
	}
	for _, k := range events {
		known.ids[k.ID] = true
		known.after = k.Sequence
	}
	return known.ids[e.ID], nil
}
