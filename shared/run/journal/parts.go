package journal

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/event"
)

// Parts knows which parts of the sets of one run and kind are there. However often it is asked, it reads each event
// once.
type Parts struct {
	journal   Journal
	run, kind string

	mu    sync.Mutex
	known map[string]bool      // names of files
	there map[int]map[int]bool // by the number of parts in the set

	events []event.Envelope // of all files in known, when asked for with of as many
	of     int

	changed time.Time // of the folder, as the file system says it
	since   time.Time // when that was first seen
	listed  bool      // since the folder has been at rest
}

// atRest is for how long a folder must not have changed before a listing counts until its next change. File systems
// count the time of changes in steps, of some milliseconds mostly.
const atRest = time.Second

// NewParts returns the Parts of a run's events of a kind.
func (j Journal) NewParts(run, kind string) *Parts {
	return &Parts{journal: j, run: run, kind: kind, known: map[string]bool{}, there: map[int]map[int]bool{}}
}

// Read is Journal.Read once all parts of a set of count are there, and nothing before.
func (p *Parts) Read(count int) (events []event.Envelope, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	complete, err := p.complete(count)
	if err != nil || !complete {
		return nil, err
	}
	if p.of != len(p.known) {
		if p.events, err = p.journal.Read(p.run, p.kind); err != nil {
			return nil, err
		}
		p.of = len(p.known)
	}
	return p.events, nil
}

func (p *Parts) complete(count int) (bool, error) {
	if err := p.list(); err != nil {
		return false, fmt.Errorf("journal of run %s: %w", p.run, err)
	}
	return len(p.there[count]) == count, nil // an event's index lies below its count
}

// list reads the events that are new. It leaves a folder alone that has not changed: a set of ten thousand parts has as
// many events, at each of which the folder would be listed.
func (p *Parts) list() error {
	changed := p.journal.changed(p.run, p.kind)
	if changed.IsZero() || !changed.Equal(p.changed) {
		p.changed, p.since, p.listed = changed, time.Now(), false
	} else if p.listed {
		return nil
	}
	began := time.Now()
	names, err := p.journal.files(p.run, p.kind)
	if err != nil {
		return err
	}
	unread := false
	for _, file := range names {
		name, ok := strings.CutSuffix(file, suffix)
		id, _, _ := strings.Cut(name, ".")
		if !ok || p.known[name] || !digest.Valid(id) {
			continue
		}
		e, err := p.journal.readFile(p.run, p.kind, name, id)
		if err != nil {
			unread = true // Read tells of it; it may be mended
			continue
		}
		p.known[name] = true
		if p.there[e.Part.Count] == nil {
			p.there[e.Part.Count] = map[int]bool{}
		}
		p.there[e.Part.Count][e.Part.Index] = true
	}
	p.listed = !unread && !changed.IsZero() && began.Sub(p.since) >= atRest
	return nil
}
