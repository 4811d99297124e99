package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/digest"
	"bitnet1/shared/processtest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/bus/bustest"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

// raw connects without our own packages, as a stage in another language does.
func (w *harness) raw() (*nats.Conn, jetstream.JetStream) {
	w.t.Helper()
	js := bustest.Connect(w.t, w.address.URL, w.address.User, w.address.Password)
	return js.Conn(), js
}

// wantDoneAfter waits until shout's one job of run r is done. It makes sure that the job was begun n times, and that no
// unfinished file and no dead letter is left.
func (w *harness) wantDoneAfter(n int) {
	w.t.Helper()
	w.outcomes("r", "shout", 1, event.Done)
	w.wantBegun(n)
	w.clean()
	if letters := w.deadLetters(); len(letters) != 0 {
		w.t.Errorf("%d dead letters", len(letters))
	}
}

// deadLetters returns the letters in the dead-letter stream.
func (w *harness) deadLetters() (letters []*jetstream.RawStreamMsg) {
	w.t.Helper()
	_, js := w.raw()
	stream, err := js.Stream(w.t.Context(), bus.DeadStream)
	if err != nil {
		w.t.Fatal(err)
	}
	last := stream.CachedInfo().State.LastSeq
	for sequence := uint64(1); sequence <= last; sequence++ {
		letter, err := stream.GetMsg(w.t.Context(), sequence)
		if err != nil {
			w.t.Fatal(err)
		}
		letters = append(letters, letter)
	}
	return letters
}

func TestServeAnswersEvents(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.serve("shout")
	w.sources("r", "one", "two")
	answers := w.outcomes("r", "shout", 2, event.Done)
	for _, name := range []string{"one", "two"} {
		if got := w.text("r", "shout", name+".loud"); got != strings.ToUpper(name) {
			t.Errorf("%s: %q", name, got)
		}
	}
	written := w.history("r", "tokens.written")
	if len(written) != 2 {
		t.Fatalf("%d outputs", len(written))
	}
	for i, k := range written {
		if k.Stage != "shout" || !digest.Valid(k.Job) || k.Part.Count != 2 || k.Job != answers[i].Key {
			t.Errorf("output %+v of answer %+v", k.Envelope, answers[i])
		}
	}
	kept, err := w.journal().Read("r", "tokens.written")
	if err != nil || len(kept) != 2 {
		t.Errorf("journal: %v, %v", kept, err)
	}
	if ends, err := w.journal().Read("r", "job.finished"); err != nil || len(ends) != 2 {
		t.Errorf("journal: %v, %v", ends, err)
	}
	p.stop()
	w.wantBegun(2)
	w.clean()
}

func TestTheSameJobIsDoneOnceWhateverTheRun(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout")
	w.sources("first", "one")
	key := w.outcomes("first", "shout", 1, event.Done)[0].Key
	w.sources("second", "one")
	if again := w.outcomes("second", "shout", 1, event.Done)[0].Key; again != key {
		t.Errorf("job %s, want %s", again, key)
	}
	w.wantBegun(1)
	if got := w.text("second", "shout", "one.loud"); got != "ONE" {
		t.Errorf("%q", got)
	}
	if len(w.history("second", "tokens.written")) != 1 {
		t.Error("the second run has no output")
	}
}

func TestARunStartedAgainAnswersFromItsRecords(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	first := w.serve("shout", "--run", "r")
	w.sources("r", "one")
	w.outcomes("r", "shout", 1, event.Done)
	first.kill()
	listener := bus.Listener{Stage: "shout", Run: "r", Kind: "source.added"}
	if err := w.bus.Forget(t.Context(), listener); err != nil {
		t.Fatal(err)
	}
	p := w.serve("shout", "--run", "r")
	w.eventually(func() bool { return strings.Contains(p.log(), "recorded=true") }, "an answer from the record")
	p.stop()
	w.wantBegun(1)
	w.outcomes("r", "shout", 1, event.Done) // announced once
	if n := len(w.history("r", "tokens.written")); n != 1 {
		t.Errorf("%d outputs", n)
	}
}

