package stage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The tests of this package start the test binary itself as a stage's program: processes can be killed, and what they
// do is what a user's stage does.

// asStage names the stage that the test binary is to be.
const asStage = "BITNET1_TEST_STAGE"

func TestMain(m *testing.M) {
	switch os.Getenv(asStage) {
	case "shout":
		os.Exit(leakless(Main(shout(), os.Args)))
	case "climb":
		os.Exit(leakless(Main(climb(), os.Args)))
	case "collect":
		os.Exit(leakless(Main(collect(), os.Args)))
	case "look":
		os.Exit(leakless(Main(look(), os.Args)))
	}
	goleak.VerifyTestMain(m)
}

const leaked = 99

// leakless turns a goroutine that outlives Main into an exit status of its own. (One that reads standard input for a
// launcher cannot be ended.)
func leakless(status int) int {
	if os.Getenv(command.EnvLauncher) != "" {
		return status
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return leaked
	}
	return status
}

// testParams say how the test stages behave.
type testParams struct {
	Trace   string `json:"trace" usage:"file that gets a line whenever a job is begun or ended"`
	Mode    string `json:"mode" usage:"work, wait, stay, fail, refuse, panic, die or lose"`
	Times   int    `json:"times" usage:"how often to do so before working; 0: always"`
	Release string `json:"release" usage:"modes wait and stay: the file whose appearance ends them"`
	Only    string `json:"only" usage:"name of the one source that this is about"`
	Layers  []int  `json:"layers" usage:"nothing"`
}

func (p testParams) check() error {
	for _, mode := range []string{"work", "wait", "stay", "fail", "refuse", "panic", "die", "lose"} {
		if p.Mode == mode {
			return nil
		}
	}
	return fmt.Errorf("mode %q: use work, wait, stay, fail, refuse, panic, die or lose", p.Mode)
}

// shout is a stage that answers each source with its name in capitals.
func shout() Spec[testParams, event.SourceAdded] {
	return Spec[testParams, event.SourceAdded]{
		Name: "shout", About: "writes names in capitals", Example: "shout run --in a.txt --out loud", Version: "1",
		Defaults: testParams{Mode: "work", Layers: []int{0}}, Check: testParams.check,
		Work: func(ctx context.Context, job *Job[testParams], in event.SourceAdded) error {
			if err := behave(ctx, job, in.Name); err != nil {
				return err
			}
			ref, err := writeText(job, in.Name+".loud", strings.ToUpper(in.Name))
			if err != nil {
				return err
			}
			return job.Emit(ctx, event.TokensWritten{Source: in.Name, Batch: ref})
		},
		Files: func(in *Files) ([]event.SourceAdded, error) {
			var all []event.SourceAdded
			for _, file := range in.In {
				ref, err := in.Add("source", "text/plain", file)
				if err != nil {
					return nil, err
				}
				all = append(all, event.SourceAdded{Name: ref.Name, Digest: ref.Digest, Size: ref.Size})
			}
			return all, nil
		},
		Emits: []event.Body{event.TokensWritten{}},
	}
}

// collect is a stage that gathers what shout wrote.
func collect() Spec[testParams, event.TokensWritten] {
	return Spec[testParams, event.TokensWritten]{
		Name: "collect", About: "joins what was written", Example: "collect run --run RUN", Version: "1",
		Defaults: testParams{Mode: "work"}, Check: testParams.check,
		Gather: func(ctx context.Context, job *Job[testParams], in []event.TokensWritten) error {
			if err := behave(ctx, job, "all"); err != nil {
				return err
			}
			var text strings.Builder
			for _, e := range in {
				path, err := job.Path(e.Batch)
				if err != nil {
					return err
				}
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				text.Write(append(b, ' '))
			}
			ref, err := writeText(job, "all.txt", text.String())
			if err != nil {
				return err
			}
			return job.Emit(ctx, event.DatasetSealed{Manifest: ref, Documents: int64(len(in))})
		},
		Emits: []event.Body{event.DatasetSealed{}},
	}
}

