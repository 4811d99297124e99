package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The test's own binary is the event server as well.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "broker" {
		main()
	}
	os.Exit(m.Run())
}

// chaos runs the program, and returns what it printed.
func chaos(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("chaos needs Linux")
	}
	app := newApp()
	var out bytes.Buffer
	app.Writer = &out
	err := app.RunContext(t.Context(), append([]string{"chaos"}, args...))
	return out.String(), err
}

// Runs of the real programs end as an undisturbed run does, whatever strikes them.
func TestDisturbedRunsEndAlike(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", dir+"/", "../../stages/...", "../pipeline")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	// The first of these rounds has an event server of its own, the second one that of the launcher.
	said, err := chaos(t, "--programs", dir, "--work", filepath.Join(dir, "work"), "--rounds", "2", "--seed", "2")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	t.Log(said)
	if !strings.Contains(said, "train") || strings.Count(said, "ok  ") != 2 || strings.Contains(said, ": 0 faults") {
		t.Errorf("it printed\n%s", said)
	}
}

// A seed stands for one schedule.
func TestSchedulesFollowFromTheirSeeds(t *testing.T) {
	counts := map[string]int{"checkpoint.saved": 6, "record": 30, "artifact": 50}
	stages := []string{"pack", "train"}
	all := map[string]bool{}
	servers := map[bool]int{}
	for seed := range uint64(40) {
		s := draw(seed, 14, counts, stages, 1)
		if again := draw(seed, 14, counts, stages, 1); s.String() != again.String() {
			t.Errorf("seed %d:\n%s\nand then\n%s", seed, s, again)
		}
		all[s.String()] = true
		servers[s.ownServer]++
		for _, k := range s.strikes {
			if k.at.n < 1 || k.at.n > counts[k.at.class] {
				t.Errorf("seed %d: %s is no moment", seed, k)
			}
			if s.ownServer && strings.HasSuffix(k.fault.String(), brokerName) {
				t.Errorf("seed %d: %s, and there is no such process", seed, k)
			}
		}
	}
	if len(all) != 40 || servers[true] == 0 || servers[false] == 0 {
		t.Errorf("%d schedules of 40 seeds, servers %v", len(all), servers)
	}
}

// In a cluster, servers are cut off, beside the faults that the seed has without one.
func TestSchedulesOfACluster(t *testing.T) {
	counts := map[string]int{"checkpoint.saved": 6, "record": 30}
	cuts := map[cut]bool{}
	for seed := range uint64(40) {
		s := draw(seed, 14, counts, []string{"train"}, clusterSize)
		if s.ownServer || len(s.strikes) != 16 {
			t.Errorf("seed %d:\n%s", seed, s)
		}
		for _, k := range s.strikes {
			if c, ok := k.fault.(cut); ok {
				cuts[c] = true
			}
		}
	}
	if len(cuts) != clusterSize {
		t.Errorf("cut off are only %v", cuts)
	}
}