func TestOutputsThatAreGoneAreMadeAgain(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout")
	w.sources("first", "one")
	w.outcomes("first", "shout", 1, event.Done)
	if err := os.RemoveAll(filepath.Join(w.data, "objects")); err != nil {
		t.Fatal(err)
	}
	w.sources("second", "one")
	w.outcomes("second", "shout", 1, event.Done)
	w.wantBegun(2)
	if got := w.text("second", "shout", "one.loud"); got != "ONE" {
		t.Errorf("%q", got)
	}
}

func TestAFailedJobIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout", "--mode", "fail", "--times", "2")
	w.sources("r", "one")
	w.wantDoneAfter(3)
}

func TestAJobThatKeepsFailingIsGivenUpWithItsCause(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout", "--mode", "fail", "--attempts", "3", "--only", "one")
	w.sources("r", "one")
	failed := w.outcomes("r", "shout", 1, event.Failed)[0]
	wantText(t, "cause", failed.Cause, "one failed for the 3. time")
	if failed.At == 0 || !digest.Valid(failed.Key) {
		t.Errorf("%+v", failed)
	}
	w.wantBegun(3)
	letters := w.deadLetters()
	if len(letters) != 1 {
		t.Fatalf("%d dead letters", len(letters))
	}
	if letters[0].Subject != "bitnet1.r.dead.shout.source.added" || letters[0].Header.Get(bus.HeaderStage) != "shout" {
		t.Errorf("letter on %s, %v", letters[0].Subject, letters[0].Header)
	}
	wantText(t, "letter", letters[0].Header.Get(bus.HeaderCause), "one failed for the 3. time")
	e, err := event.Decode(letters[0].Data)
	if err != nil || e.Kind != "source.added" || e.ID != failed.Input {
		t.Errorf("the letter holds %+v, %v", e, err)
	}
	// The stage goes on, and a later start of the run tries again.
	w.sources("r2", "two")
	w.outcomes("r2", "shout", 1, event.Done)
	w.clean()
}

func TestARefusedEventIsGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout", "--mode", "refuse")
	w.sources("r", "one")
	failed := w.outcomes("r", "shout", 1, event.Failed)[0]
	wantText(t, "cause", failed.Cause, "one is no good")
	w.wantBegun(1)
	if letters := w.deadLetters(); len(letters) != 1 {
		t.Errorf("%d dead letters", len(letters))
	}
}

func TestWhatFailsTheSameWayEachTimeIsTriedOnce(t *testing.T) {
	t.Parallel()
	failing := func(err error) error {
		return Deterministic(func(context.Context, *Job[testParams], event.SourceAdded) error { return err })(
			t.Context(), nil, event.SourceAdded{})
	}
	if err := failing(nil); err != nil {
		t.Errorf("no failure: %v", err)
	}
	if err := failing(errors.New("token 9 is outside the vocabulary")); !isPermanent(err) {
		t.Errorf("%v is tried again", err)
	}
	// These errors come from the process and its surroundings rather than from the job.
	if err := failing(lostDevice{}); !unfit(err) {
		t.Errorf("%v does not end the process", err)
	}
	if err := failing(bus.Unusable(errors.New("gone"))); !bus.IsUnusable(err) {
		t.Errorf("%v does not end the process", err)
	}
	if err := failing(syscall.ENOSPC); !artifact.Unwritable(err) {
		t.Errorf("%v does not wait for room", err)
	}
}

func TestAPanicIsAFailureOfItsJobAlone(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.serve("shout", "--mode", "panic", "--only", "one", "--attempts", "2")
	w.sources("r", "one", "two")
	for _, f := range w.answers("r", "shout", 2) {
		if f.Outcome == event.Failed {
			wantText(t, "cause", f.Cause, "panic in stage shout: confused by one")
		}
	}
	p.stop()
	wantText(t, "log", p.log(), "goroutine ")
}

