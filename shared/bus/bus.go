// Package bus carries events over NATS JetStream: it declares the streams and
// consumers, announces events once, reads a run's history and follows a run. It
// knows subjects and delivery, not what the events mean.
//
// The bus is never the only copy of anything: artifacts are files, and every
// event is written to the run's journal (package stage) before it is announced.
package bus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/event"
)

// Bus is a connection to the event server.
type Bus struct {
	conn *nats.Conn
	js   jetstream.JetStream
}

// Connect connects and makes sure the streams exist. name shows up in the
// server's connection list.
func Connect(ctx context.Context, a Address, name string) (*Bus, error) {
	if a.URL == "" {
		return nil, errNoAddress
	}
	opts := []nats.Option{
		nats.Name(name), nats.Timeout(5 * time.Second), nats.MaxReconnects(-1),
		nats.ReconnectWait(200 * time.Millisecond),
	}
	if a.User != "" {
		opts = append(opts, nats.UserInfo(a.User, a.Password))
	}
	if a.Token != "" {
		opts = append(opts, nats.Token(a.Token))
	}
	if a.Creds != "" {
		if _, err := os.Stat(a.Creds); err != nil {
			return nil, fmt.Errorf("NATS_CREDS: %w", err)
		}
		opts = append(opts, nats.UserCredentials(a.Creds))
	}
	if _, err := url.Parse(a.URL); err != nil {
		return nil, errors.New("NATS_URL is no URL: want nats://HOST:PORT") // err would show a password in it
	}
	conn, err := nats.Connect(a.URL, opts...)
	if err != nil {
		return nil, connectError(a.URL, err)
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(5*time.Second))
	if err != nil {
		conn.Close()
		return nil, err
	}
	b := &Bus{conn: conn, js: js}
	if err := b.ensureStreams(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("event server %s: %w", hostOf(a.URL), err)
	}
	return b, nil
}

func connectError(address string, err error) error {
	switch {
	case errors.Is(err, nats.ErrAuthorization), strings.Contains(err.Error(), "Authorization"):
		return fmt.Errorf("event server %s refused the credentials: check NATS_USER and NATS_PASSWORD, NATS_TOKEN or NATS_CREDS (%w)", hostOf(address), err)
	default:
		return fmt.Errorf("event server %s cannot be reached: check NATS_URL and that the server runs, or unset NATS_URL to let the launcher start one (%w)", hostOf(address), err)
	}
}

// hostOf hides any password in a NATS URL from messages.
func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return "at NATS_URL"
}

// Close sends what is still to be sent and closes the connection.
func (b *Bus) Close() {
	b.conn.Close()
}

// Publish announces e and returns when the server has it on disk. The server
// drops a second announcement of the same id within its dedupe window.
func (b *Bus) Publish(ctx context.Context, e event.Envelope) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	err = again(ctx, func() error {
		_, err := b.js.Publish(ctx, e.Subject(), data, jetstream.WithMsgID(e.ID))
		return err
	})
	if err != nil {
		return fmt.Errorf("announcing %s of run %s: %w", e.Kind, e.Run, err)
	}
	return nil
}

// again calls ask until it succeeds, several times: a request that a restart of
// the server has swallowed is answered when it is made once more.
func again(ctx context.Context, ask func() error) error {
	for attempt := 1; ; attempt++ {
		err := ask()
		if err == nil || ctx.Err() != nil || attempt == 5 {
			return err
		}
		pause(ctx, time.Duration(attempt)*200*time.Millisecond)
	}
}

// Kept is an event as the stream keeps it, with its place there.
type Kept struct {
	event.Envelope
	Sequence uint64
}

// History returns the events of a run and kind (either may be "*", as may the
// noun or verb) with a stream sequence above after, oldest first. Events that
// cannot be decoded are left out; their count is returned.
func (b *Bus) History(ctx context.Context, run, kind string, after uint64) (events []Kept, bad int, err error) {
	err = again(ctx, func() error {
		events, bad, err = b.history(ctx, event.Subject(run, kind), after)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("history of run %s: %w", run, err)
	}
	return events, bad, nil
}

func (b *Bus) history(ctx context.Context, subject string, after uint64) (events []Kept, bad int, err error) {
	consumer, err := b.js.OrderedConsumer(ctx, EventStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subject},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
		InactiveThreshold: time.Minute,
	})
	if err != nil {
		return nil, 0, err
	}
	for left := consumer.CachedInfo().NumPending; left > 0; {
		batch, err := consumer.Fetch(int(min(left, 256)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return nil, 0, err
		}
		got := uint64(0)
		for m := range batch.Messages() {
			got++
			if k, ok := kept(m); ok {
				events = append(events, k)
			} else {
				bad++
			}
		}
		if err := batch.Error(); err != nil {
			return nil, 0, err
		}
		if got == 0 {
			return nil, 0, fmt.Errorf("%d events were not delivered", left)
		}
		left -= min(got, left)
	}
	return events, bad, nil
}

// Follow calls each for every event of a run, from its first one on, until ctx
// ends. Undecodable events are passed over.
func (b *Bus) Follow(ctx context.Context, run string, each func(Kept)) error {
	consumer, err := b.js.OrderedConsumer(ctx, EventStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{event.Subject(run, "*.*")}, DeliverPolicy: jetstream.DeliverAllPolicy,
	})
	if err != nil {
		return fmt.Errorf("following run %s: %w", run, err)
	}
	handle, err := consumer.Consume(func(m jetstream.Msg) {
		if k, ok := kept(m); ok {
			each(k)
		}
	})
	if err != nil {
		return fmt.Errorf("following run %s: %w", run, err)
	}
	context.AfterFunc(ctx, handle.Stop)
	return nil
}

func kept(m jetstream.Msg) (Kept, bool) {
	meta, err := m.Metadata()
	if err != nil {
		return Kept{}, false
	}
	e, err := event.Decode(m.Data())
	if err != nil || e.Subject() != m.Subject() {
		return Kept{}, false
	}
	return Kept{Envelope: e, Sequence: meta.Sequence.Stream}, true
}
