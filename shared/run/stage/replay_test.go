package stage

import (
	"bufio"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/bus/bustest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage/protocol"
	"bitnet1/shared/run/vfs"
)

// The tests of this file follow traces of the model of the protocol with real processes and a real event server. Each
// step of the protocol is a gate at which a process waits until the trace lets it pass: a gate of files in the process
// itself, before it writes a file, and a gate of messages in a relay before the server. A process that
// does something else than the model, or in another order, comes to another gate than the one that the trace opens.

// asGated is set for processes that have gates: file descriptor 3 says what the process is about to do, and what it
// reads from file descriptor 4 lets it.
const asGated = "BITNET1_TEST_GATED"

// gateFiles puts the gates of files into this process, if it is to have any.
func gateFiles() {
	if os.Getenv(asGated) != "" {
		vfs.OS = gatedFS{vfs.OS, os.NewFile(3, "gate"), os.NewFile(4, "key")}
	}
}

type gatedFS struct {
	vfs.FS
	gate, key *os.File
}

// An artifact has its gate before it gets its name. Another file has its gate before its temporary file is locked: two
// processes may write the same event.
func (g gatedFS) Rename(from, to string) error {
	if strings.Contains(to, "/objects/") {
		g.wait(protocol.Artifact)
	}
	return g.FS.Rename(from, to)
}

func (g gatedFS) OpenFile(path string, flag int, mode fs.FileMode) (vfs.File, error) {
	if strings.HasSuffix(path, ".write") {
		for _, place := range [][2]string{{"/partial/", protocol.Record}, {"/.record.msgpack", protocol.Commit},
			{"/events/job.finished/", protocol.FinishJournal}, {"/events/", protocol.Journal}} {
			if strings.Contains(path, place[0]) {
				g.wait(place[1])
				break
			}
		}
	}
	return g.FS.OpenFile(path, flag, mode)
}

func (g gatedFS) wait(step string) {
	_, err := fmt.Fprintln(g.gate, step)
	if err == nil {
		_, err = g.key.Read(make([]byte, 1))
	}
	if err != nil { // the test has ended
		os.Exit(1)
	}
}

// Names of gates that are no steps of the model.
const (
	pulls = "pull" // the process asks for its next event
	naks  = "nak"  // it hands an event back
)

// replay follows one trace.
type replay struct {
	*harness
	workers [2]*gatedWorker
}

// gatedWorker is a process of the stage.
type gatedWorker struct {
	*program
	gates   chan gate
	at      *gate         // at which it waits, once that is known
	last    gate          // that it passed last
	gone    chan struct{} // closed when nobody opens its gates any more
	leave   func()        // closes it
	started bool          // it has asked for an event
}

// gate is a step that a process is about to take, and what lets it.
type gate struct {
	step  string
	event string // its id, where the step is a message
	open  func()
}

// take starts a process, which takes the event.
func (r *replay) take(n int) {
	r.t.Helper()
	w := &gatedWorker{gates: make(chan gate), gone: make(chan struct{})}
	w.leave = sync.OnceFunc(func() { close(w.gone) })
	cmd := r.serveCommand("pair", "--attempts", "1000")
	a := r.address
	a.URL = bustest.NewRelay(r.t, a.URL, w.judge).URL
	cmd.Env = slices.Concat(bus.WithoutAddress(cmd.Env), a.Environ(), []string{asGated + "=1"})
	w.gateFiles(r.t, cmd)
	r.t.Cleanup(w.leave) // after start's cleanup has killed the process
	w.program = r.start(cmd)
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	r.workers[n] = w
}

// gateFiles gives the process that cmd starts its gates of files.
func (w *gatedWorker) gateFiles(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	said, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	lets, let, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{say, lets}
	go func() {
		defer said.Close()
		defer let.Close()
		for lines := bufio.NewScanner(said); lines.Scan(); {
			if !w.wait(lines.Text(), "") {
				return
			}
			_, _ = let.Write([]byte{0})
		}
	}()
}

// wait waits at a gate. It returns false when the process is dead.
func (w *gatedWorker) wait(step, event string) bool {
	opened := make(chan struct{})
	select {
	case w.gates <- gate{step, event, func() { close(opened) }}:
	case <-w.gone:
		return false
	}
	select {
	case <-opened:
		return true
	case <-w.gone:
		return false
	}
}

