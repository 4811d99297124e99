package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/run/event"
)

// The streams, their limits and the consumers are declared in this file and nowhere else.
const (
	// EventStream keeps every event, on bitnet1.<run>.<noun>.<verb>.
	EventStream = "BITNET1_EVENTS"
	// DeadStream keeps events that a stage could not answer, with the cause, on bitnet1.<run>.dead.<stage>.<noun>.<verb>.
	DeadStream = "BITNET1_DEAD"
)

// Limits of the streams and of the stages' consumers.
const (
	// AckWait is how long the server waits for a sign of life from a worker before it hands the job to another. Workers
	// give one three times as often.
	AckWait = 10 * time.Second

	dedupeWindow   = 2 * time.Minute
	deadLetterLife = 90 * 24 * time.Hour
	consumerLife   = 30 * 24 * time.Hour // of a consumer for every run that nobody asks
	runLife        = 24 * time.Hour      // of a consumer for one run: its launcher removes it and makes it anew
	readerLife     = time.Minute         // of a consumer that only reads
	maxConsumers   = 100_000             // of a stream: without a word of ours nats-server stops at 1,000
	maxHeaders     = 16 << 10            // bytes of headers beside an event
	maxCause       = 4 << 10             // bytes of the cause in a dead letter
	minMessage     = 16 << 10            // bytes that must pass: a cause, twice, with what is around it

	// maxUnanswered bounds the events that are being worked on or that wait for another try, over all processes of a
	// stage. It is far above the number of workers: a job that waits for its next try must not hold up the others. That no
	// worker has more than one event is the doing of Queue.Next.
	maxUnanswered = 1000
)

func streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: EventStream, Description: "every event of every run",
			Subjects: []string{"bitnet1.*.*.*"}, Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxMsgSize: event.MaxSize + maxHeaders, Duplicates: dedupeWindow, Discard: jetstream.DiscardNew,
			MaxConsumers: maxConsumers,
		},
		{
			Name: DeadStream, Description: "events that a stage could not answer",
			Subjects: []string{"bitnet1.*.dead.*.*.*"}, Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxMsgSize: event.MaxSize + 2*maxHeaders, MaxAge: deadLetterLife, Duplicates: dedupeWindow,
			MaxConsumers: maxConsumers,
		},
	}
}

// clusterReplicas is how many servers of a cluster have every event, unless NATS_REPLICAS says otherwise: the cluster
// goes on without one of them.
const clusterReplicas = 3

// ensureStreams creates the streams that are missing.
func (b *Bus) ensureStreams(ctx context.Context, replicas int) error {
	b.ids = dedupeWindow
	for _, c := range streams() {
		if err := b.led(ctx, func() error { return b.ensureStream(ctx, c, replicas) }); err != nil {
			return fmt.Errorf("stream %s: %w", c.Name, withHint(err))
		}
	}
	return nil
}

// ensureStream creates a stream unless it is there. An existing one is left as its owner configured it, unless stages
// could not answer there or more replicas are asked for than it has.
func (b *Bus) ensureStream(ctx context.Context, c jetstream.StreamConfig, replicas int) error {
	stream, err := b.js.Stream(ctx, c.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if c.Replicas = replicas; replicas == 0 && b.conn.ConnectedClusterName() != "" {
			c.Replicas = clusterReplicas
		}
		return b.createStream(ctx, c)
	}
	if err != nil {
		return err
	}
	config := stream.CachedInfo().Config
	if n := config.MaxMsgSize; n >= 0 && n < minMessage {
		return fmt.Errorf("it takes messages of at most %d bytes, and stages' answers need %d: "+
			"raise its largest message", n, minMessage)
	}
	b.ids = min(b.ids, config.Duplicates)
	if config.Replicas < replicas {
		config.Replicas = replicas
		_, err = b.js.UpdateStream(ctx, config)
		return tooFew(config, err)
	}
	return nil
}

func (b *Bus) createStream(ctx context.Context, c jetstream.StreamConfig) error {
	_, err := b.js.CreateStream(ctx, c)
	var api *jetstream.APIError
	switch {
	case err == nil, errors.Is(err, jetstream.ErrStreamNameAlreadyInUse): // another process was faster
		return nil
	case errors.Is(err, jetstream.ErrMaximumConsumersLimit) && c.MaxConsumers > 0: // the account allows fewer
		c.MaxConsumers = 0
		return b.createStream(ctx, c)
	case errors.As(err, &api) && api.ErrorCode == subjectsOverlap:
		return b.overlap(ctx, c)
	}
	return tooFew(c, err)
}

// tooFew says what to do where a stream is to have more replicas than there are servers.
func tooFew(c jetstream.StreamConfig, err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == noPeers || api.ErrorCode == noCluster) {
		return fmt.Errorf("%d servers of the cluster are to have every event, and fewer can be reached: start them, "+
			"or set NATS_REPLICAS to fewer (%w)", c.Replicas, err)
	}
	return err
}