// climb is a stage that answers a source in three steps, each with an output. It behaves as told in the middle of the
// second one, and continues where it was.
func climb() Spec[testParams, event.SourceAdded] {
	s := shout()
	s.Name, s.Example = "climb", "climb run --in a.txt --out steps"
	s.Work = func(ctx context.Context, job *Job[testParams], in event.SourceAdded) error {
		before, err := Emitted[event.TokensWritten](job)
		if err != nil {
			return err
		}
		live, err := job.LiveFile("climb.log")
		if err != nil {
			return err
		}
		for step := len(before) + 1; step <= 3; step++ {
			trace(live, fmt.Sprint("step ", step))
			if step == 2 {
				if err := behave(ctx, job, in.Name); err != nil {
					return err
				}
			}
			ref, err := writeText(job, fmt.Sprintf("%s.step%d", in.Name, step), strings.Repeat("x", step))
			if err != nil {
				return err
			}
			if err := job.Emit(ctx, event.TokensWritten{Source: in.Name, Batch: ref, Documents: int64(step)}); err != nil {
				return err
			}
		}
		b, err := os.ReadFile(live)
		if err != nil {
			return err
		}
		ref, err := writeText(job, "climb.log", string(b))
		if err != nil {
			return err
		}
		return job.Emit(ctx, event.DatasetSealed{Manifest: ref})
	}
	return s
}

// look is a stage that answers a checkpoint with the content of its dataset.
func look() Spec[testParams, event.CheckpointSaved] {
	return Spec[testParams, event.CheckpointSaved]{
		Name: "look", About: "shows a checkpoint its dataset", Example: "look run --run RUN", Version: "1",
		Defaults: testParams{Mode: "work"}, Check: testParams.check,
		Work: func(ctx context.Context, job *Job[testParams], in event.CheckpointSaved) error {
			path, err := job.Path(in.Manifest)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			ref, err := writeText(job, "seen.txt", "seen: "+string(b))
			if err != nil {
				return err
			}
			return job.Emit(ctx, event.PackWritten{Step: in.Step, Model: in.Model, Pack: ref})
		},
		Files: Checkpoints, OnDataset: OnDataset, Choice: ByStep(), Threads: true, Device: true,
		Emits: []event.Body{event.PackWritten{}},
	}
}

// behave does what the parameters say for the given source.
func behave(ctx context.Context, job *Job[testParams], name string) error {
	p := job.Params
	begun := trace(p.Trace, "begin "+name)
	defer trace(p.Trace, "end "+name)
	if p.Only != "" && p.Only != name || p.Times > 0 && begun > p.Times {
		return nil
	}
	job.Progress(Progress{Done: 1, Total: 2, Unit: "words"})
	switch p.Mode {
	case "wait":
		return waitFor(ctx, p.Release)
	case "stay": // whatever is asked of it
		return waitFor(context.WithoutCancel(ctx), p.Release)
	case "fail":
		return fmt.Errorf("%s failed for the %d. time", name, begun)
	case "refuse":
		return Permanentf("%s is no good", name)
	case "panic":
		panic("confused by " + name)
	case "die":
		os.Exit(3)
	case "lose":
		return fmt.Errorf("step 7: %w", lostDevice{})
	}
	return nil
}

// lostDevice is an error that no later job of the process can do without.
type lostDevice struct{}

func (lostDevice) Error() string { return "the device is lost" }
func (lostDevice) Unfit() bool   { return true }

func waitFor(ctx context.Context, file string) error {
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// trace appends a line and returns how often it is in the file.
func trace(path, line string) int {
	if path == "" {
		return 0
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 0
	}
	fmt.Fprintln(f, line)
	f.Close()
	b, _ := os.ReadFile(path)
	return strings.Count("\n"+string(b), "\n"+line+"\n")
}

func writeText(job *Job[testParams], name, text string) (artifact.Ref, error) {
	w, err := job.Create("text", "text/plain", name)
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	if _, err := w.Write([]byte(text)); err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}

// world is an event server, a data directory and the programs that use them.
type world struct {
	t       *testing.T
	server  *bus.Server
	address bus.Address
	bus     *bus.Bus
	data    string
	trace   string // the programs' trace
	release string // the file that they may wait for
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	w := newWorldAt(t, s.Address())
	w.server = s
	return w
}

func newWorldAt(t *testing.T, address bus.Address) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, address: address, data: filepath.Join(dir, "data"), trace: filepath.Join(dir, "trace"),
		release: filepath.Join(dir, "release")}
	var err error
	if w.bus, err = bus.Connect(t.Context(), w.address, "test"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.bus.Close)
	return w
}

func (w *world) journal() journal.Journal { return journal.Open(w.data) }

