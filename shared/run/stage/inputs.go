package stage

import (
	"slices"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// set is what a gathering stage knows of the set of parts that it was asked for last, in one run.
type set struct {
	parts *journal.Parts
	inputs
}

// inputs are the events that a job works on.
type inputs struct {
	events []event.Envelope
	ready  bool   // they are all there
	job    string // key of the job that this process has done of just these; "" before

	first *event.Envelope // of the parts that they were taken from: other parts are in another slice
	count int             // parts of the set
}

// maxSets is of how many runs a process keeps the sets in memory. A set is as large as its events.
const maxSets = 16

// inputs returns the events that a job for e works on. A gathering stage reads the other parts from the run's journal.
// It is called for each part, before and after the set is complete, and there may be ten thousand.
func (s *service[P, E]) inputs(e event.Envelope) (inputs, error) {
	if s.spec.Gather == nil || e.Part.Count == 0 {
		return inputs{events: []event.Envelope{e}, ready: true}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.sets[e.Run]
	if known == nil {
		if len(s.sets) >= maxSets {
			clear(s.sets)
		}
		known = &set{parts: s.journal.NewParts(e.Run, e.Kind)}
		s.sets[e.Run] = known
	}
	parts, err := known.parts.Read(e.Part.Count)
	if err != nil || len(parts) == 0 {
		return inputs{}, err
	}
	if known.first != &parts[0] || known.count != e.Part.Count {
		known.inputs = inputs{first: &parts[0], count: e.Part.Count}
		known.events, known.ready = gathered[E](parts, e.Part.Count)
	}
	return known.inputs, nil
}

// answered notes the job that was done of inputs. The other parts of its set are answered with the same job.
func (s *service[P, E]) answered(e event.Envelope, in inputs, job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.sets[e.Run]; known != nil && known.first == in.first && known.count == in.count {
		known.job = job
	}
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
