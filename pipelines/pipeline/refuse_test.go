package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// refuses checks that a program ends with the status and says each of the texts, and that it says them to a person: no
// stack, no Go syntax.
func (w *world) refuses(status int, texts []string, program string, args ...string) {
	w.t.Helper()
	o := w.run(program, args...)
	if o.status != status {
		w.t.Errorf("status %d, want %d:\n%s%s", o.status, status, tail(o.stdout), o.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(o.stderr, text) {
			w.t.Errorf("the message does not say %q:\n%s", text, o.stderr)
		}
	}
	if strings.Contains(o.stderr, "goroutine ") || strings.Contains(o.stderr, "%!") {
		w.t.Errorf("the message is not for people:\n%s", o.stderr)
	}
}

// write puts a file into a folder of the test's own.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// goodParquet is one of the sample corpus's files.
func goodParquet(t *testing.T) (path string, content []byte) {
	t.Helper()
	files, err := filepath.Glob(texts)
	if err != nil || len(files) == 0 {
		t.Fatal("no sample corpus", err)
	}
	if content, err = os.ReadFile(files[0]); err != nil {
		t.Fatal(err)
	}
	return files[0], content
}

// over are tiny's arguments with other sources.
func over(sources ...string) []string {
	args := tiny()
	for i, a := range args {
		if a == "--source" {
			args = append(args[:i:i], args[i+2:]...)
			break
		}
	}
	var flags []string
	for _, s := range sources {
		flags = append(flags, "--source", s)
	}
	return append(args[:1:1], append(flags, args[1:]...)...)
}

func TestRefusedSources(t *testing.T) {
	good, content := goodParquet(t)
	for name, c := range map[string]struct {
		source string
		says   []string
	}{
		"missing":        {filepath.Join(t.TempDir(), "nowhere.parquet"), []string{"nowhere.parquet", "no such file"}},
		"truncated":      {write(t, "cut.parquet", content[:len(content)/2]), []string{"cut.parquet", "tokenize"}},
		"no text column": {write(t, "rows.jsonl", []byte("{\"body\": \"a\"}\n")), []string{"rows.jsonl", "text"}},
		"not JSON":       {write(t, "words.jsonl", []byte("once upon a time\n")), []string{"words.jsonl", "1"}},
		"unknown format": {write(t, "words.docx", []byte("once upon a time\n")), []string{"words.docx", "parquet"}},
		"a folder":       {t.TempDir(), []string{"*.parquet"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.refuses(1, c.says, "pipeline", over(good, c.source)...)
		})
	}
}

// A bad file among good ones does not lose the work on the good ones. Once it is repaired, the run goes on.
func TestRepairedSource(t *testing.T) {
	good, content := goodParquet(t)
	dir := t.TempDir()
	other := filepath.Join(dir, "other.parquet")
	if err := os.WriteFile(other, content[:len(content)-1], 0o644); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.refuses(1, []string{"other.parquet", "What was made is kept"}, "pipeline", over(good, other)...)
	j := journal.Open(w.data)
	runs, err := j.Runs()
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	if kept, err := j.Read(runs[0], event.TokensWritten{}.Kind()); err != nil || len(kept) != 1 {
		t.Errorf("%d sources are tokenized, want the good one; error %v", len(kept), err)
	}
	dead, err := filepath.Glob(filepath.Join(w.data, "runs", runs[0], "events", "job.finished", "*"))
	if err != nil || len(dead) < 2 {
		t.Errorf("answers kept: %v, error %v", dead, err)
	}
}

// Text that is no UTF-8 is kept byte for byte and counted.
func TestInvalidUTF8(t *testing.T) {
	good, _ := goodParquet(t)
	bad := write(t, "latin1.jsonl", []byte("{\"text\": \"caf\xe9 au lait\"}\n{\"text\": \"tea\"}\n"))
	w := newWorld(t)
	var invalid float64
	for _, m := range messages(w.must("pipeline", over(good, bad)...)) {
		if m.Event.Kind == (event.TokensWritten{}).Kind() {
			switch n := m.Body["invalid_utf8"].(type) {
			case float64:
				invalid += n
			}
		}
	}
	if invalid != 1 {
		t.Errorf("%g documents counted as invalid UTF-8, want 1", invalid)
	}
}

func TestRefusedPipelineFiles(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		says []string
	}{
		"wrong type": {"stages: {tokenize: {}, train: {steps: many}}\nsources: [sample]",
			[]string{":1:", "train", "steps", "integer"}},
		"unknown key":     {"stages: {train: {stepz: 3}}\nsources: [sample]", []string{":1:", "stepz", "steps"}},
		"unknown top key": {"stagez: {}\n", []string{"stagez", "stages"}},
		"unknown stage":   {"stages: {trian: {}}\nsources: [sample]", []string{"trian"}},
		"wrong value": {"stages: {tokenize: {}, shard: {}, train: {steps: -1}}\nsources: [sample]",
			[]string{"steps", "positive"}},
		"no stages":        {"name: x\n", []string{"stages"}},
		"not YAML":         {"stages: [\n", []string{"yaml"}},
		"empty":            {"", []string{"empty"}},
		"several mistakes": {"stages: {train: {stepz: 3, layerz: 2}}\nsources: [sample]", []string{"stepz", "layerz"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "mine.yml")
			if err := os.WriteFile(file, []byte(c.file), 0o644); err != nil {
				t.Fatal(err)
			}
			newWorld(t).refuses(1, c.says, "pipeline", "run", file)
		})
	}
	w := newWorld(t)
	w.refuses(1, []string{"nowhere.yml"}, "pipeline", "run", "nowhere.yml")
}