// program is a running stage.
type program struct {
	*exec.Cmd
	t      *testing.T
	mu     sync.Mutex
	stderr bytes.Buffer
	exited chan struct{}
	err    error
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.Write(b)
}

func (p *program) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// status waits for the program to end and returns its exit status, -1 when a signal killed it.
func (p *program) status() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.t.Fatalf("%v does not end:\n%s", p.Args[1:], p.log())
	}
	return p.ProcessState.ExitCode()
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop asks the program to end and expects that it does so cleanly.
func (p *program) stop() {
	p.t.Helper()
	// Before it serves a program may not listen for signals yet, and then one ends it at once.
	for limit := time.Now().Add(20 * time.Second); !strings.Contains(p.log(), "serving") && time.Now().Before(limit); {
		time.Sleep(5 * time.Millisecond)
	}
	p.signal(syscall.SIGTERM)
	if status := p.status(); status != command.Done {
		p.t.Errorf("%v ended with status %d:\n%s", p.Args[1:], status, p.log())
	}
}

// command prepares a stage's program. It traces its jobs, and learns of the bus only where it serves.
func (w *world) command(name string, args ...string) *exec.Cmd {
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
func (w *world) serve(name string, args ...string) *program {
	w.t.Helper()
	return w.start(w.serveCommand(name, args...))
}

func (w *world) serveCommand(name string, args ...string) *exec.Cmd {
	args = append([]string{"serve", "--ack-wait", "300ms", "--retry-pause", "10ms", "--trace", w.trace, "--release",
		w.release}, args...)
	cmd := w.command(name, args...)
	cmd.Env = append(cmd.Env, w.address.Environ()...)
	return cmd
}

func (w *world) start(cmd *exec.Cmd) *program {
	w.t.Helper()
	p := &program{Cmd: cmd, t: w.t, exited: make(chan struct{})}
	cmd.Stderr = p
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

// run runs a program to its end.
func (w *world) run(name string, args ...string) (status int, stdout, stderr string) {
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
func (w *world) announce(run string, part event.Part, body event.Body) event.Envelope {
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
func (w *world) sources(run string, names ...string) {
	w.t.Helper()
	for i, name := range names {
		w.announce(run, event.Part{Index: i, Count: len(names)},
			event.SourceAdded{Name: name, Digest: digest.Bytes([]byte(name))})
	}
}

// answers waits until a stage has answered n events of a run and returns its answers.
func (w *world) answers(run, stage string, n int) []event.JobFinished {
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

// outcomes is answers, expecting the same outcome of all.
func (w *world) outcomes(run, stage string, n int, outcome string) []event.JobFinished {
	w.t.Helper()
	all := w.answers(run, stage, n)
	for _, f := range all {
		if f.Outcome != outcome {
			w.t.Fatalf("outcome %q, want %q: %s", f.Outcome, outcome, f.Cause)
		}
	}
	return all
}

func (w *world) history(run, kind string) []bus.Kept {
	w.t.Helper()
	events, _, err := w.bus.History(w.t.Context(), run, kind, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return events
}

// eventually waits until ok holds.
func (w *world) eventually(ok func() bool, what string, args ...any) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("never came: "+what+"\ntrace: %v", append(args, w.traced(""))...)
		}
	}
}

// traced returns the lines of the trace that begin with prefix.
func (w *world) traced(prefix string) (lines []string) {
	b, _ := os.ReadFile(w.trace)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// begun waits until n jobs were begun.
func (w *world) begun(n int) {
	w.t.Helper()
	w.eventually(func() bool { return len(w.traced("begin")) >= n }, "%d jobs begun", n)
}

// wantBegun makes sure how often jobs were begun in all.
func (w *world) wantBegun(n int) {
	w.t.Helper()
	if got := w.traced("begin"); len(got) != n {
		w.t.Errorf("jobs begun: %v, want %d", got, n)
	}
}

// let ends the waiting of jobs in mode wait.
func (w *world) let() {
	w.t.Helper()
	if err := os.WriteFile(w.release, nil, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// text reads what a stage wrote, where people look for it.
func (w *world) text(run, stage, name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.journal().RunDir(run), stage, name))
	if err != nil {
		w.t.Error(err)
	}
	return string(b)
}

// clean makes sure that nothing half-written and no unfinished job is left.
func (w *world) clean() {
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

// unheard takes the progress of jobs that nobody watches.
func unheard(_, _ string) func(Progress) { return func(Progress) {} }
