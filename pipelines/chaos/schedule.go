package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// moment is a moment of the protocol: the n-th file of a class is there. Classes are the kinds of events in the
// journal, artifact and record. Files stay, so each moment comes once in a run, however often it is disturbed.
type moment struct {
	class string
	n     int // from 1
}

// strike is a fault and when it happens.
type strike struct {
	at    moment
	after time.Duration // beyond the moment
	fault fault
}

func (s strike) String() string {
	return fmt.Sprintf("%s %d + %d ms: %s", s.at.class, s.at.n, s.after.Milliseconds(), s.fault)
}

// schedule is what a seed does to a run.
type schedule struct {
	ownServer bool // the launcher starts the event server; otherwise it is a process of its own
	strikes   []strike
}

// draw makes the schedule of a seed. counts are the files of every class in an undisturbed run, servers the event
// servers beside the launcher. If they are several, the launcher starts none, and two more faults are drawn that cut
// one of them off.
func draw(seed uint64, n int, counts map[string]int, stages []string, servers int) schedule {
	r := rand.New(rand.NewPCG(seed, 15))
	s := schedule{ownServer: r.IntN(4) == 0 && servers == 1}
	targets := append(slices.Clone(stages), launcherName)
	if !s.ownServer {
		targets = append(targets, brokerName)
	}
	var moments []moment
	for _, class := range slices.Sorted(maps.Keys(counts)) {
		for i := range counts[class] {
			moments = append(moments, moment{class, i + 1})
		}
	}
	add := func(draw func() fault) {
		s.strikes = append(s.strikes, strike{
			at:    moments[r.IntN(len(moments))],
			after: time.Duration(r.IntN(2)*r.IntN(300)) * time.Millisecond, // half of them at once
			fault: draw(),
		})
	}
	for range n {
		add(func() fault { return drawFault(r, targets) })
	}
	for range min(servers-1, 2) {
		add(func() fault { return cut{which: r.IntN(servers)} })
	}
	return s
}

func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  event server: %s\n",
		map[bool]string{true: "the launcher's", false: "a process of its own"}[s.ownServer])
	for _, k := range s.strikes {
		fmt.Fprintf(&b, "  %s\n", k)
	}
	return b.String()
}
