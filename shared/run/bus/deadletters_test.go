package bus

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"bitnet1/shared/run/event"
)

// letters are the dead letters of a run.
func letters(t *testing.T, b *Bus, run string) (all []DeadLetter) {
	t.Helper()
	if err := b.DeadLetters(t.Context(), run, func(l DeadLetter) { all = append(all, l) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// giveUp takes the next event of a queue and gives it up.
func giveUp(t *testing.T, b *Bus, q *Queue, cause string) *Delivery {
	t.Helper()
	d := next(t, q)
	if err := b.Bury(t.Context(), "tester", d, cause); err != nil {
		t.Fatal(err)
	}
	if err := d.Term("dead letter kept"); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDeadLettersAreListedAndRead(t *testing.T) {
	b := connect(t, serve(t))
	if all := letters(t, b, "*"); len(all) != 0 {
		t.Errorf("%d letters before any was kept", len(all))
	}
	q := listen(t, b, listener)
	publish(t, b, packed(t, "other", 1), packed(t, "r", 2))
	giveUp(t, b, q, "first")
	d := giveUp(t, b, q, "second")
	if _, err := b.js.Publish(t.Context(), "bitnet1.r.dead.foreign.pack.written", []byte("no event")); err != nil {
		t.Fatal(err) // of a stage in another language, without headers
	}
	if all := letters(t, b, "*"); len(all) != 3 || all[0].Run != "other" || all[0].Cause != "first" {
		t.Errorf("all: %+v", all)
	}
	all := letters(t, b, "r")
	if len(all) != 2 || all[1].Stage != "foreign" || string(all[1].Data) != "no event" {
		t.Fatalf("of run r: %+v", all)
	}
	got := all[0]
	if got.Stage != "tester" || got.Kind != "pack.written" || got.Run != "r" || got.Cause != "second" ||
		!bytes.Equal(got.Data, d.Data) || got.Sequence != 2 || time.Since(got.Time).Abs() > time.Hour {
		t.Errorf("%+v", got)
	}
	one, err := b.DeadLetter(t.Context(), got.Number)
	if err != nil || one.Cause != got.Cause || !one.Time.Equal(got.Time) || one.Number != got.Number ||
		!bytes.Equal(one.Data, got.Data) || one.Sequence != got.Sequence {
		t.Errorf("%+v, %v; listed as %+v", one, err, got)
	}
	for _, number := range []uint64{0, 99} {
		if _, err := b.DeadLetter(t.Context(), number); !errors.Is(err, ErrNoMessage) {
			t.Errorf("letter %d: %v", number, err)
		}
	}
}

func TestADeadLetterIsSentAgain(t *testing.T) {
	b := connect(t, serve(t))
	q := listen(t, b, listener)
	publish(t, b, packed(t, "r", 7))
	giveUp(t, b, q, "no room")
	letter := letters(t, b, "r")[0]
	for range 2 { // by two people at once
		if err := b.SendAgain(t.Context(), letter); err != nil {
			t.Fatal(err)
		}
		d := next(t, q)
		if stepOf(t, d) != 7 {
			t.Errorf("step %d", stepOf(t, d))
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if left := letters(t, b, "r"); len(left) != 0 {
		t.Errorf("%d letters are left", len(left))
	}
}

func TestADeadLetterWithoutItsEventIsSentAgain(t *testing.T) {
	b := connect(t, serve(t))
	q := listen(t, b, listener)
	publish(t, b, packed(t, "r", 7))
	d := next(t, q)
	d.Data = nil // as where the server takes no larger message than the cause
	if err := errors.Join(b.Bury(t.Context(), "tester", d, "no room"), d.Term("dead letter kept")); err != nil {
		t.Fatal(err)
	}
	if err := b.SendAgain(t.Context(), letters(t, b, "r")[0]); err != nil {
		t.Fatal(err)
	}
	if step := stepOf(t, next(t, q)); step != 7 {
		t.Errorf("step %d", step)
	}
}

func TestWhatIsNoEventIsNotSentAgain(t *testing.T) {
	b := connect(t, serve(t))
	moved, err := packed(t, "elsewhere", 1).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{[]byte("garbage"), {}, moved} {
		d := &Delivery{Subject: event.Subject("r", "pack.written"), Data: data}
		if err := b.Bury(t.Context(), "tester", d, "not an event"); err != nil {
			t.Fatal(err)
		}
	}
	all := letters(t, b, "r")
	for _, letter := range all {
		if err := b.SendAgain(t.Context(), letter); err == nil {
			t.Errorf("%q is sent again", letter.Data)
		}
	}
	if left := letters(t, b, "r"); len(left) != 3 || !slices.EqualFunc(left, all,
		func(x, y DeadLetter) bool { return x.Number == y.Number }) {
		t.Errorf("left: %+v", left)
	}
	if n, err := b.Last(t.Context(), "r"); err != nil || n != 0 {
		t.Errorf("announced: %d, %v", n, err)
	}
}
