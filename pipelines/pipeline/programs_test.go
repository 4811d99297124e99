package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The tests of this package start the real programs, built once, and a real event server. Their model is so small that
// a run takes seconds.

// buildFlags and buildEnv are how the programs are built; with the race detector when the tests are.
var buildFlags, buildEnv = []string(nil), []string{"CGO_ENABLED=0"}

var (
	programs string // the folder of the built programs
	texts    string // the pattern of the sample corpus's files
)

func TestMain(m *testing.M) {
	status, err := withPrograms(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func withPrograms(run func() int) (int, error) {
	dir, err := os.MkdirTemp("", "bitnet1-programs")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	packages := []string{"-o", dir + "/", "../../stages/...", "../../docs/examples/...", "../report", "../view",
		"."}
	build := exec.Command("go", slices.Concat([]string{"build"}, buildFlags, packages)...)
	build.Env = append(os.Environ(), buildEnv...)
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	programs, texts = dir, filepath.Join(dir, "sample", "*.parquet")
	if out, err := exec.Command(filepath.Join(dir, "pipeline"), "sample", "--data", dir).CombinedOutput(); err != nil {
		return 1, fmt.Errorf("writing the sample corpus: %w\n%s", err, out)
	}
	return run(), nil
}

// world is a data directory and what is run over it.
type world struct {
	t    *testing.T
	data string
	env  []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, data: filepath.Join(t.TempDir(), "data")}
}

// command prepares one of the programs, in the repository's root.
func (w *world) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(programs, program), args...)
	cmd.Dir = "../.."
	cmd.Env = append(bus.WithoutAddress(os.Environ()), "BITNET1_DATA="+w.data, "TERM=dumb",
		"BITNET1_VIEW="+noView)
	cmd.Env = append(cmd.Env, w.env...)
	return cmd
}

// tiny are the arguments of a run that takes seconds: four checkpoints of a model with 40 thousand parameters.
func tiny(flags ...string) []string {
	args := []string{
		"run", "--json", "--preset", "nano", "--source", texts,
		"--set", "shard.sequence_length=64", "--set", "train.d=32", "--set", "train.layers=2", "--set", "train.heads=2",
		"--set", "train.ff=64",
		"--set", "train.steps=80", "--set", "train.warmup=5", "--set", "train.batch_tokens=1024", "--set",
		"train.micro_tokens=512", "--set", "train.checkpoint_every=20",
		"--set", "probe.sequences=32", "--set", "probe.repeats=8",
	}
	return append(append(args, flags...), "pipelines/v76.yml")
}

// outcome is how a program ended.
type outcome struct {
	status         int
	stdout, stderr string
}

func (w *world) run(program string, args ...string) outcome {
	w.t.Helper()
	cmd := w.command(program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return outcome{w.status(cmd.Run()), stdout.String(), stderr.String()}
}

func (w *world) status(err error) int {
	w.t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	w.t.Fatal(err)
	return -1
}

// must runs a program that is to succeed.
func (w *world) must(program string, args ...string) string {
	w.t.Helper()
	o := w.run(program, args...)
	if o.status != 0 {
		w.t.Fatalf("%s %s ended with status %d:\n%s%s", program, strings.Join(args, " "), o.status, tail(o.stdout), o.stderr)
	}
	return o.stdout
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// message is a line of the launcher's --json output.
type message struct {
	Type     string         `json:"type"`
	Run      string         `json:"run"`
	Text     string         `json:"text"`
	Number   uint64         `json:"number"` // of a dead letter
	Address  string         `json:"address"`
	Event    event.Envelope `json:"event"`
	Body     map[string]any `json:"body"`
	Progress struct {
		Stage string `json:"stage"`
		Done  int64  `json:"done"`
	} `json:"progress"`
	Report      string `json:"report"`
	Checkpoints []row  `json:"checkpoints"`
	Others      []row  `json:"others"`
}

// row is a checkpoint of the launcher's summary.
type row struct {
	Step           int               `json:"step"`
	BitsPerToken   float64           `json:"bits_per_token"`
	BestHead       string            `json:"best_head"`
	CopyAccuracy   float64           `json:"copy_accuracy"`
	UnigramEntropy float64           `json:"unigram_entropy"`
	PackBytes      float64           `json:"pack_bytes"`
	Continued      *float64          `json:"continued"`
	Best           bool              `json:"best"`
	Overrides      map[string]string `json:"overrides"`
}

func messages(stdout string) []message {
	var all []message
	for line := range strings.Lines(stdout) {
		var m message
		if json.Unmarshal([]byte(line), &m) == nil {
			all = append(all, m)
		}
	}
	return all
}

// launched is a launcher at work.
type launched struct {
	w      *world
	cmd    *exec.Cmd
	stderr bytes.Buffer
	lines  chan message // closed when its output ends
	view   string       // the address of its view, once that is among the lines
}

func (w *world) start(args ...string) *launched {
	w.t.Helper()
	l := &launched{w: w, cmd: w.command("pipeline", args...), lines: make(chan message, 1<<16)}
	l.cmd.Stderr = &l.stderr
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = l.cmd.Process.Kill() })
	go l.read(out)
	return l
}

func (l *launched) read(out io.Reader) {
	defer close(l.lines)
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 1<<22)
	for scanner.Scan() {
		var m message
		if json.Unmarshal(scanner.Bytes(), &m) == nil {
			if m.Type == "view" {
				l.view = m.Address
			}
			l.lines <- m
		}
	}
}

