package bus

import (
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

// AckWait is how long the server waits for a sign of life from a worker before
// it hands the job to another. Workers give one three times as often.
const AckWait = 10 * time.Second

func streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: EventStream, Description: "every event of every run",
			Subjects: []string{"bitnet1.*.*.*"}, Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxMsgSize: event.MaxSize, Duplicates: 2 * time.Minute, Discard: jetstream.DiscardNew,
		},
		{
			Name: DeadStream, Description: "events that a stage could not answer",
			Subjects: []string{"bitnet1.*.dead.*.*.*"}, Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxMsgSize: event.MaxSize + 64<<10, MaxAge: 90 * 24 * time.Hour, Duplicates: 2 * time.Minute,
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
	Workers int  // jobs at a time, over all processes of the stage
	FromNow bool // skip the events that are there already (only with Run "*")
}

// durable is the consumer's name: stages that listen to one run have a consumer
// of their own, so that an unfinished older run does not come first.
func (l Listener) durable() string {
	if l.Run == "*" {
		return l.Stage
	}
	return l.Stage + "--" + l.Run
}

// Listen returns the durable consumer of l, created when missing.
func (b *Bus) Listen(ctx context.Context, l Listener) (*Queue, error) {
	config := jetstream.ConsumerConfig{
		Durable: l.durable(), Description: "stage " + l.Stage,
		FilterSubject: event.Subject(l.Run, l.Kind),
		AckPolicy:     jetstream.AckExplicitPolicy, AckWait: AckWait,
		// Attempts are counted by the stage runner, which knows an interrupted
		// job from a failed one; here they are unlimited.
		MaxDeliver: -1, MaxAckPending: max(l.Workers, 1),
		InactiveThreshold: 30 * 24 * time.Hour,
	}
	if l.FromNow && l.Run == "*" {
		config.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	consumer, err := b.js.Consumer(ctx, EventStream, config.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = b.js.CreateOrUpdateConsumer(ctx, EventStream, config)
	} else if err == nil && consumer.CachedInfo().Config.MaxAckPending < config.MaxAckPending {
		update := consumer.CachedInfo().Config
		update.MaxAckPending = config.MaxAckPending
		consumer, err = b.js.UpdateConsumer(ctx, EventStream, update)
	}
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", config.Durable, err)
	}
	return &Queue{consumer: consumer}, nil
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