func TestALongJobIsDoneOnceWhileItShowsSignsOfLife(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	first, second := w.serve("shout", "--mode", "wait"), w.serve("shout", "--mode", "wait")
	w.sources("r", "one")
	w.begun(1)
	time.Sleep(time.Second) // several times --ack-wait
	w.let()
	w.outcomes("r", "shout", 1, event.Done)
	first.stop()
	second.stop()
	w.wantBegun(1)
}

func TestTheDeadlineEndsAJob(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout", "--mode", "wait", "--deadline", "50ms", "--attempts", "2")
	w.sources("r", "one")
	failed := w.outcomes("r", "shout", 1, event.Failed)[0]
	wantText(t, "cause", failed.Cause, "took longer than --deadline 50ms")
	w.wantBegun(2)
}

func TestASignalEndsAStageInTheMiddleOfAJobAndAnotherContinues(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		w := newHarness(t)
		p := w.busy("shout", "--mode", "wait", "--attempts", "1")
		p.signal(signal)
		if status := p.status(); status != command.Done {
			t.Errorf("%v: status %d: %s", signal, status, p.log())
		}
		if tmp, err := os.ReadDir(filepath.Join(w.data, "tmp")); err != nil || len(tmp) > 0 {
			t.Errorf("%v: left %v, %v", signal, tmp, err)
		}
		w.let()
		next := w.serve("shout", "--mode", "wait", "--attempts", "1") // an interruption is no attempt
		w.outcomes("r", "shout", 1, event.Done)
		next.stop()
		w.clean()
	}
}

func TestAKilledWorkersJobIsTakenOver(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.busy("shout", "--mode", "wait")
	p.kill()
	w.let()
	next := w.serve("shout", "--mode", "wait")
	w.outcomes("r", "shout", 1, event.Done)
	next.stop()
	w.wantBegun(2)
	w.clean()
}

func TestAJobThatKillsItsProcessIsGivenUp(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.sources("r", "one", "two")
	deaths := 0
	for range 10 {
		p := w.serve("shout", "--mode", "die", "--only", "one", "--attempts", "2")
		w.eventually(func() bool {
			select {
			case <-p.exited:
				return true
			default:
				return len(w.history("r", "job.finished")) == 2
			}
		}, "a death or the answers")
		select {
		case <-p.exited:
			deaths++
			continue
		default:
		}
		break
	}
	var causes string
	for _, f := range w.answers("r", "shout", 2) {
		causes += f.Cause
	}
	wantText(t, "causes", causes, "was begun 2 times and got nowhere", "process died each time")
	if deaths != 2 {
		t.Errorf("%d deaths", deaths)
	}
}

// A process that has lost its device ends at once, and its successor does the job.
func TestALostDeviceEndsTheProcessAndAnotherContinues(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.sources("r", "one")
	p := w.serve("shout", "--mode", "lose", "--times", "1")
	if status := p.status(); status != command.Failed {
		t.Errorf("status %d", status)
	}
	wantText(t, "what it said", p.stderr.String(), "the device is lost")
	w.serve("shout", "--mode", "lose", "--times", "1")
	w.wantDoneAfter(2)
}

// The server delivers the event of a stalled worker to another worker. The stalled worker still holds the lock of the
// job's record, so the other one waits.
func TestAStalledWorkerIsFencedFromItsSuccessor(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	stalled := w.busy("shout", "--mode", "wait")
	stalled.signal(syscall.SIGSTOP)
	next := w.serve("shout", "--mode", "wait")
	w.eventuallyFenced(next)
	w.wantBegun(1)
	if n := len(w.history("r", "job.finished")); n != 0 {
		t.Errorf("%d answers while the job is being done", n)
	}
	stalled.kill()
	w.begun(2)
	w.let()
	w.outcomes("r", "shout", 1, event.Done)
	next.stop()
}

