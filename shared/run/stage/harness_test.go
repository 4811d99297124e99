package stage

import (
	"bytes"
	"cmp"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/processtest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/vfs"
)

// harness is an event server, a data directory and the programs that use them.
type harness struct {
	t       *testing.T
	server  *bus.Server
	address bus.Address
	bus     *bus.Bus
	data    string
	trace   string // the programs' trace
	release string // the file that they may wait for
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	s, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	w := newHarnessAt(t, s.Address())
	w.server = s
	return w
}

func newHarnessAt(t *testing.T, address bus.Address) *harness {
	t.Helper()
	dir := t.TempDir()
	w := &harness{t: t, address: address, data: filepath.Join(dir, "data"), trace: filepath.Join(dir, "trace"),
		release: filepath.Join(dir, "release")}
	var err error
	if w.bus, err = bus.Connect(t.Context(), w.address, "test"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.bus.Close)
	return w
}

func (w *harness) journal() journal.Journal { return journal.Open(w.data) }

// program is a running stage.
type program struct {
	*exec.Cmd
	t      *testing.T
	stderr processtest.Output
	exited chan struct{}
	err    error
}

func (p *program) log() string { return p.stderr.String() }

// status waits for the program to end and returns its exit status, -1 when a signal killed it.
func (p *program) status() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(processtest.Patience):
		p.t.Fatalf("%v does not end:\n%s", p.Args[1:], p.log())
	}
	return p.ProcessState.ExitCode()
}

// mustGoOn fails the test if the program has ended.
func (p *program) mustGoOn() {
	p.t.Helper()
	select {
	case <-p.exited:
		p.t.Fatalf("%v has ended:\n%s", p.Args[1:], p.log())
	default:
	}
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the program by a signal that it cannot handle.
func (p *program) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	if status := p.status(); status != -1 {
		p.t.Errorf("%v ended with status %d before it was killed:\n%s", p.Args[1:], status, p.log())
	}
}

// stop asks the program to end and expects that it does so cleanly.
func (p *program) stop() {
	p.t.Helper()
	// A program that does not serve yet may not handle signals yet: a signal would end it at once.
	processtest.Eventually(p.t, func() bool { return strings.Contains(p.log(), "serving") }, "a program that serves")
	p.signal(syscall.SIGTERM)
	if status := p.status(); status != command.Done {
		p.t.Errorf("%v ended with status %d:\n%s", p.Args[1:], status, p.log())
	}
}

// command prepares a stage's program. The program gets no address of the event server.
func (w *harness) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "NATS_") && !strings.HasPrefix(kv, "BITNET1_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, asStage+"="+name, "BITNET1_DATA="+w.data)
	return cmd
}

// serve starts a stage that answers events. Its pauses are short.
func (w *harness) serve(name string, args ...string) *program {
	w.t.Helper()
	return w.start(w.serveCommand(name, args...))
}

func (w *harness) serveCommand(name string, args ...string) *exec.Cmd {
	args = append([]string{"serve", "--ack-wait", "300ms", "--retry-pause", "10ms", "--trace", w.trace, "--release",
		w.release}, args...)
	cmd := w.command(name, args...)
	cmd.Env = append(cmd.Env, w.address.Environ()...)
	return cmd
}

func (w *harness) start(cmd *exec.Cmd) *program {
	w.t.Helper()
	p := &program{Cmd: cmd, t: w.t, exited: make(chan struct{})}
	cmd.Stderr = &p.stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		<-p.exited
	})
	return p
}

// busy starts a stage and gives it a source in run r. It returns in the middle of that job.
func (w *harness) busy(name string, args ...string) *program {
	w.t.Helper()
	p := w.serve(name, args...)
	w.sources("r", "one")
	w.begun(1)
	return p
}

// run runs a program to its end.
func (w *harness) run(name string, args ...string) (status int, stdout, stderr string) {
	w.t.Helper()
	cmd := w.command(name, args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), log.String()
}

