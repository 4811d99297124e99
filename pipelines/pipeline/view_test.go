package main

import (
	"bufio"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A run can be looked at while it goes on, and no longer: also when the launcher is killed.
func TestView(t *testing.T) {
	for name, end := range map[string]syscall.Signal{"ends": 0, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var address string
			var children map[string]int
			w, l, run := midTraining(t, func(t *testing.T) *world {
				w := newWorld(t)
				w.env = append(w.env, "BITNET1_VIEW=127.0.0.1:0")
				return w
			}, func(l *launched) {
				address, children = l.view, l.children()
				l.halt(children["train"])
			})
			page, err := http.Get(address)
			if err != nil {
				t.Fatal(err)
			}
			if page.Body.Close(); page.StatusCode != http.StatusOK {
				t.Error(page.Status)
			}
			hears(t, address, run, func() {
				l.signal(children["train"], syscall.SIGCONT)
				time.Sleep(30 * time.Millisecond) // some steps
				l.signal(children["train"], syscall.SIGSTOP)
			})
			l.signal(children["train"], syscall.SIGCONT)
			if end != 0 {
				l.signal(l.cmd.Process.Pid, end)
			}
			if o := l.wait(); end == 0 && o.status != 0 {
				t.Errorf("status %d: %s", o.status, o.stderr)
			}
			// stages that outlive a killed launcher for a moment write in the data directory
			w.eventually("the end of all stages", func() bool { return len(alive(children)) == 0 })
			if page, err := http.Get(address); err == nil {
				page.Body.Close()
				t.Errorf("%s is served after the end, by %v", address, alive(children))
			}
		})
	}
}

// hears waits until the page shows the run, and then hears what the trainer says of its work. The trainer works a
// little now and then, and not until its end: the page asks once a second, and a whole training may take less.
func hears(t *testing.T, address, run string, work func()) {
	t.Helper()
	stream, err := http.Get(address + "/runs")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewReader(stream.Body)
	until := func(what string) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("the page heard no %s: %v", what, err)
			}
			if strings.Contains(line, what) {
				return
			}
		}
	}
	until(run)
	heard, halted := make(chan struct{}), make(chan struct{})
	defer func() { close(heard); <-halted }()
	go func() {
		defer close(halted)
		for {
			work()
			select {
			case <-heard:
				return
			case <-time.After(3 * time.Second):
			}
		}
	}()
	until(`{"stage":"train"`)
}

// A page that cannot be served does not keep the run from its work.
func TestViewThatCannotBeServed(t *testing.T) {
	w := newWorld(t)
	w.env = append(w.env, "BITNET1_VIEW=127.0.0.1:x")
	o := w.run("pipeline", tiny("--set", "train.steps=2", "--set", "train.warmup=1")...)
	if o.status != 0 || !strings.Contains(o.stdout, "cannot be shown in a browser") {
		t.Errorf("status %d: %s%s", o.status, tail(o.stdout), o.stderr)
	}
}
