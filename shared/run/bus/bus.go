// Package bus carries events over NATS JetStream. It knows subjects and delivery, not what the events mean.
//
// Connect makes sure that the streams exist. Publish announces an event; Announcer does so once, however often it is
// asked, and writes the event to the run's journal (package journal) before. Listen returns the Queue of a stage: a
// durable consumer from which workers take one Delivery at a time. History and Follow read the events of a run.
// StartServer starts a server where the user has none.
//
// The bus is never the only copy of anything: artifacts and journals are files.
package bus

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/run/event"
)

// Bus is a connection to the event server.
type Bus struct {
	// Patience is how long what the server does not take is offered again.
	Patience time.Duration

	conn      *nats.Conn
	js        jetstream.JetStream
	elsewhere *elsewhere
	ids       time.Duration // for how long the server knows the ids of events

	denied atomic.Pointer[error] // the last time that the server said that the user may not use a subject
}

// Patience is how long whoever needs the event server, its store or the disk waits for them to be usable again, unless
// told otherwise.
const Patience = 30 * time.Second

// apiWait is how long an answer of the event server may take.
const apiWait = 5 * time.Second

// Connect connects and makes sure the streams exist. name shows up in the server's connection list.
func Connect(ctx context.Context, a Address, name string) (*Bus, error) {
	if a.URL == "" {
		return nil, errNoAddress
	}
	b := &Bus{Patience: Patience}
	replicas, err := a.replicas()
	if err != nil {
		return nil, err
	}
	options, err := a.options()
	if err != nil {
		return nil, err
	}
	b.conn, err = dial(ctx, a.URL, append(options,
		nats.Name(name), nats.Timeout(5*time.Second), nats.MaxReconnects(-1),
		nats.ReconnectWait(200*time.Millisecond), nats.ErrorHandler(b.heard)))
	if err != nil {
		return nil, connectError(a, err)
	}
	b.elsewhere = &elsewhere{conn: b.conn}
	b.js, err = jetstream.New(b.conn, jetstream.WithDefaultTimeout(apiWait))
	if err == nil {
		err = b.checkLimits()
	}
	if err == nil {
		err = b.explained(b.ensureStreams(ctx, replicas))
	}
	if err != nil {
		b.conn.Close()
		return nil, fmt.Errorf("event server %s: %w", hostOf(a.URL), err)
	}
	return b, nil
}

// dial connects. A process that stands still for two seconds while it connects is not let in, and a server that stands
// still for five is not waited for: dial asks again.
func dial(ctx context.Context, url string, options []nats.Option) (conn *nats.Conn, err error) {
	for range 5 {
		conn, err = nats.Connect(url, options...)
		if err == nil || ctx.Err() != nil || !tooLate(err) {
			break
		}
	}
	return conn, err
}

// tooLate reports whether err is that of a connection that one side has waited for in vain, after it was made.
func tooLate(err error) bool {
	var failed *net.OpError
	return errors.As(err, &failed) && failed.Op != "dial" || strings.Contains(err.Error(), "Authentication Timeout")
}

// checkLimits makes sure that a stage's answer and its cause can be announced: a failure that cannot be told would be
// tried again without end.
func (b *Bus) checkLimits() error {
	if n := b.conn.MaxPayload(); n < minMessage {
		return fmt.Errorf("it takes messages of at most %d bytes, and stages' answers need %d: raise "+
			"max_payload in its configuration", n, minMessage)
	}
	return nil
}

func connectError(a Address, err error) error {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, nats.ErrAuthorization), strings.Contains(err.Error(), "Authorization"):
		return fmt.Errorf("event server %s refused the credentials: check NATS_NKEY, NATS_USER and NATS_PASSWORD, "+
			"NATS_TOKEN or NATS_CREDS (%w)", hostOf(a.URL), err)
	case errors.As(err, &unknown):
		return fmt.Errorf("event server %s shows a certificate of an authority that is unknown here: name the authority's "+
			"own certificate in NATS_CA (%w)", hostOf(a.URL), err)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("event server %s speaks no TLS, which NATS_URL or NATS_CA ask for: check both (%w)",
			hostOf(a.URL), err)
	default:
		return fmt.Errorf("event server %s cannot be reached: check NATS_URL and that the server runs, or unset NATS_URL "+
			"to let the launcher start one (%w)", hostOf(a.URL), err)
	}
}