func TestAStalledWorkerThatWakesUpFinishesItsJobOnce(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	stalled := w.busy("shout", "--mode", "wait")
	stalled.signal(syscall.SIGSTOP)
	next := w.serve("shout", "--mode", "wait")
	w.eventuallyFenced(next)
	w.let()
	stalled.signal(syscall.SIGCONT)
	w.outcomes("r", "shout", 1, event.Done)
	stalled.stop()
	next.stop()
	w.wantBegun(1)
	if n := len(w.history("r", "tokens.written")); n != 1 {
		t.Errorf("%d outputs", n)
	}
}

// eventuallyFenced waits until the server has given the program a job that another one holds.
func (w *harness) eventuallyFenced(p *program) {
	w.t.Helper()
	w.eventually(func() bool { return strings.Contains(p.log(), "another process works on this job") }, "a fenced job")
}

// Workers are killed at random moments. Every event is answered once and with the same outputs, because a worker
// announces before it acknowledges.
func TestKillsAtRandomMomentsLoseNothingAndDoubleNothing(t *testing.T) {
	t.Parallel()
	const seed = 76
	rnd := rand.New(rand.NewPCG(seed, seed))
	w := newHarness(t)
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("source-%02d", i))
	}
	w.sources("r", names...)
	kills := 0
	for ; kills < 12; kills++ {
		p := w.serve("climb", "--workers", "2", "--attempts", "100")
		time.Sleep(time.Duration(40+rnd.IntN(120)) * time.Millisecond)
		p.kill()
	}
	p := w.serve("climb", "--workers", "2", "--attempts", "100")
	answers := w.outcomes("r", "climb", len(names), event.Done)
	p.stop()
	inputs := map[string]bool{}
	for _, a := range answers {
		inputs[a.Input] = true
	}
	if len(inputs) != len(names) {
		t.Errorf("%d of %d events are answered", len(inputs), len(names))
	}
	for _, kind := range []string{"tokens.written", "dataset.sealed"} {
		want := len(names)
		if kind == "tokens.written" {
			want *= 3
		}
		kept, err := w.journal().Read("r", kind)
		if announced := w.history("r", kind); err != nil || len(kept) != len(announced) || kind == "tokens.written" &&
			len(kept) != want {
			t.Errorf("%s: %d in the journal, %d announced, want %d (%v)", kind, len(kept), len(announced), want, err)
		}
	}
	for _, name := range names {
		if got := w.text("r", "climb", name+".step3"); got != "xxx" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := artifact.Open(w.data); err != nil { // sweeps, as the next program does
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(w.data, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	w.clean()
}

func TestWorkersShareTheWork(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*harness) []*program{
		"in one process": func(w *harness) []*program {
			return []*program{w.serve("shout", "--mode", "wait", "--workers", "2")}
		},
		"in two processes": func(w *harness) []*program {
			return []*program{w.serve("shout", "--mode", "wait"), w.serve("shout", "--mode", "wait")}
		},
	} {
		w := newHarness(t)
		programs := start(w)
		w.sources("r", "one", "two")
		w.begun(2) // both, while neither can end
		w.let()
		w.outcomes("r", "shout", 2, event.Done)
		for _, p := range programs {
			p.stop()
		}
		if len(w.traced("begin")) != 2 {
			t.Errorf("%s: %v", name, w.traced(""))
		}
	}
}

func TestAStageSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	operators := operatorsServer(t, dir, server.RANDOM_PORT)
	w := newHarnessAt(t, bus.Address{URL: operators.ClientURL(), User: "operator", Password: "secret"})
	p := w.busy("shout", "--mode", "wait")
	operators.Shutdown()
	operators.WaitForShutdown()
	operatorsServer(t, dir, w.port())
	w.let()
	w.outcomes("r", "shout", 1, event.Done)
	w.sources("r2", "two")
	w.outcomes("r2", "shout", 1, event.Done)
	p.stop()
	w.wantBegun(2)
}

