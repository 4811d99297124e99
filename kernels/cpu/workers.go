package cpu

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// A step of training is a few hundred short sections of parallel work with next to nothing between them, and to wake a
// sleeping processor takes longer than many of them last. So workers wait for the next section awake, for a while, and then
// end: an idle device has no goroutines.

// linger is how long a worker waits for more work.
const linger = 200 * time.Microsecond

// section is work that has been divided into tasks.
type section struct {
	tasks   int
	do      func(task int, s *scratch)
	next    atomic.Int64 // task
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

// worker computes beside the caller. Its state is nil while it has no goroutine, waiting, a section that it has been given
// and has not begun, or working.
type worker struct {
	state  atomic.Pointer[section]
	memory *scratch
}

var waiting, working = new(section), new(section)

// give offers s to the worker, which is in none.
func (w *worker) give(s *section) {
	if !w.state.CompareAndSwap(waiting, s) {
		w.state.Store(s)
		go w.run()
	}
}

// leave waits until the worker has left s. One that has not begun need not.
func (w *worker) leave(s *section) {
	if w.state.CompareAndSwap(s, waiting) {
		return
	}
	for w.state.Load() == working {
		runtime.Gosched()
	}
}

func (w *worker) run() {
	for end := time.Now().Add(linger); ; {
		switch s := w.state.Load(); {
		case s != waiting:
			if w.state.CompareAndSwap(s, working) {
				s.work(w.memory)
				w.state.Store(waiting)
				end = time.Now().Add(linger)
			}
		case time.Now().After(end):
			if w.state.CompareAndSwap(waiting, nil) {
				return
			}
		default:
			runtime.Gosched()
		}
	}
}

// parallel calls f for the tasks 0..n-1, each on some worker with that worker's scratch. What a task computes must not
// depend on which other tasks have run.
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
		w.give(s)
	}
	s.work(&d.own)
	for _, w := range others {
		w.leave(s)
	}
	if err := s.failure.Load(); err != nil {
		panic(err)
	}
}

// blocks calls f for consecutive ranges of at most size that cover 0..n-1.
func (d *Device) blocks(n, size int, f func(from, to int, s *scratch)) {
	d.parallel((n+size-1)/size, func(task int, s *scratch) { f(task*size, min(n, task*size+size), s) })
}