// hostOf hides any password in a NATS URL from messages.
func hostOf(address string) string {
	var hosts []string
	for one := range strings.SplitSeq(address, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	if len(hosts) == 0 {
		return "at NATS_URL"
	}
	return strings.Join(hosts, ", ")
}

// Close sends what is still to be sent and closes the connection.
func (b *Bus) Close() {
	b.conn.Close()
}

// Publish announces e and returns when the server has it on disk. The server drops a second announcement of the same id
// within its dedupe window. Errors are ErrTooLarge, and what Unusable recognises where the server did not take e for as
// long as b.Patience.
func (b *Bus) Publish(ctx context.Context, e event.Envelope) error {
	_, err := b.publish(ctx, e, nil)
	return err
}

// PublishFirst is Publish of an event that nobody had announced at the time since. The error is ErrLate, and the event
// is not sent again, once the server may have forgotten an id of that time: meanwhile the event may have been announced
// by another process, or by this one in a request whose answer was lost.
func (b *Bus) PublishFirst(ctx context.Context, e event.Envelope, since time.Time) error {
	_, err := b.publish(ctx, e, func() error {
		if elapsed(since) > b.ids/2 {
			return ErrLate
		}
		return nil
	})
	return err
}

// elapsed is the time since a moment, by the clock of the machine or of the process, whichever says more: one of them
// may have stood still.
func elapsed(since time.Time) time.Duration {
	return max(time.Since(since), time.Now().Round(0).Sub(since.Round(0)))
}

// PublishAfter is Publish on the condition that the last event on e's subject is the one with the given sequence, 0 for
// none. It returns the sequence of e; ErrBehind when the subject has another last event.
func (b *Bus) PublishAfter(ctx context.Context, e event.Envelope, last uint64) (sequence uint64, err error) {
	return b.publish(ctx, e, nil, jetstream.WithExpectLastSequencePerSubject(last))
}

// Errors of publishing.
var (
	ErrBehind   = errors.New("other events were announced meanwhile")
	ErrLate     = errors.New("the event server may have forgotten the event's id meanwhile")
	ErrDenied   = errors.New("the event server does not let this user do that")
	ErrTooLarge = errors.New("it is larger than the event server takes: raise max_payload in the server's configuration " +
		"and the stream's largest message")
)

// publish announces e. Before each attempt it calls may, unless that is nil: an error of may ends the attempts.
func (b *Bus) publish(ctx context.Context, e event.Envelope, may func() error, opts ...jetstream.PublishOpt) (
	sequence uint64, err error) {
	data, err := e.Encode()
	if err != nil {
		return 0, err
	}
	id := e.ID
	err = b.again(ctx, func() error {
		for {
			if may != nil {
				if err := may(); err != nil {
					return err
				}
			}
			wait, cancel := context.WithTimeout(ctx, apiWait)
			ack, err := b.js.Publish(wait, e.Subject(), data, append(opts, jetstream.WithMsgID(id))...)
			cancel()
			if err != nil {
				return err
			}
			if sequence = ack.Sequence; !ack.Duplicate {
				return nil
			}
			first, err := b.next(ctx, e.Subject(), sequence-1)
			if err != nil || first != nil && first.Sequence == sequence {
				return err
			}
			// It was removed since, with its run, and the server still knows the id.
			id = fmt.Sprintf("%s-%d", e.ID, sequence)
		}
	})
	if err != nil {
		return 0, fmt.Errorf("announcing %s of run %s: %w", e.Kind, e.Run, err)
	}
	return sequence, nil
}

// again calls ask until it succeeds or b.Patience is over: a request that a restart of the server has swallowed is
// answered when it is made once more.
func (b *Bus) again(ctx context.Context, ask func() error) error {
	limit := time.Now().Add(b.Patience)
	for attempt := 1; ; attempt++ {
		b.denied.Store(nil)
		asked := time.Now()
		err := b.explained(verdict(ask()))
		if ctx.Err() == nil {
			b.elsewhere.heard(asked, err)
		}
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, ErrTooLarge), errors.Is(err, ErrBehind),
			errors.Is(err, ErrLate), errors.Is(err, ErrNoMessage), errors.Is(err, ErrDenied):
			return err
		case time.Now().After(limit):
			return unusable{fmt.Errorf("the event server cannot be used (tried for %s): %w", b.Patience, err)}
		}
		pause(ctx, min(time.Duration(attempt)*200*time.Millisecond, 2*time.Second))
	}
}

