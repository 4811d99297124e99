package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/progress"
)

// Queue hands out the events that a stage has to answer, one at a time: a message that waits in a client's prefetch
// buffer runs into its AckWait and is worked on twice.
type Queue struct {
	AckWait time.Duration // as the server has it

	consumer  jetstream.Consumer
	conn      *nats.Conn
	elsewhere *elsewhere
}

// Delivery is one event handed to a worker. It ends with Ack, Nak or Term, which are JetStream's words; until then
// InProgress must be called more often than every AckWait.
type Delivery struct {
	Subject  string
	Data     []byte
	Sequence uint64 // its place in the stream

	msg jetstream.Msg
}

func delivered(msg jetstream.Msg) *Delivery {
	d := &Delivery{Subject: msg.Subject(), Data: msg.Data(), msg: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.Sequence = meta.Sequence.Stream
	}
	return d
}

// A worker that waits asks once for pullWait, and the server gives it a sign of life every pullHeartbeat: so 10,000
// idle workers cost the server little, and a worker notices within two heartbeats that its request was lost with the
// server that had it.
const (
	pullWait      = 30 * time.Second
	pullHeartbeat = 2 * time.Second
)

// Next waits for an event. It returns nil when none came within a while or the connection is interrupted, and an error
// when the consumer is gone or the connection is closed for good.
func (q *Queue) Next(ctx context.Context) (*Delivery, error) {
	wait, cancel := context.WithTimeout(ctx, pullWait)
	defer cancel()
	asked := time.Now()
	msg, err := q.consumer.Next(jetstream.FetchContext(wait), jetstream.FetchHeartbeat(pullHeartbeat))
	switch {
	case err == nil:
		q.elsewhere.heard(asked, nil)
		return delivered(msg), nil
	case q.conn.IsClosed():
		return nil, closedError(q.conn)
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrConsumerDeleted):
		return nil, err
	case errors.Is(err, nats.ErrNoResponders):
		// Either the consumer is gone or the server is starting.
		if q.gone(wait) {
			return nil, jetstream.ErrConsumerNotFound
		}
	}
	if wait.Err() == nil { // otherwise the server has given signs of life to the end, and no event
		q.elsewhere.heard(asked, err)
	}
	if time.Since(asked) < pullHeartbeat { // it came back at once: do not spin
		pause(ctx, 100*time.Millisecond)
	}
	return nil, nil
}

// gone reports whether the server says that the consumer is not there. A cluster that has lost the consumer's leader
// does not answer until there is another.
func (q *Queue) gone(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pullHeartbeat)
	defer cancel()
	_, err := q.consumer.Info(ctx)
	return errors.Is(err, jetstream.ErrConsumerNotFound)
}

func closedError(conn *nats.Conn) error {
	if err := conn.LastError(); err != nil {
		return fmt.Errorf("the event server ended the connection: %w", err)
	}
	return nats.ErrConnectionClosed
}

// pause waits until d has passed or ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// InProgress tells the server that the work goes on: AckWait begins again.
func (d *Delivery) InProgress() error { return d.msg.InProgress() }

// Ack acknowledges the event and waits until the server has noted that.
func (d *Delivery) Ack(ctx context.Context) error { return d.msg.DoubleAck(ctx) }

// Nak hands the event back. The server delivers it again after the delay.
func (d *Delivery) Nak(delay time.Duration) error { return d.msg.NakWithDelay(delay) }

// Term takes the event out of the queue for good. Bury it first.
func (d *Delivery) Term(reason string) error { return d.msg.TermWithReason(reason) }

// Progress is a stage's report on a job. It is sent and forgotten: not kept, not acknowledged.
type Progress struct {
	Stage string `msgpack:"stage"`
	Job   string `msgpack:"job"`
	progress.Report
}

// progressSubject has five tokens, so the event stream (four) never keeps it.
func progressSubject(run, stage string) string {
	return "bitnet1." + run + ".progress." + stage + ".report"
}

// Report sends p on bitnet1.<run>.progress.<stage>.report, without waiting.
func (b *Bus) Report(run string, p Progress) {
	if data, err := event.Marshal(p); err == nil {
		_ = b.conn.Publish(progressSubject(run, p.Stage), data) // lost progress is no loss
	}
}

// Watch calls each for the progress of every stage of a run until ctx ends.
func (b *Bus) Watch(ctx context.Context, run string, each func(Progress)) error {
	sub, err := b.conn.Subscribe(progressSubject(run, "*"), func(m *nats.Msg) {
		var p Progress
		if event.Unmarshal(m.Data, &p) == nil {
			each(p)
		}
	})
	if err != nil {
		return fmt.Errorf("watching run %s: %w", run, err)
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() })
	return nil
}