// operatorsServer is a nats-server that an operator runs: it has its own password and default settings.
func operatorsServer(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s := startServer(t, dir, port)
	t.Cleanup(func() { stopServer(s) })
	return s
}

func stopServer(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// startServer is operatorsServer that leaves it to the caller to stop the server.
func startServer(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, Username: "operator", Password: "secret", NoSigs: true,
		NoLog: true, SyncAlways: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(processtest.Patience) {
		t.Fatal("the server does not start")
	}
	return s
}

func TestAStageEndsWhenTheServerRefusesItsCredentials(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.serve("shout")
	w.sources("r", "one")
	w.outcomes("r", "shout", 1, event.Done)
	port := w.port()
	w.server.Stop()
	other, err := bus.StartServer(t.TempDir(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Stop()
	if status := p.status(); status != command.Failed {
		t.Errorf("status %d", status)
	}
	wantText(t, "log", p.log(), "ended the connection", "Authorization")
}

func TestMessagesThatAreNoEventsAreBuried(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout")
	conn, _ := w.raw()
	elsewhere := newEvent(t, "other", "test", event.SourceAdded{Name: "x"})
	misplaced, err := elsewhere.Encode()
	if err != nil {
		t.Fatal(err)
	}
	hostile := [][]byte{{}, []byte("hello"), {0xdd, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x91}, 100_000),
		misplaced}
	for _, data := range hostile {
		if _, err := conn.Request("bitnet1.r.source.added", data, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	w.sources("r", "one")
	w.outcomes("r", "shout", 1, event.Done)
	letters := w.deadLetters()
	if len(letters) != len(hostile) {
		t.Fatalf("%d dead letters, want %d", len(letters), len(hostile))
	}
	for i, letter := range letters {
		if !bytes.Equal(letter.Data, hostile[i]) || letter.Header.Get(bus.HeaderCause) == "" {
			t.Errorf("letter %d: %d bytes, cause %q", i, len(letter.Data), letter.Header.Get(bus.HeaderCause))
		}
	}
}

func TestBodiesOfTheWrongShapeAreRefused(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.serve("shout")
	raw, err := event.Marshal(map[string]any{"name": []int{1, 2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Wrap("r", "test", "", event.Part{}, "source.added", raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.bus.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	failed := w.outcomes("r", "shout", 1, event.Failed)[0]
	wantText(t, "cause", failed.Cause, "body of source.added")
	w.wantBegun(0)
}

func TestGatherWaitsForAllPartsAndTakesThemInOrder(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	shouter, collector := w.serve("shout", "--workers", "2"), w.serve("collect")
	w.sources("r", "one", "two", "three")
	answers := w.answers("r", "collect", 3)
	outcomes := map[string]int{}
	for _, a := range answers {
		outcomes[a.Outcome]++
	}
	if outcomes[event.Done] < 1 || outcomes[event.Done]+outcomes[event.Waiting] != 3 {
		t.Errorf("outcomes %v", outcomes)
	}
	if got := w.text("r", "collect", "all.txt"); got != "ONE TWO THREE " {
		t.Errorf("%q", got)
	}
	if n := len(w.history("r", "dataset.sealed")); n != 1 {
		t.Errorf("%d results", n)
	}
	shouter.stop()
	collector.stop()
	if n := len(w.traced("begin all")); n != 1 {
		t.Errorf("gathered %d times", n)
	}
	w.clean()
}

// The parts are announced on the bus alone, and stand in no journal.
func TestGatherNeedsNoJournalOfOthers(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	ref := w.store("HELLO")
	w.serve("collect")
	for _, index := range []int{1, 0} {
		e, err := event.New("r", "foreign", "", event.Part{Index: index, Count: 2},
			event.TokensWritten{Source: fmt.Sprint(index), Batch: ref})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.bus.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	w.answers("r", "collect", 2)
	if got := w.text("r", "collect", "all.txt"); got != "HELLO HELLO " {
		t.Errorf("%q", got)
	}
	if kept, err := w.journal().Read("r", "tokens.written"); err != nil || len(kept) != 2 {
		t.Errorf("journal: %v, %v", kept, err)
	}
}

// A set whose job is done is gathered again when one of its parts was made anew, and by no event twice.
func TestGatherAnswersWhatWasMadeAnew(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.serve("collect")
	part := func(index int, text string) {
		w.announce("r", event.Part{Index: index, Count: 2},
			event.TokensWritten{Source: fmt.Sprint(index), Batch: w.store(text)})
	}
	part(0, "ONE")
	part(1, "TWO")
	w.answers("r", "collect", 2)
	time.Sleep(2 * time.Millisecond) // later than the first one, by the events' clock
	part(0, "NEW")
	w.answers("r", "collect", 3)
	if got := w.text("r", "collect", "all.txt"); got != "NEW TWO " {
		t.Errorf("%q", got)
	}
	part(1, "TWO")
	p.stop()
	if n := len(w.traced("begin all")); n != 2 {
		t.Errorf("gathered %d times, want 2", n)
	}
}

func TestGatherTakesAnEventWithoutAPartAsASetOfItsOwn(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	ref := w.store("ALONE")
	w.serve("collect")
	w.announce("r", event.Part{}, event.TokensWritten{Source: "x", Batch: ref})
	w.outcomes("r", "collect", 1, event.Done)
	if got := w.text("r", "collect", "all.txt"); got != "ALONE " {
		t.Errorf("%q", got)
	}
}

func TestGatherAllocatesNothingForWhatAnEventClaims(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.serve("collect")
	ref := w.store("X")
	w.announce("r", event.Part{Index: 1 << 61, Count: 1 << 62}, event.TokensWritten{Source: "x", Batch: ref})
	w.outcomes("r", "collect", 1, event.Waiting)
	p.stop()
}

func TestArtifactsThatAreDamagedOrMissingAreRefused(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"missing": os.Remove,
		"flipped": func(path string) error {
			if err := os.Chmod(path, 0o644); err != nil {
				return err
			}
			return os.WriteFile(path, []byte("HELLP"), 0o644)
		},
	} {
		w := newHarness(t)
		ref := w.store("HELLO")
		if err := damage(filepath.Join(w.data, "objects", ref.Digest[:2], ref.Digest)); err != nil {
			t.Fatal(err)
		}
		w.serve("collect")
		w.announce("r", event.Part{}, event.TokensWritten{Source: "x", Batch: ref})
		failed := w.outcomes("r", "collect", 1, event.Failed)[0]
		wantText(t, name, failed.Cause, "text hello", "--force")
		if len(w.traced("begin")) != 1 {
			t.Errorf("%s: tried %d times", name, len(w.traced("begin")))
		}
	}
}

// The parameters and the artifacts of a run are in its own data directory.
func TestAStageWithTheWrongDataDirectoryEndsAndNamesBoth(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	definition := w.store("{}")
	w.announce("r", event.Part{}, event.RunStarted{Definition: definition, Data: "elsewhere:/there"})
	w.sources("r", "one")
	right := w.data
	w.data = filepath.Join(t.TempDir(), "wrong")
	p := w.serve("shout")
	if status := p.status(); status != command.Failed {
		t.Errorf("status %d", status)
	}
	wantText(t, "log", p.log(), "elsewhere:/there", artifact.DirectoryName(w.data), "--data")
	w.wantBegun(0)
	if n := len(w.history("r", "job.finished")); n != 0 {
		t.Errorf("%d answers", n)
	}
	w.data = right
	w.serve("shout")
	w.outcomes("r", "shout", 1, event.Done)
}

func TestAnAnswerThatIsTooLargeForTheServerEndsTheStage(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.serve("shout")
	w.eventuallyServing(p)
	_, js := w.raw()
	stream, err := js.Stream(t.Context(), bus.EventStream)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	w.sources("r", "one")
	w.outcomes("r", "shout", 1, event.Done)
	w.sources("r2", "two") // takes its place before the stream becomes small
	w.outcomes("r2", "shout", 1, event.Done)
	config.MaxMsgSize = 500
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	small := newEvent(t, "r3", "t", event.SourceAdded{Name: strings.Repeat("n", 100)})
	if err := w.bus.Publish(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	if status := p.status(); status != command.Unusable {
		t.Errorf("status %d, want %d", status, command.Unusable)
	}
	wantText(t, "log", p.log(), "larger than the event server takes", "max_payload")
}

func TestAStageOfALauncherEndsWithIt(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	cmd := w.serveCommand("shout", "--mode", "wait")
	cmd.Env = append(cmd.Env, command.EnvLauncher+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := w.start(cmd)
	w.sources("r", "one")
	w.begun(1)
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if status := p.status(); status != command.Done {
		t.Errorf("status %d", status)
	}
	for line := range strings.Lines(p.log()) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("a launcher gets JSON lines, not %q", line)
		}
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.busy("shout", "--mode", "stay")
	p.signal(syscall.SIGTERM)
	p.signal(os.Interrupt) // two of one kind may arrive as one
	if status := p.status(); status != command.Failed {
		t.Errorf("status %d", status)
	}
}

func TestFromNowLeavesOldEventsAlone(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.sources("old", "one")
	w.eventuallyServing(w.serve("shout", "--from", "now"))
	w.sources("new", "two")
	w.outcomes("new", "shout", 1, event.Done)
	if n := len(w.history("old", "job.finished")); n != 0 {
		t.Errorf("%d answers in the old run", n)
	}
}

func TestMetricsCountWhatHappens(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	busy := w.serve("shout", "--metrics", address)
	if status := busy.status(); status != command.Failed {
		t.Errorf("status %d", status)
	}
	wantText(t, "log", busy.log(), "--metrics "+address)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := w.serve("shout", "--metrics", address, "--mode", "fail", "--only", "one", "--attempts", "2")
	conn, _ := w.raw()
	if _, err := conn.Request("bitnet1.r.source.added", []byte("no event"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	w.sources("r", "one", "two")
	w.answers("r", "shout", 2)
	var text string
	w.eventually(func() bool {
		response, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
		return strings.Contains(text, `bitnet1_deliveries_total{stage="shout"} 4`)
	}, "metrics")
	http.DefaultClient.CloseIdleConnections()
	wantText(t, "metrics", text, `bitnet1_jobs_total{outcome="done",stage="shout"} 1`,
		`bitnet1_jobs_total{outcome="retried",stage="shout"} 1`, `bitnet1_jobs_total{outcome="failed",stage="shout"} 2`)
	p.stop()
}

// store puts a text into the store, as some other stage would.
func (w *harness) store(text string) artifact.Ref {
	w.t.Helper()
	store, err := artifact.Open(w.data)
	if err != nil {
		w.t.Fatal(err)
	}
	ref, err := artifact.Put(store, "text", "text/plain", strings.ToLower(text), []byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	return ref
}

// eventuallyServing waits until the program has its consumer.
func (w *harness) eventuallyServing(p *program) {
	w.t.Helper()
	w.eventually(func() bool { return strings.Contains(p.log(), "msg=serving") }, "a serving stage")
}

func (w *harness) port() int {
	w.t.Helper()
	var port int
	if _, err := fmt.Sscanf(w.address.URL, "nats://127.0.0.1:%d", &port); err != nil {
		w.t.Fatal(err)
	}
	return port
}