// heard is called with what the server says beside its answers.
func (b *Bus) heard(_ *nats.Conn, _ *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		b.denied.Store(&err)
	}
}

// explained is err with the reason that the server gave beside, since to a request on a subject that the user may not
// use the server answers nothing. A process that was refused is of no use.
func (b *Bus) explained(err error) error {
	denied := b.denied.Swap(nil)
	if err == nil || denied == nil {
		return err
	}
	return unusable{fmt.Errorf("%w (%w): name the stage's pipeline file and the run to pipeline users, and reload the "+
		"server; the streams are made by the launcher", ErrDenied, *denied)}
}

// verdict names the answers of a server that asking again cannot change.
func verdict(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum):
		return fmt.Errorf("%w (%w)", ErrTooLarge, err)
	case errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
			api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return ErrBehind
	}
	return err
}

// unusable marks an error that no job of the process can do without.
type unusable struct{ error }

func (u unusable) Unwrap() error { return u.error }

// Unusable marks err as the event server's, its store's or the disk's: whoever needs them has waited for them in vain.
func Unusable(err error) error { return unusable{err} }

// IsUnusable reports whether err is so marked.
func IsUnusable(err error) bool { return errors.As(err, new(unusable)) }

// Kept is an event as the stream keeps it, with its place there.
type Kept struct {
	event.Envelope
	Sequence uint64
}

// History returns the events of a run and kind (either may be "*", as may the noun or verb) with a stream sequence
// above after, oldest first. Events that cannot be decoded are left out; their count is returned.
func (b *Bus) History(ctx context.Context, run, kind string, after uint64) (events []Kept, bad int, err error) {
	_, err = b.events(ctx, run, kind, after, func(k Kept) {
		if k.undecodable() {
			bad++
			return
		}
		events = append(events, k)
	})
	return events, bad, err
}

// Since is History that returns, beside the events, the sequence of the last message that was read, decodable or not;
// after when there was none. It asks for one message after the other, which takes longer than History and is all that
// the server lets a stage do.
func (b *Bus) Since(ctx context.Context, run, kind string, after uint64) (events []Kept, last uint64, err error) {
	last = after
	for {
		var k *Kept
		err := b.again(ctx, func() (err error) {
			k, err = b.next(ctx, event.Subject(run, kind), last)
			return err
		})
		switch {
		case err != nil:
			return nil, last, fmt.Errorf("history of run %s: %w", run, err)
		case k == nil:
			return events, last, nil
		case !k.undecodable():
			events = append(events, *k)
		}
		last = k.Sequence
	}
}

// next is the first message on a subject with a sequence above after, or nil. The client's own way to ask may be one by
// which the server would send a message as it is wherever the asker says, to another stage's subject for instance: see
// StageUser.
func (b *Bus) next(ctx context.Context, subject string, after uint64) (*Kept, error) {
	ask, err := json.Marshal(map[string]any{"seq": after + 1, "next_by_subj": subject})
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, apiWait)
	defer cancel()
	said, err := b.conn.RequestWithContext(wait, api("STREAM.MSG.GET", EventStream), ask)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject string `json:"subject"`
			Seq     uint64 `json:"seq"`
			Data    []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(said.Data, &answer); err != nil {
		return nil, err
	}
	switch {
	case answer.Error == nil:
		k := keptAs(answer.Message.Subject, answer.Message.Data, answer.Message.Seq)
		return &k, nil
	case answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	}
	return nil, answer.Error
}

// events calls each for what History returns and for what cannot be decoded, and returns the sequence of the last.
func (b *Bus) events(ctx context.Context, run, kind string, after uint64, each func(Kept)) (last uint64, err error) {
	last, err = b.read(ctx, EventStream, event.Subject(run, kind), after,
		func(m jetstream.Msg, _ uint64) { each(kept(m)) })
	if err != nil {
		return last, fmt.Errorf("history of run %s: %w", run, err)
	}
	return last, nil
}

