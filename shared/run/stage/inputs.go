package stage

import (
	"slices"

	"bitnet1/shared/run/event"
)

// inputs returns the events a job for e works on, and whether they are all there. A gathering stage reads the other
// parts from the run's journal.
func (s *service[P, E]) inputs(e event.Envelope) ([]event.Envelope, bool, error) {
	if s.spec.Gather == nil || e.Part.Count == 0 {
		return []event.Envelope{e}, true, nil
	}
	s.mu.Lock()
	if s.parts[e.Run] == nil {
		s.parts[e.Run] = s.journal.NewParts(e.Run, e.Kind)
	}
	known := s.parts[e.Run]
	s.mu.Unlock()
	parts, err := known.Read(e.Part.Count)
	if err != nil {
		return nil, false, err
	}
	events, ready := gathered[E](parts, e.Part.Count)
	return events, ready, nil
}

// gathered returns parts 0 to count-1, if they are all there. Of several events for one part the last one counts that
// is an E.
func gathered[E event.Body](parts []event.Envelope, count int) ([]event.Envelope, bool) {
	if count > len(parts) { // count is what an event claims: allocate nothing for it
		return nil, false
	}
	events := make([]event.Envelope, count)
	there := make([]bool, count)
	for _, p := range parts {
		if p.Part.Count != count {
			continue // of another set
		}
		if there[p.Part.Index] {
			if _, err := event.Into[E](p); err != nil {
				continue // the one before is sound
			}
		}
		events[p.Part.Index], there[p.Part.Index] = p, true
	}
	return events, !slices.Contains(there, false)
}
