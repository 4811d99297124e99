package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/event"
)

// The streams, their limits and the consumers are declared in this file and
// nowhere else.
const (
	// EventStream keeps every event, on bitnet1.<run>.<noun>.<verb>.
	EventStream = "BITNET1_EVENTS"
	// DeadStream keeps events that a stage could not answer, with the cause,
	// on bitnet1.<run>.dead.<stage>.<noun>.<verb>.
	DeadStream = "BITNET1_DEAD"
)

// Limits of the streams and of the stages' consumers.
const (
	// AckWait is how long the server waits for a sign of life from a worker
	// before it hands the job to another. Workers give one three times as often.
	AckWait = 10 * time.Second

	dedupeWindow   = 2 * time.Minute
	deadLetterLife = 90 * 24 * time.Hour
	consumerLife   = 30 * 24 * time.Hour // of a consumer that nobody asks
	maxHeaders     = 16 << 10            // bytes of headers beside an event
	maxCause       = 4 << 10             // bytes of the cause in a dead letter

	// maxUnanswered bounds the events that are being worked on or that wait for
	// another try, over all processes of a stage. It is far above the number of
	// workers: a job that waits for its next try must not hold up the others.
	// That no worker has more than one event is the doing of Queue.Next.
	maxUnanswered = 1000
)

func streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: EventStream, Description: "every event of every run",
			Subjects: []string{"bitnet1.*.*.*"}, Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxMsgSize: event.MaxSize + maxHeaders, Duplicates: dedupeWindow, Discard: jetstream.DiscardNew,
		},
		{
			Name: DeadStream, Description: "events that a stage could not answer",
			Subjects: []string{"bitnet1.*.dead.*.*.*"}, Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxMsgSize: event.MaxSize + 2*maxHeaders, MaxAge: deadLetterLife, Duplicates: dedupeWindow,
		},
	}
}

// ensureStreams creates the streams that are missing. An existing stream is
// left as its owner configured it.
func (b *Bus) ensureStreams(ctx context.Context) error {
	for _, c := range streams() {
		_, err := b.js.Stream(ctx, c.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = b.js.CreateStream(ctx, c)
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				err = nil // another process was faster
			}
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w (does the server have JetStream?)", c.Name, err)
		}
	}
	return nil
}

// Listener says which events a stage answers.
type Listener struct {
	Stage   string
	Run     string // "*" for every run
	Kind    string
	FromNow bool          // skip the events that are there already (only with Run "*")
	AckWait time.Duration // 0: AckWait
}

// durable is the consumer's name: stages that listen to one run have a consumer
// of their own, so that an unfinished older run does not come first.
func (l Listener) durable() string {
	if l.Run == "*" {
		return l.Stage
	}
	return l.Stage + "--" + l.Run
}

func (l Listener) config() jetstream.ConsumerConfig {
	config := jetstream.ConsumerConfig{
		Durable: l.durable(), Description: "stage " + l.Stage,
		FilterSubject: event.Subject(l.Run, l.Kind),
		AckPolicy:     jetstream.AckExplicitPolicy, AckWait: cmp.Or(l.AckWait, AckWait),
		// Attempts are counted by the stage runner, which knows an interrupted
		// job from a failed one; here they are unlimited.
		MaxDeliver: -1, MaxAckPending: maxUnanswered, InactiveThreshold: consumerLife,
	}
	if l.FromNow && l.Run == "*" {
		config.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	return config
}

// Listen returns the durable consumer of l, created when missing. One that is
// there keeps its place in the stream and gets the limits declared here.
func (b *Bus) Listen(ctx context.Context, l Listener) (*Queue, error) {
	want := l.config()
	consumer, err := b.js.Consumer(ctx, EventStream, want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = b.js.CreateOrUpdateConsumer(ctx, EventStream, want)
	} else if err == nil {
		have := consumer.CachedInfo().Config
		if have.FilterSubject != want.FilterSubject || have.AckWait != want.AckWait ||
			have.MaxAckPending != want.MaxAckPending || have.MaxDeliver != want.MaxDeliver {
			want.DeliverPolicy, want.OptStartSeq = have.DeliverPolicy, have.OptStartSeq // these cannot be changed
			consumer, err = b.js.UpdateConsumer(ctx, EventStream, want)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", want.Durable, err)
	}
	return &Queue{consumer: consumer, conn: b.conn, AckWait: want.AckWait}, nil
}

// Forget removes the durable consumer of l, so that the next Listen starts from
// the first event. Removing one that is not there is fine.
func (b *Bus) Forget(ctx context.Context, l Listener) error {
	err := b.js.DeleteConsumer(ctx, EventStream, l.durable())
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("consumer %s: %w", l.durable(), err)
	}
	return nil
}