// withHint adds what a server without JetStream answers, or does not.
func withHint(err error) error {
	for _, sign := range []error{
		jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount, nats.ErrNoResponders,
		context.DeadlineExceeded,
	} {
		if errors.Is(err, sign) {
			return fmt.Errorf("%w (does the server have JetStream?)", err)
		}
	}
	return err
}

// subjectsOverlap is the server's code for a stream whose subjects another one has.
const subjectsOverlap = 10065

// Codes of a server for a stream that is to have more replicas than there are servers.
const (
	noPeers   = 10005
	noCluster = 10074
)

// overlap names the streams that are in the way of c.
func (b *Bus) overlap(ctx context.Context, c jetstream.StreamConfig) error {
	var others []string
	for _, subject := range c.Subjects {
		names := b.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
		for name := range names.Name() {
			others = append(others, name)
		}
		if err := names.Err(); err != nil {
			return fmt.Errorf("another stream has subjects among %s: %w", strings.Join(c.Subjects, ", "), err)
		}
	}
	return fmt.Errorf("its subjects %s are taken by the server's stream %s: give that stream other subjects, or name "+
		"another server in NATS_URL",
		strings.Join(c.Subjects, ", "), strings.Join(others, ", "))
}

// Listener says which events a stage answers.
type Listener struct {
	Stage   string
	Run     string // "*" for every run
	Kind    string
	FromNow bool          // skip the events that are there already (only with Run "*")
	AckWait time.Duration // 0: AckWait
}

// durable is the consumer's name: stages that listen to one run have a consumer of their own, so that an unfinished
// older run does not come first.
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
		// Attempts are counted by the stage runner, which knows an interrupted job from a failed one; here they are
		// unlimited.
		MaxDeliver: -1, MaxAckPending: maxUnanswered, InactiveThreshold: consumerLife,
	}
	if l.Run != "*" {
		config.InactiveThreshold = runLife
	}
	if l.FromNow && l.Run == "*" {
		config.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	return config
}

// Listen returns the durable consumer of l, created when missing. One that is there keeps its place in the stream and
// gets the limits declared here.
func (b *Bus) Listen(ctx context.Context, l Listener) (*Queue, error) {
	var consumer jetstream.Consumer
	want := l.config()
	err := b.led(ctx, func() (err error) {
		consumer, err = b.listen(ctx, want)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", want.Durable, b.explained(err))
	}
	return &Queue{consumer: consumer, conn: b.conn, elsewhere: b.elsewhere, AckWait: want.AckWait}, nil
}

func (b *Bus) listen(ctx context.Context, want jetstream.ConsumerConfig) (jetstream.Consumer, error) {
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
	return consumer, err
}

// Forget removes the durable consumer of l, so that the next Listen starts from the first event. Removing one that is
// not there is fine.
func (b *Bus) Forget(ctx context.Context, l Listener) error {
	err := b.led(ctx, func() error { return b.js.DeleteConsumer(ctx, EventStream, l.durable()) })
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("consumer %s: %w", l.durable(), err)
	}
	return nil
}

// ForgetAll removes every consumer, for a server that has just started and so has no listeners yet: what a killed
// launcher has left costs each later start.
func (b *Bus) ForgetAll(ctx context.Context) error {
	stream, err := b.js.Stream(ctx, EventStream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", EventStream, err)
	}
	// The list is read to its end first: it comes in pages, which removing consumers would shift.
	var all []string
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		all = append(all, name)
	}
	if err := names.Err(); err != nil {
		return fmt.Errorf("consumers of stream %s: %w", EventStream, err)
	}
	for _, name := range all {
		if err := b.js.DeleteConsumer(ctx, EventStream, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("consumer %s: %w", name, err)
		}
	}
	return nil
}

// ForgetRun removes every event and dead letter of a run.
func (b *Bus) ForgetRun(ctx context.Context, run string) error {
	for name, subject := range map[string]string{EventStream: "bitnet1." + run + ".*.*", DeadStream: "bitnet1." + run +
		".dead.>"} {
		stream, err := b.js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return fmt.Errorf("run %s in stream %s: %w", run, name, err)
		}
	}
	return nil
}

// Unanswered counts the events that the stage of l has still to answer, those included that it is at work on or will
// try again.
func (b *Bus) Unanswered(ctx context.Context, l Listener) (int, error) {
	var consumer jetstream.Consumer
	err := b.led(ctx, func() (err error) {
		consumer, err = b.js.Consumer(ctx, EventStream, l.durable())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("consumer %s: %w", l.durable(), err)
	}
	info := consumer.CachedInfo()
	return int(info.NumPending) + info.NumAckPending, nil
}
