package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/lease"
	"bitnet1/shared/run/stage"
	"bitnet1/shared/s3/s3test"
)

// twin is a stage that serves a run beside the stage that the run's launcher has started.
type twin struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr processtest.Output
}

func (s *twin) said() string { return s.stderr.String() }

// serve starts a stage's program for a run.
func (w *world) serve(stage, run string) *twin {
	w.t.Helper()
	s := &twin{t: w.t, cmd: w.command(stage, "serve", "--run", run)}
	s.cmd.Stderr = &s.stderr
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	w.eventually(stage+" serves", func() bool { return strings.Contains(s.said(), "serving") })
	return s
}

// signal sends a signal to one of the launcher's processes.
func (l *launched) signal(pid int, s syscall.Signal) {
	l.w.t.Helper()
	if pid == 0 {
		return // it has ended
	}
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		l.w.t.Fatal(err)
	}
}

// halt stops processes in a way that they cannot notice. They go on, or end, with the test at the latest.
func (l *launched) halt(pids ...int) {
	l.w.t.Helper()
	for _, pid := range pids {
		l.signal(pid, syscall.SIGSTOP)
		l.w.t.Cleanup(func() { l.signal(pid, syscall.SIGCONT) })
	}
}

// onServer is a world whose programs meet at an event server of the test's own. The server soon gives up a process that
// stands still.
func onServer(t *testing.T) *world {
	t.Helper()
	server, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	w := newWorld(t)
	w.env = append(server.Address().Environ(), command.EnvAckWait+"=500ms")
	return w
}

// once makes sure that the run is what an undisturbed run is: each event is announced once, and the artifacts are
// equal.
func (w *world) once(run string) {
	w.t.Helper()
	w.sameAsReference()
	seen := map[string]bool{}
	for _, k := range w.announced(run) {
		if seen[k.ID] {
			w.t.Errorf("%s was announced twice", k.Kind)
		}
		seen[k.ID] = true
		if f, err := event.Into[event.JobFinished](k.Envelope); err == nil && f.Outcome == event.Failed {
			w.t.Errorf("%s gave up: %s", f.Listener, f.Cause)
		}
	}
	for kind, want := range map[string]int{"checkpoint.saved": 4, "pack.written": 4, "run.finished": 1} {
		kept, err := journal.Open(w.data).Read(run, kind)
		if err != nil || len(kept) != want {
			w.t.Errorf("%d events %s in the journal, want %d (%v)", len(kept), kind, want, err)
		}
	}
}

