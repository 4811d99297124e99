package stage

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
)

var soak = flag.Duration("soak", 0, "let the event plane work for so long, and print as Markdown what it holds")

// soaked is what the processes of the event plane hold.
type soaked struct {
	goroutines, files int   // of the event server and of its clients in this process
	heap              int64 // of the same
	stageGoroutines   float64
	stageFiles        float64
	stageMemory       int64
}

// TestSoak has the event plane work on one run after the other, as a data directory of months sees them: two processes
// of a stage answer the sources of each run, a launcher announces them, follows the run and reads it back, and the run
// is removed. One of the processes is killed now and then, and the event server restarted. Nothing may be lost or
// doubled, and what server, launcher and the other process hold may not grow. With -soak it goes on for that long, and
// prints what it measures for docs/scale.md.
func TestSoak(t *testing.T) { // not beside other tests: it counts what this process holds
	const least, quarters = 12, 4
	s := newSoak(t)
	began := time.Now()
	var held []soaked
	if *soak > 0 {
		fmt.Print("\n| after | runs | events | goroutines | open files | heap MiB | goroutines of a stage | open files | " +
			"memory MiB |\n|---|---|---|---|---|---|---|---|---|\n")
	}
	for n := 1; len(held) < quarters; n++ {
		s.run(n)
		share := min(float64(n)/least, 1)
		if *soak > 0 {
			share = time.Since(began).Seconds() / soak.Seconds()
		}
		if share*quarters >= float64(len(held)+1) {
			h := s.holds()
			held = append(held, h)
			if *soak > 0 {
				fmt.Printf("| %s | %d | %d | %d | %d | %d | %.0f | %.0f | %d |\n", time.Since(began).Round(time.Minute), n,
					s.events, h.goroutines, h.files, h.heap>>20, h.stageGoroutines, h.stageFiles, h.stageMemory>>20)
			}
		}
	}
	first, last := held[0], held[quarters-1]
	for what, grown := range map[string][3]float64{ // from, to, and by how much it may differ from moment to moment
		"goroutines":            {float64(first.goroutines), float64(last.goroutines), 20},
		"open files":            {float64(first.files), float64(last.files), 20},
		"MiB":                   {float64(first.heap >> 20), float64(last.heap >> 20), 32},
		"goroutines of a stage": {first.stageGoroutines, last.stageGoroutines, 10},
		"open files of a stage": {first.stageFiles, last.stageFiles, 10},
		"MiB of a stage":        {float64(first.stageMemory >> 20), float64(last.stageMemory >> 20), 32},
	} {
		if grown[1] > grown[0]+grown[2] {
			t.Errorf("%.0f %s after the first quarter of the time, and %.0f at the end", grown[0], what, grown[1])
		}
	}
	s.steady.stop()
}

// soaking is the event plane at work.
type soaking struct {
	*harness
	store     string // of the event server
	server    *server.Server
	steady    measured // is never killed
	other     *program
	announcer *bus.Announcer
	events    int
	last      string // the run at work
}

func newSoak(t *testing.T) *soaking {
	s := &soaking{store: t.TempDir()}
	s.server = startServer(t, s.store, server.RANDOM_PORT)
	t.Cleanup(func() { stopServer(s.server) })
	s.harness = newHarnessAt(t, bus.Address{URL: s.server.ClientURL(), User: "operator", Password: "secret"})
	s.steady = s.serveMeasured("shout", "--workers", "4")
	s.announcer = bus.NewAnnouncer(s.journal(), s.bus)
	t.Cleanup(func() {
		if t.Failed() {
			s.explain()
		}
	})
	return s
}

// run has the n-th run answered: its sources are those of every run, and one of its own.
func (s *soaking) run(n int) {
	s.t.Helper()
	switch n % 10 {
	case 1:
		s.other = s.serve("shout", "--workers", "4", "--trace=")
	case 6:
		s.other.kill()
	case 8:
		stopServer(s.server)
		s.server = startServer(s.t, s.store, s.port())
	}
	const sources = 10
	run := fmt.Sprint("run-", n)
	s.last = run
	ctx, end := context.WithCancel(s.t.Context())
	defer end()
	var finished atomic.Int32
	if err := s.bus.Follow(ctx, run, func(k bus.Kept) {
		if k.Kind == (event.JobFinished{}).Kind() {
			finished.Add(1)
		}
	}); err != nil {
		s.t.Fatal(err)
	}
	for i := range sources {
		number := i
		if i == 0 {
			number = sources + n
		}
		if err := s.announcer.Announce(ctx, source(s.t, run, number, 0)); err != nil {
			s.t.Fatal(err)
		}
	}
	processtest.Eventually(s.t, func() bool { return finished.Load() >= sources }, "the answers of %s", run)
	all := bus.Listener{Stage: "shout", Run: "*"}
	processtest.Eventually(s.t, func() bool {
		left, err := s.bus.Unanswered(ctx, all)
		return err == nil && left == 0
	}, "the end of the last job of %s", run)
	s.outcomes(run, "shout", sources, event.Done)
	kept := s.history(run, "*.*")
	if len(kept) != 3*sources {
		s.t.Fatalf("%s has %d events, want %d", run, len(kept), 3*sources)
	}
	s.events += len(kept)
	if err := s.bus.ForgetRun(ctx, run); err != nil {
		s.t.Fatal(err)
	}
	processtest.Eventually(s.t, func() bool { // who answers an event twice may still write
		return os.RemoveAll(s.journal().RunDir(run)) == nil
	}, "the end of the files of %s", run)
}

// holds measures, between two runs.
func (s *soaking) holds() soaked {
	s.t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*") // none on other systems than Linux
	if err != nil {
		s.t.Fatal(err)
	}
	processtest.Eventually(s.t, func() bool { return s.steady.metric("go_goroutines") > 0 }, "the stage's metrics")
	return soaked{runtime.NumGoroutine(), len(files), heap(), s.steady.metric("go_goroutines"),
		s.steady.metric("process_open_fds"), resident(s.steady.Process.Pid)}
}

// explain says what is known of the run at work.
func (s *soaking) explain() {
	kinds := map[string]int{}
	events, bad, err := s.bus.History(context.Background(), s.last, "*.*", 0)
	for _, k := range events {
		kinds[k.Kind]++
	}
	left, unanswered := s.bus.Unanswered(context.Background(), bus.Listener{Stage: "shout", Run: "*"})
	s.t.Logf("%s has %v, %d damaged (%v); the stage has %d events to answer (%v)\n%s\n%s", s.last, kinds, bad, err, left,
		unanswered, s.steady.log(), s.other.log())
}
