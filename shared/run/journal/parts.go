package journal

import (
	"fmt"
	"strings"
	"sync"

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
}

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
	names, err := p.journal.files(p.run, p.kind)
	if err != nil {
		return false, fmt.Errorf("journal of run %s: %w", p.run, err)
	}
	for _, file := range names {
		name, ok := strings.CutSuffix(file, suffix)
		id, _, _ := strings.Cut(name, ".")
		if !ok || p.known[name] || !digest.Valid(id) {
			continue
		}
		e, err := p.journal.readFile(p.run, p.kind, name, id)
		if err != nil {
			continue // Read tells of it; it may be mended
		}
		p.known[name] = true
		if p.there[e.Part.Count] == nil {
			p.there[e.Part.Count] = map[int]bool{}
		}
		p.there[e.Part.Count][e.Part.Index] = true
	}
	return len(p.there[count]) == count, nil // an event's index lies below its count
}
