// Package event defines the facts that stages tell each other: their kinds, their bytes and their subjects.
//
// A stage declares a kind of event as a struct with the methods of Body. New wraps a body as an Envelope, Encode makes
// the bytes that travel, Decode reads bytes that nobody has to trust, and Into gives the typed body back. Kinds lists
// the events of this project; docs/reference/events.md shows them for other languages.
//
// An event of the kind "<noun>.<verb>" is announced on the subject bitnet1.<run>.<noun>.<verb>. An event never changes.
// Its ID is a digest of its content, so a fact that is announced twice is recognised, and a damaged event too.
//
// The package knows nothing of how events travel (package bus) or where the artifacts that they mention are kept
// (package artifact).
package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"bitnet1/shared/digest"
)

// Version is the version of the envelope and of all bodies declared in this package. A reader refuses events of a newer
// version; fields are only ever added within one.
const Version = 1

// MaxSize bounds an encoded event, in bytes. Events carry references, never tensors or text. Half of what a NATS server
// takes by default leaves room for headers and for dead letters.
const MaxSize = 512 << 10

// Body is the typed content of an event.
type Body interface {
	// Kind is "<noun>.<verb>".
	Kind() string
	// Inputs lists what a job that answers this event depends on: digests of artifacts and any other value that may change
	// its output. Two events with equal Inputs are the same work.
	Inputs() []string
}

// Part places an event in a set that is complete when all its parts are there: Index runs from 0 to Count-1. Stages
// that gather wait for Count of them. An event with a Count of 0 is a set of its own.
type Part struct {
	Index int `msgpack:"index" json:"index" usage:"place in the set, from 0"`
	Count int `msgpack:"count" json:"count" usage:"events in the set; 0: the event is a set of its own"`
}

// Envelope is an event as it travels and as it is kept.
type Envelope struct {
	Version   int                `msgpack:"version" json:"version" usage:"of the envelope and the body: 1"`
	Kind      string             `msgpack:"kind" json:"kind" usage:"noun.verb, lower case"`
	Run       string             `msgpack:"run" json:"run" usage:"id of the run: letters, digits, - and _, at most 100"`
	ID        string             `msgpack:"id" json:"id" usage:"digest of kind, run and body (see below)"`
	Stage     string             `msgpack:"stage" json:"stage" usage:"who announced it"`
	Job       string             `msgpack:"job" json:"job" usage:"key of the job that found it out, if any"`
	Part      Part               `msgpack:"part" json:"part" usage:"place in a set; the outputs of a job inherit their input's"`
	Input     string             `msgpack:"input,omitempty" json:"input,omitempty" usage:"id of the event that was answered, of a set its first part; absent: the announcer does not say"`
	Overrides map[string]string  `msgpack:"overrides,omitempty" json:"overrides,omitempty" usage:"what differs from the run's own parameters, in this job or in those before it: STAGE.KEY to the value as a flag takes it"`
	Time      int64              `msgpack:"time" json:"time" usage:"Unix milliseconds; never part of a digest"`
	Body      msgpack.RawMessage `msgpack:"body" json:"-" usage:"the kind's own fields"`
}

// New wraps body as an event of the given run.
func New(run, stage, job string, part Part, body Body) (Envelope, error) {
	raw, err := Marshal(body)
	if err != nil {
		return Envelope{}, fmt.Errorf("encoding %s: %w", body.Kind(), err)
	}
	return Wrap(run, stage, job, part, body.Kind(), raw)
}

// Wrap is New for a body that is encoded already.
func Wrap(run, stage, job string, part Part, kind string, raw []byte) (Envelope, error) {
	e := Envelope{
		Version: Version, Kind: kind, Run: run, Stage: stage, Job: job, Part: part,
		Time: time.Now().UnixMilli(), Body: raw,
	}
	e.ID = e.digest()
	if err := e.check(); err != nil {
		return Envelope{}, err
	}
	return e, nil
}

// digest is the ID that e must have. Events are small, so they use the digest that every language's standard library
// has; artifacts use a faster one.
func (e Envelope) digest() string {
	sum := sha256.Sum256(bytes.Join([][]byte{[]byte(e.Kind), []byte(e.Run), e.Body}, []byte{0}))
	return hex.EncodeToString(sum[:])
}