// until waits for a message that found accepts.
func (l *launched) until(what string, found func(message) bool) message {
	l.w.t.Helper()
	limit := time.After(processtest.Patience)
	for {
		select {
		case m, ok := <-l.lines:
			if !ok {
				l.w.t.Fatalf("the launcher ended before %s: %s", what, l.stderr.String())
			}
			if found(m) {
				return m
			}
		case <-limit:
			l.w.t.Fatalf("no %s within %s", what, processtest.Patience)
		}
	}
}

// untilTraining returns the launcher's run once the run is in the middle of its training.
func (l *launched) untilTraining() (run string) {
	l.w.t.Helper()
	run = l.until("the run", func(m message) bool { return m.Run != "" }).Run
	l.until("training", func(m message) bool { return m.Progress.Stage == "train" && m.Progress.Done > 25 })
	return run
}

// midTraining starts a run in a world that is made for it, and disturbs it in the middle of its training. A test that
// came too late, since the machine let it stand still, begins anew.
func midTraining(t *testing.T, made func(*testing.T) *world, disturb func(*launched), flags ...string) (w *world,
	l *launched, run string) {
	t.Helper()
	for range 5 {
		w = made(t)
		l = w.start(tiny(flags...)...)
		run = l.untilTraining()
		disturb(l)
		ended, err := journal.Open(w.data).Read(run, event.TrainingFinished{}.Kind())
		if err != nil {
			t.Fatal(err)
		}
		if len(ended) == 0 {
			return w, l, run
		}
		_ = l.cmd.Process.Kill()
	}
	t.Fatal("the test never came in the middle of a training")
	return nil, nil, ""
}

// interrupt asks the launcher to end, as Ctrl-C does, and waits until it has.
func (l *launched) interrupt() {
	l.w.t.Helper()
	l.signal(l.cmd.Process.Pid, syscall.SIGINT)
	l.wait()
}

// wait returns how the launcher ended.
func (l *launched) wait() outcome {
	l.w.t.Helper()
	for range l.lines {
	}
	status := l.w.status(l.cmd.Wait())
	return outcome{status: status, stderr: l.stderr.String()}
}

// children are the processes that the launcher has started, by name.
func (l *launched) children() map[string]int {
	l.w.t.Helper()
	if runtime.GOOS != "linux" {
		l.w.t.Skip("finds processes in /proc: needs Linux")
	}
	found := map[string]int{}
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, rest, _ := strings.Cut(string(b), " (")
		name, rest, _ := strings.Cut(rest, ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(l.cmd.Process.Pid) && fields[0] != "Z" {
			found[name], _ = strconv.Atoi(pid)
		}
	}
	return found
}

// hasEnded reports whether the launcher has ended.
func (l *launched) hasEnded() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.cmd.Process.Pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// alive reports which of the processes still run.
func alive(children map[string]int) []string {
	var left []string
	for name, pid := range children {
		if syscall.Kill(pid, 0) == nil {
			left = append(left, name)
		}
	}
	slices.Sort(left)
	return left
}

// artifacts are the digests of what the one run of the world announced, by kind and name. They are checked against the
// files.
func (w *world) artifacts() map[string]string {
	w.t.Helper()
	j := journal.Open(w.data)
	runs, err := j.Runs()
	if err != nil || len(runs) != 1 {
		w.t.Fatalf("runs %v, error %v; want one run", runs, err)
	}
	store, err := artifact.Open(w.data)
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[string]string{}
	for _, body := range event.Kinds() {
		events, err := j.Read(runs[0], body.Kind())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range events {
			var fields map[string]any
			if err := event.Unmarshal(e.Body, &fields); err != nil {
				w.t.Fatal(err)
			}
			for _, value := range fields {
				ref, ok := value.(map[string]any)
				if !ok || ref["digest"] == "" {
					continue
				}
				name := fmt.Sprint(ref["kind"], " ", ref["name"])
				digest := fmt.Sprint(ref["digest"])
				if old, there := found[name]; there && old != digest {
					w.t.Errorf("two artifacts are called %s", name)
				}
				found[name] = digest
				if _, err := store.Path(artifact.Ref{Digest: digest}); err != nil {
					w.t.Error(err)
				}
			}
		}
	}
	return found
}

// reference holds what an undisturbed tiny run makes.
var reference struct {
	once      sync.Once
	artifacts map[string]string
}

// sameAsReference fails unless the world holds exactly what an undisturbed run makes.
func (w *world) sameAsReference() {
	w.t.Helper()
	reference.once.Do(func() {
		undisturbed := newWorld(w.t)
		undisturbed.must("pipeline", tiny()...)
		reference.artifacts = undisturbed.artifacts()
	})
	want, got := reference.artifacts, w.artifacts()
	if len(want) == 0 {
		w.t.Fatal("the undisturbed run failed, there is nothing to compare with")
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			w.t.Errorf("%s has digest %.12s, in an undisturbed run %.12s", name, got[name], want[name])
		}
	}
	for name := range got {
		if want[name] == "" {
			w.t.Errorf("%s is not made by an undisturbed run", name)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(w.data, "tmp", "*")); len(left) > 0 {
		w.t.Errorf("half-written files are left: %v", left)
	}
}

// eventually waits until ok holds.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	processtest.Eventually(w.t, ok, "%s", what)
}
