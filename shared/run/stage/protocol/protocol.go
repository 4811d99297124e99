package protocol

import (
	"fmt"
	"math/bits"
)

// Most that a State has room for.
const (
	mostEvents  = 2
	mostOutputs = 2
	mostWorkers = 2
)

// Rule is a rule of the protocol. The checker shows what each of them is for: without it, some schedule breaks a
// promise.
type Rule int

// The rules, by what is done without them. AllRules leaves none out.
const (
	AllRules      Rule = iota
	Lock               // two workers may be at one job
	ArtifactFirst      // an output is recorded before its artifact is there
	RecordFirst        // an output is announced before it is recorded
	JournalFirst       // an event is on the server before it is in the journal
	AckLast            // an event is acknowledged before its job is done
	AnnounceAgain      // outputs that are recorded are not announced again
	Conditional        // what may be on the server is announced without looking
	NoticeTime         // who stood still for longer than the server knows ids does not notice
	Restore            // the launcher does not announce what the server lacks
	SyncArtifacts      // artifacts are not synced
	SyncRecords        // records are not synced
	SyncJournal        // events in the journal are not synced
)

// Config is what is checked: how much work, how many workers, and how many faults of each kind at most.
type Config struct {
	Events  int  // each with a job of its own
	Same    bool // the events are of two runs that need the same job
	Outputs int  // of each job
	Workers int

	Crashes  int // of workers, at any step
	Stalls   int // the server gives an event to another worker, because the one that has it gives no sign of life
	Cuts     int // of power: all processes end, and what is not synced is lost
	Losses   int // the server loses an event
	Restarts int // of the launcher, which has all events delivered again
	Replies  int // the server takes an event and its answer is lost
	Forgets  int // the time during which the server knows ids is over

	Without Rule
}

// Action is what happens: a step of a worker, of the launcher, or a fault.
type Action struct {
	Name   string
	Worker int // -1: nobody's
	Event  int // the event, or the job's
	Output int
}

func (a Action) String() string {
	who := "        "
	if a.Worker >= 0 {
		who = fmt.Sprintf("worker %d", a.Worker)
	}
	return fmt.Sprintf("%s %-17s event %d, output %d", who, a.Name, a.Event, a.Output)
}

// Steps of a worker, in order. What is announced again, because an earlier attempt recorded it, takes the same steps
// as what is announced for the first time.
const (
	Idle          = "take"     // waits for an event; the other names say what is done next
	Open          = "open"     // locks and reads the record
	Journal       = "journal"  // writes an output to the journal
	Publish       = "publish"  // announces an output
	Artifact      = "artifact" // puts an artifact into the store
	Record        = "record"   // records an output
	Commit        = "commit"   // records that the job is done
	FinishJournal = "finish journal"
	FinishPublish = "finish publish"
	Ack           = "ack"
)

var steps = []string{Idle, Open, Journal, Publish, Artifact, Record, Commit, FinishJournal, FinishPublish, Ack}

// Other actions.
const (
	Crash    = "crash"
	Stall    = "stall"
	Cut      = "power cut"
	Lose     = "lose"
	Restart  = "restart launcher"
	Reply    = "lose reply"
	Forget   = "forget ids"
	Announce = "announce again" // by the launcher
	Conclude = "conclude"
)

// state of a worker.
type worker struct {
	step   uint8 // index of steps
	event  uint8
	output uint8
	known  uint8 // outputs that were recorded when it opened the record
	done   bool  // the record was complete then
	again  bool  // the output is one of those
	isNew  bool  // the journal did not have what is announced next
}

// files are what is on disk, of each job or of each event.
type files struct {
	artifacts [mostEvents]uint8 // set of outputs
	recorded  [mostEvents]uint8 // number of outputs
	committed [mostEvents]uint8 // how often
	journal   [mostEvents]uint8 // set of events: outputs, then job.finished
}

