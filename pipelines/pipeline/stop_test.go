package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowToStop is a stage, written in shell, that takes a while to save when it is asked to end.
const slowToStop = `
case $1 in
describe) echo '{"name":"slow","about":"takes its time","kind":"source.added","emits":[],"parameters":[]}' ;;
serve)
	trap 'while [ ! -e "$ROOM" ]; do sleep 0.1; done; echo saved >"$SAVED"; exit 0' TERM
	echo ready >"$READY"
	while :; do sleep 0.1; done ;;
esac
`

// slow starts a pipeline of that stage and waits until the stage works.
func slow(t *testing.T, flags ...string) (l *launched, room, saved string) {
	t.Helper()
	w, dir := newWorld(t), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"slow.sh": slowToStop, "source.jsonl": `{"text":"a"}`,
		"slow.yml": "name: slow\nsources: [" + at("source.jsonl") + "]\nstages: {slow: {}}\n" +
			"commands: {slow: [sh, " + at("slow.sh") + "]}\n",
	} {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.env = []string{"ROOM=" + at("room"), "SAVED=" + at("saved"), "READY=" + at("ready")}
	l = w.start(slices.Concat([]string{"run", "--json"}, flags, []string{at("slow.yml")})...)
	w.eventually("the stage is ready", func() bool {
		_, err := os.Stat(at("ready"))
		return err == nil
	})
	return l, at("room"), at("saved")
}

// A launcher that is asked to end waits until all stages have saved, and says for which stages it waits.
func TestStoppingWaitsForWhatIsSaved(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"interrupted": syscall.SIGINT, "terminated": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, room, saved := slow(t)
			if err := l.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			said := l.until("a word of whom it waits for",
				func(m message) bool { return strings.Contains(m.Text, "waiting for slow") })
			if !strings.Contains(said.Text, "Ctrl-C ends at once") {
				t.Errorf("it says %q", said.Text)
			}
			if err := os.WriteFile(room, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if o := l.wait(); o.status != 1 || !strings.Contains(o.stderr, "continues where it stopped") {
				t.Errorf("status %d: %s", o.status, o.stderr)
			}
			if _, err := os.Stat(saved); err != nil {
				t.Error(err)
			}
		})
	}
}

// A launcher that is stopped while it looks for its sources says that it was interrupted, and the same command begins
// again.
func TestInterruptedPreparation(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"interrupted": syscall.SIGINT, "terminated": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, end := make(chan struct{}, 9), make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				asked <- struct{}{}
				<-end
			}))
			defer server.Close()
			defer close(end)
			w := newWorld(t)
			l := w.start("run", "--json", "--source", server.URL+"/a.jsonl", "pipelines/v76.yml")
			select {
			case <-asked:
			case <-time.After(time.Minute):
				t.Fatal("the launcher does not look for its source")
			}
			if err := l.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if o := l.wait(); o.status != 1 || !strings.Contains(o.stderr, "interrupted before the stages were started") {
				t.Errorf("status %d: %s", o.status, o.stderr)
			}
		})
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	l, _, saved := slow(t)
	children := l.children()
	for _, heard := range []string{"stopping", ""} {
		if err := l.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if heard != "" {
			l.until("the first signal heard", func(m message) bool { return strings.Contains(m.Text, heard) })
		}
	}
	if o := l.wait(); o.status != 1 || !strings.Contains(o.stderr, "ended at once") {
		t.Errorf("status %d: %s", o.status, o.stderr)
	}
	if left := alive(children); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := os.Stat(saved); err == nil {
		t.Error("it had time to save")
	}
}