// judge is the gate of messages.
func (w *gatedWorker) judge(subject string, payload []byte) bustest.Verdict {
	var step, id string
	switch {
	case subject == "$JS.API.CONSUMER.MSG.NEXT."+bus.EventStream+".pair":
		if !w.started {
			w.started = true
			return bustest.Pass
		}
		step = pulls
	case strings.HasPrefix(subject, "$JS.ACK."):
		switch {
		case strings.HasPrefix(string(payload), "+WPI"): // no sign of life: the server may always think it dead
			return bustest.Drop
		case strings.HasPrefix(string(payload), "-NAK"):
			step = naks
		default:
			step = protocol.Ack
		}
	default:
		e, err := event.Decode(payload)
		if err != nil || e.Subject() != subject {
			return bustest.Pass
		}
		id, step = e.ID, protocol.Publish
		if e.Kind == (event.JobFinished{}).Kind() {
			step = protocol.FinishPublish
		}
	}
	if !w.wait(step, id) {
		return bustest.Cut
	}
	return bustest.Pass
}

// comes waits until the process waits at its next gate. An announcement that the server has refused, because it knows
// more than the process, is made again: that is no gate of its own.
func (r *replay) comes(n int) *gate {
	r.t.Helper()
	w := r.workers[n]
	for w.at == nil {
		select {
		case g := <-w.gates:
			again := g.event != "" && g.step == w.last.step && g.event == w.last.event
			if again || g.step == pulls && w.last.step == "" { // it has no event yet
				g.open()
				continue
			}
			w.at = &g
		case <-w.exited:
			r.t.Fatalf("worker %d has ended:\n%s", n, w.log())
		case <-time.After(processtest.Patience):
			r.t.Fatalf("worker %d comes to no gate:\n%s", n, w.log())
		}
	}
	return w.at
}

// passes lets the process take a step, and waits until it is done.
func (r *replay) passes(n int, step string) {
	r.t.Helper()
	g := r.comes(n)
	if g.step != step {
		r.t.Fatalf("worker %d is about to %s, in the model to %s\n%s", n, g.step, step, r.workers[n].log())
	}
	w := r.workers[n]
	w.at, w.last = nil, *g
	g.open()
	r.comes(n)
}

func (r *replay) ends(n int) {
	r.t.Helper()
	r.workers[n].kill() // before its gates go: a process whose gate is gone ends by itself
	r.workers[n].leave()
	r.workers[n] = nil
}

// follow takes one action of a trace, from one state of the model to the next.
func (r *replay) follow(c protocol.Config, a protocol.Action, from, to protocol.State) {
	r.t.Helper()
	before := c.Kept(from, 0)
	switch a.Name {
	case protocol.Conclude, protocol.Stall: // the server hears no sign of life in any case
		return
	case protocol.Idle: // a process takes an event and opens the record at once: it is started when it is to open it
		return
	case protocol.Crash:
		if r.workers[a.Worker] != nil {
			r.comes(a.Worker)
			r.ends(a.Worker)
		}
		return
	case protocol.Open:
		r.take(a.Worker)
		r.comes(a.Worker)
		if to.IsIdle(a.Worker) { // another one has the lock
			r.passes(a.Worker, naks)
			r.ends(a.Worker)
		}
		return
	case protocol.Journal:
		if before.Journal[a.Output] && r.comes(a.Worker).step != a.Name {
			return // nothing to write
		}
	case protocol.FinishJournal:
		if before.Journal[c.Outputs] && r.comes(a.Worker).step != a.Name {
			return
		}
	case protocol.Publish, protocol.FinishPublish:
		which := a.Output
		if a.Name == protocol.FinishPublish {
			which = c.Outputs
		}
		if before.Server[which] > 0 && r.comes(a.Worker).step != a.Name {
			return // the process knows that the server has it
		}
	}
	r.passes(a.Worker, a.Name)
	if a.Name == protocol.Ack {
		r.ends(a.Worker) // it would ask for its next event now
	}
}