// State is a state of all that takes part.
type State struct {
	files
	disk    files // what a power cut leaves
	bus     [mostEvents][mostOutputs + 2]uint8
	ids     [mostEvents]uint8 // that the server knows to be announced
	queue   [mostEvents]uint8 // waiting, acknowledged, or with a worker
	locks   [mostEvents]uint8 // worker + 1
	workers [mostWorkers]worker
	ended   bool // run.finished

	crashes, stalls, cuts, losses, restarts, replies, forgets uint8 // that are left
}

const (
	waiting = iota
	acknowledged
	taken // + worker
)

// Kept is what is kept of an event and of its job.
type Kept struct {
	Artifacts int // of the job's outputs, how many are in the store
	Recorded  int // and how many the job's record has, until it is committed
	Committed bool
	Journal   []bool // what the journal has: the outputs, then job.finished
	Server    []int  // how often the event server has them
}

// Kept is what is kept of an event in a state of a machine of c.
func (c Config) Kept(s State, event int) (k Kept) {
	m := machine{c}
	j := m.job(event)
	k.Artifacts, k.Recorded, k.Committed = bits.OnesCount8(s.artifacts[j]), int(s.recorded[j]), s.committed[j] > 0
	for i := range m.finished() + 1 {
		k.Journal = append(k.Journal, s.journal[event]&(1<<i) != 0)
		k.Server = append(k.Server, int(s.bus[event][i]))
	}
	return k
}

// IsIdle reports whether a worker waits for an event.
func (s State) IsIdle(n int) bool { return steps[s.workers[n].step] == Idle }

// The machine of a Config.
type machine struct{ Config }

// New is the state machine of c.
func New(c Config) Machine[State] { return machine{c} }

func (m machine) Start() (s State) {
	for e := range m.Events {
		s.bus[e][m.input()] = 1
		s.journal[e] = 1 << m.input()
	}
	s.disk = s.files
	s.crashes, s.stalls, s.cuts, s.losses = uint8(m.Crashes), uint8(m.Stalls), uint8(m.Cuts), uint8(m.Losses)
	s.restarts, s.replies, s.forgets = uint8(m.Restarts), uint8(m.Replies), uint8(m.Forgets)
	return s
}

// Places of an event's events in sets: its outputs, job.finished, the event itself.
func (m machine) finished() int { return m.Outputs }
func (m machine) input() int    { return m.Outputs + 1 }

func (m machine) job(event int) int {
	if m.Same {
		return 0
	}
	return event
}

func (m machine) IsFault(a Action) bool {
	switch a.Name {
	case Crash, Stall, Cut, Lose, Restart, Reply, Forget:
		return true
	}
	return false
}

// Broken implements Machine: the promises.
func (m machine) Broken(s State) error {
	for e := range m.Events {
		j := m.job(e)
		for k := range m.Outputs {
			announced := s.bus[e][k] > 0
			kept := s.journal[e]&(1<<k) != 0
			switch {
			case announced && !kept:
				return fmt.Errorf("output %d of event %d is announced and not in the journal", k, e)
			case kept && s.artifacts[j]&(1<<k) == 0:
				return fmt.Errorf("output %d of event %d is in the journal without its artifact", k, e)
			case int(s.recorded[j]) > k && s.artifacts[j]&(1<<k) == 0:
				return fmt.Errorf("output %d of event %d is recorded without its artifact", k, e)
			case kept && s.committed[j] == 0 && int(s.recorded[j]) <= k:
				return fmt.Errorf("output %d of event %d is in the journal and not recorded: the job may make another one", k, e)
			}
		}
		for k, n := range s.bus[e] {
			if n > 1 {
				return fmt.Errorf("event %d, %d is announced twice", e, k)
			}
		}
		whole := s.committed[j] > 0 && s.journal[e]&m.answer() == m.answer()
		if !whole && (s.queue[e] == acknowledged || s.ended) {
			return fmt.Errorf("event %d is acknowledged, and its answer is not kept", e)
		}
		if s.committed[j] > 1 {
			return fmt.Errorf("the job of event %d is committed twice", e)
		}
		if n := m.atWork(s, j); n > 1 {
			return fmt.Errorf("%d workers are at the job of event %d", n, e)
		}
	}
	return nil
}

