package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/event"
)

// prober and trainer are the users of two stages of the run r.
var (
	prober  = StageUser("probe", "checkpoint.saved", []string{"probe.written"}, "r")
	trainer = StageUser("train", "dataset.sealed", []string{"checkpoint.saved"}, "r")
)

// guarded is a server with users, its streams and the consumers of both stages, as a launcher leaves them.
func guarded(t *testing.T) (*Server, *Bus) {
	t.Helper()
	s, err := StartServer(t.TempDir(), 0, prober, trainer, Viewer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	b := connect(t, s)
	listen(t, b, Listener{Stage: "probe", Run: "r", Kind: "checkpoint.saved"})
	listen(t, b, Listener{Stage: "train", Run: "r", Kind: "dataset.sealed"})
	return s, b
}

func saved(t *testing.T, run string, step int) event.Envelope {
	t.Helper()
	e, err := event.New(run, "train", "", event.Part{}, event.CheckpointSaved{Step: step})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func probed(t *testing.T, run string) event.Envelope {
	t.Helper()
	e, err := event.New(run, "probe", "", event.Part{}, event.ProbeWritten{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// as connects as a user, and gives up soon what the server does not answer.
func as(t *testing.T, s *Server, user string) *Bus {
	t.Helper()
	b, err := Connect(t.Context(), s.AddressOf(user), user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestAStagesUserMayDoAStagesWork(t *testing.T) {
	t.Parallel()
	s, b := guarded(t)
	var heard []Progress
	var mu sync.Mutex
	if err := as(t, s, ViewerName).Watch(t.Context(), "r", func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, p)
	}); err != nil {
		t.Fatal(err)
	}
	publish(t, b, saved(t, "r", 1), saved(t, "r", 2))

	stage := as(t, s, "probe")
	q := listen(t, stage, Listener{Stage: "probe", Run: "r", Kind: "checkpoint.saved"})
	for range 2 {
		d := next(t, q)
		if err := d.InProgress(); err != nil {
			t.Error(err)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	publish(t, stage, probed(t, "r"))
	garbage := &Delivery{Subject: "bitnet1.r.checkpoint.saved", Data: []byte("no event")}
	if err := stage.Bury(t.Context(), "probe", garbage, "for a test"); err != nil {
		t.Error(err)
	}
	events, last, err := stage.Since(t.Context(), "r", "checkpoint.saved", 1)
	if err != nil || len(events) != 1 || last != 2 {
		t.Errorf("read %d events up to %d: %v", len(events), last, err)
	}
	stage.Report("r", Progress{Stage: "probe", Job: "j"})
	processtest.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(heard) == 1
	}, "the report in the view")
	// A stage of its own consumer gone makes it anew.
	if err := b.Forget(t.Context(), Listener{Stage: "probe", Run: "r", Kind: "checkpoint.saved"}); err != nil {
		t.Fatal(err)
	}
	listen(t, stage, Listener{Stage: "probe", Run: "r", Kind: "checkpoint.saved"})
}

func TestNobodyComesInWithoutAKey(t *testing.T) {
	t.Parallel()
	s, _ := guarded(t)
	other := t.TempDir()
	if _, err := WriteKey(other, "probe"); err != nil {
		t.Fatal(err)
	}
	url := s.Address().URL
	for name, a := range map[string]Address{
		"nothing":                    {URL: url},
		"a key of another server":    {URL: url, NKey: filepath.Join(other, "probe.nk")},
		"a user without a password":  {URL: url, User: own},
		"a stage's name as the user": {URL: url, User: "probe", Password: "probe"},
		"a token":                    {URL: url, Token: s.passwords[own]},
		"an unknown user":            s.AddressOf("stranger"),
	} {
		b, err := Connect(t.Context(), a, "test")
		if err == nil {
			b.Close()
			t.Errorf("with %s: connected", name)
		} else if !strings.Contains(err.Error(), "refused the credentials") {
			t.Errorf("with %s: %v", name, err)
		}
	}
	if host, _, _ := strings.Cut(strings.TrimPrefix(url, "nats://"), ":"); host != "127.0.0.1" {
		t.Errorf("the server listens on %s", host)
	}
}

func TestKeysAreForTheirOwnerAlone(t *testing.T) {
	t.Parallel()
	s, _ := guarded(t)
	for path, want := range map[string]os.FileMode{s.keyDir(): 0o700, s.AddressOf("probe").NKey: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, info.Mode(), want, err)
		}
	}
	for _, variable := range s.AddressOf("probe").Environ() {
		seed, err := os.ReadFile(s.AddressOf("probe").NKey)
		if err != nil || strings.Contains(variable, strings.TrimSpace(string(seed))) {
			t.Errorf("the key is in the environment: %v", err)
		}
	}
}

// The file of a key that is damaged is named, and another key is made once the file is removed, as the message says.
func TestADamagedKeyIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	first, err := WriteKey(dir, "train")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "train"+keyEnding)
	if err := os.WriteFile(path, []byte("SUA"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteKey(dir, "train"); err == nil || !strings.Contains(err.Error(), path) ||
		!strings.Contains(err.Error(), "remove it, and a new one is made") {
		t.Errorf("a damaged key: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if second, err := WriteKey(dir, "train"); err != nil || second == first {
		t.Errorf("%s after %s, %v", second, first, err)
	}
}

// TestAStagesKeyOpensNoOtherDoor tries, with the key of probe, what other stages and launchers do.
func TestAStagesKeyOpensNoOtherDoor(t *testing.T) {
	t.Parallel()
	s, b := guarded(t)
	publish(t, b, saved(t, "r", 1))
	for name, do := range map[string]func(ctx context.Context, stage *Bus) error{
		"announce a checkpoint": func(ctx context.Context, stage *Bus) error { return stage.Publish(ctx, saved(t, "r", 2)) },
		"announce in another run": func(ctx context.Context, stage *Bus) error {
			return stage.Publish(ctx, probed(t, "s"))
		},
		"bury for train": func(ctx context.Context, stage *Bus) error {
			return stage.Bury(ctx, "train", &Delivery{Subject: "bitnet1.r.dataset.sealed"}, "")
		},
		"read with a consumer": func(ctx context.Context, stage *Bus) error {
			_, _, err := stage.History(ctx, "r", "*.*", 0)
			return err
		},
		"listen as train":             listens("train", "r", "dataset.sealed"),
		"listen in another run":       listens("probe", "s", "checkpoint.saved"),
		"listen for every run":        listens("probe", "*", "checkpoint.saved"),
		"listen to what it announces": relistens(t.Context(), b, "probe.written"),
		"remove the consumer of train": func(ctx context.Context, stage *Bus) error {
			return stage.Forget(ctx, Listener{Stage: "train", Run: "r"})
		},
		"remove every consumer": func(ctx context.Context, stage *Bus) error { return stage.ForgetAll(ctx) },
		"remove a run":          func(ctx context.Context, stage *Bus) error { return stage.ForgetRun(ctx, "r") },
		"remove the events": func(ctx context.Context, stage *Bus) error {
			return stage.js.DeleteStream(ctx, EventStream)
		},
		"change the stream": func(ctx context.Context, stage *Bus) error {
			_, err := stage.js.UpdateStream(ctx, streams()[0])
			return err
		},
		"make a stream": func(ctx context.Context, stage *Bus) error {
			_, err := stage.js.CreateStream(ctx, jetstream.StreamConfig{Name: "X", Subjects: []string{"x"}})
			return err
		},
	} {
		stage := as(t, s, "probe")
		stage.js = impatient(t, stage)
		processtest.Eventually(t, func() bool { // a busy machine may let the time end before the server is asked
			ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
			defer cancel()
			err := do(ctx, stage)
			if err == nil {
				t.Fatalf("probe can %s", name)
			}
			return errors.Is(err, ErrDenied) || stage.denied.Load() != nil
		}, "the server's refusal to let probe %s", name)
	}
	events, _, err := b.History(t.Context(), "r", "*.*", 0)
	if err != nil || len(events) != 1 {
		t.Errorf("%d events: %v", len(events), err)
	}
}

// impatient is the JetStream of b, which waits for answers for a short while.
func impatient(t *testing.T, b *Bus) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(b.conn, jetstream.WithDefaultTimeout(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func listens(stage, run, kind string) func(context.Context, *Bus) error {
	return func(ctx context.Context, b *Bus) error {
		_, err := b.Listen(ctx, Listener{Stage: stage, Run: run, Kind: kind})
		return err
	}
}

// relistens is listens for the consumer that probe has, with another kind of events.
func relistens(ctx context.Context, launcher *Bus, kind string) func(context.Context, *Bus) error {
	err := launcher.Forget(ctx, Listener{Stage: "probe", Run: "r", Kind: "checkpoint.saved"})
	return func(ctx context.Context, b *Bus) error {
		if err != nil {
			return err // which is no refusal
		}
		return listens("probe", "r", kind)(ctx, b)
	}
}

// TestAStageCannotListenInOrForge asks, with the key of probe, for all that probe may ask for, with the answer sent to
// the subject of another stage: the server does not check where an answer goes. No answer is an event.
func TestAStageCannotListenInOrForge(t *testing.T) {
	t.Parallel()
	s, b := guarded(t)
	publish(t, b, saved(t, "r", 1))
	stage := as(t, s, "probe")
	forged, err := saved(t, "r", 2).Encode()
	if err != nil {
		t.Fatal(err)
	}
	direct := streams()[0]
	direct.AllowDirect = true // as the owner of a stream may have it
	if _, err := b.js.UpdateStream(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	const target = "bitnet1.r.checkpoint.saved"
	// The bytes of the forged event are kept on a subject of probe's own, to be fetched from there.
	send(t, stage, "bitnet1.r.probe.written", "", forged)
	asks := [][]byte{nil, []byte(`{}`), forged, []byte(`{"seq":1,"next_by_subj":"bitnet1.r.probe.written"}`),
		[]byte(`{"last_by_subj":"bitnet1.r.probe.written"}`), []byte(`{"batch":9,"no_wait":true}`), []byte("+TERM"),
		consumerOf("bitnet1.r.probe.written", ""), consumerOf("bitnet1.r.probe.written", target)}
	subjects := append(slices.Clone(prober.Publish), "$JS.API.DIRECT.GET."+EventStream,
		"$JS.API.CONSUMER.DURABLE.CREATE."+EventStream+".probe--r", "$JS.API.CONSUMER.CREATE."+EventStream)
	for _, subject := range append(subjects, subjects...) { // what one makes possible another may use
		subject = strings.NewReplacer(".>", ".1.1.1.1.1", "*", "x").Replace(subject)
		for _, ask := range asks {
			send(t, stage, subject, target, ask)
		}
	}
	settle(t, b)
	events, _, err := b.History(t.Context(), "r", "checkpoint.saved", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if body, err := event.Into[event.CheckpointSaved](e.Envelope); err != nil || body.Step != 1 {
			t.Errorf("forged: %+v %v", body, err)
		}
	}
	everything, err := stage.conn.SubscribeSync("bitnet1.>")
	if err != nil {
		t.Fatal(err)
	}
	flush(t, stage.conn)
	publish(t, b, saved(t, "r", 3))
	flush(t, stage.conn)
	if n, _, err := everything.Pending(); n != 0 {
		t.Errorf("it hears %d events without asking for them (%v)", n, err)
	}
}

// settle waits until the server has kept what it was sent.
func settle(t *testing.T, b *Bus) {
	t.Helper()
	for before, now := uint64(0), uint64(1); before != now; time.Sleep(200 * time.Millisecond) {
		before = now
		stream, err := b.js.Stream(t.Context(), EventStream)
		if err != nil {
			t.Fatal(err)
		}
		now = stream.CachedInfo().State.LastSeq
	}
}

// consumerOf asks for the consumer of probe, for other events than those that probe answers.
func consumerOf(filter, deliver string) []byte {
	return fmt.Appendf(nil, `{"stream_name": %q, "config": {"name": "probe--r", "durable_name": "probe--r", `+
		`"filter_subject": %q, "deliver_subject": %q, "ack_policy": "explicit", "ack_wait": 10000000000, "max_deliver": -1, `+
		`"max_ack_pending": 1000}}`, EventStream, filter, deliver)
}

func send(t *testing.T, b *Bus, subject, reply string, data []byte) {
	t.Helper()
	if err := b.conn.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: data}); err != nil {
		t.Fatal(err)
	}
	flush(t, b.conn)
}

func flush(t *testing.T, conn *nats.Conn) {
	t.Helper()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestADeniedStageSaysWhatToDo(t *testing.T) {
	t.Parallel()
	s, _ := guarded(t)
	stage := as(t, s, "probe")
	stage.js = impatient(t, stage)
	err := stage.Publish(t.Context(), saved(t, "r", 2))
	if !IsUnusable(err) {
		t.Errorf("%v is not of a process that is of no use", err)
	}
	for _, want := range []string{"does not let this user", "bitnet1.r.checkpoint.saved", "pipeline users"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
}

func TestUsersByPassword(t *testing.T) {
	t.Parallel()
	u := StageUser("probe", "checkpoint.saved", nil, "r")
	u.ByPassword = true
	s, err := StartServer(t.TempDir(), 0, u)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	launcher := connect(t, s)
	a := s.AddressOf("probe")
	if a.NKey != "" || a.User != "probe" || a.Password == "" || a.Password == launcher.conn.Opts.Password {
		t.Errorf("%+v", a)
	}
	b := as(t, s, "probe")
	publish(t, b, saved(t, "r", 1)) // it does not say what it announces, so it may announce anything
	b.js = impatient(t, b)
	if err := b.Publish(t.Context(), saved(t, "s", 1)); err == nil {
		t.Error("it announces in another run")
	}
	restart(t, s)
	publish(t, b, saved(t, "r", 2))
}

func TestAddressesOfOtherUsers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, user := range []string{LauncherName, "train"} {
		if _, err := WriteKey(dir, user); err != nil {
			t.Fatal(err)
		}
	}
	launcher := Address{URL: "nats://h", NKey: filepath.Join(dir, "launcher.nk")}
	if got := launcher.For("train").NKey; got != filepath.Join(dir, "train.nk") {
		t.Errorf("train has the key %s", got)
	}
	if got := launcher.For("probe").NKey; got != launcher.NKey {
		t.Errorf("probe, which has no key of its own, has %s", got)
	}
	byPassword := Address{URL: "nats://h", User: "u", Password: "p"}
	if got := byPassword.For("train"); got != byPassword {
		t.Errorf("%+v", got)
	}
}