func TestWrongUsage(t *testing.T) {
	w := newWorld(t)
	w.refuses(2, []string{"--preset nan0", "nano"}, "pipeline", "run", "--preset", "nan0", "pipelines/v76.yml")
	w.refuses(2, []string{"train.stepz", "steps"}, "pipeline", "run", "--set", "train.stepz=1", "pipelines/v76.yml")
	w.refuses(2, []string{"there is no flag --sorce: did you mean --source?"}, "pipeline", "run", "--sorce", "x",
		"pipelines/v76.yml")
	w.refuses(2, []string{"there is no flag --stps", "--set train.steps=9"}, "pipeline", "run", "--stps", "9",
		"pipelines/v76.yml")
	w.refuses(2, []string{"did you mean --data?"}, "pipeline", "runs", "--dta", "x")
	w.refuses(1, []string{"there are", "v76.yml"}, "pipeline", "run", "pipelines/v99.yml")
	w.refuses(1, []string{"there are", "v76.yml"}, "pipeline", "run", "pipelines")
	w.refuses(2, []string{"--help lists the flags, and parameters of a stage are given as --set STAGE.KEY=VALUE"},
		"pipeline", "run", "--nothing-like-it", "pipelines/v76.yml")
	w.refuses(2, []string{"FILE"}, "pipeline", "run")
	w.refuses(2, []string{"lunch"}, "pipeline", "lunch")
	for _, stage := range []string{"tokenize", "shard", "train", "evaluate", "probe", "pack", "generate"} {
		w.refuses(2, []string{stage}, stage)
		if stage != "generate" { // it prints
			w.refuses(2, []string{"--out"}, stage, "run", "--in", "x")
		}
		w.refuses(2, []string{"flag"}, stage, "run", "--no-such-flag")
		w.refuses(1, []string{"NATS_URL"}, stage, "serve")
		if help := w.must(stage, "run", "--help"); !strings.Contains(help, "Example:") {
			t.Errorf("%s run --help has no example:\n%s", stage, help)
		}
	}
}

func TestRefusedServers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	newWorld(t).refuses(1, []string{fmt.Sprint(port), "in use", "--nats-port"}, "pipeline",
		tiny("--nats-port", strconv.Itoa(port))...)

	w := newWorld(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	w.env = []string{"NATS_URL=nats://" + free.Addr().String()}
	w.refuses(1, []string{"cannot be reached", "NATS_URL"}, "pipeline", tiny()...)

	server, err := bus.StartServer(filepath.Join(t.TempDir(), "nats"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	right := server.Address()
	wrong := right
	wrong.Password = "guess"
	w.env = wrong.Environ()
	w.refuses(1, []string{"refused the credentials", "NATS_PASSWORD"}, "pipeline", tiny()...)
	if o := w.run("train", "serve"); o.status != 1 || strings.Contains(o.stderr, "guess") {
		t.Errorf("status %d: %s", o.status, o.stderr)
	}
	w.env = right.Environ() // and a server that is not the launcher's own will do
	w.must("pipeline", tiny()...)
	w.sameAsReference()
}

// A data directory that cannot be used is refused. A second launcher is refused at once.
func TestRefusedDataDirectories(t *testing.T) {
	w := newWorld(t)
	w.data = filepath.Join(write(t, "file", nil), "data")
	w.refuses(1, []string{"--data"}, "pipeline", tiny()...)

	w, l, _ := midTraining(t, newWorld, func(l *launched) { l.halt(l.cmd.Process.Pid) })
	w.refuses(1, []string{"in use by another launcher"}, "pipeline", tiny()...)
	l.signal(l.cmd.Process.Pid, syscall.SIGCONT)
	if o := l.wait(); o.status != 0 {
		t.Errorf("the first launcher was disturbed: %s", o.stderr)
	}
}

// Damaged artifacts are noticed before they are used, and made again on request.
func TestDamagedArtifacts(t *testing.T) {
	w := newWorld(t)
	run := messages(w.must("pipeline", tiny()...))[0].Run
	damage := func(pattern string) {
		t.Helper()
		found, _ := filepath.Glob(filepath.Join(w.data, "runs", run, pattern))
		if len(found) != 1 {
			t.Fatalf("%s: %v", pattern, found)
		}
		path, err := filepath.EvalSymlinks(found[0])
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	damage("train/step-000080.safetensors")
	w.refuses(1, []string{"digest differs", "step-000080.safetensors", "--force"}, "probe", "run", "--run", run,
		"--checkpoint", "80", "--force")
	damage("shard/validation-00000.arrow")
	w.refuses(1, []string{"digest differs", "validation-00000.arrow", "--force"}, "evaluate", "run", "--run", run,
		"--checkpoint", "60", "--force")
	w.must("shard", "run", "--run", run, "--force")
	w.must("train", "run", "--run", run, "--force")
	w.sameAsReference()
}