// read calls each for the messages of a stream that are on a subject and have a sequence above after. It returns the
// sequence of the last of them. Where the server goes away in the middle, read goes on after what it has.
func (b *Bus) read(ctx context.Context, stream, subject string, after uint64,
	each func(m jetstream.Msg, sequence uint64)) (last uint64, err error) {
	last = after
	err = b.again(ctx, func() error {
		return b.readOnce(ctx, stream, subject, last, func(m jetstream.Msg) {
			if meta, err := m.Metadata(); err == nil {
				last = max(last, meta.Sequence.Stream)
			}
			each(m, last)
		})
	})
	return last, err
}

func (b *Bus) readOnce(ctx context.Context, stream, subject string, after uint64, each func(jetstream.Msg)) error {
	wait, cancel := context.WithTimeout(ctx, apiWait) // a cluster without a leader does not answer
	defer cancel()
	consumer, err := b.js.CreateConsumer(wait, stream, jetstream.ConsumerConfig{
		FilterSubject: subject, AckPolicy: jetstream.AckNonePolicy,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
		MemoryStorage: true, InactiveThreshold: readerLife,
	})
	if err != nil {
		return err
	}
	defer b.remove(ctx, stream, consumer.CachedInfo().Name)
	for left := consumer.CachedInfo().NumPending; left > 0; {
		got, err := fetch(ctx, consumer, int(min(left, 256)), each)
		if err != nil {
			return err
		}
		if got == 0 {
			return fmt.Errorf("%d messages were not delivered", left)
		}
		left -= min(got, left)
	}
	return nil
}

// fetch calls each for the next messages of a consumer, n at most. It ends with ctx.
func fetch(ctx context.Context, consumer jetstream.Consumer, n int, each func(jetstream.Msg)) (got uint64, err error) {
	wait, cancel := context.WithTimeout(ctx, apiWait)
	defer cancel()
	batch, err := consumer.Fetch(n, jetstream.FetchContext(wait))
	if err != nil {
		return 0, err
	}
	for m := range batch.Messages() {
		got++
		each(m)
	}
	return got, batch.Error()
}

// remove removes a consumer that only read. Where that fails the server does so after readerLife.
func (b *Bus) remove(ctx context.Context, stream, consumer string) {
	wait, cancel := context.WithTimeout(ctx, apiWait)
	defer cancel()
	_ = b.js.DeleteConsumer(wait, stream, consumer)
}

// Last is the sequence of the last event of a run, 0 when there is none.
func (b *Bus) Last(ctx context.Context, run string) (uint64, error) {
	var last *jetstream.RawStreamMsg
	err := b.led(ctx, func() error {
		stream, err := b.js.Stream(ctx, EventStream)
		if err == nil {
			last, err = stream.GetLastMsgForSubject(ctx, event.Subject(run, "*.*"))
		}
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("last event of run %s: %w", run, err)
	}
	return last.Sequence, nil
}

// Follow calls each for every event of a run, from its first one on, until ctx ends. Of what is no event each gets only
// the sequence.
func (b *Bus) Follow(ctx context.Context, run string, each func(Kept)) error {
	var consumer jetstream.Consumer
	err := b.led(ctx, func() (err error) {
		consumer, err = b.js.OrderedConsumer(ctx, EventStream, jetstream.OrderedConsumerConfig{
			FilterSubjects: []string{event.Subject(run, "*.*")}, DeliverPolicy: jetstream.DeliverAllPolicy,
			InactiveThreshold: readerLife,
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("following run %s: %w", run, err)
	}
	handle, err := consumer.Consume(func(m jetstream.Msg) {
		each(kept(m))
	})
	if err != nil {
		return fmt.Errorf("following run %s: %w", run, err)
	}
	context.AfterFunc(ctx, func() {
		handle.Stop()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		b.remove(end, EventStream, consumer.CachedInfo().Name)
	})
	return nil
}

// kept is m as an event; only its sequence where it is none.
func kept(m jetstream.Msg) Kept {
	meta, err := m.Metadata()
	if err != nil {
		return Kept{}
	}
	return keptAs(m.Subject(), m.Data(), meta.Sequence.Stream)
}

func keptAs(subject string, data []byte, sequence uint64) Kept {
	k := Kept{Sequence: sequence}
	if e, err := event.Decode(data); err == nil && e.Subject() == subject {
		k.Envelope = e
	}
	return k
}

func (k Kept) undecodable() bool { return k.ID == "" }
