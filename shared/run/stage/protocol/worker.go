package protocol

import "slices"

var (
	openStep     = stepOf(Open)
	journalStep  = stepOf(Journal)
	publishStep  = stepOf(Publish)
	artifactStep = stepOf(Artifact)
	recordStep   = stepOf(Record)
	commitStep   = stepOf(Commit)
	finishStep   = stepOf(FinishJournal)
	finishedStep = stepOf(FinishPublish)
	ackStep      = stepOf(Ack)
)

func stepOf(name string) uint8 { return uint8(slices.Index(steps, name)) }

// step is the next step of a worker.
func (m machine) step(s State, n int, add func(Action, State)) {
	w := s.workers[n]
	e, k := int(w.event), int(w.output)
	j := m.job(e)
	name := steps[w.step]
	then := func(change func(to *State, w *worker)) {
		to := s
		change(&to, &to.workers[n])
		to.leave(n)
		add(Action{name, n, e, k}, to)
	}
	switch name {
	case Idle:
		m.take(s, n, add)
	case Open:
		then(func(to *State, w *worker) { m.open(to, w, n) })
	case Journal:
		then(func(to *State, w *worker) { m.keep(to, w, k); m.advance(w) })
	case Publish:
		m.publish(s, n, k, add, func(w *worker) { m.advance(w) })
	case Artifact:
		then(func(to *State, w *worker) { to.artifacts[j] |= 1 << k; m.sync(to); m.advance(w) })
	case Record:
		then(func(to *State, w *worker) {
			to.recorded[j] = max(to.recorded[j], uint8(k)+1)
			m.sync(to)
			m.advance(w)
		})
	case Commit:
		then(func(to *State, w *worker) {
			to.committed[j]++
			m.sync(to)
			w.step = finishStep
		})
	case FinishJournal:
		then(func(to *State, w *worker) { m.keep(to, w, m.finished()); w.step = finishedStep })
	case FinishPublish:
		m.publish(s, n, m.finished(), add, func(w *worker) { w.step = ackStep })
	case Ack:
		then(func(to *State, w *worker) { to.queue[e] = acknowledged; *w = worker{} })
	}
}

// take takes an event that waits.
func (m machine) take(s State, n int, add func(Action, State)) {
	for e := range m.Events {
		if s.queue[e] != waiting || s.bus[e][m.input()] == 0 {
			continue
		}
		to := s
		to.queue[e] = taken + uint8(n)
		to.workers[n] = worker{step: openStep, event: uint8(e)}
		if m.Without == AckLast {
			to.queue[e] = acknowledged
		}
		add(Action{Idle, n, e, 0}, to)
	}
}

// open locks the record of the job and reads it. Where another worker has the lock, the event is handed back.
func (m machine) open(s *State, w *worker, n int) {
	j := m.job(int(w.event))
	if s.locks[j] != 0 && m.Without != Lock {
		if s.queue[w.event] == taken+uint8(n) {
			s.queue[w.event] = waiting
		}
		*w = worker{}
		return
	}
	s.locks[j] = uint8(n) + 1
	w.known, w.done = s.recorded[j], s.committed[j] > 0
	if m.Without == AnnounceAgain {
		w.output = w.known
	}
	m.begin(w)
}

// leave releases the lock of a job that is done.
func (s *State) leave(n int) {
	if s.workers[n].step == finishStep {
		s.unlock(n)
	}
}

// order is the order of the steps of an output.
func (m machine) order(again bool) []uint8 {
	switch {
	case again && m.Without == JournalFirst:
		return []uint8{publishStep, journalStep}
	case again:
		return []uint8{journalStep, publishStep}
	case m.Without == ArtifactFirst:
		return []uint8{recordStep, artifactStep, journalStep, publishStep}
	case m.Without == RecordFirst:
		return []uint8{artifactStep, journalStep, publishStep, recordStep}
	case m.Without == JournalFirst:
		return []uint8{artifactStep, recordStep, publishStep, journalStep}
	}
	return []uint8{artifactStep, recordStep, journalStep, publishStep}
}

// advance takes a worker from a step of an output to the next one.
func (m machine) advance(w *worker) {
	order := m.order(w.again)
	if i := slices.Index(order, w.step) + 1; i < len(order) {
		w.step = order[i]
		return
	}
	w.output++
	m.begin(w)
}

// begin begins with the next output, or ends the job.
func (m machine) begin(w *worker) {
	w.again = w.output < w.known
	w.isNew = !w.again
	switch {
	case !w.again && w.done:
		w.step = finishStep
	case int(w.output) == m.Outputs:
		w.step = commitStep
	default:
		w.step = m.order(w.again)[0]
	}
}

func (s *State) unlock(n int) {
	for j := range s.locks {
		if s.locks[j] == uint8(n)+1 {
			s.locks[j] = 0
		}
	}
}

// keep writes an event to the journal.
func (m machine) keep(s *State, w *worker, k int) {
	w.isNew = s.journal[w.event]&(1<<k) == 0
	s.journal[w.event] |= 1 << k
	m.sync(s)
}

// sync makes durable what the rules say.
func (m machine) sync(s *State) {
	before := s.disk
	s.disk = s.files
	switch m.Without {
	case SyncArtifacts:
		s.disk.artifacts = before.artifacts
	case SyncRecords:
		s.disk.recorded, s.disk.committed = before.recorded, before.committed
	case SyncJournal:
		s.disk.journal = before.journal
	}
}

// publish announces an event. The server drops one whose id it knows; what may have been announced before is announced
// where the server lacks it.
func (m machine) publish(s State, n, k int, add func(Action, State), then func(*worker)) {
	w := s.workers[n]
	to := s
	switch {
	case !w.isNew:
		to.announce(m, int(w.event), k)
	case s.ids[w.event]&(1<<k) == 0:
		to.bus[w.event][k]++
		to.ids[w.event] |= 1 << k
	}
	if s.replies > 0 {
		lost := to
		lost.replies--
		add(Action{Reply, n, int(w.event), k}, lost)
	}
	then(&to.workers[n])
	to.leave(n)
	add(Action{steps[w.step], n, int(w.event), k}, to)
}
