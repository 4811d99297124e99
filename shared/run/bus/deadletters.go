package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bitnet1/shared/run/event"
)

// Headers of a dead letter. Its payload is the event as it was delivered.
const (
	HeaderStage    = "Bitnet1-Stage"
	HeaderCause    = "Bitnet1-Cause"
	HeaderSequence = "Bitnet1-Sequence" // of the event in its own stream
)

// DeadLetter is an event that a stage could not answer, or what came in place of one.
type DeadLetter struct {
	Number   uint64    // by which people name it: its place in the stream of dead letters
	Time     time.Time // when it was kept
	Stage    string
	Run      string
	Kind     string
	Cause    string
	Data     []byte // as it was delivered; empty where the server took no larger message than the cause
	Sequence uint64 // of the event in its own stream; 0: unknown
}

// ErrNoMessage is the error of a number that no message of a stream has.
var ErrNoMessage = errors.New("there is no such message")

// Bury keeps an event that stage could not answer in the dead-letter stream together with the cause; the cause alone
// where the server takes no larger message than the event was.
func (b *Bus) Bury(ctx context.Context, stage string, d *Delivery, cause string) error {
	run, kind, ok := event.SplitSubject(d.Subject)
	if !ok {
		run, kind = "unknown", "unknown.unknown"
	}
	msg := nats.NewMsg(deadSubject(run, stage, kind))
	msg.Data = d.Data
	msg.Header.Set(HeaderStage, stage)
	msg.Header.Set(HeaderCause, headerText(cause))
	msg.Header.Set(HeaderSequence, strconv.FormatUint(d.Sequence, 10))
	once := jetstream.WithMsgID(rand.Text())
	send := func() error {
		_, err := b.js.PublishMsg(ctx, msg, once)
		return err
	}
	err := b.again(ctx, send)
	if errors.Is(err, ErrTooLarge) { // with the cause beside it; the event is in its own stream
		msg.Data = nil
		err = b.again(ctx, send)
	}
	if err != nil {
		return fmt.Errorf("keeping a dead letter of stage %s: %w", stage, err)
	}
	return nil
}

func deadSubject(run, stage, kind string) string {
	return "bitnet1." + run + ".dead." + stage + "." + kind
}

// headerText makes one line of at most maxCause bytes of text.
func headerText(text string) string {
	if len(text) > maxCause {
		text = text[:maxCause] + " …"
	}
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), unicode.IsControl), "; ")
}

// DeadLetters calls each for the dead letters of a run, or of all runs ("*"), the oldest first.
func (b *Bus) DeadLetters(ctx context.Context, run string, each func(DeadLetter)) error {
	_, err := b.read(ctx, DeadStream, "bitnet1."+run+".dead.>", 0, func(m jetstream.Msg, number uint64) {
		letter := letterOf(m.Subject(), m.Headers(), m.Data())
		letter.Number = number
		if meta, err := m.Metadata(); err == nil {
			letter.Time = meta.Timestamp
		}
		each(letter)
	})
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	return nil
}

// DeadLetter reads one dead letter. The error is ErrNoMessage where there is none.
func (b *Bus) DeadLetter(ctx context.Context, number uint64) (DeadLetter, error) {
	var raw *jetstream.RawStreamMsg
	err := b.again(ctx, func() (err error) {
		raw, err = b.message(ctx, DeadStream, number)
		return err
	})
	if err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter %d: %w", number, err)
	}
	letter := letterOf(raw.Subject, raw.Header, raw.Data)
	letter.Number, letter.Time = number, raw.Time
	return letter, nil
}

// message reads a message of a stream.
func (b *Bus) message(ctx context.Context, stream string, sequence uint64) (*jetstream.RawStreamMsg, error) {
	if sequence == 0 { // they begin at 1
		return nil, ErrNoMessage
	}
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	msg, err := s.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, ErrNoMessage
	}
	return msg, err
}

// letterOf reads a message of the stream of dead letters. Stages in other languages write some, with fewer headers.
func letterOf(subject string, header nats.Header, data []byte) DeadLetter {
	letter := DeadLetter{Cause: header.Get(HeaderCause), Data: data}
	letter.Sequence, _ = strconv.ParseUint(header.Get(HeaderSequence), 10, 64) // 0: unknown
	if parts := strings.Split(subject, "."); len(parts) == 6 {
		letter.Run, letter.Stage, letter.Kind = parts[1], parts[3], parts[4]+"."+parts[5]
	}
	return letter
}

// SendAgain announces the event of a dead letter once more and then removes the letter. The stage answers the event as
// one that comes for the first time; the others that listen for its kind answer from their records.
func (b *Bus) SendAgain(ctx context.Context, letter DeadLetter) error {
	fail := func(err error) error { return fmt.Errorf("dead letter %d: %w", letter.Number, err) }
	data := letter.Data
	if len(data) == 0 {
		raw, err := b.message(ctx, EventStream, letter.Sequence)
		if err != nil {
			return fail(fmt.Errorf("the event is too large for the letter and cannot be read in its own stream: %w", err))
		}
		data = raw.Data
	}
	e, err := event.Decode(data)
	if err == nil && (e.Run != letter.Run || e.Kind != letter.Kind) {
		err = fmt.Errorf("it is a %s of run %s", e.Kind, e.Run)
	}
	if err != nil {
		return fail(fmt.Errorf("it is no event that a stage can answer, sent again or not: %w", err))
	}
	err = b.again(ctx, func() error {
		_, err := b.js.Publish(ctx, e.Subject(), data) // without its id, by which the server would know it
		return err
	})
	if err != nil {
		return fail(err)
	}
	err = b.again(ctx, func() error {
		stream, err := b.js.Stream(ctx, DeadStream)
		if err != nil {
			return err
		}
		if err = stream.DeleteMsg(ctx, letter.Number); errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			return nil // another process was faster
		}
		return err
	})
	if err != nil {
		return fail(fmt.Errorf("it is sent, and cannot be removed: %w", err))
	}
	return nil
}