// kept is what is kept of the one event of the run.
func (r *replay) kept(c protocol.Config) (k protocol.Kept) {
	r.t.Helper()
	count := func(pattern string) int {
		found, err := filepath.Glob(filepath.Join(r.data, pattern))
		if err != nil {
			r.t.Fatal(err)
		}
		return len(found)
	}
	k.Artifacts, k.Recorded, k.Committed = count("objects/*/*"), count("jobs/*/*/partial/*.msgpack"),
		count("jobs/*/*/record.msgpack") > 0
	k.Journal, k.Server = make([]bool, c.Outputs+1), make([]int, c.Outputs+1)
	all, err := r.journal().All("r")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range all {
		if i := r.placeOf(e, c); i >= 0 {
			k.Journal[i] = true
		}
	}
	for _, e := range r.history("r", "*.*") {
		if i := r.placeOf(e.Envelope, c); i >= 0 {
			k.Server[i]++
		}
	}
	return k
}

// placeOf is which of the job's outputs an event is, or job.finished after them; -1 for others.
func (r *replay) placeOf(e event.Envelope, c protocol.Config) int {
	r.t.Helper()
	switch e.Kind {
	case event.JobFinished{}.Kind():
		if f, err := event.Into[event.JobFinished](e); err != nil || f.Outcome != event.Done {
			r.t.Fatalf("%+v, %v", f, err)
		}
		return c.Outputs
	case event.TokensWritten{}.Kind():
		body, err := event.Into[event.TokensWritten](e)
		if err != nil {
			r.t.Fatal(err)
		}
		return int(body.Documents) - 1
	}
	return -1
}

// follows follows a walk through the model with real processes.
func follows(t *testing.T, c protocol.Config, choose func(possible []protocol.Step[protocol.State]) int) {
	t.Helper()
	if runtime.GOOS == "darwin" {
		t.Skip("processes are killed at gates: tried on Linux")
	}
	m := protocol.New(c)
	r := &replay{harness: newHarness(t)}
	r.sources("r", "one")
	if _, err := r.bus.Listen(t.Context(), bus.Listener{Stage: "pair", Run: "*", Kind: "source.added",
		AckWait: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	var walked []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("after\n%s", strings.Join(walked, "\n"))
		}
	})
	for s := m.Start(); !m.Done(s); {
		possible := slices.DeleteFunc(m.Next(s), func(step protocol.Step[protocol.State]) bool {
			return step.What.Name == protocol.Announce // by a launcher, of which there is none here
		})
		step := possible[choose(possible)]
		walked = append(walked, step.What.String())
		r.follow(c, step.What, s, step.To)
		s = step.To
		want, got := c.Kept(s, 0), r.kept(c)
		if want.Committed {
			want.Recorded = 0 // its place is taken by the record
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v is kept, in the model %+v", got, want)
		}
	}
	if _, err := artifact.Open(r.data); err != nil { // sweeps, as the next program does
		t.Fatal(err)
	}
	r.clean()
}

// A process is killed before each of its steps, once, and another one goes on.
func TestTheRunnerFollowsTheModelThroughEveryCrash(t *testing.T) {
	c := protocol.Config{Events: 1, Outputs: 2, Workers: 1, Crashes: 1}
	const stepsOfAJob = 14
	for at := 1; at < stepsOfAJob; at++ {
		t.Run(fmt.Sprint("before step ", at), func(t *testing.T) {
			t.Parallel()
			taken, crashed := 0, false
			follows(t, c, func(possible []protocol.Step[protocol.State]) int {
				crash := slices.IndexFunc(possible,
					func(s protocol.Step[protocol.State]) bool { return s.What.Name == protocol.Crash })
				if taken == at && crash >= 0 {
					crashed = true
					return crash
				}
				taken++
				return slices.IndexFunc(possible,
					func(s protocol.Step[protocol.State]) bool { return s.What.Name != protocol.Crash })
			})
			if !crashed {
				t.Error("there was no crash")
			}
		})
	}
}

// Two workers walk through the model at random, with crashes and stalls.
func TestTheRunnerFollowsTheModelAtRandom(t *testing.T) {
	c := protocol.Config{Events: 1, Outputs: 2, Workers: 2, Crashes: 2, Stalls: 2}
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 10))
			follows(t, c, func(possible []protocol.Step[protocol.State]) int { return rnd.IntN(len(possible)) })
		})
	}
}
