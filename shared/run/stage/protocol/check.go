// Package protocol is the protocol of jobs as a state machine that is small enough to visit all of its states: what a
// worker does from taking an event to acknowledging it, what the launcher announces again, and what crashes, power
// cuts, lost messages and stalled workers do to that. Tests check the promises in every state; and tests of package
// stage follow traces of the machine with real processes. It is no part of any program.
package protocol

import (
	"fmt"
	"slices"
)

// Step is a transition: what happens, and what comes of it.
type Step[S comparable] struct {
	What Action
	To   S
}

// Machine is a state machine.
type Machine[S comparable] interface {
	Start() S
	Next(S) []Step[S]    // all that can happen
	Broken(S) error      // which promise a state breaks
	Done(S) bool         // the work is done
	IsFault(Action) bool // the action need not happen
}

// Failure is a broken promise, with the shortest way to it.
type Failure struct {
	Promise error
	Trace   []Action
}

func (f *Failure) Error() string {
	text := f.Promise.Error()
	for i, a := range f.Trace {
		text += fmt.Sprintf("\n%3d  %s", i+1, a)
	}
	return text
}

// Check visits every state that m can come to, breadth first, and returns their number. The error is a *Failure: a
// state breaks a promise, or nothing but a fault leads from it to the end of the work.
func Check[S comparable](m Machine[S]) (states int, err error) {
	type visit struct {
		from int
		what Action
	}
	start := m.Start()
	all, index, visits := []S{start}, map[S]int{start: 0}, []visit{{from: -1}}
	before := [][]int32{nil} // of each state, those from which a step that is no fault leads to it
	trace := func(at int) (trace []Action) {
		for ; visits[at].from >= 0; at = visits[at].from {
			trace = append(trace, visits[at].what)
		}
		slices.Reverse(trace)
		return trace
	}
	var done []int32
	for at := 0; at < len(all); at++ {
		s := all[at]
		if err := m.Broken(s); err != nil {
			return len(all), &Failure{err, trace(at)}
		}
		if m.Done(s) {
			done = append(done, int32(at))
		}
		for _, step := range m.Next(s) {
			to, known := index[step.To]
			if !known {
				to = len(all)
				index[step.To] = to
				all, visits, before = append(all, step.To), append(visits, visit{at, step.What}), append(before, nil)
			}
			if !m.IsFault(step.What) {
				before[to] = append(before[to], int32(at))
			}
		}
	}
	ends := make([]bool, len(all))
	for len(done) > 0 {
		at := done[len(done)-1]
		done = done[:len(done)-1]
		if !ends[at] {
			ends[at] = true
			done = append(done, before[at]...)
		}
	}
	if at := slices.Index(ends, false); at >= 0 {
		return len(all), &Failure{fmt.Errorf("the work can no longer be done"), trace(at)}
	}
	return len(all), nil
}