// Subject is where e is announced.
func (e Envelope) Subject() string { return Subject(e.Run, e.Kind) }

// Subject is where events of this kind and run are announced. run may be "*".
func Subject(run, kind string) string { return "bitnet1." + run + "." + kind }

// Encode returns the msgpack form of e.
func (e Envelope) Encode() ([]byte, error) {
	b, err := Marshal(e)
	if err == nil && len(b) > MaxSize {
		err = fmt.Errorf("event %s is %d bytes, more than %d: put the content into an artifact", e.Kind, len(b), MaxSize)
	}
	return b, err
}

// Decode parses an encoded event without trusting any length in it.
func Decode(b []byte) (Envelope, error) {
	if len(b) > MaxSize+digest.ChecksumSize { // a file may have one
		return Envelope{}, fmt.Errorf("event: %d bytes, more than %d", len(b), MaxSize)
	}
	var e Envelope
	if err := Unmarshal(b, &e); err != nil {
		return Envelope{}, fmt.Errorf("event: %w", err)
	}
	if err := e.check(); err != nil {
		return Envelope{}, err
	}
	return e, nil
}

// Into decodes the body of e, which must be of B's kind.
func Into[B Body](e Envelope) (B, error) {
	var b B
	if want := b.Kind(); e.Kind != want {
		return b, fmt.Errorf("event %s is a %s, not a %s", digest.Short(e.ID), e.Kind, want)
	}
	if err := Unmarshal(e.Body, &b); err != nil {
		return b, fmt.Errorf("body of %s %s: %w", e.Kind, digest.Short(e.ID), err)
	}
	return b, nil
}

// Marshal encodes v as msgpack with struct fields in order and map keys sorted, so that equal values give equal bytes.
func Marshal(v any) ([]byte, error) {
	var buffer bytes.Buffer
	enc := msgpack.NewEncoder(&buffer)
	enc.SetSortMapKeys(true)
	enc.UseCompactInts(true)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// Unmarshal decodes msgpack from an untrusted source into a typed value.
func Unmarshal(b []byte, into any) error {
	if err := checkBounds(b); err != nil {
		return err
	}
	return msgpack.Unmarshal(b, into)
}

var (
	tokenPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)
	kindPattern  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}\.[a-z][a-z0-9_]{0,40}$`)
)

// ValidRun reports whether id can be part of a subject and of a file name.
func ValidRun(id string) bool { return tokenPattern.MatchString(id) }

// ValidKind reports whether kind has the form "<noun>.<verb>".
func ValidKind(kind string) bool { return kindPattern.MatchString(kind) }

func (e Envelope) check() error {
	switch {
	case e.Version < 1 || e.Version > Version:
		return fmt.Errorf("event version %d is not supported (this program knows 1 to %d): update it", e.Version, Version)
	case !ValidKind(e.Kind):
		return fmt.Errorf("event kind %q: want noun.verb in lower case", e.Kind)
	case !ValidRun(e.Run):
		return fmt.Errorf("run %q: use letters, digits, - and _ (at most 100)", e.Run)
	case e.Part.Count < 0 || e.Part.Index < 0 || e.Part.Index >= max(e.Part.Count, 1):
		return fmt.Errorf("event part %d of %d makes no sense: index runs from 0 to count-1", e.Part.Index, e.Part.Count)
	case !isMap(e.Body):
		return errors.New("event body is not a map")
	case e.ID != e.digest():
		return fmt.Errorf("event id %.12s… is not the digest of its kind, run and body, %.12s… (damaged?)", e.ID, e.digest())
	}
	return nil
}

// isMap reports whether msgpack b starts a map.
func isMap(b []byte) bool {
	return len(b) > 0 && (b[0]&0xf0 == 0x80 || b[0] == 0xde || b[0] == 0xdf)
}

// SplitSubject is the inverse of Subject.
func SplitSubject(subject string) (run, kind string, ok bool) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 || parts[0] != "bitnet1" {
		return "", "", false
	}
	return parts[1], parts[2] + "." + parts[3], true
}