// madeUp is a run in a data directory, with one artifact, and its events on the launcher's server.
func madeUp(t *testing.T) (data string, events []event.Envelope) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	store, err := artifact.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := artifact.Put(store, "tokens", "text/plain", "one.txt", []byte("some words"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := bus.StartServer(filepath.Join(data, "nats"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	b, err := bus.Connect(t.Context(), s.Address(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	j := journal.Open(data)
	source := event.SourceAdded{Name: "one", Digest: digest.Bytes([]byte("one"))}
	for _, body := range []event.Body{event.RunStarted{Pipeline: "p"}, source,
		event.TokensWritten{Source: "one", Batch: ref},
		event.JobFinished{Listener: "tokenize",
			Input: digest.Bytes([]byte("input")), Outcome: event.Done},
		event.RunFinished{Events: 3}} {
		e, err := event.New("r", "test", "", event.Part{}, body)
		if err != nil {
			t.Fatal(err)
		}
		if err := bus.NewAnnouncer(j, b).Announce(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	if err := j.Link("r", "tokenize", ref); err != nil {
		t.Fatal(err)
	}
	return data, events
}

// Whatever differs from an undisturbed run is found.
func TestDifferencesAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(data string, events []event.Envelope) error // before the outcome is read
		alter  func(o *outcome)                                 // afterwards
		says   string
	}{
		"nothing": {},
		"another artifact": {damage: func(data string, _ []event.Envelope) error {
			_, err := artifact.Put(must(artifact.Open(data)), "tokens", "text/plain", "x", []byte("others"))
			return err
		}, says: "artifact " + digest.Bytes([]byte("others"))},
		"a damaged artifact": {damage: func(data string, _ []event.Envelope) error {
			path := artifact.ObjectPath(data, digest.Bytes([]byte("some words")))
			if err := os.Chmod(path, 0o644); err != nil {
				return err
			}
			return os.WriteFile(path, []byte("some wards"), 0o644)
		}, says: "10 bytes with digest"},
		"a lost event": {damage: func(data string, events []event.Envelope) error {
			return os.RemoveAll(filepath.Join(data, "runs", "r", "events", events[2].Kind))
		}, says: "none; undisturbed: tokens.written"},
		"a lost link": {damage: func(data string, _ []event.Envelope) error {
			return os.Remove(filepath.Join(data, "runs", "r", "tokenize", "one.txt"))
		}, says: "link r/tokenize/one.txt: none"},
		"a failed job": {damage: func(data string, events []event.Envelope) error {
			f := event.JobFinished{Listener: "tokenize", Input: digest.Bytes([]byte("input")),
				Outcome: event.Failed, Cause: "no"}
			e, err := event.New("r", "test", "", event.Part{}, f)
			if err == nil {
				_, err = journal.Open(data).Write(e)
			}
			return err
		}, says: "failed: no; undisturbed: answered"},
		"no end": {damage: func(data string, _ []event.Envelope) error {
			return os.RemoveAll(filepath.Join(data, "runs", "r", "events", "run.finished"))
		}, says: "no run.finished"},
		"unfinished work": {damage: func(data string, _ []event.Envelope) error {
			return os.MkdirAll(filepath.Join(data, "jobs", "aa", "aabb", "partial"), 0o755)
		}, says: "left behind"},
		"an event that the server lost": {
			alter: func(o *outcome) { o.announced = o.announced[1:] }, says: "event on the server"},
		"an event that the server has twice": {
			alter: func(o *outcome) { o.announced = append(o.announced, o.announced[1]) }, says: "more than once"},
	} {
		t.Run(name, func(t *testing.T) {
			data, events := madeUp(t)
			read := func() outcome {
				k := &campaign{dir: filepath.Dir(data)}
				return must((&trial{campaign: k}).outcome(t.Context()))
			}
			want := read()
			if c.damage != nil {
				if err := c.damage(data, events); err != nil {
					t.Fatal(err)
				}
			}
			got := read()
			if c.alter != nil {
				c.alter(&got)
			}
			said := strings.Join(compare(want, got), "\n")
			if c.says == "" && said != "" || !strings.Contains(said, c.says) {
				t.Errorf("found %q, want %q", said, c.says)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A round that fails says which seed makes its faults again, and leaves its files.
func TestAFailureNamesItsSeed(t *testing.T) {
	data, _ := madeUp(t)
	dir := t.TempDir()
	// A launcher that copies the made-up run, and announces nothing to a server of another process.
	script := fmt.Sprintf("#!/bin/sh\nmkdir -p \"$BITNET1_DATA\"\n"+
		"cp -r %s/. \"$BITNET1_DATA\"\necho nothing is left to do\n", data)
	if err := os.WriteFile(filepath.Join(dir, "pipeline"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "work")
	seed := map[bool]uint64{}
	for n := range uint64(20) {
		seed[draw(n, 2, map[string]int{"artifact": 1}, nil, 1).ownServer] = n
	}
	args := []string{"--programs", dir, "--work", work, "--each", "2", "--rounds", "1", "--seed"}
	if said, err := chaos(t, append(args, fmt.Sprint(seed[true]))...); err != nil {
		t.Errorf("the launcher's own server: %v\n%s", err, said)
	}
	said, err := chaos(t, append(args, fmt.Sprint(seed[false]))...)
	if err == nil || !strings.Contains(said, fmt.Sprintf("chaos --rounds 1 --seed %d\n", seed[false])) ||
		!strings.Contains(said, "event on the server") || !strings.Contains(said, "+") {
		t.Errorf("a server that lacks the events: %v\n%s", err, said)
	}
	if _, err := os.Stat(filepath.Join(work, "data", "runs", "r")); err != nil {
		t.Error(err)
	}
}

// What cannot be run is said at once.
func TestWrongUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"--faults 0":          {"--faults", "0"},
		"--each -1":           {"--each", "-1"},
		"no such file":        {"--programs", filepath.Join(t.TempDir(), "none")},
		"did you mean --seed": {"--sed", "4"},
	} {
		if said, err := chaos(t, args...); err == nil || !strings.Contains(err.Error()+said, want) {
			t.Errorf("%v: %v, want %q\n%s", args, err, want, said)
		}
	}
}
