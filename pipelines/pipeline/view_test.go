package main

import (
	"bufio"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// A run can be looked at while it goes on, and no longer: also when the launcher is killed.
func TestView(t *testing.T) {
	for name, end := range map[string]syscall.Signal{"ends": 0, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var address string
			var children map[string]int
			w, l, _ := midTraining(t, func(t *testing.T) *world {
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
			hears(t, address, func() { l.signal(children["train"], syscall.SIGCONT) })
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

// hears waits until the page hears what the trainer says of its work. It calls work once the page listens.
func hears(t *testing.T, address string, work func()) {
	t.Helper()
	stream, err := http.Get(address + "/runs")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	work()
	lines := bufio.NewReader(stream.Body)
	for err == nil {
		var line string
		if line, err = lines.ReadString('\n'); strings.Contains(line, `{"stage":"train"`) {
			return
		}
	}
	t.Errorf("the page heard nothing of the training: %v", err)
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