// announce writes events to the journal and announces them, as a launcher does.
func (w *harness) announce(run string, part event.Part, body event.Body) event.Envelope {
	w.t.Helper()
	e, err := event.New(run, "test", "", part, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := bus.NewAnnouncer(w.journal(), w.bus).Announce(w.t.Context(), e); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// sources announces one source of every name.
func (w *harness) sources(run string, names ...string) {
	w.t.Helper()
	for i, name := range names {
		w.announce(run, event.Part{Index: i, Count: len(names)},
			event.SourceAdded{Name: name, Digest: digest.Bytes([]byte(name))})
	}
}

// answers waits until a stage has answered n events of a run and returns its answers.
func (w *harness) answers(run, stage string, n int) []event.JobFinished {
	w.t.Helper()
	var found []event.JobFinished
	w.eventually(func() bool {
		found = nil
		for _, k := range w.history(run, event.JobFinished{}.Kind()) {
			f, err := event.Into[event.JobFinished](k.Envelope)
			if err != nil {
				w.t.Fatal(err)
			}
			if f.Listener == stage {
				found = append(found, f)
			}
		}
		return len(found) >= n
	}, "%d answers of %s in run %s", n, stage, run)
	if len(found) != n {
		w.t.Fatalf("%d answers of %s, want %d: %+v", len(found), stage, n, found)
	}
	return found
}

// outcomes is answers, and makes sure that all have the given outcome.
func (w *harness) outcomes(run, stage string, n int, outcome string) []event.JobFinished {
	w.t.Helper()
	all := w.answers(run, stage, n)
	for _, f := range all {
		if f.Outcome != outcome {
			w.t.Fatalf("outcome %q, want %q: %s", f.Outcome, outcome, f.Cause)
		}
	}
	return all
}

func (w *harness) history(run, kind string) []bus.Kept {
	w.t.Helper()
	events, _, err := w.bus.History(w.t.Context(), run, kind, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return events
}

// eventually waits until ok holds.
func (w *harness) eventually(ok func() bool, what string, args ...any) {
	w.t.Helper()
	there := false
	defer func() {
		if !there {
			w.t.Logf("trace: %v", w.traced(""))
		}
	}()
	processtest.Eventually(w.t, ok, what, args...)
	there = true
}

// traced returns the lines of the trace that begin with prefix.
func (w *harness) traced(prefix string) (lines []string) {
	b, _ := os.ReadFile(w.trace)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// begun waits until n jobs were begun.
func (w *harness) begun(n int) {
	w.t.Helper()
	w.eventually(func() bool { return len(w.traced("begin")) >= n }, "%d jobs begun", n)
}

// wantBegun makes sure how often jobs were begun in all.
func (w *harness) wantBegun(n int) {
	w.t.Helper()
	if got := w.traced("begin"); len(got) != n {
		w.t.Errorf("jobs begun: %v, want %d", got, n)
	}
}

// let ends the waiting of jobs in mode wait.
func (w *harness) let() {
	w.t.Helper()
	writeFile(w.t, w.release, "")
}

// text reads what a stage wrote, where people look for it.
func (w *harness) text(run, stage, name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.journal().RunDir(run), stage, name))
	if err != nil {
		w.t.Error(err)
	}
	return string(b)
}

// clean makes sure that no half-written file and no unfinished job is left.
func (w *harness) clean() {
	w.t.Helper()
	for _, pattern := range []string{"tmp/*", "tmp/.*", "jobs/*/*/partial", "jobs/*/*/scratch", "jobs/*/*/attempts",
		"jobs/*/*/.*", "runs/*/*/.*", "runs/*/events/*/.*"} {
		found, err := filepath.Glob(filepath.Join(w.data, pattern))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, f := range found {
			if base := filepath.Base(f); base != "." && base != ".." {
				w.t.Errorf("left behind: %s", f)
			}
		}
	}
}

func wantText(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: %q, want %q in it", what, cmp.Or(text, "(nothing)"), part)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newPerformer does jobs of a stage in this process, in a data directory of its own, without an event server.
func newPerformer[P any, E event.Body](t *testing.T, spec Spec[P, E]) *performer[P, E] {
	t.Helper()
	p, err := performerOn(vfs.OS, t.TempDir(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// performerOn is a performer whose data directory lies on another file system.
func performerOn[P any, E event.Body](fsys vfs.FS, dir string, spec Spec[P, E]) (*performer[P, E], error) {
	store, err := artifact.OpenOn(fsys, dir)
	if err != nil {
		return nil, err
	}
	j := journal.Open(store.Dir()).On(fsys)
	return &performer[P, E]{
		spec: spec, fs: fsys, space: store, journal: j, records: record.Root(store), announcer: bus.NewAnnouncer(j, nil),
		log:    slog.New(slog.DiscardHandler),
		report: func(_, _ string) func(Progress) { return func(Progress) {} },
	}, nil
}

// newEvent is an event that is no part of a set.
func newEvent(t *testing.T, run, stage string, body event.Body) event.Envelope {
	t.Helper()
	e, err := event.New(run, stage, "", event.Part{}, body)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