// announced is what the event server has of a run.
func (w *world) announced(run string) []bus.Kept {
	w.t.Helper()
	all, _, err := w.connect().History(w.t.Context(), run, "*.*", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// connect connects to the event server of the programs.
func (w *world) connect() *bus.Bus {
	w.t.Helper()
	b, err := bus.Connect(w.t.Context(), bus.AddressFrom(w.variable), "test")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(b.Close)
	return b
}

// log is what the launcher's processes of a stage have said.
func (w *world) log(run, stage string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(journal.Open(w.data).LogDir(run), stage+".log"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// variable is a variable of the programs' environment.
func (w *world) variable(name string) string {
	for _, kv := range w.env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// Two trainers serve one run. The one at work stands still until the server has given its job to the other one. That
// one is kept off, until the first goes on or dies.
func TestTwoTrainers(t *testing.T) {
	for name, then := range map[string]syscall.Signal{"goes on": syscall.SIGCONT, "is killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			var trainer int
			w, l, run := midTraining(t, onServer, func(l *launched) {
				trainer = l.children()["train"]
				l.halt(trainer)
			})
			second := w.serve("train", run)
			w.eventually("the second trainer is kept off", func() bool {
				return strings.Contains(second.said(), "another process works on this job")
			})
			l.signal(trainer, then)
			if o := l.wait(); o.status != 0 {
				t.Fatalf("status %d: %s", o.status, o.stderr)
			}
			if said := second.said(); then == syscall.SIGCONT && strings.Contains(said, "recorded=false") {
				t.Errorf("the second trainer trains, too:\n%s", said)
			}
			w.once(run)
		})
	}
}

// Two packers serve one run. The server hands an event to one that stands still, and then to the other one, which does
// the job. The first one begins afterwards.
func TestTwoPackers(t *testing.T) {
	var w *world
	var l *launched
	var run string
	var packer int
	for halted := false; !halted; { // unless it has packed before the test came to it
		w = onServer(t)
		l = w.start(tiny()...)
		run = l.until("the run", func(m message) bool { return m.Run != "" }).Run
		l.until("the dataset", func(m message) bool { return m.Event.Kind == "dataset.sealed" })
		packer = l.children()["pack"]
		l.halt(packer)
		packed, err := journal.Open(w.data).Read(run, event.PackWritten{}.Kind())
		if err != nil {
			t.Fatal(err)
		}
		if halted = len(packed) == 0; !halted {
			_ = l.cmd.Process.Kill()
		}
	}
	second := w.serve("pack", run)
	w.eventually("the second packer has packed all", func() bool {
		return strings.Count(second.said(), "job done") == 4
	})
	l.signal(packer, syscall.SIGCONT)
	w.eventually("the first packer answers from the record", func() bool {
		return strings.Contains(w.log(run, "pack"), `"recorded":true`)
	})
	if o := l.wait(); o.status != 0 {
		t.Fatalf("status %d: %s", o.status, o.stderr)
	}
	w.once(run)
}

// A launcher that stands still keeps others off. The next one begins when it is dead.
func TestTwoLaunchers(t *testing.T) {
	for name, then := range map[string]syscall.Signal{"goes on": syscall.SIGCONT, "is killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			w, l, run := midTraining(t, onServer, func(l *launched) { l.halt(l.cmd.Process.Pid) })
			w.refuses(1, []string{"in use by another launcher"}, "pipeline", tiny()...)
			l.signal(l.cmd.Process.Pid, then)
			if o := l.wait(); (o.status == 0) != (then == syscall.SIGCONT) {
				t.Fatalf("status %d: %s", o.status, o.stderr)
			}
			w.must("pipeline", tiny()...)
			w.once(run)
		})
	}
}

// Hosts share a bucket. What stands still for too long on one of them is taken over by another host. When it goes on it
// is kept off, and says so.
func TestTwoHosts(t *testing.T) {
	storage := s3test.Start(t)
	hosts := func(t *testing.T, folder string) (first, second *world) {
		first, second = onServer(t), newWorld(t)
		first.env = append(first.env, "BITNET1_BUCKET="+storage.URL(folder))
		second.env = first.env
		return first, second
	}
	t.Run("trainers", func(t *testing.T) {
		t.Parallel()
		var trainer, tries int
		var second *world
		first, l, run := midTraining(t, func(t *testing.T) (first *world) {
			tries++
			first, second = hosts(t, fmt.Sprint("trainers", tries))
			return first
		}, func(l *launched) {
			trainer = l.children()["train"]
			l.halt(trainer)
		})
		began := time.Now()
		next := second.serve("train", run)
		second.eventually("the second trainer at work", func() bool {
			return strings.Contains(next.said(), "msg=training")
		})
		if waited := time.Since(began); waited < lease.Expiry {
			t.Errorf("the job was taken over after %s: its holder may have been alive", waited)
		}
		l.signal(trainer, syscall.SIGCONT)
		superseded := "another process has taken this job over, and this one leaves it"
		first.eventually("the first trainer says that it is superseded", func() bool {
			return strings.Contains(first.log(run, "train"), superseded)
		})
		if o := l.wait(); o.status != 0 {
			t.Fatalf("status %d: %s", o.status, o.stderr)
		}
		if n := strings.Count(first.log(run, "train"), superseded); n != 1 {
			t.Errorf("the first trainer says it %d times", n)
		}
		first.once(run)
	})
	t.Run("launchers", func(t *testing.T) {
		t.Parallel()
		var tries int
		var second *world
		_, l, run := midTraining(t, func(t *testing.T) (first *world) {
			tries++
			first, second = hosts(t, fmt.Sprint("launchers", tries))
			return first
		}, func(l *launched) { l.halt(l.cmd.Process.Pid) })
		second.must("pipeline", tiny()...)
		l.signal(l.cmd.Process.Pid, syscall.SIGCONT)
		if o := l.wait(); o.status != 1 ||
			strings.TrimSpace(o.stderr) != "pipeline: "+errSuperseded.Error() {
			t.Errorf("status %d: %s", o.status, o.stderr)
		}
		second.once(run)
	})
	t.Run("the end of a run", func(t *testing.T) {
		t.Parallel()
		_, host := hosts(t, "end")
		if err := bucket.Attach(host.data, host.variable("BITNET1_BUCKET")); err != nil {
			t.Fatal(err)
		}
		b := host.connect()
		var launchers []*launcher
		for range 2 { // the second one of the directory takes over at once
			held, err := leaseRun(host.data, "r")
			if err != nil {
				t.Fatal(err)
			}
			defer held.Release()
			l := &launcher{lease: held, bus: b, plan: &plan{run: "r", stages: []plannedStage{
				{Description: stage.Description{Name: "train", Kind: "dataset.sealed"}},
			}}}
			if err := l.listenFirst(t.Context()); err != nil {
				t.Fatal(err)
			}
			launchers = append(launchers, l)
		}
		if err := launchers[0].confirm(); !errors.Is(err, errSuperseded) {
			t.Errorf("the first launcher may end the run: %v", err)
		}
		if err := launchers[1].confirm(); err != nil {
			t.Errorf("the second launcher may not: %v", err)
		}
		for i, there := range []bool{true, false} {
			launchers[i].forget()
			if _, err := b.Unanswered(t.Context(), bus.Listener{Stage: "train", Run: "r"}); (err == nil) != there {
				t.Errorf("after launcher %d the consumers are there: %v; want %v", i, err, there)
			}
		}
	})
}