// answer is what the journal has of an event that is answered.
func (m machine) answer() uint8 { return 1<<(m.Outputs+1) - 1 }

func (m machine) atWork(s State, job int) (n int) {
	for _, w := range s.workers[:m.Workers] {
		switch steps[w.step] {
		case Artifact, Record, Commit:
			if m.job(int(w.event)) == job {
				n++
			}
		}
	}
	return n
}

// Done implements Machine.
func (m machine) Done(s State) bool { return s.ended }

// Next implements Machine.
func (m machine) Next(s State) (all []Step[State]) {
	if s.ended {
		return nil
	}
	add := func(a Action, to State) { all = append(all, Step[State]{a, to}) }
	for w := range m.Workers {
		m.step(s, w, add)
		if s.crashes > 0 && steps[s.workers[w].step] != Idle {
			to := s
			to.crashes--
			at := s.workers[w]
			to.end(w)
			add(Action{Crash, w, int(at.event), int(at.output)}, to)
		}
	}
	m.launcher(s, add)
	m.faults(s, add)
	return all
}

// faults are those that are no worker's.
func (m machine) faults(s State, add func(Action, State)) {
	for e := range m.Events {
		if s.stalls > 0 && s.queue[e] >= taken {
			to := s
			to.stalls--
			to.queue[e] = waiting
			add(Action{Stall, int(s.queue[e]) - taken, e, 0}, to)
		}
		for k, n := range s.bus[e] {
			if s.losses > 0 && n > 0 {
				to := s
				to.losses--
				to.bus[e][k] = 0
				to.ids[e] &^= 1 << k // ids are read from the messages when the server starts
				add(Action{Lose, -1, e, k}, to)
			}
		}
	}
	if s.cuts > 0 {
		to := s
		to.cuts--
		to.files = s.disk
		for w := range m.Workers {
			to.end(w)
		}
		add(Action{Cut, -1, 0, 0}, m.launch(to))
	}
	if s.restarts > 0 {
		to := s
		to.restarts--
		add(Action{Restart, -1, 0, 0}, m.launch(to))
	}
	if s.forgets > 0 {
		to := s
		to.forgets--
		to.ids = [mostEvents]uint8{}
		if m.Without != NoticeTime {
			for w := range to.workers {
				to.workers[w].isNew = false // it announces as if somebody may have done so
			}
		}
		add(Action{Forget, -1, 0, 0}, to)
	}
}

// launch has every event delivered again.
func (m machine) launch(s State) State {
	for e := range m.Events {
		s.queue[e] = waiting
	}
	return s
}

// launcher announces what the server lacks, and ends the run.
func (m machine) launcher(s State, add func(Action, State)) {
	idle := true
	for e := range m.Events {
		for k := range m.input() + 1 {
			kept := s.journal[e]&(1<<k) != 0
			if kept && s.bus[e][k] == 0 {
				idle = false
				if m.Without != Restore {
					to := s
					to.announce(m, e, k)
					add(Action{Announce, -1, e, k}, to)
				}
			}
		}
		whole := s.committed[m.job(e)] > 0 && s.journal[e]&m.answer() == m.answer()
		idle = idle && whole && s.queue[e] == acknowledged
	}
	if idle {
		to := s
		to.ended = true
		add(Action{Conclude, -1, 0, 0}, to)
	}
}

// end ends a worker, or lets it wait for its next event.
func (s *State) end(w int) {
	for j := range s.locks {
		if s.locks[j] == uint8(w)+1 {
			s.locks[j] = 0
		}
	}
	for e := range s.queue {
		if s.queue[e] == taken+uint8(w) {
			s.queue[e] = waiting
		}
	}
	s.workers[w] = worker{}
}

// announce announces an event that the server may have: it takes the event only where it lacks it.
func (s *State) announce(m machine, e, k int) {
	if s.bus[e][k] == 0 || m.Without == Conditional && s.ids[e]&(1<<k) == 0 {
		s.bus[e][k]++
		s.ids[e] |= 1 << k
	}
}
