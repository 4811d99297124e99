package bus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/bus/bustest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/progress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts an event server for the length of the test.
func serve(t *testing.T) *Server {
	t.Helper()
	s, err := StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	return s
}

// restart stops s and starts it again on the same port, for the same users and with the same streams.
func restart(t *testing.T, s *Server) {
	t.Helper()
	s.Stop()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, s *Server) *Bus {
	t.Helper()
	b, err := Connect(t.Context(), s.Address(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func packed(t *testing.T, run string, step int) event.Envelope {
	t.Helper()
	e, err := event.New(run, "pack", "", event.Part{}, event.PackWritten{Step: step})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func publish(t *testing.T, b *Bus, events ...event.Envelope) {
	t.Helper()
	for _, e := range events {
		if err := b.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// next waits for a delivery.
func next(t *testing.T, q *Queue) (d *Delivery) {
	t.Helper()
	processtest.Eventually(t, func() bool {
		var err error
		if d, err = q.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		return d != nil
	}, "an event")
	return d
}

// wantAnswered waits until a listener has nothing left to answer.
func wantAnswered(t *testing.T, b *Bus, l Listener) {
	t.Helper()
	processtest.Eventually(t, func() bool {
		n, err := b.Unanswered(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		return n == 0
	}, "the end of the last event")
}

func listen(t *testing.T, b *Bus, l Listener) *Queue {
	t.Helper()
	q, err := b.Listen(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func stepOf(t *testing.T, d *Delivery) int {
	t.Helper()
	e, err := event.Decode(d.Data)
	if err != nil {
		t.Fatal(err)
	}
	p, err := event.Into[event.PackWritten](e)
	if err != nil {
		t.Fatal(err)
	}
	return p.Step
}

// listener waits for signs of life for longer than a busy machine lets a test stand still.
var listener = Listener{Stage: "tester", Run: "*", Kind: "pack.written", AckWait: time.Hour}

func TestStreamsAreMadeOnceAndKeepWhatTheyHave(t *testing.T) {
	s := serve(t)
	publish(t, connect(t, s), packed(t, "r", 1))
	for range 3 {
		b := connect(t, s)
		for _, want := range streams() {
			stream, err := b.js.Stream(t.Context(), want.Name)
			if err != nil {
				t.Fatal(err)
			}
			got := stream.CachedInfo().Config
			if got.Retention != jetstream.LimitsPolicy || got.Storage != jetstream.FileStorage ||
				got.MaxMsgSize != want.MaxMsgSize {
				t.Errorf("%s: %+v", want.Name, got)
			}
		}
		if events, _, err := b.History(t.Context(), "r", "*.*", 0); err != nil || len(events) != 1 {
			t.Errorf("%v, %v", events, err)
		}
	}
}

func TestManyProcessesMayConnectAtOnceToANewServer(t *testing.T) {
	s := serve(t)
	errs := make(chan error)
	for range 8 {
		go func() {
			b, err := Connect(t.Context(), s.Address(), "test")
			if err == nil {
				_, err = b.Listen(t.Context(), listener)
				b.Close()
			}
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestEventsSurviveARestartOfTheServer(t *testing.T) {
	s := serve(t)
	b := connect(t, s)
	publish(t, b, packed(t, "r", 1), packed(t, "r", 2))
	q := listen(t, b, listener)
	if err := next(t, q).Ack(t.Context()); err != nil {
		t.Fatal(err)
	}

	restart(t, s)

	// The connection comes back by itself, and the consumer is where it was.
	publish(t, b, packed(t, "r", 3))
	for want := 2; want <= 3; want++ {
		d := next(t, q)
		if got := stepOf(t, d); got != want {
			t.Errorf("step %d, want %d", got, want)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	events, bad, err := connect(t, s).History(t.Context(), "r", "*.*", 0)
	if err != nil || bad != 0 || len(events) != 3 {
		t.Errorf("%d events, %d bad, %v", len(events), bad, err)
	}
}

func TestTheSameEventIsAnnouncedOnce(t *testing.T) {
	b := connect(t, serve(t))
	e := packed(t, "r", 1)
	publish(t, b, e, e, packed(t, "r", 2))
	e.Time++
	publish(t, b, e)
	if events, _, err := b.History(t.Context(), "r", "pack.written", 0); err != nil || len(events) != 2 {
		t.Errorf("%d events, %v", len(events), err)
	}
}

func TestLargestEventPasses(t *testing.T) {
	b := connect(t, serve(t))
	body := func(n int) event.Envelope {
		e, err := event.New("r", "s", "", event.Part{}, event.SourceAdded{Path: strings.Repeat("x", n)})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	small, err := body(100_000).Encode()
	if err != nil {
		t.Fatal(err)
	}
	largest := body(event.MaxSize - (len(small) - 100_000))
	encoded, err := largest.Encode()
	if err != nil || len(encoded) != event.MaxSize {
		t.Fatalf("%d bytes, %v", len(encoded), err)
	}
	publish(t, b, largest)
	if err := b.Bury(t.Context(), "stage", &Delivery{Subject: largest.Subject(), Data: encoded},
		strings.Repeat("because ", 10_000)); err != nil {
		t.Errorf("as a dead letter: %v", err)
	}
	if err := b.Publish(t.Context(), body(event.MaxSize)); err == nil || !strings.Contains(err.Error(), "artifact") {
		t.Errorf("larger: %v", err)
	}
}

func TestHistoryIsOfOneRunAndKindAndContinues(t *testing.T) {
	b := connect(t, serve(t))
	started, err := event.New("r", "launcher", "", event.Part{}, event.RunStarted{})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, started, packed(t, "other", 1))
	for step := range 600 { // more than one fetch
		publish(t, b, packed(t, "r", step))
	}
	if _, err := b.conn.Request("bitnet1.r.pack.written", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, apiWait); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[[2]string]int{
		{"r", "*.*"}: 601, {"r", "pack.written"}: 600, {"r", "pack.*"}: 600, {"*", "*.*"}: 602, {"*", "run.started"}: 1,
		{"absent", "*.*"}: 0,
	} {
		events, _, err := b.History(t.Context(), pattern[0], pattern[1], 0)
		if err != nil || len(events) != want {
			t.Errorf("%v: %d events, want %d (%v)", pattern, len(events), want, err)
		}
	}
	events, bad, err := b.History(t.Context(), "r", "pack.written", 0)
	if err != nil || bad != 1 {
		t.Fatalf("%d bad, want the one that is no event (%v)", bad, err)
	}
	rest, _, err := b.History(t.Context(), "r", "pack.written", events[597].Sequence)
	if err != nil || len(rest) != 2 || rest[0].Sequence != events[598].Sequence {
		t.Errorf("%d after the 598th, %v", len(rest), err)
	}
}

// deaf is a connection to a server, nothing of which reaches the server from the first text on.
func deaf(t *testing.T, s *Server, text string) *Bus {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(s.nats.ClientURL(), "nats://"))
			if err != nil {
				return
			}
			t.Cleanup(func() { client.Close(); server.Close() })
			go io.Copy(client, server)
			go func() {
				chunk := make([]byte, 64<<10)
				for {
					n, err := client.Read(chunk)
					if err != nil || bytes.Contains(chunk[:n], []byte(text)) {
						return
					}
					server.Write(chunk[:n])
				}
			}()
		}
	}()
	a := s.Address()
	a.URL = "nats://" + l.Addr().String()
	b, err := Connect(t.Context(), a, "deaf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestHistoryEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := serve(t)
	publish(t, connect(t, s), packed(t, "r", 1))
	b := deaf(t, s, "CONSUMER.MSG.NEXT")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := b.History(ctx, "r", "*.*", 0)
		ended <- err
	}()
	time.Sleep(100 * time.Millisecond) // it waits for an event
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it went on after its context had ended, or took that for no error: %v", err)
	}
}

func TestAnIdleWorkersRequestStaysAtTheServer(t *testing.T) {
	t.Parallel()
	b := connect(t, serve(t))
	q := listen(t, b, listener)
	for range 3 { // a machine that lets the test stand still for long ends the request
		if requestStays(t, q, 3*time.Second) {
			return
		}
	}
	t.Error("no request: an event that is announced now has to wait for one")
}

// requestStays reports whether the request of a worker that waits stays at the server for so long.
func requestStays(t *testing.T, q *Queue, long time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	waits := make(chan struct{})
	defer func() { cancel(); <-waits }()
	go func() {
		defer close(waits)
		if d, err := q.Next(ctx); d != nil || err != nil {
			t.Errorf("came: %v, %v", d, err)
		}
	}()
	for asked := false; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		info, err := q.consumer.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if asked && info.NumWaiting == 0 && ctx.Err() == nil {
			return false
		}
		asked = info.NumWaiting > 0
	}
	return true
}

func TestFollowersSeeWhatWasAndWhatComes(t *testing.T) {
	s := serve(t)
	b := connect(t, s)
	publish(t, b, packed(t, "r", 0), packed(t, "other", 9))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan int, 100)
	err := b.Follow(ctx, "r", func(k Kept) {
		if p, err := event.Into[event.PackWritten](k.Envelope); err == nil {
			seen <- p.Step
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, packed(t, "r", 1))
	for want := range 2 {
		if got := <-seen; got != want {
			t.Errorf("step %d, want %d", got, want)
		}
	}
	restart(t, s)
	publish(t, b, packed(t, "r", 2))
	if got := <-seen; got != 2 {
		t.Errorf("after a restart: step %d, want 2", got)
	}
}

func TestProgressIsSeenAndNotKept(t *testing.T) {
	b := connect(t, serve(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan Progress, 10)
	if err := b.Watch(ctx, "r", func(p Progress) { seen <- p }); err != nil {
		t.Fatal(err)
	}
	if err := b.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	nan := 0.0
	nan /= nan
	b.Report("other", Progress{Stage: "train"})
	b.Report("r",
		Progress{Stage: "train", Job: "j",
			Report: progress.Report{Done: 3, Total: 9, Unit: "steps", Values: map[string]float64{"loss": nan}}})
	// Progress with a loss of NaN is still delivered: it is the progress that matters most.
	if p := <-seen; p.Stage != "train" || p.Done != 3 || p.Values["loss"] == p.Values["loss"] {
		t.Errorf("%+v", p)
	}
	if events, _, err := b.History(t.Context(), "*", "*.*", 0); err != nil || len(events) != 0 {
		t.Errorf("kept: %v, %v", events, err)
	}
}

func TestAnEventComesAgainWithoutASignOfLife(t *testing.T) {
	b := connect(t, serve(t))
	l := listener
	l.AckWait = 600 * time.Millisecond
	q := listen(t, b, l)
	publish(t, b, packed(t, "r", 1))
	if d := next(t, q); stepOf(t, d) != 1 {
		t.Error("another event")
	}
	d := next(t, q) // of a worker that went silent
	for signs := 0; signs < 12; signs++ {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), l.AckWait/6)
		again, err := q.Next(ctx)
		cancel()
		if err := errors.Join(err, d.InProgress()); err != nil {
			t.Fatal(err)
		}
		switch onTime := time.Since(began) < l.AckWait/2; {
		case !onTime && again == nil:
			again = next(t, q)
			fallthrough
		case !onTime: // the test itself was silent: it begins anew
			d, signs = again, 0
		case again != nil:
			t.Fatal("it comes again, although there are signs of life")
		}
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
	wantAnswered(t, b, l)
}

func TestAnEventHandedBackDoesNotHoldUpTheOthers(t *testing.T) {
	b := connect(t, serve(t))
	q := listen(t, b, listener)
	publish(t, b, packed(t, "r", 1), packed(t, "r", 2))
	if err := next(t, q).Nak(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := next(t, q).Nak(50 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	d := next(t, q)
	if got := stepOf(t, d); got != 2 {
		t.Errorf("step %d, want 2", got)
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWorkersShareAQueueOneEventEach(t *testing.T) {
	s := serve(t)
	first, second := listen(t, connect(t, s), listener), listen(t, connect(t, s), listener)
	b := connect(t, s)
	publish(t, b, packed(t, "r", 1), packed(t, "r", 2))
	d1 := next(t, first)
	d2 := next(t, second)
	if stepOf(t, d1) == stepOf(t, d2) {
		t.Error("both got the same event")
	}
	for _, d := range []*Delivery{d1, d2} {
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestAnEventGivenUpDoesNotComeAgainAndLeavesItsLetter(t *testing.T) {
	b := connect(t, serve(t))
	q := listen(t, b, listener)
	e := packed(t, "r", 1)
	publish(t, b, e)
	d := next(t, q)
	cause := "first line\nsecond: \x00\xff line\r\nBitnet1-Stage: forged"
	if err := b.Bury(t.Context(), "tester", d, cause); err != nil {
		t.Fatal(err)
	}
	if err := d.Term("dead letter kept"); err != nil {
		t.Fatal(err)
	}
	wantAnswered(t, b, listener)

	stream, err := b.js.Stream(t.Context(), DeadStream)
	if err != nil {
		t.Fatal(err)
	}
	letter, err := stream.GetLastMsgForSubject(t.Context(), "bitnet1.r.dead.tester.pack.written")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(letter.Data, d.Data) {
		t.Error("the payload is another")
	}
	if got := letter.Header.Get(HeaderStage); got != "tester" {
		t.Errorf("stage %q", got)
	}
	if got := letter.Header.Get(HeaderCause); got != "first line; second: ; ? line; Bitnet1-Stage: forged" {
		t.Errorf("cause %q", got)
	}
}

func TestAConsumerStartsWhereItsListenerWants(t *testing.T) {
	b := connect(t, serve(t))
	publish(t, b, packed(t, "old", 1))
	all := listen(t, b, listener)
	late := listen(t, b, Listener{Stage: "late", Run: "*", Kind: "pack.written", FromNow: true})
	one := listen(t, b, Listener{Stage: "tester", Run: "new", Kind: "pack.written"})
	publish(t, b, packed(t, "new", 2))
	for _, c := range []struct {
		name  string
		queue *Queue
		steps []int
	}{{"all", all, []int{1, 2}}, {"from now", late, []int{2}}, {"of one run", one, []int{2}}} {
		for _, want := range c.steps {
			d := next(t, c.queue)
			if got := stepOf(t, d); got != want {
				t.Errorf("%s: step %d, want %d", c.name, got, want)
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAForgottenConsumerStartsAgain(t *testing.T) {
	b := connect(t, serve(t))
	publish(t, b, packed(t, "r", 1))
	for range 2 {
		if err := b.Forget(t.Context(), listener); err != nil {
			t.Fatal(err)
		}
		if err := next(t, listen(t, b, listener)).Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A new version of a stage may answer another kind of event under the same name.
func TestAConsumerFollowsItsListenersDeclaration(t *testing.T) {
	b := connect(t, serve(t))
	listen(t, b, Listener{Stage: "tester", Run: "*", Kind: "run.started"})
	publish(t, b, packed(t, "r", 1))
	q := listen(t, b, listener)
	if d := next(t, q); stepOf(t, d) != 1 {
		t.Error("another event")
	}
	if q.AckWait != listener.AckWait {
		t.Errorf("AckWait %v", q.AckWait)
	}
}

func TestAWorkerLearnsThatItsConsumerIsGone(t *testing.T) {
	b := connect(t, serve(t))
	q := listen(t, b, listener)
	if err := b.Forget(t.Context(), listener); err != nil {
		t.Fatal(err)
	}
	_, err := q.Next(t.Context())
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Errorf("error %v", err)
	}
}

func TestAWorkerWaitsQuietlyWhileTheServerIsAway(t *testing.T) {
	s := serve(t)
	q := listen(t, connect(t, s), listener)
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	calls := 0
	for ctx.Err() == nil {
		if _, err := q.Next(ctx); err != nil {
			t.Fatal(err)
		}
		calls++
	}
	if calls > 20 {
		t.Errorf("asked %d times in a second", calls)
	}
}

func TestAWorkerLearnsThatItsCredentialsAreRefused(t *testing.T) {
	s := serve(t)
	b := connect(t, s)
	q := listen(t, b, listener)
	s.passwords[own] = "changed"
	restart(t, s)
	var err error
	processtest.Eventually(t, func() bool { _, err = q.Next(t.Context()); return err != nil }, "the end of its asking")
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("error %v", err)
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	s := serve(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "nats://" + free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	good := s.Address()
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		address Address
		want    []string
	}{
		"no address":     {Address{}, []string{"NATS_URL"}},
		"nobody listens": {Address{URL: nobody}, []string{"cannot be reached", nobody[7:], "check NATS_URL"}},
		"wrong password": {Address{URL: good.URL, User: good.User, Password: "guess"},
			[]string{"refused the credentials", "NATS_PASSWORD"}},
		"no password":   {Address{URL: good.URL}, []string{"refused the credentials"}},
		"wrong token":   {Address{URL: good.URL, Token: "guess"}, []string{"refused the credentials", "NATS_TOKEN"}},
		"no creds":      {Address{URL: good.URL, Creds: text}, []string{"NATS_CREDS", text, "no credentials"}},
		"no CA":         {Address{URL: good.URL, CA: text}, []string{"NATS_CA", text, "no certificate"}},
		"no cert":       {Address{URL: good.URL, Cert: text, Key: text}, []string{"NATS_CERT", text, "no certificate"}},
		"missing creds": {Address{URL: good.URL, Creds: "no/such.creds"}, []string{"NATS_CREDS", "no/such.creds"}},
		"no TLS": {Address{URL: "tls" + strings.TrimPrefix(good.URL, "nats")},
			[]string{"speaks no TLS", "check both"}},
		"no URL":            {Address{URL: "nats://user:secret%zz@host"}, []string{"NATS_URL is no URL"}},
		"password in URL":   {Address{URL: "nats://user:secret@" + nobody[7:]}, []string{"cannot be reached", nobody[7:]}},
		"not a NATS server": {Address{URL: "nats://" + greeter(t)}, []string{"cannot be reached"}},
	} {
		b, err := Connect(t.Context(), c.address, "test")
		if err == nil {
			b.Close()
			t.Errorf("%s: connected", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q, want %q in it", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "guess") {
			t.Errorf("%s: the password is in %q", name, err)
		}
	}
}

// A process that stood still while it connected, and so was not let in, connects all the same.
func TestConnectAsksAgainAfterAStandstill(t *testing.T) {
	t.Parallel()
	s := serve(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for first := true; ; first = false {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(s.nats.ClientURL(), "nats://"))
			if err != nil {
				return
			}
			t.Cleanup(func() { client.Close(); server.Close() })
			if first {
				greeting, _ := bufio.NewReader(server).ReadString('\n')
				fmt.Fprint(client, greeting, "-ERR 'Authentication Timeout'\r\n")
				client.Close()
				continue
			}
			go io.Copy(client, server)
			go io.Copy(server, client)
		}
	}()
	a := s.Address()
	a.URL = "nats://" + l.Addr().String()
	b, err := Connect(t.Context(), a, "late")
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

// A server that stands still for longer than an answer may take, when a process asks first, is asked again.
func TestConnectAsksAgainWhatAServerDidNotAnswer(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	a := serve(t).Address()
	a.URL = bustest.NewRelay(t, a.URL, func(subject string, _ []byte) bustest.Verdict {
		if strings.HasPrefix(subject, "$JS.API.") && asked.Add(1) == 1 {
			return bustest.Drop
		}
		return bustest.Pass
	}).URL
	b, err := Connect(t.Context(), a, "patient")
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if asked.Load() < 2 {
		t.Error("nothing was asked")
	}
}

// greeter listens and speaks another protocol.
func greeter(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(c, "220 mail.example ESMTP\r\n")
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// A server is refused, before anything is announced, if it takes only small messages or if another stream holds the
// subjects.
func TestConnectRefusesAServerThatStagesCannotAnswerOn(t *testing.T) {
	foreign := func(payload int32) (*server.Server, jetstream.JetStream) {
		s, err := server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
			MaxPayload: payload,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		if !s.ReadyForConnections(processtest.Patience) {
			t.Fatal("the server does not start")
		}
		return s, bustest.Connect(t, s.ClientURL(), "", "")
	}
	refused := func(s *server.Server, want ...string) {
		t.Helper()
		b, err := Connect(t.Context(), Address{URL: s.ClientURL()}, "test")
		if err == nil {
			b.Close()
			t.Fatal("connected")
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("error %q, want %q in it", err, w)
			}
		}
	}
	small, _ := foreign(4096)
	refused(small, "4096 bytes", "max_payload")

	taken, js := foreign(1 << 20)
	if _, err := js.CreateStream(t.Context(),
		jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"bitnet1.>"}}); err != nil {
		t.Fatal(err)
	}
	refused(taken, "stream AUDIT", "NATS_URL")

	narrow, js := foreign(1 << 20)
	if _, err := js.CreateStream(t.Context(),
		jetstream.StreamConfig{Name: EventStream, Subjects: []string{"bitnet1.*.*.*"}, MaxMsgSize: 1000}); err != nil {
		t.Fatal(err)
	}
	refused(narrow, EventStream, "1000 bytes")
}

func TestADeadLetterThatIsTooLargeKeepsItsCause(t *testing.T) {
	b := connect(t, serve(t))
	stream, err := b.js.Stream(t.Context(), DeadStream)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgSize = 1000
	if _, err := b.js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if err := b.Bury(t.Context(), "tester",
		&Delivery{Subject: event.Subject("r", "pack.written"), Data: make([]byte, 2000)}, "the cause"); err != nil {
		t.Fatal(err)
	}
	letter, err := stream.GetLastMsgForSubject(t.Context(), "bitnet1.r.dead.tester.pack.written")
	if err != nil || letter.Header.Get(HeaderCause) != "the cause" {
		t.Errorf("%+v, %v", letter, err)
	}
}

func TestAnEventIsPublishedAfterTheOneThatItsMakerKnows(t *testing.T) {
	b := connect(t, serve(t))
	first, err := b.PublishAfter(t.Context(), packed(t, "r", 1), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.PublishAfter(t.Context(), packed(t, "r", 2), 0); !errors.Is(err, ErrBehind) {
		t.Errorf("error %v, want ErrBehind", err)
	}
	second, err := b.PublishAfter(t.Context(), packed(t, "r", 2), first)
	if err != nil || second != first+1 {
		t.Errorf("sequence %d after %d, %v", second, first, err)
	}
	if last, err := b.Last(t.Context(), "r"); err != nil || last != second {
		t.Errorf("last %d, %v; want %d", last, err, second)
	}
	if last, err := b.Last(t.Context(), "other"); err != nil || last != 0 {
		t.Errorf("last of no events: %d, %v", last, err)
	}
}

func TestWhatAnUnusableServerDoesNotTakeIsSaidSo(t *testing.T) {
	t.Parallel()
	s := serve(t)
	b := connect(t, s)
	b.Patience = 100 * time.Millisecond
	s.Stop()
	if err := b.Publish(t.Context(), packed(t, "r", 1)); !IsUnusable(err) {
		t.Errorf("error %v", err)
	}
}

// As many runs as one likes can use a data directory.
func TestConsumersOfManyRuns(t *testing.T) {
	t.Parallel()
	s := serve(t)
	b := connect(t, s)
	publish(t, b, packed(t, "r", 1))
	stream, err := b.js.Stream(t.Context(), EventStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().Config.MaxConsumers; n != maxConsumers {
		t.Errorf("a stream can have %d consumers, want %d: nats-server's own limit is 1000", n, maxConsumers)
	}
	for i := range 30 { // of launchers that were killed
		listen(t, b, Listener{Stage: "tester", Run: fmt.Sprint("r", i), Kind: "pack.written"})
	}
	restart(t, s)
	b = connect(t, s)
	if err := b.ForgetAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := Listener{Stage: "tester", Run: "r", Kind: "pack.written"}
	q := listen(t, b, l)
	if n, err := b.Unanswered(t.Context(), l); err != nil || n != 1 {
		t.Errorf("%d to answer, %v", n, err)
	}
	d := next(t, q)
	if n, err := b.Unanswered(t.Context(), l); err != nil || n != 1 {
		t.Errorf("%d to answer while a worker has it, %v", n, err)
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Unanswered(t.Context(), l); err != nil || n != 0 {
		t.Errorf("%d to answer at the end, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := b.Follow(ctx, "r", func(Kept) {}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.History(t.Context(), "r", "*.*", 0); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := b.Forget(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	processtest.Eventually(t, func() bool {
		stream, err := b.js.Stream(t.Context(), EventStream)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.Consumers == 0
	}, "the end of all consumers")
}

func TestPublishingEndsWithItsContext(t *testing.T) {
	s := serve(t)
	b := connect(t, s)
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := b.Publish(ctx, packed(t, "r", 1)); err == nil || IsUnusable(err) { // which it is after b.Patience
		t.Errorf("Publish does not heed its context: %v", err)
	}
}

func TestStartServerSaysWhatIsWrong(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if s, err := StartServer(t.TempDir(), port); err == nil {
		s.Stop()
		t.Error("started on a port that is in use")
	} else if !errors.Is(err, ErrPort) || !strings.Contains(err.Error(), fmt.Sprint("port ", port)) {
		t.Errorf("error %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := StartServer(filepath.Join(file, "nats"), 0); err == nil {
		s.Stop()
		t.Error("started in a file")
	} else if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v", err)
	}
}

func TestServerIsForThisMachineOnly(t *testing.T) {
	s := serve(t)
	if host := s.nats.Addr().(*net.TCPAddr).IP; !host.IsLoopback() {
		t.Errorf("listens on %v", host)
	}
	if other := serve(t); other.passwords[own] == s.passwords[own] || len(s.passwords[own]) < 26 {
		t.Errorf("passwords %q and %q", s.passwords[own], other.passwords[own])
	}
}

func TestAddressTravelsThroughTheEnvironment(t *testing.T) {
	for _, a := range []Address{{}, {URL: "u", User: "a", Password: "b=c", Token: "t", Creds: "f"}, {URL: "u"}} {
		env := map[string]string{}
		for _, kv := range a.Environ() {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
		if got := AddressFrom(func(k string) string { return env[k] }); got != a {
			t.Errorf("%+v came back as %+v", a, got)
		}
	}
}

// ForgetAll removes all consumers, also more than one page of the server's list.
func TestForgetAllForgetsMoreThanAPage(t *testing.T) {
	t.Parallel()
	server := serve(t)
	b := connect(t, server)
	const page = 1024
	for i := range page + 50 {
		_, err := b.js.CreateConsumer(t.Context(), EventStream, jetstream.ConsumerConfig{
			Durable: fmt.Sprintf("killed-%d", i), AckPolicy: jetstream.AckExplicitPolicy, MemoryStorage: true,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := b.ForgetAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	stream, err := b.js.Stream(t.Context(), EventStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Consumers; n != 0 {
		t.Errorf("%d consumers are left", n)
	}
}
