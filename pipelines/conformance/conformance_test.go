package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The test's own binary is the stage under test: its mode, the first word of its command line, says what it does wrong.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && strings.HasPrefix(os.Args[1], "mode=") {
		if err := stageMain(strings.TrimPrefix(os.Args[1], "mode="), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// measured is what the stage announces of a source.
type measured struct {
	Name string `msgpack:"name"`
	Note string `msgpack:"note"`
}

func (measured) Kind() string     { return "source.measured" }
func (measured) Inputs() []string { return nil }

const description = `{"name": "measure", "about": "measures", "kind": "source.added", "emits": ["source.measured"],
	"results": [], "parameters": []}`

func stageMain(mode, command string) error {
	if command == "describe" {
		text := description
		if mode == "nameless" {
			text = strings.Replace(text, `"measure"`, `"two words"`, 1)
		}
		fmt.Println(text)
		return nil
	}
	reconnects := nats.MaxReconnects(-1)
	if mode == "brittle" {
		reconnects = nats.NoReconnect()
	}
	conn, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")),
		reconnects, nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	if mode != "deaf" {
		go func() {
			var none [1]byte
			_, _ = os.Stdin.Read(none[:])
			os.Exit(0)
		}()
		go func() { <-end; os.Exit(0) }()
	}
	if mode == "impatient" {
		go endAfterStandstill()
	}
	if mode == "alone" {
		lock := filepath.Join(os.Getenv("BITNET1_DATA"), "alone")
		if err := os.Mkdir(lock, 0o700); err != nil {
			return err
		}
	}
	js, err := conn.JetStream()
	if err != nil {
		return err
	}
	queue, err := js.PullSubscribe("bitnet1.r.source.added", "measure--r", nats.BindStream(bus.EventStream))
	if err != nil {
		return err
	}
	for {
		messages, err := queue.Fetch(1, nats.MaxWait(time.Second))
		if err != nil { // none, or no server for a while
			if conn.IsClosed() {
				return err
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err := answerIn(mode, js, messages[0]); err != nil {
			return err
		}
	}
}

// endAfterStandstill ends the program when it has stood still, wherever it was, for longer than an event is its own.
func endAfterStandstill() {
	for {
		began := time.Now()
		time.Sleep(20 * time.Millisecond)
		if time.Since(began) > bus.AckWait {
			fmt.Fprintln(os.Stderr, "the event is somebody else's by now")
			os.Exit(1)
		}
	}
}

// answerIn answers a message, with the mistake that the mode names.
func answerIn(mode string, js nats.JetStreamContext, m *nats.Msg) error {
	if mode != "quick" {
		time.Sleep(50 * time.Millisecond) // the work
	}
	e, err := event.Decode(m.Data)
	var source event.SourceAdded
	if err == nil {
		source, err = event.Into[event.SourceAdded](e)
	}
	if err == nil && source.Name == "" {
		err = fmt.Errorf("a source without a name")
	}
	if err != nil {
		if mode == "poisoned" {
			return err
		}
		return m.Term()
	}
	if mode == "forgetful" { // acknowledged before the work is done
		if err := m.AckSync(); err != nil {
			return err
		}
		time.Sleep(150 * time.Millisecond)
	}
	body := measured{Name: source.Name}
	if mode == "random" {
		body.Note = rand.Text()
	}
	out, err := event.New("r", "measure", "", e.Part, body)
	if err != nil {
		return err
	}
	out.Input = e.ID
	switch mode {
	case "foreign":
		out.Stage = "another"
	case "unknown":
		out.Input = strings.Repeat("0", 64)
	}
	done, err := event.New("r", "measure", "", event.Part{}, event.JobFinished{Listener: "measure", Input: e.ID,
		Outcome: event.Done})
	if err != nil {
		return err
	}
	all := []event.Envelope{out, done}
	if mode == "silent" {
		all = all[:1]
	}
	for _, e := range all {
		b, err := e.Encode()
		if err != nil {
			return err
		}
		message := nats.NewMsg(e.Subject())
		message.Data = b
		if mode != "idless" {
			message.Header.Set(nats.MsgIdHdr, e.ID)
		}
		if _, err := js.PublishMsg(message, nats.AckWait(20*time.Second)); err != nil {
			return err
		}
	}
	if mode == "forgetful" {
		return nil
	}
	return m.AckSync(nats.AckWait(20 * time.Second))
}

// sources is a data directory with a run of three sources, which the stage answered once before.
func sources(t *testing.T) (data string) {
	t.Helper()
	data = t.TempDir()
	j := journal.Open(data)
	for i := range 3 {
		source := event.SourceAdded{Name: fmt.Sprint("book ", i), Digest: strings.Repeat("a", 63) + fmt.Sprint(i)}
		for _, body := range []event.Body{source, measured{Name: source.Name}} {
			e, err := event.New("r", "launcher", "", event.Part{Index: i, Count: 3}, body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := j.Write(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	return data
}

// tested runs the checks on the stage in a mode, and returns what was printed.
func tested(t *testing.T, data, mode string, flags ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	app := newApp()
	var out bytes.Buffer
	app.Writer = &out
	args := slices.Concat([]string{"conformance", "--data", data, "--run", "r", "--limit", "20s"}, flags,
		[]string{self, "mode=" + mode})
	err = app.RunContext(t.Context(), args)
	return out.String(), err
}

// A stage that does all it should passes all checks, and the run's own directory is as before.
func TestAStageThatConforms(t *testing.T) {
	t.Parallel()
	data := sources(t)
	before := listing(t, data)
	said, err := tested(t, data, "right")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, c := range checks {
		if !strings.Contains(said, "ok      "+c.name) {
			t.Errorf("no check %s in\n%s", c.name, said)
		}
	}
	if !strings.Contains(said, "3 source.added answered with 3 source.measured") {
		t.Errorf("printed\n%s", said)
	}
	if after := listing(t, data); after != before {
		t.Errorf("the run's directory had\n%s\nand has\n%s", before, after)
	}
}

// A stage that answers in no time is killed at work all the same.
func TestAQuickStageIsKilledAtWork(t *testing.T) {
	t.Parallel()
	said, err := tested(t, sources(t), "quick", "--check", "kill")
	if err != nil || !strings.Contains(said, "killed 3 times at work") {
		t.Errorf("%v\n%s", err, said)
	}
}

// Each mistake is found by the check that is for it.
func TestStagesThatDoNot(t *testing.T) {
	for _, c := range []struct{ mode, check, says string }{
		{"silent", "answers", "has not announced job.finished"},
		{"foreign", "answers", `its stage is "another"`},
		{"unknown", "answers", "is the id of no event that the stage answers"},
		{"random", "repeats", "0 are those of an undisturbed run"},
		{"idless", "duplicate", "came more than once"},
		{"alone", "two at once", "the program has ended"},
		{"forgetful", "kill", "has not announced job.finished"},
		{"impatient", "stop", "the program has ended"},
		{"deaf", "shutdown", "after SIGTERM the program goes on"},
		{"brittle", "partition", "the program has ended"},
		{"poisoned", "poison", "the program has ended"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			said, err := tested(t, sources(t), c.mode, "--check", c.check)
			if err == nil || !strings.Contains(err.Error(), "1 of its checks failed") {
				t.Errorf("%v", err)
			}
			if !strings.Contains(said, "FAILED  "+c.check) || !strings.Contains(said, c.says) {
				t.Errorf("printed\n%s\nwant %q of check %s", said, c.says, c.check)
			}
		})
	}
}

// What cannot be tested is said at once.
func TestWhatCannotBeTested(t *testing.T) {
	data := sources(t)
	for want, flags := range map[string][]string{
		"there is no such check":        {"--check", "speed"},
		"there is no run v99":           {"--run", "v99"},
		"other characters than letters": nil,
	} {
		mode := "right"
		if flags == nil {
			mode = "nameless"
		}
		if said, err := tested(t, data, mode, flags...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q\n%s", flags, err, want, said)
		}
	}
	err := newApp().Run([]string{"conformance", "--run", "r"})
	if err == nil || !strings.Contains(err.Error(), "name the program") {
		t.Errorf("no program: %v", err)
	}
	empty := t.TempDir()
	j := journal.Open(empty)
	e, err := event.New("r", "launcher", "", event.Part{}, measured{Name: "alone"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Write(e); err != nil {
		t.Fatal(err)
	}
	if _, err := tested(t, empty, "right"); err == nil || !strings.Contains(err.Error(), "has no such event") {
		t.Errorf("a run without events to answer: %v", err)
	}
}

// listing are the files under a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	var walk func(path string)
	walk = func(path string) {
		entries, err := os.ReadDir(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if all = append(all, path+"/"+e.Name()); e.IsDir() {
				walk(path + "/" + e.Name())
			}
		}
	}
	walk(dir)
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
