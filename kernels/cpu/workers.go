package cpu

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// A training step is a few hundred short sections of parallel work with next to nothing between them. To wake a
// sleeping thread takes longer than many sections do. So a worker that has finished a section polls for the next one,
// and its goroutine ends when none comes: an idle device has no goroutines.

// pollTime is how long a worker polls for the next section.
const pollTime = 200 * time.Microsecond

// pollsAtOnce is how often one polls before other goroutines may have the thread: about half a microsecond.
const pollsAtOnce = 1000

// poll polls until the worker's state is another one, but not for long.
func (w *worker) poll(state *section) {
	for range pollsAtOnce {
		if w.state.Load() != state {
			return
		}
	}
	runtime.Gosched()
}

// section is work that is divided into tasks.
type section struct {
	tasks   int
	do      func(task int, s *scratch)
	next    atomic.Int64 // first task that nobody has begun
	failure atomic.Value // the first panic
}

// work does tasks until none is left.
func (s *section) work(memory *scratch) {
	defer func() {
		if r := recover(); r != nil {
			s.failure.CompareAndSwap(nil, fmt.Errorf("%v", r))
		}
	}()
	for i := int(s.next.Add(1)) - 1; i < s.tasks; i = int(s.next.Add(1)) - 1 {
		s.do(i, memory)
	}
}

// worker does tasks beside the caller of an operation. Its state is one of four:
//
//   - nil: it has no goroutine;
//   - polling: its goroutine polls for a section;
//   - working: its goroutine works on a section;
//   - any other pointer: the section that it is to begin.
type worker struct {
	state  atomic.Pointer[section]
	memory *scratch
}

var polling, working = new(section), new(section)

// offer asks an idle worker to work on s.
func (w *worker) offer(s *section) {
	if !w.state.CompareAndSwap(polling, s) {
		w.state.Store(s)
		go w.run()
	}
}

// wait returns when the worker does not work on s any more. If it has not begun, it never will.
func (w *worker) wait(s *section) {
	if w.state.CompareAndSwap(s, polling) {
		return
	}
	for w.state.Load() == working {
		w.poll(working)
	}
}

// run is the worker's goroutine.
func (w *worker) run() {
	for end := time.Now().Add(pollTime); ; {
		switch s := w.state.Load(); {
		case s != polling:
			if w.state.CompareAndSwap(s, working) {
				s.work(w.memory)
				w.state.Store(polling)
				end = time.Now().Add(pollTime)
			}
		case time.Now().After(end):
			if w.state.CompareAndSwap(polling, nil) {
				return
			}
		default:
			w.poll(polling)
		}
	}
}

// parallel calls f for the tasks 0..n-1, each on some worker with that worker's scratch. A task's results must not
// depend on which tasks ran before it.
func (d *Device) parallel(n int, f func(task int, s *scratch)) {
	others := d.others[:max(0, min(n-1, len(d.others)))]
	if len(others) == 0 {
		for i := range n {
			f(i, &d.own)
		}
		return
	}
	s := &section{tasks: n, do: f}
	for _, w := range others {
		w.offer(s)
	}
	s.work(&d.own)
	for _, w := range others {
		w.wait(s)
	}
	if err := s.failure.Load(); err != nil {
		panic(err)
	}
}

// blocks divides 0..n-1 into ranges from..to-1 of at most size and calls f for each, in parallel.
func (d *Device) blocks(n, size int, f func(from, to int, s *scratch)) {
	d.parallel((n+size-1)/size, func(task int, s *scratch) { f(task*size, min(n, task*size+size), s) })
}
